/* store.h: everything mp2 keeps on disk: tenants, keys, tasks and their versions, files, jobs, usage.
 *
 * One SQLite file behind plain structs. The store checks what must hold in the data (names unique,
 * versions immutable, one tenant blind to another's rows, allowed moves of a job); what a text means,
 * JSON included, is the server's business.
 *
 * Threads.   Exactly one `store` opened with store_open (the writer) exists per file, over all
 *            processes: a lock file beside the database holds that. It alone writes and checkpoints,
 *            and belongs to one thread at a time. store_open_reader gives read-only handles, one per
 *            reading thread; functions that write answer STORE_EREADONLY on them.
 * Ownership. Inputs are borrowed for the call. Outputs point into the store_mem passed in and live
 *            until it is freed or reset; outputs of a failed call are zeroed. Rows handed to a
 *            callback live for that call only.
 * Durability. A write that returned STORE_OK outside a group, or whose group's store_commit returned
 *            STORE_OK, survives kill -9 and, with STORE_SYNC_FULL, power loss.
 * Tenants.   Every look-up of a tenant's object names the tenant; another tenant's object and a
 *            missing one are the same STORE_ENOTFOUND.
 * Times.     Milliseconds since 1970, from the caller. 0 means "not yet" or "never".
 * Text.      Strings are UTF-8 and NUL-terminated; NULL strings are stored as absent and read back as
 *            NULL. "JSON text" is stored as given; it must be well-formed, else STORE_EINVAL.
 */
#ifndef MP2_STORE_H
#define MP2_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STORE_MUST_CHECK __attribute__((warn_unused_result))

/* ---- status and errors ------------------------------------------------------------------- */

#define STORE_STATUS_LIST(X)                                                                       \
    X(STORE_OK, "ok")                                                                              \
    X(STORE_ENOMEM, "out of memory")                                                               \
    X(STORE_EINVAL, "invalid argument")                                                            \
    X(STORE_ENOTFOUND, "not found")                                                                \
    X(STORE_EEXISTS, "exists already")                                                             \
    X(STORE_ESTATE, "not possible in the present state")                                           \
    X(STORE_ELIMIT, "over a limit")                                                                \
    X(STORE_EIO, "input or output failed")                                                         \
    X(STORE_EFULL, "the disk or the database is full")                                             \
    X(STORE_ECORRUPT, "the database is damaged")                                                   \
    X(STORE_EFOREIGN, "not a database of mp2")                                                     \
    X(STORE_ENEWER, "written by a newer mp2")                                                      \
    X(STORE_EBUSY, "in use by another process")                                                    \
    X(STORE_EREADONLY, "read-only")                                                                \
    X(STORE_EABORTED, "the group of writes was undone")

typedef enum store_status {
#define STORE_STATUS_ENUM(name, text) name,
    STORE_STATUS_LIST(STORE_STATUS_ENUM)
#undef STORE_STATUS_ENUM
} store_status;

typedef struct store_error {
    store_status status;
    char field[64]; /* the argument or row at fault; "" when there is none */
    char text[352]; /* one sentence for a person: limit, what was found, what to do */
} store_error;

/* "STORE_EIO" and "input or output failed". Static strings. */
const char *store_status_name(store_status status);
const char *store_status_text(store_status status);

/* ---- memory of results ------------------------------------------------------------------- */

/* Holds what reads hand out. Belongs to one thread at a time; may be passed on. */
typedef struct store_mem store_mem;
store_mem *store_mem_new(void); /* NULL: out of memory */
void store_mem_reset(store_mem *mem);
void store_mem_free(store_mem *mem); /* NULL is fine */

typedef struct store_blob {
    const void *data; /* NULL: absent */
    size_t len;
} store_blob;

/* ---- opening ----------------------------------------------------------------------------- */

typedef struct store store;

typedef enum store_sync {
    STORE_SYNC_FULL,  /* an acknowledged write survives power loss (the default) */
    STORE_SYNC_NORMAL /* survives kill -9; power loss may take the last writes */
} store_sync;

typedef struct store_options {
    store_sync sync;
    int64_t max_pages; /* pages of 4096 bytes the file may grow to; 0: no limit of ours */
    int64_t
        running_jobs; /* of a tenant whose settings do not say ("quotas": {"running_jobs"}); 0: no limit */
} store_options;

