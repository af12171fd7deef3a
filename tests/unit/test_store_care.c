/* test_store_care.c: opening, migrations, groups of writes, readers, backup, and what happens when
 * the disk is full, an I/O call fails or an allocation fails: the right status, and nothing lost.
 *
 * I/O errors come from a VFS of our own around the system's, which fails the n-th write, sync or
 * truncate; out of memory from a wrapper of SQLite's allocator that fails the n-th call. */
#include "store/db.h"
#include "tests/unit/store_test.h"

#include <pthread.h>
#include <sys/wait.h>

/* ---- the failing VFS ----------------------------------------------------------------------- */

static long io_countdown = -1; /* the call that fails; -1: none */
static bool io_sticky;         /* and every later one */
static int io_code = SQLITE_IOERR_WRITE;
static long io_failed;

struct shim_file {
    sqlite3_file base;
    sqlite3_file *real;
};

static bool fails_now(void)
{
    if (io_countdown < 0 || (io_countdown > 0 && --io_countdown > 0)) {
        return false;
    }
    if (!io_sticky) {
        io_countdown = -1;
    }
    io_failed++;
    return true;
}

#define REAL(file) ((struct shim_file *)(file))->real

static int shim_close(sqlite3_file *f)
{
    return REAL(f)->pMethods->xClose(REAL(f));
}
static int shim_read(sqlite3_file *f, void *p, int n, sqlite3_int64 at)
{
    return REAL(f)->pMethods->xRead(REAL(f), p, n, at);
}
static int shim_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 at)
{
    return fails_now() ? io_code : REAL(f)->pMethods->xWrite(REAL(f), p, n, at);
}
static int shim_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    return fails_now() ? SQLITE_IOERR_TRUNCATE : REAL(f)->pMethods->xTruncate(REAL(f), size);
}
static int shim_sync(sqlite3_file *f, int flags)
{
    return fails_now() ? SQLITE_IOERR_FSYNC : REAL(f)->pMethods->xSync(REAL(f), flags);
}
static int shim_size(sqlite3_file *f, sqlite3_int64 *size)
{
    return REAL(f)->pMethods->xFileSize(REAL(f), size);
}
static int shim_lock(sqlite3_file *f, int lock)
{
    return REAL(f)->pMethods->xLock(REAL(f), lock);
}
static int shim_unlock(sqlite3_file *f, int lock)
{
    return REAL(f)->pMethods->xUnlock(REAL(f), lock);
}
static int shim_reserved(sqlite3_file *f, int *out)
{
    return REAL(f)->pMethods->xCheckReservedLock(REAL(f), out);
}
static int shim_control(sqlite3_file *f, int op, void *arg)
{
    return REAL(f)->pMethods->xFileControl(REAL(f), op, arg);
}
static int shim_sector(sqlite3_file *f)
{
    return REAL(f)->pMethods->xSectorSize(REAL(f));
}
static int shim_traits(sqlite3_file *f)
{
    return REAL(f)->pMethods->xDeviceCharacteristics(REAL(f));
}
static int shim_shm_map(sqlite3_file *f, int page, int size, int extend, void volatile **out)
{
    return REAL(f)->pMethods->xShmMap(REAL(f), page, size, extend, out);
}
static int shim_shm_lock(sqlite3_file *f, int at, int n, int flags)
{
    return REAL(f)->pMethods->xShmLock(REAL(f), at, n, flags);
}
static void shim_shm_barrier(sqlite3_file *f)
{
    REAL(f)->pMethods->xShmBarrier(REAL(f));
}
static int shim_shm_unmap(sqlite3_file *f, int remove)
{
    return REAL(f)->pMethods->xShmUnmap(REAL(f), remove);
}

static const sqlite3_io_methods shim_methods = {
    .iVersion = 2,
    .xClose = shim_close,
    .xRead = shim_read,
    .xWrite = shim_write,
    .xTruncate = shim_truncate,
    .xSync = shim_sync,
    .xFileSize = shim_size,
    .xLock = shim_lock,
    .xUnlock = shim_unlock,
    .xCheckReservedLock = shim_reserved,
    .xFileControl = shim_control,
    .xSectorSize = shim_sector,
    .xDeviceCharacteristics = shim_traits,
    .xShmMap = shim_shm_map,
    .xShmLock = shim_shm_lock,
    .xShmBarrier = shim_shm_barrier,
    .xShmUnmap = shim_shm_unmap,
};

static sqlite3_vfs shim_vfs;
static sqlite3_vfs *real_vfs;

