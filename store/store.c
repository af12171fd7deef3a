/* store.c: opening and groups of writes.
 *
 * Why one writer. SQLite before 3.51.3 can damage a WAL when two connections write or checkpoint at
 * the same moment, so exactly one connection ever does either. A lock file (flock, so it ends with
 * the process) keeps a second mp2 process away; readers are opened read-only, with checkpoints off.
 *
 * Why savepoints. The server gathers many small writes into one transaction, because each commit
 * waits for the disk. A call that fails must not take its neighbours with it: each one runs in a
 * savepoint of its own. Some failures (disk full, I/O error, out of memory) make SQLite undo the
 * whole transaction; sqlite3_get_autocommit tells, and the group is then marked as aborted so that
 * nobody writes into the void after it.
 *
 * Why a hook on the log. COMMIT can report a failure (out of memory while it cleans up) after the
 * transaction reached the log. SQLite calls the hook exactly when it did, so that what is stored is
 * never reported as lost. The hook replaces SQLite's own that checkpoints, so it does that, too.
 */
#include "store/db.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define MAX_VALUE_BYTES  (512 << 20) /* of one text or blob */
#define MAX_SQL_BYTES    (64 << 10)
#define MAX_PARAMETERS   64
#define CHECKPOINT_PAGES 1000 /* of the log, before they are copied into the database */
/* Pages that a connection keeps: 4 MiB of the writer's, whose inserts fall all over the indexes, 1 MiB of a
 * reader's. The system caches the file anyway; a larger cache fills for long (0.9 MiB a minute under
 * tests/load/load.py) and looks like a leak. */
#define WRITER_PRAGMAS                                                                             \
    "PRAGMA journal_mode = WAL; PRAGMA foreign_keys = ON; PRAGMA cache_size = -4096;"              \
    "PRAGMA temp_store = MEMORY; PRAGMA journal_size_limit = 67108864;"                            \
    "PRAGMA analysis_limit = 400;"
#define READER_PRAGMAS                                                                             \
    "PRAGMA query_only = ON; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -1024;"            \
    "PRAGMA temp_store = MEMORY;"

/* Found again by their addresses, see db.h. */
static const char sql_begin[] = "BEGIN IMMEDIATE", sql_commit[] = "COMMIT",
                  sql_rollback[] = "ROLLBACK", sql_savepoint[] = "SAVEPOINT call",
                  sql_release[] = "RELEASE call", sql_rollback_to[] = "ROLLBACK TO call";

static store_status run(store *s, const char *sql, store_error *err)
{
    db_query q;
    store_status status = db_prepare(s, sql, &q, err);
    return status == STORE_OK ? db_run(&q, err) : status;
}

/* STORE_OK when the transaction reached the log, whatever COMMIT said afterwards. */
static store_status commit(store *s, store_error *err)
{
    uint64_t before = s->commits;
    store_status status = run(s, sql_commit, err);
    return s->commits != before ? STORE_OK : status;
}

/* ---- opening ----------------------------------------------------------------------------- */

store *db_handle_new(const char *path, bool reader)
{
    store *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return NULL;
    }
    s->reader = reader;
    s->lock_fd = -1;
    s->path = strdup(path);
    if (s->path == NULL) {
        free(s);
        return NULL;
    }
    return s;
}

void store_close(store *s)
{
    if (s == NULL) {
        return;
    }
    if (s->db != NULL) {
        store_rollback(s);
        db_cache_clear(s);
        sqlite3_close_v2(s->db);
    }
    if (s->lock_fd >= 0) {
        close(s->lock_fd);
    }
    free(s->path);
    free(s);
}

