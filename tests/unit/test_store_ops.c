/* test_store_ops.c: audit rows, steps of a group, keys that end, backups beside a writer, restore. */
#include "tests/unit/store_test.h"

#include <sqlite3.h>
#include <sys/stat.h>

static store_error err;

/* ---- audit ------------------------------------------------------------------------------------- */

static void act(store *s, const char *action, const char *object)
{
    const store_audit row = {.created = 7000,
                             .tenant = "acme",
                             .key = "key_1",
                             .action = action,
                             .object = object,
                             .detail = "{\"a\":1}"};
    OK(store_audit_add(s, &row, &err));
}

static void audit(void)
{
    store *s = open_fresh(NULL);
    store_mem *mem = store_mem_new();
    store_audit *rows = NULL;
    size_t n = 0;
    bool more = false;
    act(s, "key.create", "one");
    act(s, "key.revoke", "two");
    act(s, "tenant.create", NULL);
    store_page page = {.limit = 2};
    OK(store_audit_list(s, &page, mem, &rows, &n, &more, &err));
    REQUIRE(n == 2 && more);
    CHECK_STR(rows[0].action, "tenant.create");
    CHECK(rows[0].object == NULL && rows[0].user == NULL && rows[0].id == 3);
    CHECK_STR(rows[1].object, "two");
    CHECK_STR(rows[1].detail, "{\"a\":1}");
    page.after = "2";
    OK(store_audit_list(s, &page, mem, &rows, &n, &more, &err));
    CHECK(n == 1 && !more && rows[0].id == 1);
    page = (store_page){.limit = 10, .oldest_first = true, .after = "1"};
    OK(store_audit_list(s, &page, mem, &rows, &n, &more, &err));
    CHECK(n == 2 && rows[0].id == 2);
    const store_audit wrong = {.action = "x", .detail = "{"}, nameless = {.action = ""};
    FAILS(store_audit_add(s, &wrong, &err), STORE_EINVAL);
    FAILS(store_audit_add(s, &nameless, &err), STORE_EINVAL);
    store_mem_free(mem);
    close_fresh(s);
}

/* Not even with SQL. */
static void audit_rows_stay(void)
{
    store *s = open_fresh(NULL);
    act(s, "key.create", "one");
    store_close(s);
    sqlite3 *db = NULL;
    CHECK(sqlite3_open(test_db_, &db) == SQLITE_OK);
    CHECK(sqlite3_exec(db, "UPDATE audit SET action = 'x'", NULL, NULL, NULL) != SQLITE_OK);
    CHECK(sqlite3_exec(db, "DELETE FROM audit", NULL, NULL, NULL) != SQLITE_OK);
    sqlite3_close(db);
    remove_db();
}

/* ---- steps --------------------------------------------------------------------------------------- */

static size_t audit_count(store *s)
{
    store_mem *mem = store_mem_new();
    store_audit *rows = NULL;
    size_t n = 0;
    bool more = false;
    store_page page = {.limit = 100};
    OK(store_audit_list(s, &page, mem, &rows, &n, &more, &err));
    store_mem_free(mem);
    return n;
}

static void steps(void)
{
    store *s = open_fresh(NULL);
    FAILS(store_step_begin(s, &err), STORE_ESTATE); /* outside a group */
    OK(store_begin(s, &err));
    act(s, "before", NULL);
    OK(store_step_begin(s, &err));
    act(s, "one", NULL);
    act(s, "two", NULL);
    FAILS(store_step_end(s, STORE_ELIMIT, &err), STORE_ELIMIT); /* both are undone */
    OK(store_step_begin(s, &err));
    act(s, "three", NULL);
    int64_t id = 0;
    FAILS(store_tenant_create(s, "", NULL, 1, &id, &err), STORE_EINVAL); /* only itself */
    OK(store_step_end(s, STORE_OK, &err));
    OK(store_commit(s, &err));
    CHECK_INT(audit_count(s), 2);
    close_fresh(s);
}

/* ---- keys that end ---------------------------------------------------------------------------------- */

static int64_t expiry(store *s, int64_t tenant, const char *id)
{
    store_mem *mem = store_mem_new();
    store_key key = {0};
    OK(store_key_get(s, tenant, id, mem, &key, &err));
    int64_t expires = key.expires;
    store_mem_free(mem);
    return expires;
}