static int shim_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out)
{
    (void)vfs;
    struct shim_file *shim = (struct shim_file *)file;
    shim->real = (sqlite3_file *)(shim + 1);
    int code = real_vfs->xOpen(real_vfs, name, shim->real, flags, out);
    shim->base.pMethods = shim->real->pMethods != NULL ? &shim_methods : NULL;
    return code;
}

static void install_shim(void)
{
    real_vfs = sqlite3_vfs_find(NULL);
    shim_vfs = *real_vfs;
    shim_vfs.zName = "shim";
    shim_vfs.szOsFile = (int)sizeof(struct shim_file) + real_vfs->szOsFile;
    shim_vfs.xOpen = shim_open;
    sqlite3_vfs_register(&shim_vfs, 1);
}

/* ---- the failing allocator ----------------------------------------------------------------- */

static sqlite3_mem_methods real_mem;
static long mem_countdown = -1;

static void *failing_malloc(int size)
{
    if (mem_countdown > 0 && --mem_countdown == 0) {
        mem_countdown = -1;
        return NULL;
    }
    return real_mem.xMalloc(size);
}

static void install_allocator(void)
{
    sqlite3_config(SQLITE_CONFIG_GETMALLOC, &real_mem);
    sqlite3_mem_methods methods = real_mem;
    methods.xMalloc = failing_malloc;
    sqlite3_config(SQLITE_CONFIG_MALLOC, &methods);
}

/* ---- opening ------------------------------------------------------------------------------- */

static void reopens(void)
{
    store *s = open_fresh(NULL), *second = NULL;
    store_error err = {0};
    store_mem *mem = store_mem_new();
    store_tenant tenant;
    test_tenant(s, "acme");
    FAILS(store_open(test_db_, NULL, &second, &err), STORE_EBUSY);
    CHECK(second == NULL);
    store_close(s);
    OK(store_open(test_db_, NULL, &s, &err));
    OK(store_tenant_find(s, "acme", mem, &tenant, &err));
    store_mem_free(mem);
    close_fresh(s);
}

