/* ep_jobs.c: fine-tuning jobs over HTTP, in the shapes of the OpenAI API.
 *
 * Creating takes three steps: the body is read on the loop, a worker looks at files and task and
 * settles what will be learnt, the store thread writes the job. A POST that says it is a retry
 * (x-stainless-retry-count) and repeats one of the last minute gets the first one's job.
 */
#include "server/config.h"
#include "server/endpoints.h"
#include "server/jobs.h"
#include "server/jobspec.h"
#include "server/jobstream.h"
#include "server/jobview.h"
#include "server/listing.h"
#include "server/log.h"
#include "server/loop.h"
#include "server/tasks.h"
#include "server/workers.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LISTED   100
#define RETRY_WINDOW 60000 /* ms */

struct jobs_call {
    struct request *req;
    store_mem *mem;
    store_status status;
    store_error err;
    int64_t tenant;
    const char *id;
    store_page page;
    store_job job, *jobs;
    struct job_state state;
    bool has_state;
    store_event *events;
    size_t n;
    bool has_more;
    char *metadata_filter;
    int64_t now;
    int64_t last_event; /* a stream begins behind it */

    /* POST */
    struct job_request request;
    struct job_resolving resolving;
    char hash[65];
    char *metadata_text;
    char new_id[OBJECT_ID_SIZE];
    char task_name[REG_MAX_NAME + 1];
    bool is_retry, found_first;
    uint64_t most_waiting; /* quota queued_jobs; 0: none */
    int64_t waiting;
    bool over_quota;
};

static void release_call(void *data)
{
    struct jobs_call *call = data;
    store_mem_free(call->mem);
    free(call->metadata_filter);
    free(call->metadata_text);
    free(call->resolving.spec);
    free(call->resolving.estimate);
    free(call);
}

/* NULL: replied. */
static struct jobs_call *new_call(struct request *req)
{
    struct jobs_call *call = calloc(1, sizeof *call);
    store_mem *mem = store_mem_new();
    if (call == NULL || mem == NULL) {
        free(call);
        store_mem_free(mem);
        reply_no_memory(req);
        return NULL;
    }
    call->req = req;
    call->mem = mem;
    call->tenant = request_tenant(req);
    call->now = wall_ms();
    request_set_data(req, call, release_call);
    return call;
}

static json_t *view_of(struct request *req, const store_job *job, bool whole)
{
    struct server *server = request_server(req);
    int64_t estimate = job->status == STORE_JOB_RUNNING ? jobs_estimate(server->jobs, job->id) : 0;
    return job_json(job, request_tenant_name(req), eng_model_get_info(server->model)->name,
                    estimate, whole);
}

/* ---- POST /v1/fine_tuning/jobs ------------------------------------------------------------------ */

static store_status create_job(store *s, void *arg, store_error *err)
{
    struct jobs_call *call = arg;
    const struct job_request *request = &call->request;
    if (call->is_retry) {
        store_status found = store_job_find_request(
            s, call->tenant, call->hash, call->now - RETRY_WINDOW, call->mem, &call->job, err);
        call->found_first = found == STORE_OK;
        if (found != STORE_ENOTFOUND) {
            return found;
        }
    }
    int64_t counts[STORE_JOB_STATUSES];
    store_status status = store_job_counts(s, call->tenant, counts, err);
    if (status != STORE_OK) {
        return status;
    }
    call->waiting =
        counts[STORE_JOB_QUEUED] + counts[STORE_JOB_VALIDATING] + counts[STORE_JOB_PAUSED];
    call->over_quota = call->most_waiting > 0 && (uint64_t)call->waiting >= call->most_waiting;
    if (call->over_quota) {
        return STORE_ELIMIT;
    }
    store_job job = {.id = call->new_id,
                     .tenant = call->tenant,
                     .status = STORE_JOB_QUEUED,
                     .model = request->model,
                     .spec = call->resolving.spec,
                     .estimate = call->resolving.estimate,
                     .metadata = call->metadata_text,
                     .request_hash = call->hash,
                     .seed = request->seed,
                     .training_file = request->training_file,
                     .validation_file = request->validation_file,
                     .task = call->resolving.task,
                     .task_name = call->task_name,
                     .created = call->now};
    store_event event = {.created = call->now,
                         .level = "info",
                         .type = "message",
                         .message = "Created fine-tuning job, queued"};
    status = store_job_create(s, &job, err);
    if (status == STORE_OK) {
        status = store_event_add(s, call->tenant, call->new_id, &event, NULL, err);
    }
    return status == STORE_OK
               ? store_job_get(s, call->tenant, call->new_id, call->mem, &call->job, err)
               : status;
}

