/* crash_store.c: kill -9 at any moment loses nothing that was acknowledged and leaves nothing half.
 *
 * A child writes in a loop (pairs of tenants in groups, files, jobs that are claimed and published)
 * and, after each commit, sends what it was told is stored through a pipe. The parent kills it after
 * a random time, opens the database, and checks: what was acknowledged is there, pairs are whole,
 * every succeeded job has its version and every version its job, and the file is sound. */
#include "store/store.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS      120
#define MAX_SECONDS 45
#define FILE_BYTES  30000

static char dir[64], db[128];

enum kind { ACK_PAIR, ACK_FILE, ACK_QUEUED, ACK_PUBLISHED, ACK_DELETED };

struct ack {
    int32_t kind, number;
};

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- the child ----------------------------------------------------------------------------- */

static void acknowledge(int pipe_fd, enum kind kind, int number)
{
    struct ack ack = {(int32_t)kind, number};
    if (write(pipe_fd, &ack, sizeof ack) != (ssize_t)sizeof ack) {
        _exit(3);
    }
}

static bool make_pair(store *s, int n)
{
    char name[40];
    int64_t id;
    if (store_begin(s, NULL) != STORE_OK) {
        return false;
    }
    bool good = true;
    for (int half = 0; half < 2; half++) {
        snprintf(name, sizeof name, "pair-%d-%c", n, "ab"[half]);
        good = store_tenant_create(s, name, NULL, 1, &id, NULL) == STORE_OK && good;
    }
    if (!good) {
        store_rollback(s);
        return false;
    }
    return store_commit(s, NULL) == STORE_OK;
}

static void fill(unsigned char *data, int n)
{
    for (size_t i = 0; i < FILE_BYTES; i++) {
        data[i] = (unsigned char)((unsigned)n * 31u + i * 7u);
    }
}

static bool make_file(store *s, int n)
{
    static unsigned char data[FILE_BYTES];
    char id[40];
    snprintf(id, sizeof id, "file-%d", n);
    fill(data, n);
    store_file file = {
        .id = id, .tenant = 1, .filename = "f", .purpose = "p", .status = "processed"};
    return store_file_create(s, &file, (store_blob){data, sizeof data}, NULL) == STORE_OK;
}

static bool make_job(store *s, int n)
{
    char id[40], file[40];
    snprintf(id, sizeof id, "job-%d", n);
    snprintf(file, sizeof file, "file-%d", n);
    store_job job = {.id = id,
                     .tenant = 1,
                     .status = STORE_JOB_QUEUED,
                     .model = "m",
                     .spec = "{}",
                     .training_file = file,
                     .task_name = id};
    return store_job_create(s, &job, NULL) == STORE_OK;
}

/* Claims whatever is next and publishes it; its number, or -1. */
static int publish_next(store *s, store_mem *mem)
{
    static const float route[8] = {1, 2, 3};
    store_job job;
    int64_t task, number;
    if (store_job_claim(s, "child", 1, 2, mem, &job, NULL) != STORE_OK) {
        return -1;
    }
    store_task made = {.type = "classification", .labels = "[\"a\",\"b\"]"};
    store_version version = {.route = {route, sizeof route},
                             .prompt = {route, sizeof route},
                             .method = "route",
                             .model_fingerprint = "f",
                             .bank_fingerprint = "g",
                             .bank = "b"};
    store_event event = {.level = "info", .type = "message", .message = "done"};
    if (store_job_publish(s, job.id, "child", &made, &version, NULL, "{}", 5, &event, 9, &task,
                          &number, NULL) != STORE_OK) {
        return -1;
    }
    return (int)strtol(job.id + 4, NULL, 10);
}