static void run_sql(const char *path, const char *sql)
{
    sqlite3 *db = NULL;
    CHECK_INT(sqlite3_open(path, &db), SQLITE_OK);
    CHECK_INT(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void refuses_foreign_files(void)
{
    store *s = NULL;
    store_error err = {0};
    run_sql(fresh_db(), "CREATE TABLE notes (a); PRAGMA application_id = 99");
    FAILS(store_open(test_db_, NULL, &s, &err), STORE_EFOREIGN);
    FAILS(store_open_reader(test_db_, &s, &err), STORE_EFOREIGN);
    remove_db();
    run_sql(fresh_db(), "CREATE TABLE notes (a)");
    FAILS(store_open(test_db_, NULL, &s, &err), STORE_EFOREIGN);
    remove_db();
    FILE *f = fopen(fresh_db(), "w");
    REQUIRE(f != NULL);
    for (int i = 0; i < 500; i++) {
        fputs("This is a letter and not a database. ", f);
    }
    fclose(f);
    FAILS(store_open(test_db_, NULL, &s, &err), STORE_EFOREIGN);
    CHECK(strstr(err.text, "not a SQLite database") != NULL);
    remove_db();
    FAILS(store_open("/nonexistent/dir/x.db", NULL, &s, &err), STORE_EIO);
    CHECK(s == NULL && strstr(err.text, "/nonexistent") != NULL);
}

static void refuses_newer(void)
{
    store *s = open_fresh(NULL);
    store_error err = {0};
    store_close(s);
    run_sql(test_db_, "PRAGMA user_version = 1000");
    FAILS(store_open(test_db_, NULL, &s, &err), STORE_ENEWER);
    CHECK(strstr(err.text, "1000") != NULL && strstr(err.text, "newer") != NULL);
    FAILS(store_open_reader(test_db_, &s, &err), STORE_ENEWER);
    remove_db();
}

static void migrates(void)
{
    store *s = open_fresh(NULL);
    store_error err = {0};
    int64_t version = 0;
    test_tenant(s, "acme");
    enum { MOST = 64 };
    const int now = db_current_schema.n;
    const char *steps[MOST + 2];
    REQUIRE(now <= MOST);
    memcpy(steps, db_current_schema.steps, (size_t)now * sizeof steps[0]);
    steps[now] = "CREATE TABLE extra (a INTEGER) STRICT";
    steps[now + 1] = "CREATE TABLE half (a INTEGER) STRICT; INSERT INTO nowhere VALUES (1)";
    db_schema next = {steps, now + 2};
    FAILS(db_migrate(s, &next, &err), STORE_EIO);
    OK(db_pragma_int(s, "PRAGMA user_version", &version, &err));
    CHECK_INT(version, now + 1); /* the first new step stays, the second left nothing */
    int64_t tables = 0;
    OK(db_pragma_int(s,
                     "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name IN"
                     " ('extra', 'half')",
                     &tables, &err));
    CHECK_INT(tables, 1);
    steps[now + 1] = "CREATE TABLE half (a INTEGER) STRICT";
    OK(db_migrate(s, &next, &err));
    OK(db_pragma_int(s, "PRAGMA user_version", &version, &err));
    CHECK_INT(version, now + 2);
    OK(store_check(s, true, &err));
    close_fresh(s);
}

/* A database of the first schema: limits move into "quotas", rows of files are counted. */
static void migrates_from_the_first_schema(void)
{
    store *s = NULL;
    store_error err = {0};
    int64_t rows = 0;
    run_sql(fresh_db(), db_current_schema.steps[0]);
    run_sql(test_db_, "PRAGMA application_id = 1836069476; PRAGMA user_version = 1;"
                      "INSERT INTO tenants (name, settings, created) VALUES"
                      " ('a', '{\"weight\":2,\"max_inflight\":7}', 1), ('b', NULL, 1),"
                      " ('c', '{\"max_inflight\":0}', 1);"
                      "INSERT INTO files (id, tenant, filename, purpose, status, details, bytes,"
                      " sha256, created) VALUES"
                      " ('file-1', 1, 'f', 'fine-tune', 'processed', '{\"rows\":40}', 9, x'00', 1),"
                      " ('file-2', 1, 'f', 'fine-tune', 'processed', NULL, 9, x'00', 1)");
    OK(store_open(test_db_, NULL, &s, &err));
    store_mem *mem = store_mem_new();
    static const char *const want[] = {"{\"weight\":2,\"quotas\":{\"concurrent\":7}}", "", "{}"};
    for (int64_t id = 1; id <= 3; id++) {
        store_tenant tenant;
        OK(store_tenant_get(s, id, mem, &tenant, &err));
        CHECK_STR(tenant.settings != NULL ? tenant.settings : "", want[id - 1]);
    }
    OK(store_file_rows(s, 1, &rows, &err));
    CHECK_INT(rows, 40);
    OK(store_check(s, true, &err));
    store_mem_free(mem);
    close_fresh(s);
}

/* ---- groups -------------------------------------------------------------------------------- */

static void groups_keep_their_neighbours(void)
{
    store *s = open_fresh(NULL);
    store_error err = {0};
    store_mem *mem = store_mem_new();
    store_tenant tenant;
    int64_t id = 0;
    OK(store_begin(s, &err));
    FAILS(store_begin(s, &err), STORE_ESTATE);
    test_tenant(s, "one");
    FAILS(store_tenant_create(s, "one", NULL, 1, &id, &err), STORE_EEXISTS);
    store_task task = test_task(1, "t");
    store_version version = test_version("");
    FAILS(store_task_create(s, &task, &version, &id, &err), STORE_EINVAL); /* after the task row */
    test_tenant(s, "two");
    OK(store_commit(s, &err));
    FAILS(store_commit(s, &err), STORE_ESTATE);
    store_task got;
    FAILS(store_task_find(s, 1, "t", mem, &got, &err), STORE_ENOTFOUND);
    OK(store_tenant_find(s, "two", mem, &tenant, &err));
    OK(store_begin(s, &err));
    test_tenant(s, "three");
    store_rollback(s);
    FAILS(store_tenant_find(s, "three", mem, &tenant, &err), STORE_ENOTFOUND);
    OK(store_begin(s, &err));
    FAILS(store_backup(s, "/tmp/never", NULL, NULL, &err), STORE_ESTATE);
    test_tenant(s, "four");
    store_close(s); /* undoes the open group */
    OK(store_open(test_db_, NULL, &s, &err));
    FAILS(store_tenant_find(s, "four", mem, &tenant, &err), STORE_ENOTFOUND);
    store_mem_free(mem);
    close_fresh(s);
}

/* ---- readers ------------------------------------------------------------------------------- */

static void readers_only_read(void)
{
    store *s = open_fresh(NULL), *reader = NULL;
    store_error err = {0};
    store_mem *mem = store_mem_new();
    store_tenant tenant;
    int64_t id = 0;
    test_tenant(s, "acme");
    OK(store_open_reader(test_db_, &reader, &err));
    OK(store_tenant_find(reader, "acme", mem, &tenant, &err));
    FAILS(store_tenant_create(reader, "b", NULL, 1, &id, &err), STORE_EREADONLY);
    FAILS(store_begin(reader, &err), STORE_EREADONLY);
    FAILS(store_maintain(reader, &err), STORE_EREADONLY);
    OK(store_begin(s, &err));
    test_tenant(s, "later");
    FAILS(store_tenant_find(reader, "later", mem, &tenant, &err), STORE_ENOTFOUND);
    OK(store_commit(s, &err));
    OK(store_tenant_find(reader, "later", mem, &tenant, &err));
    store_close(reader);
    FAILS(store_open_reader("/tmp/mp2-no-such.db", &reader, &err), STORE_EIO);
    CHECK(reader == NULL);
    store_mem_free(mem);
    close_fresh(s);
}

struct reading {
    const char *path;
    volatile bool *stop;
    int reads, wrong;
};

static void *read_on(void *arg)
{
    struct reading *r = arg;
    store *reader = NULL;
    store_error err = {0};
    store_mem *mem = store_mem_new();
    if (store_open_reader(r->path, &reader, &err) != STORE_OK) {
        r->wrong++;
    }
    while (reader != NULL && !__atomic_load_n(r->stop, __ATOMIC_ACQUIRE)) {
        store_page page = {.limit = 10};
        store_tenant *items;
        size_t n;
        bool more;
        if (store_tenant_list(reader, &page, mem, &items, &n, &more, &err) != STORE_OK) {
            r->wrong++;
        }
        r->reads++;
        store_mem_reset(mem);
    }
    store_close(reader);
    store_mem_free(mem);
    return NULL;
}

static void readers_beside_the_writer(void)
{
    store *s = open_fresh(NULL);
    volatile bool stop = false;
    struct reading reading[2] = {{test_db_, &stop, 0, 0}, {test_db_, &stop, 0, 0}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, read_on, &reading[i]) == 0);
    }
    for (int i = 0; i < 300; i++) {
        char name[24];
        snprintf(name, sizeof name, "tenant-%d", i);
        test_tenant(s, name);
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELEASE);
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        CHECK_INT(reading[i].wrong, 0);
        CHECK(reading[i].reads > 0);
    }
    close_fresh(s);
}

