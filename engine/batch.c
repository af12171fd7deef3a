/* batch.c: encoding rows and packing sequences. What ends up in one batch changes nothing about the
 * result (a sequence's logits do not depend on its neighbours), only how fast it comes.
 */
#include "engine/batch.h"

#include "engine/model.h"
#include "engine/mrc.h"
#include "engine/status.h"

#include <stdlib.h>
#include <string.h>

/* ---- rows ---------------------------------------------------------------------------------------- */

/* Number of each of the set's labels in the task; SIZE_MAX when the task has no such label. */
static void map_labels(const eng_task *task, const eng_dataset *set, size_t *map)
{
    for (size_t i = 0; i < eng_dataset_get_info(set)->labels; i++) {
        map[i] = SIZE_MAX;
        for (size_t j = 0; j < eng_task_label_count(task); j++) {
            if (strcmp(eng_dataset_label(set, i), eng_task_label(task, j)) == 0) {
                map[i] = j;
            }
        }
    }
}

static eng_status check_type(const eng_task *task, const eng_dataset *set, eng_error *err)
{
    eng_task_type have = eng_dataset_get_info(set)->type, want = eng_task_get_type(task);
    if (have != want) {
        return fail(err, ENG_EINVAL, "type", "the rows are of type %s, the task is %s",
                    eng_task_type_name(have), eng_task_type_name(want));
    }
    return ENG_OK;
}

static eng_status encode_item(const eng_task *task, size_t text_limit, bool for_training,
                              struct batch_item *item, eng_error *err)
{
    eng_status status =
        for_training ? mrc_encode_for_training(task, &item->row, text_limit, &item->encoded, err)
                     : eng_encode(task, &item->row.input, text_limit, &item->encoded, err);
    if (status == ENG_ELIMIT) {
        item->encoded = NULL; /* no way to answer it: counts as wrong, cannot train */
        return ENG_OK;
    }
    if (status == ENG_OK) {
        item->ids = eng_encoded_ids(item->encoded, &item->len);
        item->has_target = mrc_targets(item->encoded, &item->row, &item->start, &item->end);
    }
    return status;
}

static void count_item(struct batch_rows *rows, const struct batch_item *item)
{
    rows->longest = item->len > rows->longest ? item->len : rows->longest;
    rows->targets += item->has_target;
    rows->truncated += item->encoded != NULL && eng_encoded_truncated(item->encoded) > 0;
}

static eng_status label_item(const eng_dataset *set, const size_t *map, size_t row,
                             struct batch_item *item, eng_error *err)
{
    const char *word = NULL;
    eng_dataset_row(set, row, &item->row, &word);
    if (eng_dataset_get_info(set)->labels == 0) {
        return ENG_OK;
    }
    item->row.label = map[item->row.label];
    if (item->row.label == SIZE_MAX) {
        return fail(err, ENG_EINVAL, "label",
                    "row %zu: label \"%s\" is not among the task's labels", row + 1, word);
    }
    return ENG_OK;
}

eng_status batch_rows_make(const eng_task *task, const eng_dataset *set, const size_t *which,
                           size_t n, size_t text_limit, bool for_training, struct batch_rows *out,
                           eng_error *err)
{
    size_t map[ENG_MAX_LABELS];
    memset(out, 0, sizeof *out);
    eng_status status = check_type(task, set, err);
    if (status != ENG_OK) {
        return status;
    }
    map_labels(task, set, map);
    out->items = calloc(n > 0 ? n : 1, sizeof *out->items);
    if (out->items == NULL) {
        return fail_nomem(err, "rows");
    }
    for (size_t i = 0; i < n && status == ENG_OK; i++) {
        struct batch_item *item = &out->items[out->n++];
        status = label_item(set, map, which != NULL ? which[i] : i, item, err);
        if (status == ENG_OK) {
            status = encode_item(task, text_limit, for_training, item, err);
        }
        count_item(out, item);
    }
    return status;
}

void batch_rows_fini(struct batch_rows *rows)
{
    for (size_t i = 0; i < rows->n; i++) {
        eng_encoded_free(rows->items[i].encoded);
    }
    free(rows->items);
    memset(rows, 0, sizeof *rows);
}

eng_sequence batch_sequence(const struct batch_item *item, const eng_bank *bank,
                            const struct carried *carried)
{
    return (eng_sequence){.ids = item->ids,
                          .len = item->len,
                          .bank = bank,
                          .mix = carried->mix,
                          .prompt = carried->prompt,
                          .head = carried->head};
}

/* ---- running --------------------------------------------------------------------------------------- */

size_t batch_token_budget(const eng_model *model, size_t longest)
{
    double hidden = (double)model->params.hidden, ffn = (double)model->params.ffn;
    double per_token = 2 * (4 * hidden * hidden + 2 * hidden * ffn);
    double tokens = 4e9 / per_token;
    size_t budget = tokens > 512 ? 512 : (size_t)tokens;
    return budget > longest ? budget : longest;
}

eng_status batch_runner_init(struct batch_runner *runner, eng_compute *compute, eng_class who,
                             const eng_model *model, size_t longest, eng_error *err)
{
    memset(runner, 0, sizeof *runner);
    runner->compute = compute;
    runner->who = who;
    runner->model = model;
    runner->max_tokens = batch_token_budget(model, longest);
    runner->start = calloc(runner->max_tokens, sizeof *runner->start);
    runner->end = calloc(runner->max_tokens, sizeof *runner->end);
    if (runner->start == NULL || runner->end == NULL) {
        return fail_nomem(err, "workspace");
    }
    return eng_workspace_new(model, runner->max_tokens, BATCH_MAX_SEQUENCES, &runner->workspace,
                             err);
}

void batch_runner_fini(struct batch_runner *runner)
{
    eng_workspace_free(runner->workspace);
    free(runner->start);
    free(runner->end);
    memset(runner, 0, sizeof *runner);
}

/* How many of the n sequences fit one batch, and their tokens. */
static size_t fit(const struct batch_runner *runner, const eng_sequence *sequences, size_t n,
                  size_t *tokens)
{
    size_t count = 0;
    *tokens = 0;
    while (count < n && count < BATCH_MAX_SEQUENCES &&
           sequences[count].len <= runner->max_tokens - *tokens) {
        *tokens += sequences[count++].len;
    }
    return count;
}

eng_status batch_run(struct batch_runner *runner, const eng_sequence *sequences, size_t n,
                     batch_each each, void *arg, eng_error *err)
{
    for (size_t done = 0; done < n;) {
        size_t tokens = 0, count = fit(runner, sequences + done, n - done, &tokens), at = 0;
        if (count == 0) {
            return fail(err, ENG_ELIMIT, "tokens", "a sequence of %zu tokens, the batch holds %zu",
                        sequences[done].len, runner->max_tokens);
        }
        if (runner->cancelled != NULL && runner->cancelled(runner->cancelled_arg)) {
            return fail(err, ENG_ECANCELLED, NULL, "cancelled by the caller");
        }
        eng_status status =
            eng_forward(runner->compute, runner->workspace, runner->who, runner->model,
                        sequences + done, count, runner->start, runner->end, err);
        for (size_t i = 0; i < count && status == ENG_OK; i++) {
            const eng_sequence *sequence = &sequences[done + i];
            status = each(arg, done + i, sequence, runner->start + at, runner->end + at, err);
            at += sequence->len;
        }
        if (status != ENG_OK) {
            return status;
        }
        runner->tokens += tokens;
        runner->sequences += count;
        done += count;
    }
    return ENG_OK;
}