static void job_created(struct request *req, store_status status, const store_error *err, void *arg)
{
    struct jobs_call *call = arg;
    struct server *server = request_server(req);
    if (status == STORE_OK) {
        jobs_poke(server->jobs);
    }
    if (call->over_quota) {
        struct quota_excess excess =
            quota_counted(QUOTA_QUEUED, call->most_waiting, (uint64_t)call->waiting, 1);
        reply_quota(req, &excess);
    } else if (status != STORE_OK) {
        reply_store_error(req, status, err);
    } else {
        struct log_line line;
        log_begin(&line, LOG_INFO, call->found_first ? "job_repeated" : "job_created");
        log_text(&line, "id", request_id(req));
        log_number(&line, "tenant", call->tenant);
        log_text(&line, "job", call->job.id);
        log_end(&line);
        if (!call->found_first) {
            reply_counted(req, QUOTA_QUEUED, call->most_waiting, (uint64_t)call->waiting + 1);
        }
        reply_json(req, 200, view_of(req, &call->job, true));
    }
}

static void resolve_job(void *arg, store *reader)
{
    struct jobs_call *call = arg;
    jobspec_resolve(&call->resolving, reader);
}

/* A task that the client did not name is called after the suffix, or its type, and the job. */
static void name_task(struct jobs_call *call)
{
    const char *own = call->resolving.task_name;
    const char *suffix = call->request.suffix;
    if (own != NULL) {
        snprintf(call->task_name, sizeof call->task_name, "%s", own);
    } else {
        snprintf(call->task_name, sizeof call->task_name, "%.64s-%.8s",
                 suffix != NULL ? suffix : "job", call->new_id + strlen("ftjob-"));
    }
}

static void job_resolved(struct request *req, void *arg)
{
    struct jobs_call *call = arg;
    const struct job_resolving *r = &call->resolving;
    if (r->status != 0) {
        reply_problem(req, r->status, r->code, r->param, "%s", r->text);
    } else if (!request_is_over(req)) {
        object_id(call->new_id, "ftjob-");
        name_task(call);
        request_store(req, create_job, false, job_created, call);
    }
}

/* mp2.task as a name of the caller's own. False: replied. */
static bool own_task_name(struct jobs_call *call)
{
    const char *text = call->request.task;
    if (text == NULL) {
        return true;
    }
    const char *name = task_own_name(call->req, text);
    if (name == NULL) {
        reply_no_task(call->req, text, "mp2.task");
        return false;
    }
    const char *fault = task_name_fault(name);
    if (fault != NULL) {
        reply_problem(call->req, 422, "invalid_value", "mp2.task", "%s", fault);
        return false;
    }
    call->resolving.task_name = name;
    return true;
}

static bool is_retry(const struct request *req)
{
    const char *count = request_header(req, "x-stainless-retry-count");
    return count != NULL && strtol(count, NULL, 10) > 0;
}

/* Reads the body of a job to be made or only looked at. NULL: replied. */
static struct jobs_call *new_resolving(struct request *req)
{
    struct problems problems = {0};
    struct jobs_call *call = new_call(req);
    if (call == NULL) {
        return NULL;
    }
    job_request_read(request_json(req), &call->request, &problems);
    if (problems.count > 0) {
        reply_problems(req, &problems);
        return NULL;
    }
    if (!call->request.has_seed) {
        call->request.seed = randombytes_uniform(INT32_MAX);
    }
    call->resolving = (struct job_resolving){.server = request_server(req),
                                             .request = &call->request,
                                             .tenant = call->tenant,
                                             .mem = call->mem};
    return own_task_name(call) ? call : NULL;
}

void ep_jobs_create(struct request *req)
{
    struct jobs_call *call = new_resolving(req);
    if (call == NULL) {
        return;
    }
    size_t len = 0;
    bool has_metadata =
        call->request.metadata != NULL && json_object_size(call->request.metadata) > 0;
    call->metadata_text = has_metadata ? json_text(call->request.metadata, &len) : NULL;
    if (!job_request_hash(request_json(req), call->hash) ||
        (has_metadata && call->metadata_text == NULL)) {
        reply_no_memory(req);
        return;
    }
    call->is_retry = is_retry(req);
    call->most_waiting = request_quota(req, QUOTA_QUEUED);
    request_offload(req, resolve_job, job_resolved, call);
}