/* ---- statements ---------------------------------------------------------------------------- */

static void statements_are_reused(void)
{
    store *s = open_fresh(NULL);
    store_error err = {0};
    store_mem *mem = store_mem_new();
    store_tenant tenant;
    test_tenant(s, "a");
    OK(store_tenant_find(s, "a", mem, &tenant, &err));
    size_t before = s->cached;
    for (int i = 0; i < 50; i++) {
        OK(store_tenant_find(s, "a", mem, &tenant, &err));
        store_mem_reset(mem);
    }
    CHECK_INT(s->cached, before);
    store_mem_free(mem);
    close_fresh(s);
}

/* ---- backup and checks --------------------------------------------------------------------- */

static bool stop_at_once(void *arg, int64_t done, int64_t total)
{
    (void)done;
    (void)total;
    ++*(int *)arg;
    return false;
}

static void backs_up(void)
{
    store *s = open_fresh(NULL), *copy = NULL;
    store_error err = {0};
    store_mem *mem = store_mem_new();
    store_tenant tenant;
    char path[200], part[220];
    test_tenant(s, "acme");
    snprintf(path, sizeof path, "%s/copy.db", test_dir_);
    snprintf(part, sizeof part, "%s.part", path);
    int calls = 0;
    OK(store_backup(s, path, NULL, NULL, &err));
    CHECK(access(part, F_OK) != 0);
    FAILS(store_backup(s, path, stop_at_once, &calls, &err), STORE_EEXISTS);
    CHECK_INT(calls, 0);
    test_tenant(s, "later");
    OK(store_open(path, NULL, &copy, &err));
    OK(store_tenant_find(copy, "acme", mem, &tenant, &err));
    FAILS(store_tenant_find(copy, "later", mem, &tenant, &err), STORE_ENOTFOUND);
    OK(store_check(copy, true, &err));
    store_close(copy);
    FAILS(store_backup(s, "/nonexistent/copy.db", NULL, NULL, &err), STORE_EIO);
    OK(store_maintain(s, &err));
    OK(store_check(s, false, &err));
    store_mem_free(mem);
    close_fresh(s);
}

