/* jobpublish.c: the end of a job.
 *
 * Publishing touches the database (store thread) and the registry (loop), and the order of both must
 * be the same for all writers of a task. So the registry is changed in the `done` of the very
 * operation that stored the version: operations end on the loop in the order of their commits. The
 * job thread waits for that, unless the loop has ended (shutdown); so the publication has two holders
 * and the last one frees it.
 *
 * A full disk passes: what it did not take is tried again, at longer and longer intervals, until it is
 * written or the server stops; the job is `running` meanwhile, and its result is kept.
 */
#include "server/jobpublish.h"

#include "server/log.h"
#include "server/loop.h"
#include "server/tasks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TRIES        6 /* of what no waiting will mend */
#define TRY_AGAIN_MS 500
#define MOST_MS      8000 /* between two tries */

struct publication {
    struct storeq_op op;
    struct jobs *jobs;
    int holders; /* under jobs->lock, as is over */
    bool over;

    /* copies, so that nothing of the job thread is needed */
    store_mem *mem; /* what is read back */
    char owner[JOB_MAX_OWNER], id[JOB_MAX_ID];
    int64_t tenant, tokens;
    char *texts[8]; /* freed with it */
    size_t n_texts;
    store_task task;
    store_version version, zero_shot; /* zero_shot: what a new task answers with meanwhile */
    bool hold;
    store_event event;
    const char *result;
    float *route, *prompt, *head, *label_scaling; /* taken from the result */
    eng_answer_length answer_length;

    store_status published;
    store_error err;
    store_task stored_task;
    store_version stored_version;
};

/* ---- the publication ----------------------------------------------------------------------------- */

static void publication_free(struct publication *p)
{
    for (size_t i = 0; i < p->n_texts; i++) {
        free(p->texts[i]);
    }
    store_mem_free(p->mem);
    free(p->route);
    free(p->prompt);
    free(p->head);
    free(p->label_scaling);
    free(p);
}

static void let_go(struct publication *p)
{
    pthread_mutex_lock(&p->jobs->lock);
    bool last = --p->holders == 0;
    pthread_mutex_unlock(&p->jobs->lock);
    if (last) {
        publication_free(p);
    }
}

/* A copy that lives with `p`; NULL stays NULL. False: out of memory. */
static bool keep(struct publication *p, const char *text, const char **out)
{
    *out = NULL;
    if (text == NULL) {
        return true;
    }
    char *copy = strdup(text);
    if (copy != NULL) {
        p->texts[p->n_texts++] = copy;
        *out = copy;
    }
    return copy != NULL;
}

static char *labels_text(const struct job_plan *plan)
{
    const json_t *labels = json_object_get(plan->spec, "labels");
    size_t len = 0;
    return labels != NULL ? json_text(labels, &len) : NULL;
}

static float *take(float **from)
{
    float *floats = *from;
    *from = NULL;
    return floats;
}

static bool fill(struct publication *p, const struct job_outcome *outcome)
{
    const struct job_plan *plan = outcome->plan;
    const eng_adapt_result *result = outcome->result;
    const struct server *server = p->jobs->server;
    char *labels = labels_text(plan);
    p->task =
        (store_task){.type = eng_task_type_name(plan->type),
                     .flags = plan->task.may_have_no_answer ? STORE_TASK_MAY_HAVE_NO_ANSWER : 0};
    p->version =
        (store_version){.model_fingerprint = eng_model_get_info(server->model)->fingerprint,
                        .bank_fingerprint = eng_bank_get_info(server->bank)->fingerprint,
                        .bank = eng_bank_get_info(server->bank)->name};
    p->hold = plan->hold;
    p->zero_shot = p->version;
    p->zero_shot.method = "average";
    p->zero_shot.created = wall_ms();
    p->event = (store_event){.created = wall_ms(), .level = "info", .type = "message"};
    bool ok = keep(p, labels, &p->task.labels) &&
              keep(p, json_string_value(json_object_get(plan->spec, "template")),
                   &p->task.text_template) &&
              keep(p, plan->config.method, &p->version.method) &&
              keep(p, result->started_from, &p->version.started_from) &&
              keep(p, outcome->result_text, &p->result) &&
              keep(p, outcome->event_text, &p->event.data) &&
              keep(p, outcome->message, &p->event.message);
    free(labels);
    p->version.metrics = p->event.data;
    p->route = malloc(result->route_len * sizeof *p->route + 1);
    if (!ok || p->route == NULL) {
        return false;
    }
    if (result->route_len > 0) {
        memcpy(p->route, result->route, result->route_len * sizeof *p->route);
    }
    p->version.route = (store_blob){p->route, result->route_len * sizeof *p->route};
    p->answer_length = result->answer_length;
    if (p->answer_length.sigma > 0) {
        p->version.answer_length = (store_blob){&p->answer_length, sizeof p->answer_length};
    }
    p->prompt = take(&outcome->result->prompt);
    p->head = take(&outcome->result->head);
    p->label_scaling = take(&outcome->result->label_scaling);
    p->version.prompt = (store_blob){p->prompt, result->prompt_len * sizeof *p->prompt};
    p->version.head = (store_blob){p->head, result->head_len * sizeof *p->head};
    if (p->label_scaling != NULL) {
        p->version.label_scaling =
            (store_blob){p->label_scaling, result->label_scaling_len * sizeof *p->label_scaling};
    }
    return true;
}

