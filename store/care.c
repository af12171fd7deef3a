/* care.c: backup, restore, checks, maintenance.
 *
 * A backup beside a running server reads through a handle of its own inside one read transaction: it
 * sees one moment, holds up no writer and never checkpoints. Only the log cannot shrink meanwhile.
 * SQLite's own way, copying through the writer's connection, would hold up the store thread piece by
 * piece and start over whenever a group is undone.
 */
#include "store/db.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BACKUP_PAGES 2000 /* 8 MB between two looks whether to go on */

/* ---- backup -------------------------------------------------------------------------------- */

static store_status sync_path(const char *path, int flags, store_error *err)
{
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0) {
        int saved = errno;
        if (fd >= 0) {
            close(fd);
        }
        return db_fail(err, STORE_EIO, "path", "cannot sync %s: %s", path, strerror(saved));
    }
    close(fd);
    return STORE_OK;
}

static store_status copy_pages(store *s, sqlite3 *to,
                               bool (*going)(void *arg, int64_t done, int64_t total), void *arg,
                               store_error *err)
{
    sqlite3_backup *backup = sqlite3_backup_init(to, "main", s->db, "main");
    if (backup == NULL) {
        return db_fail_sqlite(NULL, sqlite3_extended_errcode(to), "cannot start a backup", err);
    }
    int code = SQLITE_OK;
    bool stopped = false;
    while (code == SQLITE_OK && !stopped) {
        code = sqlite3_backup_step(backup, BACKUP_PAGES);
        int64_t total = sqlite3_backup_pagecount(backup);
        stopped = going != NULL && !going(arg, total - sqlite3_backup_remaining(backup), total);
    }
    sqlite3_backup_finish(backup);
    if (code == SQLITE_DONE) {
        return STORE_OK;
    }
    return stopped ? db_fail(err, STORE_ESTATE, "path", "the backup was stopped")
                   : db_fail_sqlite(NULL, code, "the backup failed", err);
}

/* One moment for all pieces: a read transaction, begun by reading. */
static store_status copy_snapshot(store *s, sqlite3 *to,
                                  bool (*going)(void *arg, int64_t done, int64_t total), void *arg,
                                  store_error *err)
{
    int64_t objects = 0;
    store_status status = db_exec(s, "BEGIN", err);
    if (status != STORE_OK) {
        return status;
    }
    status = db_pragma_int(s, "SELECT count(*) FROM sqlite_schema", &objects, err);
    if (status == STORE_OK) {
        status = copy_pages(s, to, going, arg, err);
    }
    sqlite3_exec(s->db, "COMMIT", NULL, NULL, NULL);
    return status;
}

/* SQLite would make it readable for all that umask lets. */
static store_status make_private(const char *path, store_error *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return db_fail(err, STORE_EIO, "path", "cannot make %s: %s", path, strerror(errno));
    }
    close(fd);
    return STORE_OK;
}