static void finds_damage(void)
{
    store *s = open_fresh(NULL);
    store_error err = {0};
    for (int i = 0; i < 400; i++) {
        char name[24];
        snprintf(name, sizeof name, "tenant-%d", i);
        test_tenant(s, name);
    }
    store_close(s);
    FILE *f = fopen(test_db_, "r+");
    REQUIRE(f != NULL);
    for (long page = 2; page < 40; page++) {
        fseek(f, page * 4096 + 8, SEEK_SET);
        fputs("damage damage damage", f);
    }
    fclose(f);
    store_status status = store_open(test_db_, NULL, &s, &err);
    if (status == STORE_OK) {
        FAILS(store_check(s, true, &err), STORE_ECORRUPT);
        CHECK(err.text[0] != '\0');
    } else {
        CHECK_INT(status, STORE_ECORRUPT);
    }
    store_close(s);
    remove_db();
}

static void finds_broken_references(void)
{
    store *s = open_fresh(NULL);
    store_error err = {0};
    store_close(s);
    run_sql(test_db_, "PRAGMA foreign_keys = OFF; INSERT INTO usage VALUES (5, 1, 1, 1, 1, 1, 1)");
    OK(store_open(test_db_, NULL, &s, &err));
    OK(store_check(s, false, &err));
    FAILS(store_check(s, true, &err), STORE_ECORRUPT);
    CHECK(strstr(err.text, "usage") != NULL);
    close_fresh(s);
}

static void history_stays(void)
{
    store *s = open_fresh(NULL);
    store_error err = {0};
    int64_t a = test_tenant(s, "a"), id = 0;
    store_task task = test_task(a, "t");
    store_version version = test_version("route");
    store_event event = {.level = "info", .type = "message", .message = "x"};
    OK(store_task_create(s, &task, &version, &id, &err));
    test_file(s, a, "f");
    store_job job = test_job(a, "j", "f");
    OK(store_job_create(s, &job, &err));
    OK(store_event_add(s, a, "j", &event, NULL, &err));
    FAILS(db_exec(s, "UPDATE task_versions SET route = x'00'", &err), STORE_ESTATE);
    CHECK(strstr(err.text, "never changes") != NULL);
    FAILS(db_exec(s, "UPDATE job_events SET message = ''", &err), STORE_ESTATE);
    close_fresh(s);
}

/* ---- faults -------------------------------------------------------------------------------- */

static void disk_full(void)
{
    store_options options = {.max_pages = 100};
    store *s = open_fresh(&options);
    store_error err = {0};
    store_mem *mem = store_mem_new();
    int64_t a = test_tenant(s, "a"), files_before = 0, files = 0, bytes = 0;
    static unsigned char data[8192];
    store_status status = STORE_OK;
    int stored = 0;
    while (status == STORE_OK && stored < 1000) {
        char id[24];
        snprintf(id, sizeof id, "file-%d", stored);
        store_file file = {.id = id,
                           .tenant = a,
                           .filename = "f",
                           .purpose = "p",
                           .status = "processed",
                           .created = 1};
        status = store_file_create(s, &file, (store_blob){data, sizeof data}, &err);
        stored += status == STORE_OK;
    }
    CHECK_INT(status, STORE_EFULL);
    CHECK(strstr(err.text, "space") != NULL);
    OK(store_file_totals(s, a, &files_before, &bytes, &err));
    CHECK_INT(files_before, stored);
    /* In a group: the one that does not fit is undone (or the whole group is, and says so). */
    OK(store_begin(s, &err));
    store_file file = {
        .id = "x", .tenant = a, .filename = "f", .purpose = "p", .status = "processed"};
    FAILS(store_file_create(s, &file, (store_blob){data, sizeof data}, &err), STORE_EFULL);
    if (s->aborted) {
        FAILS(store_tenant_update(s, a, "{}", 0, &err), STORE_EABORTED);
        FAILS(store_commit(s, &err), STORE_EABORTED);
        store_rollback(s);
    } else {
        OK(store_tenant_update(s, a, "{}", 0, &err));
        OK(store_commit(s, &err));
    }
    OK(store_file_delete(s, a, "file-0", &err)); /* room again */
    OK(store_file_delete(s, a, "file-1", &err));
    OK(store_file_create(s, &file, (store_blob){data, sizeof data}, &err));
    OK(store_file_totals(s, a, &files, &bytes, &err));
    CHECK_INT(files, files_before - 1);
    OK(store_check(s, true, &err));
    store_mem_free(mem);
    close_fresh(s);
}

