/* jobrun.c: one job from its claim to its end, on a job thread.
 *
 *     read, parse and split the files → eng_adapt → look at the validation rows → publish
 *
 * Between steps the engine calls back: there the job is stopped when its tenant cancelled or paused it
 * or the server is stopping, its lease is renewed about once a second, and what happened is added to
 * its events (looks at the validation rows always, other steps at most once a second). Its state is
 * stored every few seconds; a run that finds one goes on from it.
 */
#include "server/jobpublish.h"

#include "server/config.h"
#include "server/jobestimate.h"
#include "server/jobreport.h"
#include "server/log.h"
#include "server/loop.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BEAT_MS        1000
#define PATIENCE_MS    1000   /* a pause waits so long for the end of a step */
#define LARGE_STATE    262144 /* bytes: stored outside the groups of other writes */
#define CHECKPOINT_MIN 0.05   /* seconds */
#define BLIND_EVENTS   20

struct running {
    struct job_thread *thread;
    struct server *server;
    const store_job *job;
    store_mem *mem; /* file contents; reset after parsing */
    struct job_plan plan;
    eng_task *task;
    struct job_rows rows;
    struct job_estimate estimate;
    eng_adapt_result result;
    enum job_stop stop;
    int64_t began, last_beat;
    int64_t stop_seen; /* clock_ms when a pause or shutdown was first seen; 0: none */
    int64_t tokens;
    size_t step, told; /* steps: done; done when progress was last told */
    store_mem *state_mem;
    store_blob state; /* that it goes on from; absent: from the start */
    bool too_large;   /* said already */

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
    store_wish wish;
};

static store_status write_report(store *s, void *arg, store_error *err)
{
    struct report *report = arg;
    struct running *r = report->r;
    store_status status =
        store_job_heartbeat(s, r->job->id, r->thread->owner, wall_ms() + r->thread->jobs->lease_ms,
                            r->tokens, &report->wish, err);
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
        r->stop = report.wish == STORE_CANCEL  ? JOB_CANCEL
                  : report.wish == STORE_PAUSE ? JOB_PAUSE
                                               : r->stop;
        if (message != NULL) {
            jobs_changed(r->thread->jobs, r->job->id);
        }
    }
}

/* ---- preparing ------------------------------------------------------------------------------------------- */

static void tell_rows(struct running *r)
{
    const eng_dataset_info *info = eng_dataset_get_info(r->rows.train_set);
    char message[256];
    if (r->rows.folds > 0) {
        snprintf(message, sizeof message,
                 "%zu rows train; cross-validation with %zu folds chooses the step",
                 r->rows.n_train, r->rows.folds);
    } else {
        snprintf(message, sizeof message, "%zu rows train, %zu choose the step (%s)",
                 r->rows.n_train, r->rows.n_dev, r->rows.dev_source);
    }
    send_report(r, "info", "message", message, NULL);
    if (info->bad_rows > 0) {
        snprintf(message, sizeof message, "%zu rows of the training file are not used",
                 info->bad_rows);
        send_report(r, "warn", "message", message, NULL);
    }
}

/* The state that an earlier run has left, if any. */
static void read_state(struct running *r)
{
    int64_t step = 0;
    char message[96];
    r->state_mem = store_mem_new();
    if (r->state_mem == NULL ||
        store_job_get_checkpoint(r->thread->reader, r->job->id, r->state_mem, &step, &r->state,
                                 NULL) != STORE_OK) {
        r->state = (store_blob){0};
        return;
    }
    r->step = (size_t)step;
    counter_add(&r->thread->jobs->resumed, 1);
    snprintf(message, sizeof message, "Going on from step %zu", r->step);
    send_report(r, "info", "message", message, NULL);
}

static bool prepare(struct running *r)
{
    eng_error err = {0};
    char why[128];
    const store_job *job = r->job;
    if (!job_plan_read(&r->plan, job->spec, job->seed, r->server->bank, why, sizeof why)) {
        return job_fails(r, "damaged_job", NULL, "%s", why);
    }
    if (!job_rows_read(&r->rows, &r->plan, r->thread->reader, job->tenant, job->training_file,
                       job->validation_file, r->mem)) {
        return job_fails(r, r->rows.code, r->rows.param, "%s", r->rows.text);
    }
    if (eng_task_new(r->server->model, r->server->bank, &r->plan.task, &r->task, &err) != ENG_OK ||
        !job_estimate(r->server, &r->plan, &r->rows, &r->estimate, &err)) {
        return engine_fails(r, "mp2", &err);
    }
    job_set_estimate(r->thread, wall_ms() + (int64_t)(r->estimate.seconds * 1e3));
    read_state(r);
    if (r->state.data == NULL) {
        tell_rows(r);
    }
    return true;
}