/* ---- POST /v1/fine_tuning/jobs/estimate --------------------------------------------------------- */

static void show_estimate(struct request *req, void *arg)
{
    struct jobs_call *call = arg;
    const struct job_resolving *r = &call->resolving;
    if (r->status != 0) {
        reply_problem(req, r->status, r->code, r->param, "%s", r->text);
    } else {
        reply_json(req, 200, json_loads(r->estimate, 0, NULL));
    }
}

void ep_jobs_estimate(struct request *req)
{
    struct jobs_call *call = new_resolving(req);
    if (call != NULL) {
        request_offload(req, resolve_job, show_estimate, call);
    }
}

/* ---- reading ---------------------------------------------------------------------------------------- */

static void read_jobs(void *arg, store *reader)
{
    struct jobs_call *call = arg;
    if (workers_has_reader(reader, &call->status, &call->err)) {
        call->status =
            store_job_list(reader, call->tenant, call->metadata_filter, &call->page, call->mem,
                           &call->jobs, &call->n, &call->has_more, &call->err);
    }
}

static void show_jobs(struct request *req, void *arg)
{
    struct jobs_call *call = arg;
    if (call->status != STORE_OK) {
        reply_store_error(req, call->status, &call->err);
        return;
    }
    json_t *data = json_array();
    for (size_t i = 0; i < call->n; i++) {
        json_array_append_new(data, view_of(req, &call->jobs[i], false));
    }
    const char *first = call->n > 0 ? call->jobs[0].id : NULL;
    const char *last = call->n > 0 ? call->jobs[call->n - 1].id : NULL;
    reply_json(req, 200, listing_json(data, first, last, call->has_more));
}

/* metadata[k]=v of the query as a JSON object; false: out of memory. */
static bool read_filter(const struct request *req, char **out)
{
    json_t *filter = json_object();
    const char *name, *value;
    size_t len = 0;
    for (size_t i = 0; request_query_at(req, i, &name, &value); i++) {
        size_t end = strlen(name);
        if (strncmp(name, "metadata[", 9) == 0 && end > 10 && name[end - 1] == ']') {
            json_t *text = json_string(value);
            char key[128];
            snprintf(key, sizeof key, "%.*s", (int)(end - 10), name + 9);
            json_put(filter, key, text);
        }
    }
    *out = json_object_size(filter) > 0 ? json_text(filter, &len) : NULL;
    bool ok = filter != NULL && (json_object_size(filter) == 0 || *out != NULL);
    json_decref(filter);
    return ok;
}

void ep_jobs_list(struct request *req)
{
    struct jobs_call *call = new_call(req);
    if (call == NULL || !listing_page(req, 20, MAX_LISTED, &call->page)) {
        return;
    }
    if (!read_filter(req, &call->metadata_filter)) {
        reply_no_memory(req);
        return;
    }
    request_offload(req, read_jobs, show_jobs, call);
}

static void read_job(void *arg, store *reader)
{
    struct jobs_call *call = arg;
    if (workers_has_reader(reader, &call->status, &call->err)) {
        call->status =
            store_job_get(reader, call->tenant, call->id, call->mem, &call->job, &call->err);
    }
}

static void show_job(struct request *req, void *arg)
{
    struct jobs_call *call = arg;
    if (call->status != STORE_OK) {
        reply_store_error(req, call->status, &call->err);
        return;
    }
    reply_json(req, 200, view_of(req, &call->job, true));
}

void ep_job_get(struct request *req)
{
    struct jobs_call *call = new_call(req);
    if (call != NULL) {
        call->id = request_param(req, "job");
        request_offload(req, read_job, show_job, call);
    }
}

/* ---- events and checkpoints ---------------------------------------------------------------------------- */

static void read_events(void *arg, store *reader)
{
    struct jobs_call *call = arg;
    if (workers_has_reader(reader, &call->status, &call->err)) {
        call->status = store_event_list(reader, call->tenant, call->id, &call->page, call->mem,
                                        &call->events, &call->n, &call->has_more, &call->err);
    }
}

