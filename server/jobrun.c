/* jobrun.c: one job from its claim to its end, on a job thread.
 *
 *     read and parse the files → number the labels, split → eng_adapt → publish
 *
 * Between steps the engine calls back: there the job is stopped when its tenant cancelled it or the
 * server is stopping, its lease is renewed about once a second, and what happened is added to its
 * events (looks at the validation rows always, other steps at most once a second).
 */
#include "server/jobpublish.h"

#include "server/log.h"
#include "server/loop.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BEAT_MS 1000

struct running {
    struct job_thread *thread;
    struct server *server;
    const store_job *job;
    store_mem *mem; /* file contents; reset after parsing */
    struct job_plan plan;
    eng_task *task;
    eng_dataset *train_set, *dev_set; /* dev_set may be train_set */
    size_t *train, *dev, n_train, n_dev;
    const char *dev_source;
    eng_adapt_result result;
    enum job_stop stop;
    int64_t began, last_beat;
    int64_t tokens;

    /* why it failed */
    const char *code, *param;
    char text[512];
};

/* Always false. */
static bool job_fails(struct running *r, const char *code, const char *param, const char *format,
                      ...) __attribute__((format(printf, 4, 5)));

static bool job_fails(struct running *r, const char *code, const char *param, const char *format,
                      ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(r->text, sizeof r->text, format, args);
    va_end(args);
    r->code = code;
    r->param = param;
    return false;
}

static bool engine_fails(struct running *r, const char *param, const eng_error *err)
{
    const char *code = err->status == ENG_EDIVERGED ? "diverged"
                       : err->status == ENG_ENOMEM  ? "out_of_memory"
                                                    : "invalid_training";
    return err->field[0] != '\0' ? job_fails(r, code, param, "%s: %s", err->field, err->text)
                                 : job_fails(r, code, param, "%s", err->text);
}

/* ---- events ------------------------------------------------------------------------------------------ */

struct report {
    struct running *r;
    store_event event; /* message NULL: only a heartbeat */
    bool cancelled;
};

static store_status write_report(store *s, void *arg, store_error *err)
{
    struct report *report = arg;
    struct running *r = report->r;
    store_status status =
        store_job_heartbeat(s, r->job->id, r->thread->owner, wall_ms() + r->thread->jobs->lease_ms,
                            r->tokens, &report->cancelled, err);
    if (status == STORE_OK && report->event.message != NULL) {
        status = store_event_add(s, r->job->tenant, r->job->id, &report->event, NULL, err);
    }
    return status;
}

static void send_report(struct running *r, const char *level, const char *type, const char *message,
                        const char *data)
{
    struct report report = {
        .r = r,
        .event = {
            .created = wall_ms(), .level = level, .type = type, .message = message, .data = data}};
    store_error err = {0};
    store_status status = storeq_call(r->server->storeq, write_report, &report, false, &err);
    r->last_beat = clock_ms();
    if (status == STORE_ESTATE) {
        r->stop = JOB_LEASE_LOST;
    } else if (status != STORE_OK) {
        log_event(LOG_WARN, "job_report_lost", "%s: %s", r->job->id, err.text);
    } else {
        r->stop = report.cancelled ? JOB_CANCEL : r->stop;
        if (message != NULL) {
            jobs_changed(r->thread->jobs, r->job->id);
        }
    }
}

/* ---- reading --------------------------------------------------------------------------------------------- */