/* ---- learning -------------------------------------------------------------------------------------------- */

/* JSON has no NaN. */
static json_t *number_or_null(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

/* What eng_score_of is of this job. */
static const char *score_name(const struct running *r)
{
    return r->plan.type == ENG_EXTRACTIVE ? "F1" : "accuracy";
}

static char *progress_text(const struct running *r, const eng_progress *progress)
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
    if (r->plan.type == ENG_EXTRACTIVE) {
        ok = ok && json_put(data, "valid_f1", number_or_null(progress->dev_macro_f1));
    }
    if (progress->folds > 0) {
        ok = ok && json_put(data, "fold", json_integer((json_int_t)progress->fold + 1)) &&
             json_put(data, "folds", json_integer((json_int_t)progress->folds));
    }
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
        snprintf(message + used, sizeof message - (size_t)used, ", validation loss=%.3f, %s=%.3f",
                 progress->dev_loss, score_name(r),
                 eng_score_of(r->plan.type, progress->dev_accuracy, progress->dev_macro_f1));
    }
    char *data = progress_text(r, progress);
    r->told = progress->step;
    send_report(r, "info", "metrics", message, data);
    free(data);
}

/* What the engine should do now; what a heartbeat has found stands. */
static enum job_stop look_for_stop(struct running *r)
{
    enum job_stop stop = job_should_stop(r->thread);
    if (r->stop != JOB_CANCEL && r->stop != JOB_LEASE_LOST && stop != JOB_GO_ON) {
        r->stop = stop;
    }
    if (r->stop != JOB_GO_ON && r->stop_seen == 0) {
        r->stop_seen = clock_ms();
    }
    return r->stop;
}

static void refine_estimate(struct running *r, const eng_progress *progress)
{
    if (progress->step == 0 || progress->steps < progress->step) {
        return;
    }
    double left =
        progress->seconds / (double)progress->step * (double)(progress->steps - progress->step);
    double limit = r->plan.config.seconds;
    left = limit > 0 && left > limit - progress->seconds ? limit - progress->seconds : left;
    job_set_estimate(r->thread, wall_ms() + (int64_t)(left * 1e3));
}

/* Progress is told with every heartbeat and every look at validation rows. A run that has none, as the last
 * of a cross-validation, tells some of its steps, evenly, so that a short one has a curve, too. */
static bool is_worth_telling(const struct running *r, const eng_progress *progress)
{
    bool blind = progress->folds > 0 ? progress->fold == progress->folds : r->rows.n_dev == 0;
    size_t apart = progress->steps / (progress->folds + 1) / BLIND_EVENTS;
    return clock_ms() - r->last_beat >= BEAT_MS || isfinite(progress->dev_loss) ||
           (blind && progress->step > r->told + apart);
}

static eng_verdict on_progress(void *arg, const eng_progress *progress)
{
    struct running *r = arg;
    r->tokens = (int64_t)progress->tokens;
    r->step = progress->step;
    if (look_for_stop(r) == JOB_GO_ON && is_worth_telling(r, progress)) {
        tell_progress(r, progress);
        look_for_stop(r);
    }
    refine_estimate(r, progress);
    switch (r->stop) {
    case JOB_GO_ON:
        return ENG_GO_ON;
    case JOB_PAUSE:
    case JOB_GIVE_BACK:
        return ENG_PAUSE;
    default:
        return ENG_STOP;
    }
}

/* In retrieval and looks at dev. A cancel ends them at once; a pause waits a while for the end of the
 * step, which can be saved, before it falls back to the last state that was. */
static bool is_cut_short(void *arg)
{
    struct running *r = arg;
    if (clock_ms() - r->last_beat >= BEAT_MS) {
        send_report(r, NULL, NULL, NULL, NULL);
    }
    enum job_stop stop = look_for_stop(r);
    bool waits = stop == JOB_PAUSE || stop == JOB_GIVE_BACK;
    return stop != JOB_GO_ON && (!waits || clock_ms() - r->stop_seen >= PATIENCE_MS);
}