static struct publication *publication_new(struct job_thread *thread,
                                           const struct job_outcome *outcome)
{
    struct publication *p = calloc(1, sizeof *p);
    if (p == NULL) {
        return NULL;
    }
    p->jobs = thread->jobs;
    p->holders = 1;
    p->mem = store_mem_new();
    p->tenant = outcome->job->tenant;
    p->tokens = (int64_t)outcome->result->tokens;
    snprintf(p->owner, sizeof p->owner, "%s", thread->owner);
    snprintf(p->id, sizeof p->id, "%s", outcome->job->id);
    if (p->mem == NULL || !fill(p, outcome)) {
        publication_free(p);
        return NULL;
    }
    return p;
}

/* ---- on the store thread ----------------------------------------------------------------------------- */

/* The store's refusal is an answer, not a failure to write: the job ends with it, here and now. */
static store_status end_refused(store *s, struct publication *p, store_error *err)
{
    bool cancelled = p->published == STORE_ESTATE && strcmp(p->err.field, "status") == 0;
    if (p->published == STORE_ESTATE && !cancelled) {
        return STORE_OK; /* the lease is lost: somebody else's job now */
    }
    char *error = cancelled ? NULL : job_error_text("publish_refused", p->err.text, "mp2.task");
    store_event event = {.created = p->event.created,
                         .level = cancelled ? "info" : "error",
                         .type = "message",
                         .message = cancelled ? "Job cancelled" : p->err.text};
    store_status status =
        store_job_finish(s, p->id, p->owner, cancelled ? STORE_JOB_CANCELLED : STORE_JOB_FAILED,
                         error, NULL, p->tokens, &event, p->event.created, err);
    free(error);
    return status;
}

static bool is_refusal(store_status status)
{
    return status == STORE_ESTATE || status == STORE_EEXISTS || status == STORE_ENOTFOUND ||
           status == STORE_EINVAL || status == STORE_ELIMIT;
}

static store_status run_publication(store *s, void *arg, store_error *err)
{
    struct publication *p = arg;
    int64_t task = 0, number = 0;
    p->err = (store_error){0};
    store_mem_reset(p->mem);
    p->stored_version = (store_version){0};
    p->published = store_job_publish(s, p->id, p->owner, &p->task, &p->version,
                                     p->hold ? &p->zero_shot : NULL, p->result, p->tokens,
                                     &p->event, p->event.created, &task, &number, &p->err);
    if (is_refusal(p->published)) {
        return end_refused(s, p, err);
    }
    store_status status = p->published;
    if (status != STORE_OK) {
        *err = p->err;
        return status;
    }
    status = store_task_get(s, p->tenant, task, p->mem, &p->stored_task, err);
    number = p->stored_task.current; /* of a job held back not its own, and perhaps none */
    if (status == STORE_OK && number > 0) {
        status = store_version_get(s, p->tenant, task, number, p->mem, &p->stored_version, err);
    }
    return status;
}

/* ---- on the loop ----------------------------------------------------------------------------------------- */

