/* jobrows.c: which rows train and which choose the step. The same for the job that runs and for the
 * estimate made before, so that both speak of the same rows. */
#include "server/jobrows.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* Always false. */
static bool fails(struct job_rows *rows, const char *code, const char *param, const char *format,
                  ...) __attribute__((format(printf, 4, 5)));

static bool fails(struct job_rows *rows, const char *code, const char *param, const char *format,
                  ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(rows->text, sizeof rows->text, format, args);
    va_end(args);
    rows->code = code;
    rows->param = param;
    return false;
}

static bool parse_file(struct job_rows *rows, const struct job_plan *plan, store *reader,
                       int64_t tenant, const char *id, eng_rows_format format, const char *param,
                       store_mem *mem, eng_dataset **out)
{
    store_error store_err = {0};
    eng_error err = {0};
    store_blob data;
    store_status status = store_file_data(reader, tenant, id, mem, &data, &store_err);
    if (status != STORE_OK) {
        return fails(rows, status == STORE_ENOTFOUND ? "file_not_found" : "store_failed", param,
                     "%s", store_err.text);
    }
    if (eng_dataset_parse((eng_text){data.data, data.len}, format, &plan->type, out, NULL, NULL,
                          &err) == ENG_OK) {
        return true;
    }
    return fails(rows, err.status == ENG_ENOMEM ? "out_of_memory" : "invalid_training", param,
                 "%s%s%s", err.field, err.field[0] != '\0' ? ": " : "", err.text);
}

static bool all_rows(const eng_dataset *set, size_t **rows, size_t *n)
{
    *n = eng_dataset_get_info(set)->rows;
    *rows = calloc(*n + 1, sizeof **rows);
    for (size_t i = 0; *rows != NULL && i < *n; i++) {
        (*rows)[i] = i;
    }
    return *rows != NULL;
}

static bool split(struct job_rows *rows, struct job_plan *plan)
{
    size_t n = eng_dataset_get_info(rows->train_set)->rows;
    if (rows->dev_set != NULL) {
        rows->dev_source = "validation_file";
        return (all_rows(rows->train_set, &rows->train, &rows->n_train) &&
                all_rows(rows->dev_set, &rows->dev, &rows->n_dev)) ||
               fails(rows, "out_of_memory", NULL, "out of memory");
    }
    rows->dev_set = rows->train_set;
    rows->folds = plan->k_shot > 0 ? 0 : eng_folds(rows->train_set);
    plan->config.folds = rows->folds;
    if (rows->folds > 0) {
        rows->dev_source = "cross_validation";
        return (all_rows(rows->train_set, &rows->train, &rows->n_train) &&
                all_rows(rows->train_set, &rows->dev, &rows->n_dev)) ||
               fails(rows, "out_of_memory", NULL, "out of memory");
    }
    rows->train = calloc(n + 1, sizeof *rows->train);
    rows->dev = calloc(n + 1, sizeof *rows->dev);
    if (rows->train == NULL || rows->dev == NULL) {
        return fails(rows, "out_of_memory", NULL, "out of memory");
    }
    if (plan->k_shot > 0) {
        rows->dev_source = "k_shot";
        eng_few_shot_split(rows->train_set, plan->config.seed, plan->k_shot, rows->train,
                           &rows->n_train, rows->dev, &rows->n_dev);
    } else {
        rows->dev_source = "stratified_half";
        eng_half_split(rows->train_set, plan->config.seed, rows->train, &rows->n_train, rows->dev,
                       &rows->n_dev);
    }
    return true;
}

/* The number of epochs that was asked for, in steps. */
static void steps_of_epochs(const struct job_rows *rows, struct job_plan *plan)
{
    if (plan->epochs > 0 && plan->config.batch > 0) {
        size_t batches = (rows->n_train + plan->config.batch - 1) / plan->config.batch;
        plan->config.steps = (size_t)plan->epochs * (batches > 0 ? batches : 1);
    }
}

bool job_rows_read(struct job_rows *rows, struct job_plan *plan, store *reader, int64_t tenant,
                   const char *training_file, const char *validation_file, store_mem *mem)
{
    *rows = (struct job_rows){0};
    bool ok = parse_file(rows, plan, reader, tenant, training_file, plan->training_format,
                         "training_file", mem, &rows->train_set) &&
              (validation_file == NULL ||
               parse_file(rows, plan, reader, tenant, validation_file, plan->validation_format,
                          "validation_file", mem, &rows->dev_set));
    store_mem_reset(mem);
    ok = ok && split(rows, plan);
    if (ok) {
        steps_of_epochs(rows, plan);
    }
    return ok;
}

void job_rows_fini(struct job_rows *rows)
{
    if (rows->dev_set != rows->train_set) {
        eng_dataset_free(rows->dev_set);
    }
    eng_dataset_free(rows->train_set);
    free(rows->train);
    free(rows->dev);
    *rows = (struct job_rows){0};
}