struct saving {
    struct running *r;
    store_blob state;
};

static store_status write_state(store *s, void *arg, store_error *err)
{
    const struct saving *saving = arg;
    const struct running *r = saving->r;
    return store_job_checkpoint(s, r->job->id, r->thread->owner, (int64_t)r->step, saving->state,
                                wall_ms(), err);
}

static void on_checkpoint(void *arg, const void *block, size_t bytes)
{
    struct running *r = arg;
    struct saving saving = {.r = r, .state = {block, bytes}};
    uint64_t most = r->server->config->job_checkpoint_bytes;
    store_error err = {0};
    if (bytes > most) {
        if (!r->too_large) {
            log_event(LOG_WARN, "job_state_too_large",
                      "%s: %zu bytes, at most %llu are stored (setting job_checkpoint_bytes)",
                      r->job->id, bytes, (unsigned long long)most);
        }
        r->too_large = true;
        return;
    }
    store_status status =
        storeq_call(r->server->storeq, write_state, &saving, bytes > LARGE_STATE, &err);
    if (status == STORE_ESTATE) {
        r->stop = JOB_LEASE_LOST;
    } else if (status != STORE_OK) {
        log_event(LOG_WARN, "job_state_lost", "%s: %s", r->job->id, err.text);
    } else {
        counter_add(&r->thread->jobs->checkpoints, 1);
        counter_add(&r->thread->jobs->checkpoint_bytes, bytes);
    }
}

static eng_status adapt(struct running *r, eng_error *err)
{
    eng_adapt_config *config = &r->plan.config;
    double every = (double)r->server->config->job_checkpoint * 1e-3;
    config->on_checkpoint = on_checkpoint;
    config->checkpoint_arg = r;
    config->checkpoint_seconds = every > CHECKPOINT_MIN ? every : CHECKPOINT_MIN;
    config->cancelled = is_cut_short;
    config->cancelled_arg = r;
    config->resume = r->state.data;
    config->resume_bytes = r->state.len;
    return eng_adapt(r->server->compute, r->server->model, r->server->bank, r->task,
                     r->rows.train_set, r->rows.train, r->rows.n_train, r->rows.dev_set,
                     r->rows.dev, r->rows.folds > 0 ? 0 : r->rows.n_dev, config, on_progress, r,
                     &r->result, err);
}

static store_status drop_state(store *s, void *arg, store_error *err)
{
    const struct running *r = arg;
    return store_job_drop_checkpoint(s, r->job->id, err);
}

/* The state is of another release, or of files that are gone: the job begins anew. */
static void forget_state(struct running *r, const eng_error *err)
{
    char message[512];
    store_error ignored;
    snprintf(message, sizeof message, "Beginning anew: the stored state cannot be used: %.300s",
             err->text);
    send_report(r, "warn", "message", message, NULL);
    (void)!storeq_call(r->server->storeq, drop_state, r, false, &ignored);
    r->state = (store_blob){0};
    r->step = 0;
}

static bool learn(struct running *r)
{
    eng_error err = {0};
    if (look_for_stop(r) != JOB_GO_ON) {
        return false;
    }
    eng_status status = adapt(r, &err);
    if (r->state.data != NULL && (status == ENG_EMISMATCH || status == ENG_EFORMAT)) {
        forget_state(r, &err);
        status = adapt(r, &err);
    }
    r->tokens = r->result.tokens > 0 ? (int64_t)r->result.tokens : r->tokens;
    if (status == ENG_OK) {
        job_pace_learn(r->thread->jobs->pace, r->estimate.work, r->result.seconds);
    }
    return status == ENG_OK ||
           (status == ENG_ECANCELLED && r->stop != JOB_GO_ON ? false : engine_fails(r, NULL, &err));
}

/* ---- ending ---------------------------------------------------------------------------------------------- */

static json_t *result_json(const struct running *r)
{
    const eng_adapt_result *result = &r->result;
    json_t *data = json_object();
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
              json_put(data, "train_rows", json_integer((json_int_t)r->rows.n_train)) &&
              json_put(data, "validation_rows", json_integer((json_int_t)r->rows.n_dev)) &&
              json_put(data, "validation_from", json_string(r->rows.dev_source)) &&
              json_put(data, "folds", json_integer((json_int_t)r->rows.folds)) &&
              json_put(data, "learning_rate", number_or_null(r->plan.config.lr)) &&
              json_put(data, "batch_size", json_integer((json_int_t)r->plan.config.batch)) &&
              json_put(data, "seed", json_integer((json_int_t)r->job->seed)) &&
              json_put(data, "threads",
                       json_integer((json_int_t)eng_compute_get_info(r->server->compute)->threads));
    if (!ok) {
        json_decref(data);
        return NULL;
    }
    return data;
}