static void serve(struct publication *p)
{
    struct registry *registry = p->jobs->server->registry;
    eng_error err;
    if (registry == NULL || p->stored_version.number == 0) {
        return; /* stopped meanwhile: the next start reads it; or nothing is current */
    }
    if (tasks_publish(registry, &p->stored_task, &p->stored_version, &err) != ENG_OK) {
        log_event(LOG_ERROR, "publish_failed",
                  "task %lld version %lld: %s; it is served after a "
                  "restart",
                  (long long)p->stored_task.id, (long long)p->stored_version.number, err.text);
    }
}

static void publication_done(struct storeq_op *op)
{
    struct publication *p = op->arg;
    if (op->status == STORE_OK && p->published == STORE_OK) {
        serve(p);
    }
    if (op->status == STORE_OK) {
        jobs_changed(p->jobs, p->id);
    }
    pthread_mutex_lock(&p->jobs->lock);
    p->over = true;
    pthread_cond_broadcast(&p->jobs->wake);
    pthread_mutex_unlock(&p->jobs->lock);
    let_go(p);
}

/* ---- on the job thread ------------------------------------------------------------------------------------- */

static void pause_ms(struct jobs *jobs, int64_t ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&jobs->lock);
    while (!jobs->ending && pthread_cond_timedwait(&jobs->wake, &jobs->lock, &until) == 0) {
    }
    pthread_mutex_unlock(&jobs->lock);
}

static bool is_ending(struct jobs *jobs)
{
    pthread_mutex_lock(&jobs->lock);
    bool ending = jobs->ending;
    pthread_mutex_unlock(&jobs->lock);
    return ending;
}

/* What an operator can mend while the server runs. */
static bool may_pass(store_status status)
{
    return status == STORE_EFULL || status == STORE_EIO || status == STORE_EBUSY ||
           status == STORE_ENOMEM || status == STORE_EABORTED;
}

/* After try number `i` (from 0) failed: waits, and says whether to try again. */
static bool try_again(struct jobs *jobs, const char *id, int i, store_status status,
                      const char *why)
{
    if (i + 1 >= TRIES && (is_ending(jobs) || !may_pass(status))) {
        return false;
    }
    if (i + 1 == TRIES) {
        log_event(LOG_WARN, "job_waits_for_store",
                  "%s: its end cannot be written: %s; tried again until it can", id, why);
    }
    pause_ms(jobs, i < 4 ? TRY_AGAIN_MS << i : MOST_MS);
    return true;
}

/* Submits and waits; false: not stored (or the loop has ended before it was known). */
static bool try_publication(struct publication *p)
{
    struct jobs *jobs = p->jobs;
    p->op = (struct storeq_op){.run = run_publication, .done = publication_done, .arg = p};
    p->over = false;
    p->holders++; /* publication_done's; nobody else holds it yet */
    if (!storeq_submit(jobs->server->storeq, &p->op)) {
        p->holders--;
        return false;
    }
    pthread_mutex_lock(&jobs->lock);
    while (!p->over && !jobs->ending) {
        pthread_cond_wait(&jobs->wake, &jobs->lock);
    }
    bool known = p->over;
    pthread_mutex_unlock(&jobs->lock);
    return known && p->op.status == STORE_OK;
}

static enum job_end end_of(const struct publication *p)
{
    if (p->published == STORE_OK) {
        return JOB_SUCCEEDED;
    }
    if (p->published != STORE_ESTATE) {
        return JOB_FAILED;
    }
    return strcmp(p->err.field, "status") == 0 ? JOB_CANCELLED : JOB_LOST;
}

struct ending {
    struct job_thread *thread;
    const store_job *job;
    store_job_status status;
    const char *error, *message;
    int64_t tokens;
    bool give_back, park;
    bool cancelled; /* it could not be parked: its tenant had cancelled it */
};

static store_status write_park(store *s, struct ending *end, const store_event *event,
                               store_error *err)
{
    store_job_status to;
    store_status status =
        store_job_park(s, end->job->id, end->thread->owner, end->tokens, event, &to, err);
    end->cancelled = status == STORE_ESTATE && strcmp(err->field, "status") == 0;
    return status;
}