/* The lock file stays when the process ends: removing it would let two processes hold two of them. */
store_status db_take_lock(store *s, store_error *err)
{
    char *name = sqlite3_mprintf("%s-lock", s->path);
    if (name == NULL) {
        return db_fail_nomem(err);
    }
    store_status status = STORE_OK;
    s->lock_fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (s->lock_fd < 0) {
        status = db_fail(err, STORE_EIO, "db", "cannot open %s: %s", name, strerror(errno));
    } else if (flock(s->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        status = errno == EWOULDBLOCK
                     ? db_fail(err, STORE_EBUSY, "db",
                               "%s is in use by another mp2 process; stop it, or use its HTTP "
                               "interface",
                               s->path)
                     : db_fail(err, STORE_EIO, "db", "cannot lock %s: %s", name, strerror(errno));
    }
    sqlite3_free(name);
    return status;
}

static void harden(sqlite3 *db)
{
    static const int on[] = {SQLITE_DBCONFIG_DEFENSIVE};
    static const int off[] = {SQLITE_DBCONFIG_TRUSTED_SCHEMA, SQLITE_DBCONFIG_DQS_DML,
                              SQLITE_DBCONFIG_DQS_DDL, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION};
    for (size_t i = 0; i < sizeof on / sizeof on[0]; i++) {
        sqlite3_db_config(db, on[i], 1, NULL);
    }
    for (size_t i = 0; i < sizeof off / sizeof off[0]; i++) {
        sqlite3_db_config(db, off[i], 0, NULL);
    }
    sqlite3_limit(db, SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES);
    sqlite3_limit(db, SQLITE_LIMIT_SQL_LENGTH, MAX_SQL_BYTES);
    sqlite3_limit(db, SQLITE_LIMIT_VARIABLE_NUMBER, MAX_PARAMETERS);
    sqlite3_limit(db, SQLITE_LIMIT_ATTACHED, 0);
}

static store_status connect_file(store *s, int flags, store_error *err)
{
    int code = sqlite3_open_v2(s->path, &s->db, flags | SQLITE_OPEN_NOMUTEX, NULL);
    if (code != SQLITE_OK) {
        return db_fail(err, code == SQLITE_NOMEM ? STORE_ENOMEM : STORE_EIO, "db",
                       "cannot open %s: %s", s->path, sqlite3_errstr(code));
    }
    sqlite3_extended_result_codes(s->db, 1);
    sqlite3_busy_timeout(s->db, 5000);
    /* Nothing of a file that turns out to be somebody else's may change, its WAL included. */
    sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    harden(s->db);
    return STORE_OK;
}

/* Whose file is this, and how old? Nothing is written. */
static store_status check_identity(store *s, bool *empty, store_error *err)
{
    int64_t application = 0, version = 0, objects = 0;
    store_status status = db_pragma_int(s, "PRAGMA application_id", &application, err);
    if (status == STORE_OK) {
        status = db_pragma_int(s, "PRAGMA user_version", &version, err);
    }
    if (status == STORE_OK) {
        status = db_pragma_int(s, "SELECT count(*) FROM sqlite_schema", &objects, err);
    }
    if (status == STORE_ECORRUPT && sqlite3_errcode(s->db) == SQLITE_NOTADB) {
        return db_fail(err, STORE_EFOREIGN, "db", "%s is not a SQLite database", s->path);
    }
    if (status != STORE_OK) {
        return status;
    }
    *empty = application == 0 && version == 0 && objects == 0;
    if (!*empty && application != DB_APPLICATION_ID) {
        return db_fail(err, STORE_EFOREIGN, "db",
                       "%s is a database of another program (application id %lld); name another "
                       "file",
                       s->path, (long long)application);
    }
    if (version > db_current_schema.n) {
        return db_fail(err, STORE_ENEWER, "db",
                       "%s has schema version %lld, this mp2 knows versions up to %d; run the "
                       "newer mp2",
                       s->path, (long long)version, db_current_schema.n);
    }
    return STORE_OK;
}

static int log_written(void *arg, sqlite3 *db, const char *name, int pages)
{
    store *s = arg;
    s->commits++;
    if (pages >= CHECKPOINT_PAGES) {
        /* When it fails the log only grows; the next one tries again. */
        sqlite3_wal_checkpoint_v2(db, name, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    }
    return SQLITE_OK;
}

static store_status configure_writer(store *s, const store_options *options, store_error *err)
{
    char sql[96];
    const char *sync = options != NULL && options->sync == STORE_SYNC_NORMAL ? "NORMAL" : "FULL";
    snprintf(sql, sizeof sql, "PRAGMA synchronous = %s", sync);
    sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
    store_status status = db_exec(s, WRITER_PRAGMAS, err);
    if (status == STORE_OK) {
        status = db_exec(s, sql, err);
    }
    if (status == STORE_OK && options != NULL && options->max_pages > 0) {
        snprintf(sql, sizeof sql, "PRAGMA max_page_count = %lld", (long long)options->max_pages);
        status = db_exec(s, sql, err);
    }
    sqlite3_wal_hook(s->db, log_written, s);
    return status;
}

/* A copy beside the file before its schema changes; an older copy of the same version is kept. */
static store_status backup_before_migration(store *s, store_error *err)
{
    int64_t version = 0;
    store_status status = db_pragma_int(s, "PRAGMA user_version", &version, err);
    if (status != STORE_OK || version == 0 || version >= db_current_schema.n) {
        return status;
    }
    char *name = sqlite3_mprintf("%s.schema-%lld", s->path, (long long)version);
    if (name == NULL) {
        return db_fail_nomem(err);
    }
    if (access(name, F_OK) != 0) {
        status = store_backup(s, name, NULL, NULL, err);
    }
    sqlite3_free(name);
    return status;
}

/* Ahead of time: undoing must not need memory. */
static store_status prepare_transactions(store *s, store_error *err)
{
    static const char *const all[] = {sql_begin,     sql_commit,  sql_rollback,
                                      sql_savepoint, sql_release, sql_rollback_to};
    store_status status = STORE_OK;
    for (size_t i = 0; status == STORE_OK && i < sizeof all / sizeof all[0]; i++) {
        db_query q;
        status = db_prepare(s, all[i], &q, err);
    }
    return status;
}

static store_status open_writer(store *s, const store_options *options, store_error *err)
{
    bool empty = false;
    store_status status = db_take_lock(s, err);
    if (status == STORE_OK) {
        status = connect_file(s, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, err);
    }
    if (status == STORE_OK) {
        status = check_identity(s, &empty, err);
    }
    if (status == STORE_OK) {
        status = configure_writer(s, options, err);
    }
    if (status == STORE_OK) {
        status = backup_before_migration(s, err);
    }
    if (status == STORE_OK) {
        status = db_migrate(s, &db_current_schema, err);
    }
    return status == STORE_OK ? prepare_transactions(s, err) : status;
}

store_status store_open(const char *path, const store_options *options, store **out,
                        store_error *err)
{
    *out = NULL;
    store *s = db_handle_new(path, false);
    if (s == NULL) {
        return db_fail_nomem(err);
    }
    s->running_jobs = options != NULL ? options->running_jobs : 0;
    store_status status = open_writer(s, options, err);
    if (status != STORE_OK) {
        store_close(s);
        return status;
    }
    *out = s;
    return STORE_OK;
}

store_status store_open_reader(const char *path, store **out, store_error *err)
{
    *out = NULL;
    bool empty = false;
    store *s = db_handle_new(path, true);
    if (s == NULL) {
        return db_fail_nomem(err);
    }
    store_status status = connect_file(s, SQLITE_OPEN_READONLY, err);
    if (status == STORE_OK) {
        status = check_identity(s, &empty, err);
    }
    if (status == STORE_OK && empty) {
        status = db_fail(err, STORE_EFOREIGN, "db", "%s is empty; start mp2 serve first", path);
    }
    if (status == STORE_OK) {
        status = db_exec(s, READER_PRAGMAS, err);
    }
    if (status != STORE_OK) {
        store_close(s);
        return status;
    }
    *out = s;
    return STORE_OK;
}

const char *store_library(void)
{
    static char text[32];
    snprintf(text, sizeof text, "SQLite %s", sqlite3_libversion());
    return text;
}

/* ---- groups of writes ---------------------------------------------------------------------- */

store_status db_refuse_reader(store_error *err)
{
    return db_fail(err, STORE_EREADONLY, NULL, "this handle only reads");
}

static store_status refuse_aborted(store_error *err)
{
    return db_fail(err, STORE_EABORTED, NULL,
                   "an earlier failure undid this group of writes; try again");
}

store_status store_begin(store *s, store_error *err)
{
    if (s->reader) {
        return db_refuse_reader(err);
    }
    if (s->in_group) {
        return db_fail(err, STORE_ESTATE, NULL, "a group is open already");
    }
    store_status status = run(s, sql_begin, err);
    if (status != STORE_OK) {
        store_rollback(s);
    }
    s->in_group = status == STORE_OK;
    return status;
}

void store_rollback(store *s)
{
    if (!sqlite3_get_autocommit(s->db)) {
        (void)!run(s, sql_rollback, NULL);
    }
    s->in_group = false;
    s->aborted = false;
}

store_status store_commit(store *s, store_error *err)
{
    if (!s->in_group) {
        return db_fail(err, STORE_ESTATE, NULL, "no group is open");
    }
    if (s->aborted) {
        return refuse_aborted(err);
    }
    store_status status = commit(s, err);
    if (status != STORE_OK) {
        store_rollback(s);
    }
    s->in_group = false;
    return status;
}

store_status db_write_begin(store *s, store_error *err)
{
    if (s->reader) {
        return db_refuse_reader(err);
    }
    if (s->aborted) {
        return refuse_aborted(err);
    }
    store_status status = run(s, s->in_group ? sql_savepoint : sql_begin, err);
    if (status != STORE_OK && !s->in_group) {
        store_rollback(s);
    }
    /* A savepoint without its transaction would be a transaction of its own. */
    s->aborted = s->in_group && sqlite3_get_autocommit(s->db);
    return status;
}

static void undo(store *s)
{
    if (sqlite3_get_autocommit(s->db)) {
        s->aborted = s->in_group;
        return;
    }
    bool in_group = s->in_group;
    bool undone = in_group && run(s, sql_rollback_to, NULL) == STORE_OK &&
                  run(s, sql_release, NULL) == STORE_OK;
    if (!undone) {
        store_rollback(s);
        s->in_group = s->aborted = in_group;
    }
}

store_status db_write_end(store *s, store_status status, store_error *err)
{
    if (status == STORE_OK) {
        status = s->in_group ? run(s, sql_release, err) : commit(s, err);
    }
    if (status != STORE_OK) {
        undo(s);
    }
    return status;
}

store_status store_step_begin(store *s, store_error *err)
{
    if (!s->reader && !s->in_group) {
        return db_fail(err, STORE_ESTATE, NULL, "no group is open");
    }
    return db_write_begin(s, err);
}

store_status store_step_end(store *s, store_status status, store_error *err)
{
    return db_write_end(s, status, err);
}