/* Opens the writer; makes the file when missing and migrates an older schema. STORE_EFOREIGN and
 * STORE_ENEWER leave the file untouched. STORE_EBUSY: another process has it. options NULL: defaults.
 * Jobs that a crash left running stay so until store_jobs_recover. */
STORE_MUST_CHECK store_status store_open(const char *path, const store_options *options,
                                         store **out, store_error *err);
/* A read-only handle on a database that a writer opened before. */
STORE_MUST_CHECK store_status store_open_reader(const char *path, store **out, store_error *err);
void store_close(store *s);      /* ends an open group by undoing it; NULL is fine */
int store_schema_version(void);  /* the newest schema this build knows */
const char *store_library(void); /* "SQLite 3.40.1" */

/* ---- groups of writes ---------------------------------------------------------------------- */

/* Between begin and commit every writing call keeps or undoes its own work (a savepoint each), so
 * that one failing call leaves its group whole. When a full disk or an I/O error made SQLite undo the
 * whole group, that call reports it, later calls and store_commit answer STORE_EABORTED, and
 * store_rollback clears the state. Acknowledge nothing of a group before store_commit returned
 * STORE_OK; when it fails, nothing of the group is stored. Calls outside a group commit by themselves. */
STORE_MUST_CHECK store_status store_begin(store *s, store_error *err);
STORE_MUST_CHECK store_status store_commit(store *s, store_error *err);
void store_rollback(store *s);

/* Several calls of a group as one: between step_begin and step_end they are kept together (status
 * STORE_OK) or undone together. step_end returns what the caller should. */
STORE_MUST_CHECK store_status store_step_begin(store *s, store_error *err);
STORE_MUST_CHECK store_status store_step_end(store *s, store_status status, store_error *err);

/* ---- care ---------------------------------------------------------------------------------- */

/* A consistent copy at `path` (must not exist, 0600), taken while running: written beside it, synced,
 * renamed. A reader's copy is of the moment the call began, whatever is written meanwhile, and holds
 * up no writer. `going` (may be NULL) is called between pieces; false ends with STORE_ESTATE. */
STORE_MUST_CHECK store_status store_backup(store *s, const char *path,
                                           bool (*going)(void *arg, int64_t done, int64_t total),
                                           void *arg, store_error *err);
/* STORE_ECORRUPT with the first finding. Quick: structure only; full: indexes and foreign keys too. */
STORE_MUST_CHECK store_status store_check(store *s, bool full, store_error *err);
/* Puts a backup in the place of a database that no process uses (STORE_EBUSY). The backup is checked
 * first (identity, version, integrity, references). A database at `path` is STORE_EEXISTS unless
 * `replace`; then it is kept under the name that *kept receives (store_mem), NULL when there was none. */
STORE_MUST_CHECK store_status store_restore(const char *backup, const char *path, bool replace,
                                            store_mem *mem, const char **kept, store_error *err);
typedef struct store_report {
    int64_t application, version; /* PRAGMA application_id, user_version */
    int64_t page_size, pages;
    const char *journal; /* "wal" */
    int64_t tenants, keys, tasks, versions, files, jobs, events, audit;
} store_report;
STORE_MUST_CHECK store_status store_describe(store *s, store_mem *mem, store_report *out,
                                             store_error *err);
/* Query statistics and WAL truncation; call every few hours and when idle. */
STORE_MUST_CHECK store_status store_maintain(store *s, store_error *err);

/* ---- paging -------------------------------------------------------------------------------- */

#define STORE_MAX_PAGE 1000

typedef struct store_page {
    const char
        *after;   /* id of the last item seen; NULL: from the start. Unknown: STORE_ENOTFOUND */
    size_t limit; /* 1 … STORE_MAX_PAGE */
    bool oldest_first; /* else newest first */
} store_page;

/* ---- tenants and keys ---------------------------------------------------------------------- */

#define STORE_MAX_NAME 256 /* bytes of a name, label or id */

typedef struct store_tenant {
    int64_t id;
    const char *name;     /* unique */
    const char *settings; /* JSON text: quotas, weight; or NULL */
    int64_t created, disabled;
} store_tenant;

/* STORE_EEXISTS when the name is taken. */
STORE_MUST_CHECK store_status store_tenant_create(store *s, const char *name, const char *settings,
                                                  int64_t now, int64_t *id, store_error *err);