static store_status write_end(store *s, void *arg, store_error *err)
{
    struct ending *end = arg;
    const store_job *job = end->job;
    store_event event = {.created = wall_ms(),
                         .level = end->error != NULL ? "error" : "info",
                         .type = "message",
                         .message = end->message};
    if (end->park) {
        return write_park(s, end, &event, err);
    }
    if (!end->give_back) {
        return store_job_finish(s, job->id, end->thread->owner, end->status, end->error, NULL,
                                end->tokens, &event, event.created, err);
    }
    store_status status = store_job_release(s, job->id, end->thread->owner, err);
    return status == STORE_OK ? store_event_add(s, job->tenant, job->id, &event, NULL, err)
                              : status;
}

static bool write_down(struct job_thread *thread, struct ending *end)
{
    store_error err = {0};
    store_status status = STORE_OK;
    end->thread = thread;
    for (int i = 0;; i++) {
        status = storeq_call(thread->jobs->server->storeq, write_end, end, false, &err);
        if (status == STORE_OK || status == STORE_ESTATE ||
            !try_again(thread->jobs, end->job->id, i, status, err.text)) {
            break;
        }
    }
    if (status != STORE_OK && !end->cancelled) {
        log_event(LOG_ERROR, "job_end_lost", "%s: %s; the next start finds it", end->job->id,
                  err.text);
    } else {
        jobs_changed(thread->jobs, end->job->id);
    }
    return status == STORE_OK;
}

enum job_end job_end(struct job_thread *thread, const store_job *job, store_job_status status,
                     const char *error, int64_t tokens, const char *message)
{
    struct ending end = {
        .job = job, .status = status, .error = error, .tokens = tokens, .message = message};
    if (!write_down(thread, &end)) {
        return JOB_LOST;
    }
    return status == STORE_JOB_CANCELLED ? JOB_CANCELLED : JOB_FAILED;
}

enum job_end job_give_back(struct job_thread *thread, const store_job *job)
{
    struct ending end = {.job = job,
                         .give_back = true,
                         .message = "The server is stopping: the job is queued again"};
    return write_down(thread, &end) ? JOB_GIVEN_BACK : JOB_LOST;
}

enum job_end job_park(struct job_thread *thread, const store_job *job, int64_t tokens,
                      const char *message)
{
    struct ending end = {.job = job, .park = true, .tokens = tokens, .message = message};
    bool parked = write_down(thread, &end);
    if (end.cancelled) {
        return job_end(thread, job, STORE_JOB_CANCELLED, NULL, tokens, "Job cancelled");
    }
    jobs_poke(thread->jobs); /* it may be in the queue again */
    return parked ? JOB_PAUSED : JOB_LOST;
}

/* Nothing of it is stored, after all tries: the job fails and says why. */
static enum job_end end_unstored(struct job_thread *thread, const store_job *job,
                                 const struct publication *p)
{
    char message[480];
    snprintf(message, sizeof message, "The result could not be stored: %s",
             p->op.err.text[0] != '\0' ? p->op.err.text : "the queue of writes is full");
    char *error = job_error_text("store_failed", message, NULL);
    enum job_end end = job_end(thread, job, STORE_JOB_FAILED, error, p->tokens, message);
    free(error);
    return end;
}

enum job_end job_publish(struct job_thread *thread, const struct job_outcome *outcome)
{
    struct publication *p = publication_new(thread, outcome);
    enum job_end end = JOB_LOST;
    if (p == NULL) {
        return JOB_LOST;
    }
    bool known = try_publication(p);
    for (int i = 0; !known && !is_ending(thread->jobs); i++) {
        store_status status =
            p->over ? p->op.status : STORE_EBUSY; /* not over: the queue is full */
        if (!try_again(thread->jobs, p->id, i, status, p->op.err.text)) {
            break;
        }
        known = try_publication(p);
    }
    if (known) {
        end = end_of(p);
    } else if (!is_ending(thread->jobs)) {
        end = end_unstored(thread, outcome->job, p);
    }
    let_go(p);
    return end;
}

char *job_error_text(const char *code, const char *message, const char *param)
{
    json_t *error = json_pack("{s:s, s:s, s:s?}", "code", code, "message", message, "param", param);
    size_t len = 0;
    char *text = error != NULL ? json_text(error, &len) : NULL;
    json_decref(error);
    return text;
}