static bool parse_file(struct running *r, const char *id, eng_rows_format format, const char *param,
                       eng_dataset **out)
{
    store_error store_err = {0};
    eng_error err = {0};
    store_blob data;
    store_status status =
        store_file_data(r->thread->reader, r->job->tenant, id, r->mem, &data, &store_err);
    if (status != STORE_OK) {
        return job_fails(r, status == STORE_ENOTFOUND ? "file_not_found" : "store_failed", param,
                         "%s", store_err.text);
    }
    eng_status parsed = eng_dataset_parse((eng_text){data.data, data.len}, format, &r->plan.type,
                                          out, NULL, NULL, &err);
    return parsed == ENG_OK || engine_fails(r, param, &err);
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

static bool split(struct running *r)
{
    size_t rows = eng_dataset_get_info(r->train_set)->rows;
    if (r->dev_set != NULL) {
        r->dev_source = "validation_file";
        return (all_rows(r->train_set, &r->train, &r->n_train) &&
                all_rows(r->dev_set, &r->dev, &r->n_dev)) ||
               job_fails(r, "out_of_memory", NULL, "out of memory");
    }
    r->dev_set = r->train_set;
    r->train = calloc(rows + 1, sizeof *r->train);
    r->dev = calloc(rows + 1, sizeof *r->dev);
    if (r->train == NULL || r->dev == NULL) {
        return job_fails(r, "out_of_memory", NULL, "out of memory");
    }
    if (r->plan.k_shot > 0) {
        r->dev_source = "k_shot";
        eng_few_shot_split(r->train_set, r->plan.config.seed, r->plan.k_shot, r->train, &r->n_train,
                           r->dev, &r->n_dev);
    } else {
        r->dev_source = "stratified_half";
        eng_half_split(r->train_set, r->plan.config.seed, r->train, &r->n_train, r->dev, &r->n_dev);
    }
    return true;
}

/* The number of epochs that was asked for, in steps. */
static void steps_of_epochs(struct running *r)
{
    if (r->plan.epochs > 0 && r->plan.config.batch > 0) {
        size_t batches = (r->n_train + r->plan.config.batch - 1) / r->plan.config.batch;
        r->plan.config.steps = (size_t)r->plan.epochs * (batches > 0 ? batches : 1);
    }
}

static void tell_rows(struct running *r)
{
    const eng_dataset_info *info = eng_dataset_get_info(r->train_set);
    char message[256];
    snprintf(message, sizeof message, "%zu rows train, %zu choose the step (%s)", r->n_train,
             r->n_dev, r->dev_source);
    send_report(r, "info", "message", message, NULL);
    if (info->bad_rows > 0) {
        snprintf(message, sizeof message, "%zu rows of the training file are not used",
                 info->bad_rows);
        send_report(r, "warn", "message", message, NULL);
    }
}

static bool prepare(struct running *r)
{
    eng_error err = {0};
    char why[128];
    if (!job_plan_read(&r->plan, r->job->spec, r->job->seed, r->server->bank, why, sizeof why)) {
        return job_fails(r, "damaged_job", NULL, "%s", why);
    }
    bool ok = parse_file(r, r->job->training_file, r->plan.training_format, "training_file",
                         &r->train_set) &&
              (r->job->validation_file == NULL ||
               parse_file(r, r->job->validation_file, r->plan.validation_format, "validation_file",
                          &r->dev_set));
    store_mem_reset(r->mem);
    if (!ok) {
        return false;
    }
    if (eng_task_new(r->server->model, r->server->bank, &r->plan.task, &r->task, &err) != ENG_OK) {
        return engine_fails(r, "mp2", &err);
    }
    if (!split(r)) {
        return false;
    }
    steps_of_epochs(r);
    tell_rows(r);
    return true;
}

/* ---- learning -------------------------------------------------------------------------------------------- */

/* JSON has no NaN. */
static json_t *number_or_null(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static char *progress_text(const eng_progress *progress)
{
    json_t *data = json_object();
    size_t len = 0;
    bool ok = json_put(data, "step", json_integer((json_int_t)progress->step)) &&
              json_put(data, "total_steps", json_integer((json_int_t)progress->steps)) &&
              json_put(data, "train_loss", number_or_null(progress->train_loss)) &&
              json_put(data, "valid_loss", number_or_null(progress->dev_loss)) &&
              json_put(data, "valid_accuracy", number_or_null(progress->dev_accuracy)) &&
              json_put(data, "best", json_boolean(progress->best)) &&
              json_put(data, "tokens", json_integer((json_int_t)progress->tokens)) &&
              json_put(data, "seconds", number_or_null(progress->seconds));
    char *text = ok ? json_text(data, &len) : NULL;
    json_decref(data);
    return text;
}

static void tell_progress(struct running *r, const eng_progress *progress)
{
    char message[192];
    int used = snprintf(message, sizeof message, "Step %zu/%zu: training loss=%.3f", progress->step,
                        progress->steps, progress->train_loss);
    if (isfinite(progress->dev_loss) && used > 0 && (size_t)used < sizeof message) {
        snprintf(message + used, sizeof message - (size_t)used,
                 ", validation loss=%.3f, accuracy=%.3f", progress->dev_loss,
                 progress->dev_accuracy);
    }
    char *data = progress_text(progress);
    send_report(r, "info", "metrics", message, data);
    free(data);
}

static eng_verdict on_progress(void *arg, const eng_progress *progress)
{
    struct running *r = arg;
    r->tokens = (int64_t)progress->tokens;
    r->stop = job_should_stop(r->thread);
    if (r->stop != JOB_GO_ON) {
        return ENG_STOP;
    }
    if (clock_ms() - r->last_beat >= BEAT_MS || isfinite(progress->dev_loss)) {
        tell_progress(r, progress);
    }
    if (progress->step > 0 && progress->steps >= progress->step) {
        double left =
            progress->seconds / (double)progress->step * (double)(progress->steps - progress->step);
        double limit = r->plan.config.seconds;
        left = limit > 0 && left > limit - progress->seconds ? limit - progress->seconds : left;
        job_set_estimate(r->thread, wall_ms() + (int64_t)(left * 1e3));
    }
    return ENG_GO_ON;
}

static bool learn(struct running *r)
{
    eng_error err = {0};
    r->stop = job_should_stop(r->thread);
    if (r->stop != JOB_GO_ON) {
        return false;
    }
    eng_status status = eng_adapt(r->server->compute, r->server->model, r->server->bank, r->task,
                                  r->train_set, r->train, r->n_train, r->dev_set, r->dev, r->n_dev,
                                  &r->plan.config, on_progress, r, &r->result, &err);
    r->tokens = r->result.tokens > 0 ? (int64_t)r->result.tokens : r->tokens;
    return status == ENG_OK ||
           (status == ENG_ECANCELLED && r->stop != JOB_GO_ON ? false : engine_fails(r, NULL, &err));
}

/* ---- ending ---------------------------------------------------------------------------------------------- */

static char *result_text(const struct running *r)
{
    const eng_adapt_result *result = &r->result;
    json_t *data = json_object();
    size_t len = 0;
    bool ok = json_put(data, "accuracy", number_or_null(result->dev_accuracy)) &&
              json_put(data, "macro_f1", number_or_null(result->dev_macro_f1)) &&
              json_put(data, "loss", number_or_null(result->dev_loss)) &&
              json_put(data, "accuracy_before", number_or_null(result->dev_accuracy_before)) &&
              json_put(data, "train_loss", number_or_null(result->train_loss)) &&
              json_put(data, "started_from", json_string(result->started_from)) &&
              json_put(data, "best_step", json_integer((json_int_t)result->best_step)) &&
              json_put(data, "steps", json_integer((json_int_t)result->steps)) &&
              json_put(data, "tokens", json_integer((json_int_t)result->tokens)) &&
              json_put(data, "forward_passes", json_integer((json_int_t)result->forward_passes)) &&
              json_put(data, "seconds", number_or_null(result->seconds)) &&
              json_put(data, "train_rows", json_integer((json_int_t)r->n_train)) &&
              json_put(data, "validation_rows", json_integer((json_int_t)r->n_dev)) &&
              json_put(data, "validation_from", json_string(r->dev_source)) &&
              json_put(data, "learning_rate", number_or_null(r->plan.config.lr)) &&
              json_put(data, "batch_size", json_integer((json_int_t)r->plan.config.batch)) &&
              json_put(data, "seed", json_integer((json_int_t)r->job->seed)) &&
              json_put(data, "threads",
                       json_integer((json_int_t)eng_compute_get_info(r->server->compute)->threads));
    char *text = ok ? json_text(data, &len) : NULL;
    json_decref(data);
    return text;
}

static enum job_end publish(struct running *r)
{
    char message[256];
    char *text = result_text(r);
    if (text == NULL) {
        job_fails(r, "out_of_memory", NULL, "out of memory");
        char *error = job_error_text(r->code, r->text, r->param);
        enum job_end end = job_end(r->thread, r->job, STORE_JOB_FAILED, error, r->tokens, r->text);
        free(error);
        return end;
    }
    if (isfinite(r->result.dev_accuracy)) {
        snprintf(
            message, sizeof message,
            "Job succeeded: accuracy %.3f on %zu rows (before: %.3f), published into \"%.128s\"",
            r->result.dev_accuracy, r->n_dev, r->result.dev_accuracy_before, r->job->task_name);
    } else {
        snprintf(message, sizeof message, "Job succeeded, published into \"%.128s\"",
                 r->job->task_name);
    }
    struct job_outcome outcome = {.job = r->job,
                                  .plan = &r->plan,
                                  .result = &r->result,
                                  .result_text = text,
                                  .message = message};
    enum job_end end = job_publish(r->thread, &outcome);
    free(text);
    return end;
}

static enum job_end give_up(struct running *r)
{
    if (r->stop == JOB_CANCEL) {
        return job_end(r->thread, r->job, STORE_JOB_CANCELLED, NULL, r->tokens, "Job cancelled");
    }
    if (r->stop == JOB_GIVE_BACK) {
        return job_give_back(r->thread, r->job);
    }
    if (r->stop == JOB_LEASE_LOST) {
        return JOB_LOST;
    }
    char *error = job_error_text(r->code, r->text, r->param);
    enum job_end end = job_end(r->thread, r->job, STORE_JOB_FAILED, error, r->tokens, r->text);
    free(error);
    return end;
}

static void tell(struct running *r, enum job_end end)
{
    static const char *const words[] = {"succeeded", "failed", "cancelled", "given_back", "lost"};
    struct jobs *jobs = r->thread->jobs;
    struct counter *const counters[] = {&jobs->succeeded, &jobs->failed, &jobs->cancelled,
                                        &jobs->given_back};
    struct log_line line;
    if (end != JOB_LOST) {
        counter_add(counters[end], 1);
    }
    counter_add(&jobs->trained_tokens, (uint64_t)r->tokens);
    histogram_add(&jobs->durations, (double)(clock_ms() - r->began) / 1e3);
    log_begin(&line, end == JOB_LOST ? LOG_ERROR : LOG_INFO, "job_ended");
    log_text(&line, "job", r->job->id);
    log_number(&line, "tenant", r->job->tenant);
    log_text(&line, "outcome", words[end]);
    log_text(&line, "code", r->code);
    log_number(&line, "attempt", r->job->attempts);
    log_number(&line, "ms", clock_ms() - r->began);
    log_number(&line, "tokens", r->tokens);
    log_end(&line);
}

void job_run(struct job_thread *thread, store_mem *mem, const store_job *job)
{
    struct running *r = calloc(1, sizeof *r);
    store_mem *scratch = store_mem_new();
    if (r == NULL || scratch == NULL) {
        job_give_back(thread, job); /* out of memory: later, perhaps */
        free(r);
        store_mem_free(scratch);
        store_mem_free(mem);
        return;
    }
    r->thread = thread;
    r->server = thread->jobs->server;
    r->job = job;
    r->mem = scratch;
    r->began = r->last_beat = clock_ms();
    bool ok = prepare(r) && learn(r);
    tell(r, ok ? publish(r) : give_up(r));
    eng_adapt_result_fini(&r->result);
    if (r->dev_set != r->train_set) {
        eng_dataset_free(r->dev_set);
    }
    eng_dataset_free(r->train_set);
    eng_task_free(r->task);
    free(r->train);
    free(r->dev);
    job_plan_fini(&r->plan);
    store_mem_free(r->mem);
    store_mem_free(mem);
    free(r);
}