STORE_MUST_CHECK store_status store_tenant_get(store *s, int64_t id, store_mem *mem,
                                               store_tenant *out, store_error *err);
STORE_MUST_CHECK store_status store_tenant_find(store *s, const char *name, store_mem *mem,
                                                store_tenant *out, store_error *err);
/* after: a tenant's name; in order of creation. */
STORE_MUST_CHECK store_status store_tenant_list(store *s, const store_page *page, store_mem *mem,
                                                store_tenant **items, size_t *n, bool *has_more,
                                                store_error *err);
STORE_MUST_CHECK store_status store_tenant_update(store *s, int64_t id, const char *settings,
                                                  int64_t disabled, store_error *err);

#define STORE_KEY_HASH_BYTES 32

#define STORE_SCOPE_PREDICT  1u
#define STORE_SCOPE_ADAPT    2u
#define STORE_SCOPE_READ     4u
#define STORE_SCOPE_ADMIN    8u

typedef struct store_key {
    const char *id; /* public part; never the secret */
    int64_t tenant;
    unsigned char hash[STORE_KEY_HASH_BYTES]; /* SHA-256 of the whole key */
    uint32_t scopes;
    const char *label;
    const char *settings; /* JSON text: quotas; or NULL */
    int64_t created, expires, revoked, last_used;
} store_key;

/* Reads id, tenant, hash, scopes, label, settings, created, expires. STORE_EEXISTS: id or hash is taken. */
STORE_MUST_CHECK store_status store_key_create(store *s, const store_key *key, store_error *err);
STORE_MUST_CHECK store_status store_key_list(store *s, int64_t tenant, const store_page *page,
                                             store_mem *mem, store_key **items, size_t *n,
                                             bool *has_more, store_error *err);
STORE_MUST_CHECK store_status store_key_get(store *s, int64_t tenant, const char *id,
                                            store_mem *mem, store_key *out, store_error *err);
/* label NULL: as it is. */
STORE_MUST_CHECK store_status store_key_update(store *s, int64_t tenant, const char *id,
                                               const char *label, const char *settings,
                                               store_error *err);
/* The key ends at `expires`, or when it would have anyway if that is earlier. */
STORE_MUST_CHECK store_status store_key_expire(store *s, int64_t tenant, const char *id,
                                               int64_t expires, store_error *err);
/* Revoking twice keeps the first time. */
STORE_MUST_CHECK store_status store_key_revoke(store *s, int64_t tenant, const char *id,
                                               int64_t now, store_error *err);
STORE_MUST_CHECK store_status store_key_touch(store *s, int64_t tenant, const char *id, int64_t now,
                                              store_error *err);
/* Every key with its tenant, for the registry at start; false from `each` ends the walk early. */
typedef bool (*store_each_key)(void *arg, const store_key *key, const store_tenant *tenant);
STORE_MUST_CHECK store_status store_keys_load(store *s, store_each_key each, void *arg,
                                              store_error *err);

/* ---- audit log ----------------------------------------------------------------------------- */

/* An administrative act. Rows are never changed or removed. */
typedef struct store_audit {
    int64_t id; /* rises; set by the store */
    int64_t created;
    const char *tenant, *key; /* who: a tenant's name and a key's id; NULL: not over HTTP */
    const char *user;         /* who used the command line; NULL: over HTTP */
    const char *action;       /* "key.revoke" */
    const char *object;       /* what it was done to, or NULL */
    const char *detail;       /* JSON text or NULL */
} store_audit;
STORE_MUST_CHECK store_status store_audit_add(store *s, const store_audit *act, store_error *err);
/* after: an id in decimal. */
STORE_MUST_CHECK store_status store_audit_list(store *s, const store_page *page, store_mem *mem,
                                               store_audit **items, size_t *n, bool *has_more,
                                               store_error *err);

/* ---- tasks and versions -------------------------------------------------------------------- */

typedef struct store_task {
    int64_t id; /* never used again */
    int64_t tenant;
    const char *name;          /* unique among the tenant's tasks that are not deleted */
    const char *type;          /* "classification", … */
    const char *labels;        /* JSON text: array of strings, or NULL */
    const char *text_template; /* NULL: the default of the type */
    uint32_t flags;            /* STORE_TASK_… */
    const char *metadata;      /* JSON text or NULL */
    int64_t current;           /* version number the alias points at; 0: none yet */
    int64_t created, updated, deleted;
} store_task;