static void show_events(struct request *req, void *arg)
{
    struct jobs_call *call = arg;
    if (call->status != STORE_OK) {
        reply_store_error(req, call->status, &call->err);
        return;
    }
    json_t *data = json_array();
    for (size_t i = 0; i < call->n; i++) {
        json_array_append_new(data, job_event_json(&call->events[i]));
    }
    const json_t *first = json_array_get(data, 0);
    const json_t *last = call->n > 0 ? json_array_get(data, call->n - 1) : NULL;
    reply_json(req, 200,
               listing_json(data, json_string_value(json_object_get(first, "id")),
                            json_string_value(json_object_get(last, "id")), call->has_more));
}

static const char *event_number(const char *id)
{
    static const char prefix[] = "ftevent-";
    bool named = id != NULL && strncmp(id, prefix, sizeof prefix - 1) == 0;
    return named ? id + sizeof prefix - 1 : id;
}

/* ?stream=true|false, else what the Accept header asks for. False: replied. */
static bool wants_stream(struct request *req, bool *stream)
{
    const char *asked = request_query(req, "stream");
    const char *accept = request_header(req, "Accept");
    *stream = asked != NULL ? strcmp(asked, "true") == 0
                            : accept != NULL && strstr(accept, "text/event-stream") != NULL;
    if (asked != NULL && !*stream && strcmp(asked, "false") != 0) {
        reply_problem(req, 422, "invalid_value", "stream",
                      "stream is true or false, found \"%.32s\"", asked);
        return false;
    }
    return true;
}

/* The last event a client has seen: of the header a reader sends when it comes back, else `after`.
 * False: replied. */
static bool read_last_event(struct request *req, int64_t *number)
{
    const char *header = request_header(req, "Last-Event-ID");
    const char *text = event_number(header != NULL ? header : request_query(req, "after"));
    char *end = NULL;
    *number = 0;
    if (text == NULL || text[0] == '\0') {
        return true;
    }
    if (text[0] >= '0' && text[0] <= '9' && strlen(text) <= 18) {
        *number = strtoll(text, &end, 10);
    }
    if (end == NULL || *end != '\0') {
        reply_problem(req, 422, "invalid_value", header != NULL ? "Last-Event-ID" : "after",
                      "the id of an event is a number, such as 17 or ftevent-17");
        return false;
    }
    return true;
}

static void stream_events(struct request *req, void *arg)
{
    struct jobs_call *call = arg;
    if (call->status != STORE_OK) {
        reply_store_error(req, call->status, &call->err);
    } else if (request_server(req)->draining) {
        reply_problem(req, 503, "draining", NULL, "the server is stopping; ask another or later");
    } else if (!request_is_over(req)) {
        job_stream_begin(req, call->id, call->last_event);
    }
}

void ep_job_events(struct request *req)
{
    struct jobs_call *call = new_call(req);
    bool stream = false;
    if (call == NULL || !listing_page(req, 20, MAX_LISTED, &call->page) ||
        !wants_stream(req, &stream)) {
        return;
    }
    call->page.after = event_number(call->page.after);
    call->id = request_param(req, "job");
    if (!stream) {
        request_offload(req, read_events, show_events, call);
    } else if (read_last_event(req, &call->last_event) && request_may_stream(req)) {
        request_offload(req, read_job, stream_events, call);
    }
}

static void read_checkpoint(void *arg, store *reader)
{
    struct jobs_call *call = arg;
    read_job(arg, reader);
    if (call->status != STORE_OK) {
        return;
    }
    call->status = store_job_look_checkpoint(reader, call->tenant, call->id, &call->state.step,
                                             &call->state.bytes, &call->state.created, &call->err);
    call->has_state = call->status == STORE_OK;
    if (call->status == STORE_ENOTFOUND) {
        call->status = STORE_OK; /* a job without a stored state */
    }
}

/* Those there are: the state a job that is not finished can go on from, or what was published. */
static void show_checkpoints(struct request *req, void *arg)
{
    struct jobs_call *call = arg;
    if (call->status != STORE_OK) {
        reply_store_error(req, call->status, &call->err);
        return;
    }
    json_t *data = json_array();
    json_t *one = job_checkpoint_json(&call->job, call->has_state ? &call->state : NULL,
                                      request_tenant_name(req),
                                      eng_model_get_info(request_server(req)->model)->name);
    const char *id = json_string_value(json_object_get(one, "id"));
    const char *after = request_query(req, "after");
    if (id != NULL && (after == NULL || strcmp(after, id) != 0)) {
        json_array_append(data, one);
    } else {
        id = NULL;
    }
    reply_json(req, 200, listing_json(data, id, id, false));
    json_decref(one);
}

