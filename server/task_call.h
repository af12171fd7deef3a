/* task_call.h (private to the endpoints of tasks, versions and models): a request's state between its
 * visits to the store.
 *
 * Threads.   The worker or store thread fills it while the request is parked; the loop otherwise.
 * Lifetime.  The request's data; ends with it.
 */
#ifndef SERVER_TASK_CALL_H
#define SERVER_TASK_CALL_H

#include "server/tasks.h"

struct task_call {
    struct request *req;
    struct registry *registry;
    struct form *form; /* counted, or NULL */
    store_mem *mem;
    const json_t *body; /* or NULL */
    const char *tenant_name;
    const char *base; /* name of the backbone */
    const char *name; /* the task's, of the path or the body */
    int64_t tenant, now;

    /* what is read or to be written */
    store_task task;
    store_version version;
    eng_answer_length answer_length; /* what `version` points at, of an import */
    eng_label_scaling label_scaling; /* likewise; in the arena */
    store_task_change change;
    eng_task_spec spec;
    eng_text labels[ENG_MAX_LABELS];
    json_t *keep; /* text of labels */
    char *labels_text, *metadata_text;
    int64_t number;                /* of a version */
    char *prompt_text, *head_text; /* its tuned parts as base64, malloc'ed; or NULL */
    bool make_current;

    /* lists */
    store_task_query query;
    char after[24]; /* a task's number */
    store_task *tasks;
    store_version *versions;
    size_t n;
    bool has_more;

    store_status status;
    store_error err;
    eng_status eng_status;
    eng_error eng_err;
};

/* NULL: replied 503 already. Sets the request's data; `name` from the pattern's {task}, if any. */
struct task_call *task_call_new(struct request *req, bool has_task);
/* Reads the task by name and, when it has one, its current version. For workers and the store thread. */
store_status task_call_read(struct task_call *call, store *s, store_error *err);
/* 404, or the error of the store. False when status is STORE_OK. */
bool task_call_failed(struct request *req, struct task_call *call);
/* Publishes what the store acknowledged: call->task and call->version. */
void task_call_publish(struct task_call *call);
/* Compiles call->form: a worker's `work`. */
void task_call_compile(void *arg, store *reader);

/* A version to be written, with the numbers of `route` or of the average; from the arena. */
bool task_call_set_route(struct task_call *call, const float *route, size_t len);
json_t *task_list_json(json_t *data, const char *first, const char *last, bool has_more);

#endif
