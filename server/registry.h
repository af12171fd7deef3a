/* registry.h: every task of every tenant in memory, and the version each of them serves.
 *
 * A task is a name, a form (what it asks: type, labels, template) and a current version (a route). Forms
 * are interned: tasks that ask the same share one form, compiled to an eng_task on first use. Versions
 * are immutable and counted; publishing swaps one pointer, so that a request goes on with the version
 * it was bound to. Nothing here reads the database: the server fills the registry at start and tells it
 * of every change afterwards.
 *
 * Threads.   All calls on the loop thread (or before it runs), but form_compile, which any thread may
 *            call while it holds a version or a form. What a version or form shows never changes.
 * Lifetime.  model and banks outlive the registry; give every version and form back before
 *            registry_free.
 * Ownership. Inputs are copied. registry_bind, registry_inline and registry_form return counted
 *            references: pass each to version_release or form_release, on the loop thread.
 *
 * For whoever publishes (jobs, tasks): after the store acknowledged a write, on the loop,
 *     registry_publish  a task is new, or its alias `current` points at another version (also by roll
 *                       back), or its template changed;      registry_remove  a task was deleted;
 *     registry_rename   its name changed.
 * Call them in the order of the acknowledgements. A task without any version is not published.
 */
#ifndef SERVER_REGISTRY_H
#define SERVER_REGISTRY_H

#include "engine/engine.h"

#define REG_MAX_NAME 128 /* bytes of a task's name */

struct registry;

/* What a task asks. Immutable. */
struct form {
    eng_task_type type;
    bool may_have_no_answer;
    size_t n_labels;
    const eng_text *labels;
    eng_text text_template; /* empty: the type's default */
    const eng_bank *bank;   /* NULL: of a bank this server has not */
};

/* What one version of a task computes with. Immutable. */
struct version {
    struct form *form;
    const struct base *base;   /* where it was learnt */
    int64_t number;            /* 0: inline, of no task */
    uint32_t route_len;        /* 0: average, an all-zero route */
    bool has_prompt, has_head; /* tuned parts, in memory while they are used (prompts.h) */
    uint16_t reading_len;      /* numbers behind the route that say how answers are read */
    float route[];             /* (route_len), then (reading_len) */
};

/* Backbone and bank a route was learnt on. bank is NULL when this server has no such pair. */
struct base {
    char model[65], bank_print[65]; /* fingerprints, hex; bank_print may be "" */
    const eng_bank *bank;
};

/* A task as look-ups show it; borrowed until the registry changes. */
struct reg_task_view {
    int64_t id;
    const char *name;
    const struct version *current;
};

typedef struct reg_publication {
    int64_t tenant, task; /* ids of the store; task > 0 */
    const char *name;
    const eng_task_spec *spec;
    int64_t number;
    const float *route; /* (route_len), or NULL with 0 for average */
    size_t route_len;
    eng_answer_length answer_length; /* sigma 0: none */
    eng_label_scaling label_scaling; /* len 0: none */
    bool has_prompt, has_head;       /* the version has a tuned prompt, a tuned head */
    /* inline only, or NULL: compute with the tuned parts of this one, and read labels as it does where they
     * are its own in whatever order */
    const struct version *like;
    const char *model_fingerprint, *bank_fingerprint; /* NULL: the model and first bank here */
} reg_publication;

/* `banks`: those loaded, the first is the default. */
ENG_MUST_CHECK eng_status registry_new(const eng_model *model, eng_bank *const *banks,
                                       size_t n_banks, struct registry **out, eng_error *err);
void registry_free(struct registry *registry);
/* Room for that many tasks before they are published one by one, so that tables need not grow under
 * them. False: out of memory; they grow as they must. */
bool registry_reserve(struct registry *registry, size_t tasks);
size_t registry_count(const struct registry *registry);
/* Bytes the tasks, versions and forms take, compiled forms aside. */
size_t registry_bytes(const struct registry *registry);
size_t registry_compiled(const struct registry *registry); /* forms that are compiled now */
const eng_bank *registry_default_bank(const struct registry *registry);
const eng_model *registry_model(const struct registry *registry);