#define STORE_TASK_MAY_HAVE_NO_ANSWER 1u

/* Immutable once stored. */
typedef struct store_version {
    int64_t task;             /* id */
    int64_t number;           /* 1, 2, … per task, given by the store */
    store_blob route;         /* absent: the average, nothing learnt; read back with len 0 */
    store_blob answer_length; /* two float32 of extractive tasks, or absent */
    store_blob label_scaling; /* float32 of tasks with labels, or absent */
    store_blob prompt, head;  /* large; only store_version_blobs reads them back */
    const char *method;
    const char *started_from;      /* or NULL */
    const char *model_fingerprint; /* backbone and bank it was learnt on */
    const char *bank_fingerprint;
    const char *bank;    /* bank name */
    const char *metrics; /* JSON text or NULL */
    const char *job;     /* job id or NULL */
    int64_t created;
    bool has_prompt, has_head; /* set by reads */
} store_version;

/* Makes a task and, when `first` is not NULL, its version 1 as current, in one step. Reads tenant,
 * name, type, labels, text_template, flags, metadata, created. STORE_EEXISTS: the name is taken. */
STORE_MUST_CHECK store_status store_task_create(store *s, const store_task *task,
                                                const store_version *first, int64_t *id,
                                                store_error *err);
STORE_MUST_CHECK store_status store_task_get(store *s, int64_t tenant, int64_t id, store_mem *mem,
                                             store_task *out, store_error *err);
/* By name, deleted ones not seen. */
STORE_MUST_CHECK store_status store_task_find(store *s, int64_t tenant, const char *name,
                                              store_mem *mem, store_task *out, store_error *err);
/* The one deleted last among the tenant's deleted tasks of this name. */
STORE_MUST_CHECK store_status store_task_find_deleted(store *s, int64_t tenant, const char *name,
                                                      store_mem *mem, store_task *out,
                                                      store_error *err);
/* In order of name when by_name (after: a name, which need not exist), of the last change when
 * by_change, else of creation (after: a task's id in decimal). prefix: NULL or how names begin.
 * contains: NULL or what names hold. type: NULL or only these. deleted: the deleted ones instead, by
 * change only: the last one is the deletion. */
typedef struct store_task_query {
    store_page page;
    bool by_name, by_change;
    const char *prefix;
    const char *contains;
    const char *type;
    bool deleted;
} store_task_query;
STORE_MUST_CHECK store_status store_task_list(store *s, int64_t tenant,
                                              const store_task_query *query, store_mem *mem,
                                              store_task **items, size_t *n, bool *has_more,
                                              store_error *err);
/* NULL members stay as they are. STORE_EEXISTS when the new name is taken. */
typedef struct store_task_change {
    const char *name, *text_template, *metadata;
} store_task_change;
STORE_MUST_CHECK store_status store_task_update(store *s, int64_t tenant, int64_t id,
                                                const store_task_change *change, int64_t now,
                                                store_error *err);
/* Soft delete frees the name; restore takes it back (STORE_EEXISTS when taken meanwhile). STORE_ESTATE
 * when a job that is not finished will publish into the task. */
STORE_MUST_CHECK store_status store_task_delete(store *s, int64_t tenant, int64_t id, int64_t now,
                                                store_error *err);
STORE_MUST_CHECK store_status store_task_restore(store *s, int64_t tenant, int64_t id, int64_t now,
                                                 store_error *err);
/* Removes at most `limit` tasks deleted before `before`, versions and all; *removed says how many. */
STORE_MUST_CHECK store_status store_tasks_purge(store *s, int64_t before, size_t limit,
                                                size_t *removed, store_error *err);

/* Adds a version (an import, say); moves the alias when `make_current`. */
STORE_MUST_CHECK store_status store_version_add(store *s, int64_t tenant, int64_t task,
                                                const store_version *version, bool make_current,
                                                int64_t *number, store_error *err);
STORE_MUST_CHECK store_status store_version_get(store *s, int64_t tenant, int64_t task,
                                                int64_t number, store_mem *mem, store_version *out,
                                                store_error *err);
