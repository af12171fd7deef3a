/* tasks.h: a task between its four shapes: row of the store, entry of the registry, JSON of the API,
 * and the name a request gives.
 *
 * Threads. Loop thread, but the reading and writing of JSON (task_read_…, task_json, version_json),
 *          which any one thread may do with what it owns.
 */
#ifndef SERVER_TASKS_H
#define SERVER_TASKS_H

#include "server/http.h"
#include "server/json.h"
#include "server/registry.h"
#include "store/store.h"

/* ---- rows to the registry -------------------------------------------------------------------- */

/* Publishes `version` as the task's current one. For whoever has changed a task, once the store has
 * acknowledged it: jobs, imports, the alias, a restored task. See registry.h. The version's route is a
 * block of 32-bit floats, absent for the average. */
ENG_MUST_CHECK eng_status tasks_publish(struct registry *registry, const store_task *task,
                                        const store_version *version, eng_error *err);
/* Keeps a version that is not current with the registry's pins; *out is borrowed from there. */
ENG_MUST_CHECK eng_status tasks_pin(struct registry *registry, const store_task *task,
                                    const store_version *version, const struct version **out,
                                    eng_error *err);
/* Every task of the database, at start. Versions that cannot be published are counted and named in
 * the log. */
STORE_MUST_CHECK store_status tasks_load(store *s, struct registry *registry, size_t *loaded,
                                         size_t *refused, store_error *err);
/* The parts of a form from a stored task; labels are put into `labels` (ENG_MAX_LABELS). `keep`
 * holds their text: json_decref it when the spec is not needed any more. */
ENG_MUST_CHECK eng_status task_spec_of(const store_task *task, eng_task_spec *spec,
                                       eng_text *labels, json_t **keep, eng_error *err);

/* ---- JSON ------------------------------------------------------------------------------------- */

/* "type", "labels", "template", "may_have_no_answer" of an object; `base` is its pointer. What only the engine can judge
 * (duplicates, a template's fields, whether it fits) is left to form_compile. False: problems, or out
 * of memory (then *problems is empty). Borrows from the object; labels come from the arena. */
bool task_read_spec(struct request *req, const json_t *object, const char *base,
                    eng_task_spec *spec, struct problems *problems);
/* "route": numbers, or "start": "average" or the name of a row of the bank's router. Neither: average.
 * *route is NULL for average, else from the arena. */
bool task_read_route(struct request *req, const json_t *object, const char *base,
                     const eng_bank *bank, const float **route, size_t *len,
                     struct problems *problems);
/* The numbers of an array, each within ±bound. NULL: a problem was added, or the arena is full. */
float *task_read_numbers(struct request *req, const json_t *list, const char *base, const char *key,
                         double bound, struct problems *problems);

/* As the API shows them; base: the backbone's name, NULL leaves the "ft:" id out. NULL: out of memory. */
json_t *task_json(const char *tenant, const store_task *task);
json_t *version_json(const char *tenant, const char *base, const store_task *task,
                     const store_version *version);

/* ---- names ------------------------------------------------------------------------------------ */

/* The name of one of the caller's tasks in `text`: "reviews", or "acme/reviews" when the caller is
 * acme. NULL: it names another tenant's. */
const char *task_own_name(struct request *req, const char *text);
/* 404, with the nearest name of one's own. */
void reply_no_task(struct request *req, const char *text, const char *pointer);
/* Finds what `text` names (a task, "task@3", "ft:…") and calls `then`, now or after a look into the
 * store, with a version to compute with, which `then` owns. Replies itself when there is none. */
void task_resolve(struct request *req, const char *text, const char *pointer,
                  void (*then)(struct request *req, struct version *version, void *arg), void *arg);

#endif