static void keys_end(void)
{
    store *s = open_fresh(NULL);
    int64_t tenant = test_tenant(s, "acme"), other = test_tenant(s, "other");
    store_key key = {.id = "key_1", .tenant = tenant, .hash = {1}, .scopes = 1, .created = 5};
    OK(store_key_create(s, &key, &err));
    OK(store_key_expire(s, tenant, "key_1", 900, &err));
    CHECK_INT(expiry(s, tenant, "key_1"), 900);
    OK(store_key_expire(s, tenant, "key_1", 1200, &err)); /* never later than before */
    CHECK_INT(expiry(s, tenant, "key_1"), 900);
    OK(store_key_expire(s, tenant, "key_1", 300, &err));
    CHECK_INT(expiry(s, tenant, "key_1"), 300);
    FAILS(store_key_expire(s, other, "key_1", 1, &err), STORE_ENOTFOUND);
    FAILS(store_key_expire(s, tenant, "key_2", 1, &err), STORE_ENOTFOUND);
    close_fresh(s);
}

/* ---- backup beside a writer --------------------------------------------------------------------------- */

struct busy {
    store *writer;
    int pieces;
};

/* Writes go on while the copy is made. */
static bool write_meanwhile(void *arg, int64_t done, int64_t total)
{
    struct busy *busy = arg;
    CHECK(done <= total);
    act(busy->writer, "meanwhile", NULL);
    busy->pieces++;
    return true;
}

static bool stop_at_once(void *arg, int64_t done, int64_t total)
{
    (void)arg;
    (void)done;
    (void)total;
    return false;
}

static void fill(store *s)
{
    static char text[1 << 20];
    int64_t tenant = test_tenant(s, "full");
    memset(text, 'x', sizeof text);
    for (int i = 0; i < 20; i++) {
        char id[32];
        snprintf(id, sizeof id, "file-%d", i);
        store_file file = {.id = id,
                           .tenant = tenant,
                           .filename = "rows.jsonl",
                           .purpose = "fine-tune",
                           .status = "processed",
                           .created = 5};
        OK(store_file_create(s, &file, (store_blob){text, sizeof text}, &err));
    }
}

static void backup_beside_a_writer(void)
{
    store *s = open_fresh(NULL), *reader = NULL, *copy = NULL;
    char path[160];
    struct stat info;
    snprintf(path, sizeof path, "%s/copy.db", test_dir_);
    fill(s);
    act(s, "before", NULL);
    struct busy busy = {s, 0};
    OK(store_open_reader(test_db_, &reader, &err));
    OK(store_backup(reader, path, write_meanwhile, &busy, &err));
    CHECK(busy.pieces > 2);
    CHECK(stat(path, &info) == 0 && (info.st_mode & 0777) == 0600);
    OK(store_open_reader(path, &copy, &err));
    OK(store_check(copy, true, &err));
    CHECK_INT(audit_count(copy), 1); /* the moment it began */
    CHECK_INT(audit_count(reader), 1 + busy.pieces);
    store_close(copy);
    FAILS(store_backup(reader, path, NULL, NULL, &err), STORE_EEXISTS);
    unlink(path);
    FAILS(store_backup(reader, path, stop_at_once, NULL, &err), STORE_ESTATE);
    CHECK(access(path, F_OK) != 0);
    snprintf(path, sizeof path, "%s/copy.db.part", test_dir_);
    CHECK(access(path, F_OK) != 0);
    store_close(reader);
    close_fresh(s);
}

/* ---- restore ------------------------------------------------------------------------------------------ */

static void make_backup(store *s, char path[160])
{
    snprintf(path, 160, "%s/copy.db", test_dir_);
    OK(store_backup(s, path, NULL, NULL, &err));
}