STORE_MUST_CHECK store_status store_version_blobs(store *s, int64_t tenant, int64_t task,
                                                  int64_t number, store_mem *mem,
                                                  store_blob *prompt, store_blob *head,
                                                  store_error *err);
/* after: a version number in decimal. */
STORE_MUST_CHECK store_status store_version_list(store *s, int64_t tenant, int64_t task,
                                                 const store_page *page, store_mem *mem,
                                                 store_version **items, size_t *n, bool *has_more,
                                                 store_error *err);
/* Moves the alias (roll back, roll forward). */
STORE_MUST_CHECK store_status store_task_set_current(store *s, int64_t tenant, int64_t task,
                                                     int64_t number, int64_t now, store_error *err);
/* Called with a live task and its current version (NULL when none); false ends the walk early. */
typedef bool (*store_each_task)(void *arg, const store_task *task, const store_version *current);
/* All of one tenant, in no particular order. */
STORE_MUST_CHECK store_status store_tasks_each(store *s, int64_t tenant, store_each_task each,
                                               void *arg, store_error *err);
/* All there are, in order of id, for the registry: of a task id, tenant, name, type, labels,
 * text_template, flags and current are read, of a version task, number, route, answer_length, label_scaling,
 * has_prompt, has_head and the fingerprints. */
STORE_MUST_CHECK store_status store_tasks_load(store *s, store_each_task each, void *arg,
                                               store_error *err);
/* How many tasks that walk meets at most (deleted ones are counted). */
STORE_MUST_CHECK store_status store_tasks_count(store *s, int64_t *n, store_error *err);

/* ---- files --------------------------------------------------------------------------------- */

typedef struct store_file {
    const char *id; /* "file-…", made by the caller, unique over all tenants */
    int64_t tenant;
    const char *filename;
    const char *purpose;
    const char *status;  /* "processed", "error" */
    const char *details; /* JSON text: rows, type, labels, row errors; or NULL */
    int64_t bytes;       /* set by the store */
    int64_t rows;        /* examples in it */
    unsigned char sha256[32];
    int64_t created, expires;
} store_file;

STORE_MUST_CHECK store_status store_file_create(store *s, const store_file *file, store_blob data,
                                                store_error *err);
STORE_MUST_CHECK store_status store_file_get(store *s, int64_t tenant, const char *id,
                                             store_mem *mem, store_file *out, store_error *err);
STORE_MUST_CHECK store_status store_file_data(store *s, int64_t tenant, const char *id,
                                              store_mem *mem, store_blob *out, store_error *err);
/* purpose NULL: all. */
STORE_MUST_CHECK store_status store_file_list(store *s, int64_t tenant, const char *purpose,
                                              const store_page *page, store_mem *mem,
                                              store_file **items, size_t *n, bool *has_more,
                                              store_error *err);
/* STORE_ESTATE while a job that is not finished reads it. */
STORE_MUST_CHECK store_status store_file_delete(store *s, int64_t tenant, const char *id,
                                                store_error *err);
/* Examples in all of a tenant's files. */
STORE_MUST_CHECK store_status store_file_rows(store *s, int64_t tenant, int64_t *rows,
                                              store_error *err);
/* What a tenant keeps: number of files and their bytes. */
STORE_MUST_CHECK store_status store_file_totals(store *s, int64_t tenant, int64_t *files,
                                                int64_t *bytes, store_error *err);

/* ---- jobs ---------------------------------------------------------------------------------- */

/* name, text in the API, finished */
#define STORE_JOB_STATUS_LIST(X)                                                                   \
    X(STORE_JOB_VALIDATING, "validating_files", false)                                             \
    X(STORE_JOB_QUEUED, "queued", false)                                                           \
    X(STORE_JOB_RUNNING, "running", false)                                                         \
    X(STORE_JOB_PAUSED, "paused", false)                                                           \
    X(STORE_JOB_SUCCEEDED, "succeeded", true)                                                      \
    X(STORE_JOB_FAILED, "failed", true)                                                            \
    X(STORE_JOB_CANCELLED, "cancelled", true)

typedef enum store_job_status {
#define STORE_JOB_ENUM(name, text, finished) name,
    STORE_JOB_STATUS_LIST(STORE_JOB_ENUM)
#undef STORE_JOB_ENUM
} store_job_status;