void ep_job_checkpoints(struct request *req)
{
    struct jobs_call *call = new_call(req);
    if (call != NULL && listing_page(req, 20, MAX_LISTED, &call->page)) {
        call->id = request_param(req, "job");
        request_offload(req, read_checkpoint, show_checkpoints, call);
    }
}

/* ---- cancel ------------------------------------------------------------------------------------------------ */

static store_status cancel_job(store *s, void *arg, store_error *err)
{
    struct jobs_call *call = arg;
    store_status status =
        store_job_cancel(s, call->tenant, call->id, call->now, call->mem, &call->job, err);
    if (status == STORE_OK && call->job.status == STORE_JOB_CANCELLED) {
        store_event event = {.created = call->now,
                             .level = "info",
                             .type = "message",
                             .message = "Job cancelled before it started"};
        status = store_event_add(s, call->tenant, call->id, &event, NULL, err);
    }
    return status;
}

static void job_cancelled(struct request *req, store_status status, const store_error *err,
                          void *arg)
{
    struct jobs_call *call = arg;
    if (status == STORE_OK) {
        jobs_cancel(request_server(req)->jobs, call->id);
        jobs_changed(request_server(req)->jobs, call->id);
        reply_json(req, 200, view_of(req, &call->job, true));
    } else {
        reply_store_error(req, status, err);
    }
}

void ep_job_cancel(struct request *req)
{
    struct jobs_call *call = new_call(req);
    if (call != NULL) {
        call->id = request_param(req, "job");
        request_store(req, cancel_job, false, job_cancelled, call);
    }
}

/* ---- pause and resume ---------------------------------------------------------------------------------------- */

/* What changed at once is said at once; a running job speaks for itself. */
static store_status tell_change(struct jobs_call *call, store *s, store_job_status was,
                                const char *message, store_error *err)
{
    store_event event = {
        .created = call->now, .level = "info", .type = "message", .message = message};
    return call->job.status != was ? store_event_add(s, call->tenant, call->id, &event, NULL, err)
                                   : STORE_OK;
}

static store_status pause_job(store *s, void *arg, store_error *err)
{
    struct jobs_call *call = arg;
    store_status status = store_job_get(s, call->tenant, call->id, call->mem, &call->job, err);
    store_job_status was = call->job.status;
    if (status == STORE_OK) {
        status = store_job_pause(s, call->tenant, call->id, call->mem, &call->job, err);
    }
    return status == STORE_OK ? tell_change(call, s, was, "Job paused while it waited", err)
                              : status;
}

static store_status resume_job(store *s, void *arg, store_error *err)
{
    struct jobs_call *call = arg;
    store_status status = store_job_get(s, call->tenant, call->id, call->mem, &call->job, err);
    store_job_status was = call->job.status;
    if (status == STORE_OK) {
        status = store_job_resume(s, call->tenant, call->id, call->mem, &call->job, err);
    }
    return status == STORE_OK ? tell_change(call, s, was, "Job resumed, queued", err) : status;
}

static void job_changed(struct request *req, store_status status, const store_error *err, void *arg)
{
    struct jobs_call *call = arg;
    struct jobs *jobs = request_server(req)->jobs;
    if (status != STORE_OK) {
        reply_store_error(req, status, err);
        return;
    }
    if (jobs != NULL) { /* NULL: the server has stopped meanwhile */
        jobs_pause(jobs, call->id, call->job.pause_requested);
        jobs_poke(jobs);
        jobs_changed(jobs, call->id);
    }
    reply_json(req, 200, view_of(req, &call->job, true));
}

static void change_job(struct request *req, storeq_fn change)
{
    struct jobs_call *call = new_call(req);
    if (call != NULL) {
        call->id = request_param(req, "job");
        request_store(req, change, false, job_changed, call);
    }
}

void ep_job_pause(struct request *req)
{
    change_job(req, pause_job);
}

void ep_job_resume(struct request *req)
{
    change_job(req, resume_job);
}