static void restores(void)
{
    char backup[160], elsewhere[160], kept_copy[256] = "";
    store *s = open_fresh(NULL), *again = NULL, *old = NULL;
    store_mem *mem = store_mem_new();
    const char *kept = "";
    act(s, "saved", NULL);
    make_backup(s, backup);
    act(s, "later", NULL);
    FAILS(store_restore(backup, test_db_, true, mem, &kept, &err), STORE_EBUSY); /* in use */
    store_close(s);
    FAILS(store_restore(backup, test_db_, false, mem, &kept, &err), STORE_EEXISTS);
    OK(store_restore(backup, test_db_, true, mem, &kept, &err));
    REQUIRE(kept != NULL);
    snprintf(kept_copy, sizeof kept_copy, "%s", kept);
    OK(store_open(test_db_, NULL, &again, &err));
    CHECK_INT(audit_count(again), 1);
    store_close(again);
    OK(store_open_reader(kept_copy, &old, &err));
    CHECK_INT(audit_count(old), 2); /* what was replaced is whole */
    store_close(old);
    snprintf(elsewhere, sizeof elsewhere, "%s/new.db", test_dir_);
    OK(store_restore(backup, elsewhere, false, mem, &kept, &err));
    CHECK(kept == NULL);
    OK(store_open(elsewhere, NULL, &again, &err));
    CHECK_INT(audit_count(again), 1);
    store_close(again);
    store_mem_free(mem);
    remove_db();
}

/* What kill -9 left in the log belongs to what is kept. */
static void keeps_the_log_of_what_it_replaces(void)
{
    char backup[160], command[600];
    store *s = open_fresh(NULL), *old = NULL;
    store_mem *mem = store_mem_new();
    const char *kept = NULL;
    make_backup(s, backup);
    act(s, "in the log", NULL);
    /* As a crash leaves it: file and log without a close. */
    snprintf(command, sizeof command, "cp '%s' '%s/k.db' && cp '%s-wal' '%s/k.db-wal'", test_db_,
             test_dir_, test_db_, test_dir_);
    CHECK(system(command) == 0);
    snprintf(command, sizeof command, "%s/k.db", test_dir_);
    OK(store_restore(backup, command, true, mem, &kept, &err));
    REQUIRE(kept != NULL);
    OK(store_open_reader(kept, &old, &err));
    CHECK_INT(audit_count(old), 1);
    store_close(old);
    OK(store_open_reader(command, &old, &err));
    CHECK_INT(audit_count(old), 0);
    store_close(old);
    store_mem_free(mem);
    close_fresh(s);
}

static void refuses_bad_backups(void)
{
    char backup[160], bad[160];
    store *s = open_fresh(NULL), *again = NULL;
    store_mem *mem = store_mem_new();
    const char *kept = NULL;
    act(s, "mine", NULL);
    fill(s);
    make_backup(s, backup);
    store_close(s);
    snprintf(bad, sizeof bad, "%s/none.db", test_dir_);
    FAILS(store_restore(bad, test_db_, true, mem, &kept, &err), STORE_ENOTFOUND);
    snprintf(bad, sizeof bad, "%s/bad.db", test_dir_);
    FILE *file = fopen(bad, "w");
    REQUIRE(file != NULL && fputs("not a database at all", file) >= 0 && fclose(file) == 0);
    FAILS(store_restore(bad, test_db_, true, mem, &kept, &err), STORE_EFOREIGN);
    file = fopen(backup, "r+");
    REQUIRE(file != NULL && fseek(file, 5 * 4096, SEEK_SET) == 0);
    for (int i = 0; i < 3 * 4096; i++) {
        fputc(i * 7, file);
    }
    fclose(file);
    FAILS(store_restore(backup, test_db_, true, mem, &kept, &err), STORE_ECORRUPT);
    OK(store_open(test_db_, NULL, &again, &err)); /* untouched */
    CHECK_INT(audit_count(again), 1);
    store_mem_free(mem);
    close_fresh(again);
}

static void describes(void)
{
    store *s = open_fresh(NULL);
    store_mem *mem = store_mem_new();
    store_report report;
    test_tenant(s, "acme");
    act(s, "x", NULL);
    OK(store_describe(s, mem, &report, &err));
    CHECK_INT(report.application, 0x6d703264);
    CHECK_INT(report.version, store_schema_version());
    CHECK_STR(report.journal, "wal");
    CHECK(report.pages > 5 && report.page_size == 4096);
    CHECK(report.tenants == 1 && report.audit == 1 && report.keys == 0);
    store_mem_free(mem);
    close_fresh(s);
}

int main(void)
{
    TESTS_BEGIN;
    RUN(audit);
    RUN(audit_rows_stay);
    RUN(steps);
    RUN(keys_end);
    RUN(backup_beside_a_writer);
    RUN(restores);
    RUN(keeps_the_log_of_what_it_replaces);
    RUN(refuses_bad_backups);
    RUN(describes);
    TESTS_END;
}