const char *store_job_status_text(store_job_status status);
bool store_job_status_parse(const char *text, store_job_status *status);
bool store_job_finished(store_job_status status);

typedef struct store_job {
    const char *id; /* "ftjob-…", made by the caller, unique over all tenants */
    int64_t tenant;
    store_job_status status;
    const char *model;
    const char *spec;         /* JSON text: everything that was asked, defaults filled in */
    const char *metadata;     /* JSON text: object of strings, or NULL */
    const char *request_hash; /* of the request's meaning, to know a repeated POST; or NULL */
    uint64_t seed;
    const char *training_file, *validation_file; /* file ids; the second may be NULL */
    int64_t task;          /* id of the task it will publish or has published into; 0: a new one */
    const char *task_name; /* its name (a new task's name to be, before it succeeds) */
    int64_t version;       /* number published; 0 before */
    const char *result;    /* JSON text or NULL */
    const char *error;     /* JSON text or NULL */
    int64_t created, started, finished;
    int64_t attempts; /* times it was claimed and not given back in order */
    const char *lease_owner;
    int64_t lease_until;
    int64_t trained_tokens;
    bool cancel_requested, pause_requested;
    const char *estimate; /* JSON text or NULL: what it was thought to cost */
} store_job;

/* Reads id, tenant, status (QUEUED or VALIDATING), model, spec, metadata, request_hash, seed,
 * training_file, validation_file, task, task_name, estimate, created. STORE_ENOTFOUND names the file or task
 * that is not this tenant's. */
STORE_MUST_CHECK store_status store_job_create(store *s, const store_job *job, store_error *err);
STORE_MUST_CHECK store_status store_job_get(store *s, int64_t tenant, const char *id,
                                            store_mem *mem, store_job *out, store_error *err);
/* The newest job of the tenant with this request_hash, created at `since` or later. */
STORE_MUST_CHECK store_status store_job_find_request(store *s, int64_t tenant, const char *hash,
                                                     int64_t since, store_mem *mem, store_job *out,
                                                     store_error *err);
/* metadata: NULL or JSON text of an object; jobs that have all its pairs are listed. */
STORE_MUST_CHECK store_status store_job_list(store *s, int64_t tenant, const char *metadata,
                                             const store_page *page, store_mem *mem,
                                             store_job **items, size_t *n, bool *has_more,
                                             store_error *err);
/* Jobs of a tenant by status, counts[STORE_JOB_…]; tenant 0: of all. */
#define STORE_JOB_STATUSES 7
STORE_MUST_CHECK store_status store_job_counts(store *s, int64_t tenant,
                                               int64_t counts[STORE_JOB_STATUSES],
                                               store_error *err);

/* Takes the next queued job (of the tenant with the fewest running, then of the one whose last turn is
 * longest ago, then the oldest; not of one that has as many as it may run), sets it running with a lease and counts an attempt. STORE_ENOTFOUND: there is
 * none. */
STORE_MUST_CHECK store_status store_job_claim(store *s, const char *owner, int64_t now,
                                              int64_t lease_until, store_mem *mem, store_job *out,
                                              store_error *err);
/* Something that happened to a job. */
typedef struct store_event {
    int64_t seq; /* rises over all jobs; set by the store */
    int64_t created;
    const char *level; /* "info", "warn", "error" */
    const char *type;  /* "message", "metrics" */
    const char *message;
    const char *data; /* JSON text or NULL */
} store_event;

/* What the tenant wants of a running job. */
typedef enum store_wish { STORE_GO_ON, STORE_PAUSE, STORE_CANCEL } store_wish;

/* The calls below belong to the holder of the lease: STORE_ESTATE when the job is not running under
 * `owner` any more (then: stop working on it). */
STORE_MUST_CHECK store_status store_job_heartbeat(store *s, const char *id, const char *owner,
                                                  int64_t lease_until, int64_t trained_tokens,
                                                  store_wish *wish, store_error *err);
/* Back to the queue in order (shutdown): the attempt is not counted. */
STORE_MUST_CHECK store_status store_job_release(store *s, const char *id, const char *owner,
                                                store_error *err);
/* Stops for a pause, with an event when `event` is not NULL: paused, or queued when the tenant has
 * resumed it meanwhile (*status says which). The attempt is not counted. A job with cancel_requested is
 * refused with STORE_ESTATE, field "status". */