static store_status backup_to(store *s, const char *part,
                              bool (*going)(void *arg, int64_t done, int64_t total), void *arg,
                              store_error *err)
{
    sqlite3 *to = NULL;
    store_status status = make_private(part, err);
    if (status != STORE_OK) {
        return status;
    }
    int code = sqlite3_open_v2(part, &to, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    if (code != SQLITE_OK) {
        status = db_fail_sqlite(NULL, code, "cannot make the backup file", err);
    } else {
        status =
            s->reader ? copy_snapshot(s, to, going, arg, err) : copy_pages(s, to, going, arg, err);
    }
    if (sqlite3_close(to) != SQLITE_OK && status == STORE_OK) {
        status = db_fail(err, STORE_EIO, "path", "cannot close %s", part);
    }
    return status == STORE_OK ? sync_path(part, O_RDONLY, err) : status;
}

/* The folder that holds `path`: its new name is on disk, too. */
static store_status sync_folder(const char *path, store_error *err)
{
    char *copy = strdup(path);
    if (copy == NULL) {
        return db_fail_nomem(err);
    }
    store_status status = sync_path(dirname(copy), O_RDONLY | O_DIRECTORY, err);
    free(copy);
    return status;
}

/* link() and not rename(): it fails when somebody made `path` meanwhile. */
static store_status put_in_place(const char *part, const char *path, store_error *err)
{
    if (link(part, path) != 0) {
        return db_fail(err, errno == EEXIST ? STORE_EEXISTS : STORE_EIO, "path",
                       "cannot write %s: %s", path, strerror(errno));
    }
    return sync_folder(path, err);
}

store_status store_backup(store *s, const char *path,
                          bool (*going)(void *arg, int64_t done, int64_t total), void *arg,
                          store_error *err)
{
    if (s->in_group) {
        return db_fail(err, STORE_ESTATE, NULL, "a group is open; commit it first");
    }
    if (access(path, F_OK) == 0) {
        return db_fail(err, STORE_EEXISTS, "path", "%s exists already; name another file", path);
    }
    char *part = sqlite3_mprintf("%s.part", path);
    if (part == NULL) {
        return db_fail_nomem(err);
    }
    unlink(part); /* left by a crash */
    store_status status = backup_to(s, part, going, arg, err);
    if (status == STORE_OK) {
        status = put_in_place(part, path, err);
    }
    unlink(part);
    sqlite3_free(part);
    return status;
}

/* ---- restore ------------------------------------------------------------------------------- */

/* What the old database's log holds goes into its file, so that the file alone is all of it. A damaged
 * one may fail: its log is then moved along. */
static void empty_log(const char *path)
{
    sqlite3 *db = NULL;
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK) {
        sqlite3_wal_checkpoint_v2(db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    }
    sqlite3_close(db);
}

static store_status move_aside(const char *path, const char *aside, const char *suffix,
                               store_error *err)
{
    char *from = sqlite3_mprintf("%s%s", path, suffix);
    char *to = sqlite3_mprintf("%s%s", aside, suffix);
    store_status status = from == NULL || to == NULL ? db_fail_nomem(err) : STORE_OK;
    if (status == STORE_OK && rename(from, to) != 0 && errno != ENOENT) {
        status = db_fail(err, STORE_EIO, "db", "cannot move %s: %s", from, strerror(errno));
    }
    sqlite3_free(from);
    sqlite3_free(to);
    return status;
}

/* The old file gets a second name; then one rename() puts the new one in its place: at no moment is
 * there no database. Its log must be gone before, or it would be taken for the new one's. */
static store_status swap(const char *part, const char *path, const char *aside, store_error *err)
{
    empty_log(path);
    store_status status = move_aside(path, aside, "-wal", err);
    if (status == STORE_OK) {
        status = move_aside(path, aside, "-shm", err);
    }
    if (status == STORE_OK && link(path, aside) != 0) {
        status = db_fail(err, STORE_EIO, "db", "cannot keep %s: %s", path, strerror(errno));
    }
    if (status == STORE_OK && rename(part, path) != 0) {
        status = db_fail(err, STORE_EIO, "db", "cannot write %s: %s", path, strerror(errno));
    }
    return status;
}

/* A whole and good backup as `part`. */
static store_status copy_checked(const char *backup, const char *part, store_error *err)
{
    store *s = NULL;
    store_status status = access(backup, R_OK) == 0
                              ? store_open_reader(backup, &s, err)
                              : db_fail(err, STORE_ENOTFOUND, "backup", "cannot read %s: %s",
                                        backup, strerror(errno));
    if (status == STORE_OK) {
        status = store_check(s, true, err);
    }
    if (status == STORE_OK) {
        unlink(part); /* left by a crash */
        status = store_backup(s, part, NULL, NULL, err);
    }
    store_close(s);
    return status;
}

static char *aside_name(const char *path)
{
    char stamp[32];
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", &utc);
    return sqlite3_mprintf("%s.before-%s", path, stamp);
}

/* With the lock of `path` held. */
static store_status restore_locked(const char *backup, const char *path, bool replace,
                                   store_mem *mem, const char **kept, store_error *err)
{
    bool exists = access(path, F_OK) == 0;
    char *part = sqlite3_mprintf("%s.restored", path), *aside = aside_name(path);
    store_status status = part == NULL || aside == NULL ? db_fail_nomem(err) : STORE_OK;
    if (status == STORE_OK && exists && !replace) {
        status = db_fail(err, STORE_EEXISTS, "db", "there is a database at %s already", path);
    }
    if (status == STORE_OK) {
        status = copy_checked(backup, part, err);
    }
    if (status == STORE_OK && !exists) {
        status = put_in_place(part, path, err);
        unlink(part);
    } else if (status == STORE_OK) {
        char *copy = db_mem_alloc(mem, strlen(aside) + 1);
        status = copy != NULL ? swap(part, path, aside, err) : db_fail_nomem(err);
        if (status == STORE_OK) {
            memcpy(copy, aside, strlen(aside) + 1);
            *kept = copy;
            status = sync_folder(path, err);
        }
    }
    sqlite3_free(part);
    sqlite3_free(aside);
    return status;
}

store_status store_restore(const char *backup, const char *path, bool replace, store_mem *mem,
                           const char **kept, store_error *err)
{
    *kept = NULL;
    store *holder = db_handle_new(path, false);
    if (holder == NULL) {
        return db_fail_nomem(err);
    }
    store_status status = db_take_lock(holder, err);
    if (status == STORE_OK) {
        status = restore_locked(backup, path, replace, mem, kept, err);
    }
    store_close(holder);
    return status;
}

/* ---- checks -------------------------------------------------------------------------------- */

store_status store_describe(store *s, store_mem *mem, store_report *out, store_error *err)
{
    const struct {
        const char *sql;
        int64_t *number;
    } numbers[] = {{"PRAGMA application_id", &out->application},
                   {"PRAGMA user_version", &out->version},
                   {"PRAGMA page_size", &out->page_size},
                   {"PRAGMA page_count", &out->pages},
                   {"SELECT count(*) FROM tenants", &out->tenants},
                   {"SELECT count(*) FROM api_keys", &out->keys},
                   {"SELECT count(*) FROM tasks", &out->tasks},
                   {"SELECT count(*) FROM task_versions", &out->versions},
                   {"SELECT count(*) FROM files", &out->files},
                   {"SELECT count(*) FROM jobs", &out->jobs},
                   {"SELECT count(*) FROM job_events", &out->events},
                   {"SELECT count(*) FROM audit", &out->audit}};
    *out = (store_report){0};
    store_status status = STORE_OK;
    for (size_t i = 0; status == STORE_OK && i < sizeof numbers / sizeof numbers[0]; i++) {
        bool later = out->version < 3 && numbers[i].number == &out->audit; /* no such table yet */
        status = later ? STORE_OK : db_pragma_int(s, numbers[i].sql, numbers[i].number, err);
    }
    db_query q;
    if (status == STORE_OK) {
        status = db_prepare(s, "PRAGMA journal_mode", &q, err);
    }
    if (status != STORE_OK) {
        return status;
    }
    status = db_step(&q, err);
    out->journal = status == STORE_OK && q.row ? db_text(&q, mem) : NULL;
    return db_finish(&q, status, err);
}

static store_status run_check(store *s, const char *sql, store_error *err)
{
    sqlite3_stmt *stmt = NULL;
    int code = sqlite3_prepare_v2(s->db, sql, -1, &stmt, NULL);
    if (code == SQLITE_OK) {
        code = sqlite3_step(stmt);
    }
    store_status status = STORE_OK;
    if (code == SQLITE_ROW) {
        const char *said = (const char *)sqlite3_column_text(stmt, 0);
        if (said == NULL || strcmp(said, "ok") != 0) {
            status = db_fail(err, STORE_ECORRUPT, "db", "%s: %s; restore a backup", s->path,
                             said != NULL ? said : "no answer");
        }
    } else if (code != SQLITE_DONE) {
        status = db_fail_sqlite(s, code, "cannot check the database", err);
    }
    sqlite3_finalize(stmt);
    return status;
}

store_status store_check(store *s, bool full, store_error *err)
{
    store_status status =
        run_check(s, full ? "PRAGMA integrity_check(1)" : "PRAGMA quick_check(1)", err);
    if (status == STORE_OK && full) {
        /* A row is a broken reference; the first column names its table. */
        status = run_check(s, "PRAGMA foreign_key_check", err);
    }
    return status;
}

/* ---- maintenance --------------------------------------------------------------------------- */

store_status store_maintain(store *s, store_error *err)
{
    if (s->reader) {
        return db_refuse_reader(err);
    }
    if (s->in_group) {
        return db_fail(err, STORE_ESTATE, NULL, "a group is open; commit it first");
    }
    store_status status = db_exec(s, "PRAGMA optimize", err);
    /* A reader in the middle of a transaction makes this partial, which is fine. */
    int code = sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    if (status == STORE_OK && code != SQLITE_OK && code != SQLITE_BUSY) {
        status = db_fail_sqlite(s, code, "cannot shorten the log", err);
    }
    return status;
}