/* Makes the version the task's current one; makes the task when its id is new. A wrong route length
 * for a bank that is here, or a number that is not finite, is ENG_EINVAL; a name that another task
 * of the tenant has is ENG_EINVAL. A version of another backbone or bank is kept: using it reports the
 * mismatch. */
ENG_MUST_CHECK eng_status registry_publish(struct registry *registry, const reg_publication *pub,
                                           eng_error *err);
/* False when there is no such task (or, for rename, the name is another's). */
bool registry_remove(struct registry *registry, int64_t tenant, int64_t task);
bool registry_rename(struct registry *registry, int64_t tenant, int64_t task, const char *name);

/* Looks a task up among the tenant's own; false when there is none. */
bool registry_find(const struct registry *registry, int64_t tenant, const char *name, size_t len,
                   struct reg_task_view *out);
bool registry_find_id(const struct registry *registry, int64_t tenant, int64_t task,
                      struct reg_task_view *out);
/* Calls `each` with the tenant's tasks, newest first, until it returns false. */
void registry_each(const struct registry *registry, int64_t tenant,
                   bool (*each)(void *arg, const struct reg_task_view *task), void *arg);
/* The name most like `name` among at most a thousand of the tenant's tasks; NULL when none is near. */
const char *registry_nearest(const struct registry *registry, int64_t tenant, const char *name);

/* A counted reference to a version that can be computed with. ENG_EMISMATCH when it was learnt on a
 * backbone or bank that this server has not loaded. */
ENG_MUST_CHECK eng_status registry_bind(struct registry *registry, const struct version *current,
                                        struct version **out, eng_error *err);
/* A version of no task, for a task given inline or an older version read from the store. Fields as in
 * reg_publication; tenant, task and name are not used. The forms of recent inline tasks stay compiled. */
ENG_MUST_CHECK eng_status registry_inline(struct registry *registry, const reg_publication *pub,
                                          struct version **out, eng_error *err);
void version_release(struct registry *registry, struct version *version); /* NULL is fine */

/* What a held version computes with beside its route: (Lp, P, H) and (2H + 2) floats of its bank, or
 * NULL when it has none. Of a version from task_resolve they are there until it is released. */
const float *version_prompt(const struct version *version);
const float *version_head(const struct version *version);
/* How long its answers are, for eng_decode_spans; NULL when it does not know. */
const eng_answer_length *version_answer_length(const struct version *version);
/* How its labels are read, for eng_decode_options; len 0: as the model scores them. */
eng_label_scaling version_label_scaling(const struct version *version);

/* Versions that requests name by number though another is current: the last few used stay. registry_pin
 * puts one in (*out is borrowed), registry_find_pin answers NULL when it is not there. Publishing and
 * removing a task drop its pins. */
ENG_MUST_CHECK eng_status registry_pin(struct registry *registry, const reg_publication *pub,
                                       const struct version **out, eng_error *err);
const struct version *registry_find_pin(const struct registry *registry, int64_t task,
                                        int64_t number);

/* The compiled form, made on first use and again when it was not used for long; valid while the caller
 * holds a version from registry_bind or registry_inline, or a form from registry_form. Errors are
 * eng_task_new's. Costs up to milliseconds: not on the loop. */
ENG_MUST_CHECK eng_status form_compile(struct form *form, const eng_task **out, eng_error *err);
/* A form on the default bank, to compile a task before it is stored. */
ENG_MUST_CHECK eng_status registry_form(struct registry *registry, const eng_task_spec *spec,
                                        struct form **out, eng_error *err);
void form_release(struct registry *registry, struct form *form); /* NULL is fine */

/* "ft:boot:acme:reviews:12-3": base model, tenant, suffix, and the task's id and version number.
 * ft_format cuts the suffix to fit; ft_parse gives the last part and checks that `tenant` is named. */
void ft_format(char *out, size_t size, const char *base, const char *tenant, const char *suffix,
               int64_t task, int64_t number);
bool ft_parse(const char *text, const char *tenant, int64_t *task, int64_t *number);

/* What keeps `name` from naming a task, as one sentence, or NULL when it may. */
const char *task_name_fault(const char *name);

#endif