STORE_MUST_CHECK store_status store_job_park(store *s, const char *id, const char *owner,
                                             int64_t trained_tokens, const store_event *event,
                                             store_job_status *status, store_error *err);
/* Ends a job as FAILED or CANCELLED, with an event when `event` is not NULL. */
STORE_MUST_CHECK store_status store_job_finish(store *s, const char *id, const char *owner,
                                               store_job_status status, const char *error,
                                               const char *result, int64_t trained_tokens,
                                               const store_event *event, int64_t now,
                                               store_error *err);
/* The whole of a success in one step: the task when job.task is 0 (named job.task_name; `task` gives
 * type, labels, template, flags; a live task of that name that agrees in all four is used instead), its next
 * version as current, the job finished, the event. When `held` is not NULL the version is stored and does
 * not become current: the task answers with what it had, and a task made here with `held`, its version 1.
 * A job with cancel_requested is refused with STORE_ESTATE. */
STORE_MUST_CHECK store_status store_job_publish(store *s, const char *id, const char *owner,
                                                const store_task *task,
                                                const store_version *version,
                                                const store_version *held, const char *result,
                                                int64_t trained_tokens, const store_event *event,
                                                int64_t now, int64_t *task_id, int64_t *number,
                                                store_error *err);
/* A tenant's cancel: a waiting job ends at once, a running one is marked (its holder sees it at the
 * next heartbeat), a finished one is STORE_ESTATE. *out: the job afterwards. */
STORE_MUST_CHECK store_status store_job_cancel(store *s, int64_t tenant, const char *id,
                                               int64_t now, store_mem *mem, store_job *out,
                                               store_error *err);
/* A tenant's pause: a waiting job is paused at once, a running one is marked (its holder sees it at the
 * next heartbeat and parks it). resume: a paused one waits again, a mark is taken back. Both are fine
 * where nothing is to be done; a finished job is STORE_ESTATE. *out: the job afterwards. */
STORE_MUST_CHECK store_status store_job_pause(store *s, int64_t tenant, const char *id,
                                              store_mem *mem, store_job *out, store_error *err);
STORE_MUST_CHECK store_status store_job_resume(store *s, int64_t tenant, const char *id,
                                               store_mem *mem, store_job *out, store_error *err);
/* Running jobs whose lease ended before `stale_before` (INT64_MAX at start-up: all) go back to the
 * queue (with pause_requested: are paused); with cancel_requested they end cancelled; after max_attempts they fail with `error`. */
typedef struct store_recovered {
    int64_t requeued, cancelled, failed;
} store_recovered;
STORE_MUST_CHECK store_status store_jobs_recover(store *s, int64_t stale_before,
                                                 int64_t max_attempts, const char *error,
                                                 int64_t now, store_recovered *out,
                                                 store_error *err);
/* Savable state of a running job; the last one replaces the former, and stays while the job waits, is
 * paused or is claimed again. Gone when the job ends. One that is further than the former shows that
 * the job gets on: earlier attempts count no more. */
STORE_MUST_CHECK store_status store_job_checkpoint(store *s, const char *id, const char *owner,
                                                   int64_t step, store_blob state, int64_t now,
                                                   store_error *err);
/* STORE_ENOTFOUND when there is none. */
STORE_MUST_CHECK store_status store_job_get_checkpoint(store *s, const char *id, store_mem *mem,
                                                       int64_t *step, store_blob *state,
                                                       store_error *err);

/* What is kept of it, without the state itself. */
STORE_MUST_CHECK store_status store_job_look_checkpoint(store *s, int64_t tenant, const char *id,
                                                        int64_t *step, int64_t *bytes,
                                                        int64_t *created, store_error *err);
/* For a state that cannot be gone on from. */
STORE_MUST_CHECK store_status store_job_drop_checkpoint(store *s, const char *id, store_error *err);

/* Retention, at most `limit` rows a call; *removed says how many. Jobs that ended before `before`, with
 * their events; events of such jobs alone; files made before it that no open job reads, and files past
 * their own expiry at `now`. */
STORE_MUST_CHECK store_status store_jobs_purge(store *s, int64_t before, size_t limit,
                                               size_t *removed, store_error *err);
STORE_MUST_CHECK store_status store_events_purge(store *s, int64_t before, size_t limit,
                                                 size_t *removed, store_error *err);
