/* db.h: what the files of the store share. Not for the outside; see store.h for the contracts.
 *
 * Every SQL statement is a string literal, prepared once per handle and found again by its address.
 * A query is prepared, bound in order, stepped, read in order, and finished:
 *
 *     db_query q;
 *     store_status status = db_prepare(s, "SELECT name FROM tenants WHERE id = ?", &q, err);
 *     if (status == STORE_OK) {
 *         db_bind_int(&q, id);
 *         status = db_step(&q, err);             q.row says whether there was one
 *         name = q.row ? db_text(&q, mem) : NULL;
 *         status = db_finish(&q, status, err);   reports what binding and reading ran into, too
 *     }
 *
 * A writing function is wrapped in db_write_begin and db_write_end, which keep or undo its work.
 */
#ifndef STORE_DB_H
#define STORE_DB_H

#include "store/store.h"

#include <sqlite3.h>

#define DB_APPLICATION_ID 0x6d703264 /* "mp2d" */
#define DB_MAX_STATEMENTS 256        /* a power of two, well above the statements there are */

struct db_cached {
    const char *sql; /* the literal's address is the key */
    sqlite3_stmt *stmt;
};

struct store {
    sqlite3 *db;
    char *path;
    int lock_fd; /* -1: none */
    bool reader;
    bool in_group;
    int64_t running_jobs; /* as in store_options */
    bool aborted;         /* SQLite undid the group; only store_rollback leads out */
    uint64_t commits;     /* transactions that reached the log */
    struct db_cached cache[DB_MAX_STATEMENTS];
    size_t cached;
};

/* ---- errors (status.c) ---- */

/* Fills *err (when not NULL) and returns `status`. Text that does not fit is cut at a UTF-8 boundary. */
store_status db_fail(store_error *err, store_status status, const char *field, const char *format,
                     ...) __attribute__((format(printf, 4, 5)));
store_status db_fail_nomem(store_error *err);
/* The status of an extended SQLite code, and *err filled with `doing` and SQLite's own words. */
store_status db_fail_sqlite(store *s, int code, const char *doing, store_error *err);
store_status db_not_found(store_error *err, const char *what, const char *id);

/* ---- memory (mem.c): 16-byte aligned, NULL when out of memory ---- */

void *db_mem_alloc(store_mem *mem, size_t size);

/* ---- queries (query.c) ---- */

typedef struct db_query {
    store *s;
    sqlite3_stmt *stmt;
    int param, column; /* the next ones */
    int code;          /* first failure of a bind or a read */
    bool row;
} db_query;

store_status db_prepare(store *s, const char *sql, db_query *q, store_error *err);
void db_bind_int(db_query *q, int64_t value);
void db_bind_text(db_query *q, const char *text); /* NULL binds NULL; borrowed until db_finish */
void db_bind_blob(db_query *q, const void *data, size_t len);
store_status db_step(db_query *q, store_error *err);
int64_t db_int(db_query *q);
/* mem NULL: borrowed from SQLite until the next step. */
const char *db_text(db_query *q, store_mem *mem);
store_blob db_blob(db_query *q, store_mem *mem);
store_status db_finish(db_query *q, store_status status, store_error *err);
/* Steps to the end and finishes: for statements that return nothing. */
store_status db_run(db_query *q, store_error *err);
int64_t db_changes(store *s);
store_status db_exec(store *s, const char *sql, store_error *err);
/* The first column of the first row; STORE_ENOTFOUND without text when there is no row. */
store_status db_scalar(db_query *q, int64_t *out, store_error *err);
void db_cache_clear(store *s);

/* Reads at most `limit` rows of a bound query that selects limit + 1, and finishes it. */
typedef void (*db_read_row)(db_query *q, store_mem *mem, void *item);
store_status db_list(db_query *q, size_t limit, size_t item_size, db_read_row read, store_mem *mem,
                     void **items, size_t *n, bool *has_more, store_error *err);
/* Where a page begins: INT64_MIN or INT64_MAX, or what the prepared query finds; finishes it. */
store_status db_page_start(const store_page *page, int64_t *start, store_error *err);
store_status db_page_after(db_query *q, const store_page *page, int64_t *start, store_error *err);
/* A page whose `after` is a number in decimal. */
store_status db_page_number(const store_page *page, int64_t *start, store_error *err);

/* ---- writing (store.c) ---- */

store_status db_refuse_reader(store_error *err);
/* A handle without a connection, for store_close. NULL: out of memory. */
store *db_handle_new(const char *path, bool reader);
/* Keeps every other mp2 process from writing the handle's file. */
store_status db_take_lock(store *s, store_error *err);
store_status db_write_begin(store *s, store_error *err);
/* Keeps the work when status is STORE_OK, else undoes it; returns what the caller should. */
store_status db_write_end(store *s, store_status status, store_error *err);

/* ---- checks (query.c) ---- */

/* 1 … STORE_MAX_NAME bytes. */
store_status db_check_name(const char *field, const char *text, store_error *err);
/* Well-formed JSON, or NULL. */
store_status db_check_json(store *s, const char *field, const char *text, store_error *err);

/* ---- schema (schema.c) ---- */

typedef struct db_schema {
    const char *const *steps; /* step i leads from version i to i + 1 */
    int n;
} db_schema;
extern const db_schema db_current_schema;
/* Runs the steps that are missing, each in one transaction with its version number. */
store_status db_migrate(store *s, const db_schema *schema, store_error *err);
store_status db_pragma_int(store *s, const char *sql, int64_t *out, store_error *err);

/* ---- shared between areas ---- */

/* Inserts a version of a task known to exist; versions.c. */
store_status db_version_insert(store *s, int64_t task, const store_version *version,
                               int64_t *number, store_error *err);
store_status db_set_current(store *s, int64_t task, int64_t number, int64_t now, store_error *err);
/* The version columns of a query, in the order of DB_VERSION_COLUMNS. */
#define DB_VERSION_COLUMNS                                                                         \
    "v.task, v.number, v.route, v.method, v.started_from, b.model_fingerprint, "                   \
    "b.bank_fingerprint, b.bank, v.metrics, v.job, v.created, v.has_prompt, v.has_head, "          \
    "v.answer_length, v.label_scaling"
void db_read_version(db_query *q, store_mem *mem, void *item);
store_status db_task_insert(store *s, const store_task *task, int64_t *id, store_error *err);
/* STORE_ENOTFOUND unless the tenant has this task and it is not deleted. */
store_status db_task_check(store *s, int64_t tenant, int64_t id, store_error *err);
/* Into the tenant's row of the day of `now`; usage.c. */
store_status db_usage_job(store *s, int64_t tenant, int64_t now, store_error *err);
store_status db_usage_trained(store *s, int64_t job_seq, int64_t tokens, int64_t now,
                              store_error *err);
store_status db_event_insert(store *s, int64_t job_seq, const store_event *event, int64_t *seq,
                             store_error *err);

#endif