/* One pass of writes, some in a group; returns how many tenants it was told are stored. */
static int write_some(store *s, int round, store_status *worst)
{
    store_error err = {0};
    int stored = 0, in_group = 0;
    char name[32];
    int64_t id;
    snprintf(name, sizeof name, "single-%d", round);
    store_status status = store_tenant_create(s, name, NULL, 1, &id, &err);
    stored += status == STORE_OK;
    *worst = status;
    status = store_begin(s, &err);
    for (int i = 0; status == STORE_OK && i < 3; i++) {
        snprintf(name, sizeof name, "group-%d-%d", round, i);
        store_status each = store_tenant_create(s, name, NULL, 1, &id, &err);
        in_group += each == STORE_OK;
        *worst = each != STORE_OK ? each : *worst;
    }
    if (status == STORE_OK) {
        status = store_commit(s, &err);
    }
    if (status == STORE_OK) {
        stored += in_group;
    } else {
        store_rollback(s);
        *worst = *worst != STORE_OK ? *worst : status;
    }
    return stored;
}

static int count_tenants(store *s)
{
    store_error err = {0};
    int64_t n = -1;
    OK(db_pragma_int(s, "SELECT count(*) FROM tenants", &n, &err));
    return (int)n;
}

/* Fails the n-th write call for every n, opens again, and counts. */
static void io_errors(void)
{
    static const int codes[] = {SQLITE_IOERR_WRITE, SQLITE_FULL};
    static const store_status wants[] = {STORE_EIO, STORE_EFULL};
    install_shim();
    for (int sticky = 0; sticky < 2; sticky++) {
        for (size_t kind = 0; kind < 2; kind++) {
            bool failed = true;
            for (int n = 1; failed && n < 200; n++) {
                store *s = open_fresh(NULL);
                store_error err = {0};
                store_status worst = STORE_OK;
                int stored = write_some(s, 0, &worst);
                io_countdown = n;
                io_sticky = sticky != 0;
                io_code = codes[kind];
                io_failed = 0;
                stored += write_some(s, 1, &worst);
                failed = io_failed > 0;
                io_countdown = -1;
                if (failed) {
                    CHECK(worst == wants[kind] || worst == STORE_EIO || worst == STORE_EABORTED);
                }
                stored += write_some(s, 2, &worst);
                CHECK_INT(worst, STORE_OK); /* the fault is over: writing goes on */
                CHECK_INT(count_tenants(s), stored);
                store_close(s);
                OK(store_open(test_db_, NULL, &s, &err));
                CHECK_INT(count_tenants(s), stored);
                OK(store_check(s, true, &err));
                close_fresh(s);
                CHECK(n > 1 || failed);
            }
            CHECK(!failed); /* every call was reached */
        }
    }
    sqlite3_vfs_unregister(&shim_vfs);
}

static void out_of_memory(void)
{
    bool failed = true;
    int seen = 0;
    for (int n = 1; failed && n < 3000; n++) {
        store *s = open_fresh(NULL);
        store_error err = {0};
        store_status worst = STORE_OK;
        mem_countdown = n;
        int stored = write_some(s, 1, &worst);
        failed = mem_countdown < 0;
        mem_countdown = -1;
        if (failed && worst != STORE_OK) {
            CHECK(worst == STORE_ENOMEM || worst == STORE_EABORTED);
            seen++;
        }
        CHECK_INT(count_tenants(s), stored);
        stored += write_some(s, 2, &worst);
        CHECK_INT(worst, STORE_OK);
        CHECK_INT(count_tenants(s), stored);
        OK(store_check(s, true, &err));
        close_fresh(s);
    }
    CHECK(!failed);
    CHECK(seen > 10);
}

int main(void)
{
    install_allocator();
    TESTS_BEGIN;
    RUN(reopens);
    RUN(refuses_foreign_files);
    RUN(refuses_newer);
    RUN(migrates);
    RUN(migrates_from_the_first_schema);
    RUN(groups_keep_their_neighbours);
    RUN(readers_only_read);
    RUN(readers_beside_the_writer);
    RUN(statements_are_reused);
    RUN(backs_up);
    RUN(finds_damage);
    RUN(finds_broken_references);
    RUN(history_stays);
    RUN(disk_full);
    RUN(io_errors);
    RUN(out_of_memory);
    TESTS_END;
}