STORE_MUST_CHECK store_status store_files_purge(store *s, int64_t before, int64_t now, size_t limit,
                                                size_t *removed, store_error *err);

/* Appends; `event`'s seq is ignored, *seq (may be NULL) receives the one given. */
STORE_MUST_CHECK store_status store_event_add(store *s, int64_t tenant, const char *job,
                                              const store_event *event, int64_t *seq,
                                              store_error *err);
/* after: a seq in decimal. */
STORE_MUST_CHECK store_status store_event_list(store *s, int64_t tenant, const char *job,
                                               const store_page *page, store_mem *mem,
                                               store_event **items, size_t *n, bool *has_more,
                                               store_error *err);

/* ---- usage --------------------------------------------------------------------------------- */

typedef struct store_usage {
    int64_t day; /* days since 1970, UTC */
    int64_t requests, inputs, tokens, jobs, trained_tokens;
} store_usage;

/* Adds to the tenant's row of use->day. Jobs and their tokens are added by the store itself: a job when it
 * is created, its tokens when it ends. */
STORE_MUST_CHECK store_status store_usage_add(store *s, int64_t tenant, const store_usage *use,
                                              store_error *err);
/* Days first … last, oldest first, days without use left out. */
STORE_MUST_CHECK store_status store_usage_list(store *s, int64_t tenant, int64_t first,
                                               int64_t last, store_mem *mem, store_usage **items,
                                               size_t *n, store_error *err);

/* What one key asked of one task on one day. */
typedef struct store_task_use {
    int64_t task; /* not read back */
    int64_t day;
    const char *key; /* its id */
    int64_t requests, inputs, tokens;
} store_task_use;

#define STORE_TASK_USE_DAYS 400   /* kept */
#define STORE_TASK_USE_ROWS 10000 /* of an answer, the latest days first to be kept */

/* Adds to the row of task, key and day; nothing when the task is no more. */
STORE_MUST_CHECK store_status store_task_use_add(store *s, const store_task_use *use,
                                                 store_error *err);
/* From day `first` on, the latest day first. STORE_ENOTFOUND: the tenant has no such task. */
STORE_MUST_CHECK store_status store_task_use_list(store *s, int64_t tenant, int64_t task,
                                                  int64_t first, store_mem *mem,
                                                  store_task_use **items, size_t *n,
                                                  store_error *err);
/* Removes the rows of days before `day`. */
STORE_MUST_CHECK store_status store_task_use_purge(store *s, int64_t day, store_error *err);

/* ---- idempotency keys ---------------------------------------------------------------------- */

typedef enum store_idem_state {
    STORE_IDEM_NEW,     /* taken now: do the work, then finish or drop */
    STORE_IDEM_RUNNING, /* another request with this key is at work */
    STORE_IDEM_DONE,    /* answered before: *reply holds the answer */
    STORE_IDEM_LOST,    /* carried out (marked), but its answer was never stored */
    STORE_IDEM_DIFFERS  /* the key was used for another request */
} store_idem_state;

typedef struct store_reply {
    int status;
    const char *content_type;
    store_blob body;
} store_reply;

/* request_hash: of method, path and body. Keys past `expires` count as unused. */
STORE_MUST_CHECK store_status store_idem_begin(store *s, int64_t tenant, const char *key,
                                               const char *request_hash, int64_t now,
                                               int64_t expires, store_mem *mem,
                                               store_idem_state *state, store_reply *reply,
                                               store_error *err);
/* In one group with the work itself: from now on it counts as carried out. */
STORE_MUST_CHECK store_status store_idem_mark(store *s, int64_t tenant, const char *key,
                                              store_error *err);
STORE_MUST_CHECK store_status store_idem_finish(store *s, int64_t tenant, const char *key,
                                                const store_reply *reply, store_error *err);
/* Frees a key whose work was not carried out; a marked one becomes STORE_IDEM_LOST. */
STORE_MUST_CHECK store_status store_idem_drop(store *s, int64_t tenant, const char *key,
                                              store_error *err);
/* Removes expired keys. With `running` (at start-up) also those whose work a crash cut off before it was
 * carried out, and those carried out then become STORE_IDEM_LOST. */
STORE_MUST_CHECK store_status store_idem_purge(store *s, int64_t now, bool running,
                                               store_error *err);

#endif