/* The result, with what it does to the validation rows when `reported`. */
static char *result_text(struct running *r, bool reported)
{
    const struct job_report report = {.server = r->server,
                                      .task = r->task,
                                      .rows = &r->rows,
                                      .result = &r->result,
                                      .text_limit = r->plan.config.text_limit,
                                      .cancelled = is_cut_short,
                                      .arg = r};
    eng_error err = {0};
    size_t len = 0;
    json_t *data = result_json(r);
    if (data != NULL && reported && !job_report_add(&report, data, &err)) {
        log_event(LOG_WARN, "job_report_lost", "%s: %s", r->job->id, err.text);
    }
    char *text = data != NULL ? json_text(data, &len) : NULL;
    json_decref(data);
    return text;
}

static enum job_end give_up(struct running *r)
{
    if (r->stop == JOB_CANCEL) {
        return job_end(r->thread, r->job, STORE_JOB_CANCELLED, NULL, r->tokens, "Job cancelled");
    }
    if (r->stop == JOB_GIVE_BACK) {
        return job_give_back(r->thread, r->job);
    }
    if (r->stop == JOB_PAUSE) {
        snprintf(r->text, sizeof r->text, "Job paused at step %zu", r->step);
        return job_park(r->thread, r->job, r->tokens, r->text);
    }
    if (r->stop == JOB_LEASE_LOST) {
        return JOB_LOST;
    }
    char *error = job_error_text(r->code, r->text, r->param);
    enum job_end end = job_end(r->thread, r->job, STORE_JOB_FAILED, error, r->tokens, r->text);
    free(error);
    return end;
}

static enum job_end publish(struct running *r)
{
    char message[256];
    const char *where = r->plan.hold ? "stored, not published, in" : "published into";
    char *text = result_text(r, true), *slim = result_text(r, false);
    if (r->stop == JOB_CANCEL || r->stop == JOB_LEASE_LOST) {
        free(text);
        free(slim);
        return give_up(r);
    }
    if (text == NULL || slim == NULL) {
        free(text);
        free(slim);
        job_fails(r, "out_of_memory", NULL, "out of memory");
        char *error = job_error_text(r->code, r->text, r->param);
        enum job_end end = job_end(r->thread, r->job, STORE_JOB_FAILED, error, r->tokens, r->text);
        free(error);
        return end;
    }
    if (isfinite(r->result.dev_accuracy)) {
        snprintf(message, sizeof message,
                 "Job succeeded: %s %.3f on %zu rows%s (before: %.3f), %s \"%.128s\"",
                 score_name(r),
                 eng_score_of(r->plan.type, r->result.dev_accuracy, r->result.dev_macro_f1),
                 r->rows.n_dev, r->rows.folds > 0 ? " by cross-validation" : "",
                 eng_score_of(r->plan.type, r->result.dev_accuracy_before,
                              r->result.dev_macro_f1_before),
                 where, r->job->task_name);
    } else {
        snprintf(message, sizeof message, "Job succeeded, %s \"%.128s\"", where, r->job->task_name);
    }
    struct job_outcome outcome = {.job = r->job,
                                  .plan = &r->plan,
                                  .result = &r->result,
                                  .result_text = text,
                                  .event_text = slim,
                                  .message = message};
    enum job_end end = job_publish(r->thread, &outcome);
    free(text);
    free(slim);
    return end;
}

static void tell(struct running *r, enum job_end end)
{
    static const char *const words[] = {"succeeded",  "failed", "cancelled",
                                        "given_back", "paused", "lost"};
    struct jobs *jobs = r->thread->jobs;
    struct counter *const counters[] = {&jobs->succeeded, &jobs->failed, &jobs->cancelled,
                                        &jobs->given_back, &jobs->paused};
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
    job_rows_fini(&r->rows);
    eng_task_free(r->task);
    store_mem_free(r->state_mem);
    job_plan_fini(&r->plan);
    store_mem_free(r->mem);
    store_mem_free(mem);
    free(r);
}
