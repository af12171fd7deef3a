/* test_storeq.c: the loop's mailbox, the workers, and the store thread's grouped commits. */
#include "server/loop.h"
#include "server/storeq.h"
#include "server/workers.h"
#include "tests/unit/test.h"

#include <pthread.h>
#include <unistd.h>

/* ---- the loop ------------------------------------------------------------------------------------ */

#define POSTS 1000

struct post {
    struct loop_task task;
    int number;
};
static struct post posts[2][POSTS];
static int last_seen[2], seen;
static struct loop *loop;

static void see(void *arg)
{
    struct post *post = arg;
    int poster = post >= posts[1] && post < posts[1] + POSTS;
    CHECK(loop_is_current(loop));
    CHECK(post->number == last_seen[poster] + 1);
    last_seen[poster] = post->number;
    if (++seen == 2 * POSTS) {
        loop_stop(loop);
    }
}

static void *send_posts(void *arg)
{
    struct post *mine = arg;
    for (int i = 0; i < POSTS; i++) {
        mine[i].number = i + 1;
        mine[i].task.run = see;
        mine[i].task.arg = &mine[i];
        loop_post(loop, &mine[i].task);
    }
    return NULL;
}

static void posts_arrive_in_order(void)
{
    pthread_t threads[2];
    loop = loop_new();
    REQUIRE(loop != NULL);
    for (int i = 0; i < 2; i++) {
        pthread_create(&threads[i], NULL, send_posts, posts[i]);
    }
    loop_run(loop);
    CHECK_INT(seen, 2 * POSTS);
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    loop_free(loop);
}

static int late;

static void run_late(void *arg)
{
    struct loop_task *again = arg;
    late++;
    if (again != NULL) {
        loop_post(loop, again);
    }
}

static void late_posts_run_in_free(void)
{
    struct loop_task second = {run_late, NULL, NULL}, first = {run_late, &second, NULL};
    loop = loop_new();
    REQUIRE(loop != NULL);
    loop_post(loop, &first);
    loop_free(loop);
    CHECK_INT(late, 2);
}

/* ---- workers --------------------------------------------------------------------------------------- */

static pthread_mutex_t hold = PTHREAD_MUTEX_INITIALIZER;
static int ran, ended;

static void wait_for_hold(void *arg, store *reader)
{
    CHECK(reader == NULL);
    pthread_mutex_lock(&hold);
    (*(int *)arg)++;
    pthread_mutex_unlock(&hold);
}

static void end_job(void *arg)
{
    CHECK(*(int *)arg > 0);
    ended++;
}

static void workers_are_bounded_and_finish(void)
{
    struct worker_job jobs[5] = {{0}};
    int taken = 0;
    loop = loop_new();
    struct workers *workers = workers_start(loop, 1, 2, NULL);
    REQUIRE(loop != NULL && workers != NULL);
    pthread_mutex_lock(&hold);
    for (int i = 0; i < 5; i++) {
        jobs[i] = (struct worker_job){.run = wait_for_hold, .done = end_job, .arg = &ran};
        bool in = workers_submit(workers, &jobs[i]);
        taken += in;
        while (i == 0 && workers_waiting(workers) > 0) {
            usleep(1000);
        }
    }
    CHECK_INT(taken, 3); /* one at work, two waiting */
    pthread_mutex_unlock(&hold);
    workers_stop(workers);
    loop_free(loop);
    CHECK_INT(ran, 3);
    CHECK_INT(ended, 3);
}

/* ---- the store thread -------------------------------------------------------------------------------- */

static char db_dir[64], db_path[96];

static store *open_db(void)
{
    store *s = NULL;
    store_error err;
    if (db_dir[0] == '\0') {
        memcpy(db_dir, "/tmp/mp2-storeq-XXXXXX", 23);
        if (mkdtemp(db_dir) == NULL) {
            return NULL;
        }
        snprintf(db_path, sizeof db_path, "%s/db", db_dir);
    }
    return store_open(db_path, NULL, &s, &err) == STORE_OK ? s : NULL;
}

static void remove_db(void)
{
    static const char *const endings[] = {"", "-wal", "-shm", "-lock"};
    char path[128];
    for (size_t i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s%s", db_path, endings[i]);
        unlink(path);
    }
    rmdir(db_dir);
    db_dir[0] = '\0';
}

#define OPS 100

struct sample_op {
    struct storeq_op op;
    char name[16];
    int64_t id;
};
static struct sample_op ops[OPS];
static int ops_done, ops_ok, ops_exist;

static store_status make_tenant(store *s, void *arg, store_error *err)
{
    struct sample_op *sample = arg;
    return store_tenant_create(s, sample->name, NULL, 1, &sample->id, err);
}

static void op_done(struct storeq_op *op)
{
    CHECK(loop_is_current(loop));
    ops_ok += op->status == STORE_OK;
    ops_exist += op->status == STORE_EEXISTS;
    if (++ops_done == OPS) {
        loop_stop(loop);
    }
}