static void child(int pipe_fd, int round)
{
    store *s = NULL;
    store_recovered recovered;
    store_mem *mem = store_mem_new();
    if (mem == NULL || store_open(db, NULL, &s, NULL) != STORE_OK ||
        store_jobs_recover(s, INT64_MAX, 1000, NULL, 1, &recovered, NULL) != STORE_OK) {
        _exit(4);
    }
    for (int n = round * 100000;; n++) {
        if (!make_pair(s, n)) {
            _exit(5);
        }
        acknowledge(pipe_fd, ACK_PAIR, n);
        if (!make_file(s, n)) {
            _exit(6);
        }
        acknowledge(pipe_fd, ACK_FILE, n);
        if (!make_job(s, n)) {
            _exit(7);
        }
        acknowledge(pipe_fd, ACK_QUEUED, n);
        int done = publish_next(s, mem);
        if (done < 0) {
            _exit(8);
        }
        acknowledge(pipe_fd, ACK_PUBLISHED, done);
        char id[40];
        snprintf(id, sizeof id, "file-%d", done);
        if (done % 2 == 0 && store_file_delete(s, 1, id, NULL) == STORE_OK) {
            acknowledge(pipe_fd, ACK_DELETED, done);
        }
        store_mem_reset(mem);
    }
}

/* ---- the parent ---------------------------------------------------------------------------- */

struct acks {
    struct ack *items;
    size_t n, capacity;
};

static void collect(struct acks *acks, int fd)
{
    struct ack ack;
    while (read(fd, &ack, sizeof ack) == (ssize_t)sizeof ack) {
        if (acks->n == acks->capacity) {
            size_t capacity = acks->capacity == 0 ? 4096 : acks->capacity * 2;
            struct ack *more = realloc(acks->items, capacity * sizeof *more);
            if (more == NULL) {
                abort();
            }
            acks->items = more;
            acks->capacity = capacity;
        }
        acks->items[acks->n++] = ack;
    }
}

static bool deleted_later(const struct acks *acks, int number)
{
    for (size_t i = 0; i < acks->n; i++) {
        if (acks->items[i].kind == ACK_DELETED && acks->items[i].number == number) {
            return true;
        }
    }
    return false;
}

static void check_file(store *s, store_mem *mem, int n)
{
    static unsigned char want[FILE_BYTES];
    char id[40];
    store_blob data;
    snprintf(id, sizeof id, "file-%d", n);
    store_status status = store_file_data(s, 1, id, mem, &data, NULL);
    /* The last delete may have been stored without an acknowledgement. */
    if (status == STORE_ENOTFOUND && n % 2 == 0) {
        return;
    }
    CHECK_INT(status, STORE_OK);
    fill(want, n);
    CHECK(status == STORE_OK && data.len == sizeof want && memcmp(data.data, want, data.len) == 0);
}

static void check_ack(store *s, store_mem *mem, const struct acks *acks, const struct ack *ack)
{
    char id[40];
    store_tenant tenant;
    store_job job;
    store_file file;
    switch (ack->kind) {
    case ACK_PAIR:
        snprintf(id, sizeof id, "pair-%d-a", ack->number);
        CHECK_INT(store_tenant_find(s, id, mem, &tenant, NULL), STORE_OK);
        break;
    case ACK_FILE:
        if (!deleted_later(acks, ack->number)) {
            check_file(s, mem, ack->number);
        }
        break;
    case ACK_DELETED:
        snprintf(id, sizeof id, "file-%d", ack->number);
        CHECK_INT(store_file_get(s, 1, id, mem, &file, NULL), STORE_ENOTFOUND);
        break;
    default:
        snprintf(id, sizeof id, "job-%d", ack->number);
        CHECK_INT(store_job_get(s, 1, id, mem, &job, NULL), STORE_OK);
        if (ack->kind == ACK_PUBLISHED) {
            CHECK(job.status == STORE_JOB_SUCCEEDED && job.task != 0 && job.version == 1);
        }
        break;
    }
}