/* Half of the names exist already: those operations fail alone, the others of their group stand. */
static void groups_keep_what_succeeds(void)
{
    struct storeq_options options = {OPS, 16, 20000};
    struct storeq_stats stats;
    loop = loop_new();
    store *s = open_db();
    REQUIRE(loop != NULL && s != NULL);
    struct storeq *queue = storeq_start(loop, s, &options);
    REQUIRE(queue != NULL);
    for (int i = 0; i < OPS; i++) {
        snprintf(ops[i].name, sizeof ops[i].name, "t%d", i / 2);
        ops[i].op = (struct storeq_op){
            .run = make_tenant, .done = op_done, .arg = &ops[i], .alone = i == 50};
        CHECK(storeq_submit(queue, &ops[i].op));
    }
    loop_run(loop);
    storeq_get_stats(queue, &stats);
    CHECK_INT(ops_ok, OPS / 2);
    CHECK_INT(ops_exist, OPS / 2);
    CHECK_INT(stats.ops, OPS);
    CHECK(stats.groups >= OPS / 16 && stats.groups < OPS / 2);
    storeq_stop(queue);
    loop_free(loop);
    s = open_db();
    store_mem *mem = store_mem_new();
    store_tenant tenant;
    CHECK(store_tenant_find(s, "t49", mem, &tenant, NULL) == STORE_OK);
    store_mem_free(mem);
    store_close(s);
    remove_db();
}

static store_status wait_op(store *s, void *arg, store_error *err)
{
    (void)s;
    (void)err;
    pthread_mutex_lock(&hold);
    (*(int *)arg)++;
    pthread_mutex_unlock(&hold);
    return STORE_OK;
}

static void count_done(struct storeq_op *op)
{
    (*(int *)op->arg)++;
}

static void queue_is_bounded(void)
{
    struct storeq_options options = {2, 1, 0};
    struct storeq_op waiting[4] = {{0}};
    struct storeq_stats stats;
    int count = 0, taken = 0;
    loop = loop_new();
    store *s = open_db();
    REQUIRE(loop != NULL && s != NULL);
    struct storeq *queue = storeq_start(loop, s, &options);
    pthread_mutex_lock(&hold);
    for (int i = 0; i < 4; i++) {
        waiting[i] = (struct storeq_op){.run = wait_op, .done = count_done, .arg = &count};
        taken += storeq_submit(queue, &waiting[i]);
        do {
            storeq_get_stats(queue, &stats);
        } while (i == 0 && stats.waiting > 0);
    }
    CHECK_INT(taken, 3);
    store_error err = {0};
    CHECK(storeq_call(queue, wait_op, &count, false, &err) == STORE_EBUSY);
    CHECK(strstr(err.text, "store_queue") != NULL);
    pthread_mutex_unlock(&hold);
    storeq_stop(queue); /* runs what is queued */
    loop_free(loop);
    CHECK_INT(count, 6);
    remove_db();
}

static struct storeq *shared_queue;

static void *call_from_thread(void *arg)
{
    struct sample_op *sample = arg;
    store_error err;
    bool ok = storeq_call(shared_queue, make_tenant, sample, false, &err) == STORE_OK;
    return ok ? arg : NULL;
}

/* Calls of job threads end although no loop runs. */
static void calls_need_no_loop(void)
{
    struct storeq_options options = {64, 64, 2000};
    pthread_t threads[8];
    loop = loop_new();
    store *s = open_db();
    REQUIRE(loop != NULL && s != NULL);
    shared_queue = storeq_start(loop, s, &options);
    for (int i = 0; i < 8; i++) {
        snprintf(ops[i].name, sizeof ops[i].name, "c%d", i);
        pthread_create(&threads[i], NULL, call_from_thread, &ops[i]);
    }
    for (int i = 0; i < 8; i++) {
        void *result = NULL;
        pthread_join(threads[i], &result);
        CHECK(result == &ops[i] && ops[i].id > 0);
    }
    storeq_stop(shared_queue);
    loop_free(loop);
    remove_db();
}

/* A group whose commit cannot be made is told so, all of it: another connection holds no lock here, so
 * the failure is forced by ending the transaction from inside. */
static store_status break_group(store *s, void *arg, store_error *err)
{
    (void)arg;
    (void)err;
    store_rollback(s);
    return STORE_OK;
}

static void failed_commit_fails_all(void)
{
    struct storeq_options options = {64, 2, 200000};
    struct sample_op first = {.name = "lost"};
    struct storeq_op second = {.run = break_group, .done = op_done};
    loop = loop_new();
    store *s = open_db();
    REQUIRE(loop != NULL && s != NULL);
    struct storeq *queue = storeq_start(loop, s, &options);
    ops_done = OPS - 2;
    ops_ok = 0;
    first.op = (struct storeq_op){.run = make_tenant, .done = op_done, .arg = &first};
    CHECK(storeq_submit(queue, &first.op) && storeq_submit(queue, &second));
    loop_run(loop);
    CHECK_INT(ops_ok, 0);
    CHECK(first.op.status != STORE_OK && second.status != STORE_OK);
    storeq_stop(queue);
    loop_free(loop);
    s = open_db();
    store_mem *mem = store_mem_new();
    store_tenant tenant;
    CHECK(store_tenant_find(s, "lost", mem, &tenant, NULL) == STORE_ENOTFOUND);
    store_mem_free(mem);
    store_close(s);
    remove_db();
}

int main(void)
{
    TESTS_BEGIN;
    RUN(posts_arrive_in_order);
    RUN(late_posts_run_in_free);
    RUN(workers_are_bounded_and_finish);
    RUN(groups_keep_what_succeeds);
    RUN(queue_is_bounded);
    RUN(calls_need_no_loop);
    RUN(failed_commit_fails_all);
    TESTS_END;
}