/* Questions whose answer is 0 in a database where nothing is half. */
static void check_whole(void)
{
    static const char *const questions[] = {
        "SELECT count(*) FROM tenants a WHERE name LIKE 'pair-%-a' AND NOT EXISTS (SELECT 1 FROM"
        " tenants b WHERE b.name = substr(a.name, 1, length(a.name) - 1) || 'b')",
        "SELECT count(*) FROM jobs j WHERE status = 'succeeded' AND NOT EXISTS (SELECT 1 FROM"
        " task_versions v JOIN tasks t ON t.id = v.task WHERE v.job = j.id AND t.id = j.task"
        " AND t.current = v.number)",
        "SELECT count(*) FROM task_versions v WHERE NOT EXISTS (SELECT 1 FROM jobs j"
        " WHERE j.id = v.job AND j.status = 'succeeded')",
        "SELECT count(*) FROM tasks WHERE current IS NULL",
        "SELECT count(*) FROM task_versions v WHERE NOT EXISTS (SELECT 1 FROM version_blobs x"
        " WHERE x.version = v.id)",
        "SELECT count(*) FROM jobs j WHERE status = 'succeeded' AND NOT EXISTS (SELECT 1 FROM"
        " job_events e WHERE e.job = j.seq)",
        "SELECT count(*) FROM files f WHERE NOT EXISTS (SELECT 1 FROM file_data d"
        " WHERE d.file = f.seq)",
    };
    sqlite3 *raw = NULL;
    REQUIRE(sqlite3_open_v2(db, &raw, SQLITE_OPEN_READONLY, NULL) == SQLITE_OK);
    for (size_t i = 0; i < sizeof questions / sizeof questions[0]; i++) {
        sqlite3_stmt *stmt = NULL;
        CHECK_INT(sqlite3_prepare_v2(raw, questions[i], -1, &stmt, NULL), SQLITE_OK);
        CHECK_INT(sqlite3_step(stmt), SQLITE_ROW);
        CHECK_INT(sqlite3_column_int64(stmt, 0), 0);
        sqlite3_finalize(stmt);
    }
    sqlite3_close(raw);
}

static void run_round(struct acks *acks, int round)
{
    int fds[2];
    REQUIRE(pipe(fds) == 0);
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        close(fds[0]);
        child(fds[1], round);
        _exit(9);
    }
    close(fds[1]);
    usleep((useconds_t)(1000 + rand() % 90000));
    kill(pid, SIGKILL);
    size_t before = acks->n;
    collect(acks, fds[0]);
    close(fds[0]);
    int how = 0;
    REQUIRE(waitpid(pid, &how, 0) == pid);
    CHECK(WIFSIGNALED(how)); /* anything else: a write failed */
    store *s = NULL;
    store_mem *mem = store_mem_new();
    store_error err = {0};
    REQUIRE(mem != NULL && store_open(db, NULL, &s, &err) == STORE_OK);
    for (size_t i = before; i < acks->n; i++) {
        check_ack(s, mem, acks, &acks->items[i]);
    }
    CHECK_INT(store_check(s, round % 10 == 0, &err), STORE_OK);
    store_mem_free(mem);
    store_close(s);
    check_whole();
}

static void kills(void)
{
    struct acks acks = {0};
    store *s = NULL;
    store_error err = {0};
    int64_t tenant = 0, until = now_ms() + MAX_SECONDS * 1000;
    snprintf(dir, sizeof dir, "/tmp/mp2-crash-XXXXXX");
    REQUIRE(mkdtemp(dir) != NULL);
    snprintf(db, sizeof db, "%s/t.db", dir);
    REQUIRE(store_open(db, NULL, &s, &err) == STORE_OK);
    REQUIRE(store_tenant_create(s, "main", NULL, 1, &tenant, &err) == STORE_OK && tenant == 1);
    store_close(s);
    int round = 1;
    while (round <= ROUNDS && test_failures_ == 0 && now_ms() < until) {
        run_round(&acks, round);
        round++;
    }
    printf("%d kills, %zu acknowledged writes\n", round - 1, acks.n);
    CHECK(test_failures_ != 0 || round > 20); /* a slow machine may do fewer, but not none */
    CHECK(acks.n > 100);
    REQUIRE(store_open(db, NULL, &s, &err) == STORE_OK);
    store_mem *mem = store_mem_new();
    for (size_t i = 0; i < acks.n && mem != NULL; i++) {
        check_ack(s, mem, &acks, &acks.items[i]);
        store_mem_reset(mem);
    }
    CHECK_INT(store_check(s, true, &err), STORE_OK);
    store_close(s);
    store_mem_free(mem);
    free(acks.items);
    static const char *const suffixes[] = {"", "-wal", "-shm", "-lock"};
    for (size_t i = 0; i < 4; i++) {
        char path[160];
        snprintf(path, sizeof path, "%s%s", db, suffixes[i]);
        unlink(path);
    }
    rmdir(dir);
}

int main(void)
{
    srand((unsigned)time(NULL) ^ (unsigned)getpid());
    TESTS_BEGIN;
    RUN(kills);
    TESTS_END;
}
