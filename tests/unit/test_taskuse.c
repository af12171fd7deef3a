/* test_taskuse.c: counts by task and key: kept apart, bounded, given back whole, gone with their task. */
#include "server/auth.h"
#include "server/taskuse.h"
#include "tests/unit/store_test.h"

#include <inttypes.h>

static int64_t tenant, task;

static store *with_a_task(void)
{
    store_error err = {0};
    store *s = open_fresh(NULL);
    OK(store_tenant_create(s, "acme", NULL, 1, &tenant, &err));
    store_task made = {
        .tenant = tenant, .name = "t", .type = "classification", .labels = "[]", .created = 1};
    OK(store_task_create(s, &made, NULL, &task, &err));
    return s;
}

static size_t list(store *s, store_mem *mem, store_task_use **uses)
{
    store_error err = {0};
    size_t n = 0;
    OK(store_task_use_list(s, tenant, task, 0, mem, uses, &n, &err));
    return n;
}

static void pairs_are_kept_apart(void)
{
    store_error err = {0};
    store *s = with_a_task();
    store_mem *mem = store_mem_new();
    store_task_use *uses;
    struct taskuse *counted = NULL, *again = NULL;
    taskuse_count(&counted, task, "key_a", 1, 2, 3);
    taskuse_count(&counted, task, "key_b", 1, 20, 30);
    taskuse_count(&counted, task, "key_a", 1, 4, 5);
    taskuse_count(&counted, task + 1, "key_a", 1, 1, 1); /* of a task that is no more */
    taskuse_add(&again, counted);
    OK(taskuse_write(s, counted, 7, &err));
    OK(taskuse_write(s, again, 7, &err));
    OK(taskuse_write(s, again, 9, &err));
    CHECK_INT(list(s, mem, &uses), 4);
    CHECK_INT(uses[0].day, 9);
    CHECK_STR(uses[2].key, "key_a");
    CHECK_INT(uses[2].requests, 4);
    CHECK_INT(uses[2].inputs, 12);
    CHECK_INT(uses[2].tokens, 16);
    CHECK_INT(uses[3].inputs, 40);
    OK(store_task_use_purge(s, 8, &err));
    CHECK_INT(list(s, mem, &uses), 2);
    taskuse_free(counted);
    taskuse_free(again);
    store_mem_free(mem);
    close_fresh(s);
}

static void there_is_a_bound(void)
{
    store_error err = {0};
    store *s = with_a_task();
    store_mem *mem = store_mem_new();
    store_task_use *uses;
    struct taskuse *counted = NULL;
    char key[AUTH_KEY_ID_CHARS + 1];
    for (int i = 0; i < TASKUSE_MAX + 100; i++) {
        snprintf(key, sizeof key, "key_%d", i);
        taskuse_count(&counted, task, key, 1, 1, 1);
    }
    taskuse_count(&counted, task, "key_7", 1, 1, 1); /* one that is there still counts */
    OK(store_begin(s, &err));
    OK(taskuse_write(s, counted, 7, &err));
    OK(store_commit(s, &err));
    CHECK_INT(list(s, mem, &uses), TASKUSE_MAX);
    for (size_t i = 0; i < TASKUSE_MAX; i++) {
        CHECK_INT(uses[i].requests, strcmp(uses[i].key, "key_7") == 0 ? 2 : 1);
    }
    taskuse_free(counted);
    store_mem_free(mem);
    close_fresh(s);
}

static void nobody_elses(void)
{
    store_error err = {0};
    store *s = with_a_task();
    store_mem *mem = store_mem_new();
    store_task_use *uses;
    size_t n = 0;
    FAILS(store_task_use_list(s, tenant + 1, task, 0, mem, &uses, &n, &err), STORE_ENOTFOUND);
    CHECK_INT(n, 0);
    store_mem_free(mem);
    close_fresh(s);
}

int main(void)
{
    TESTS_BEGIN;
    RUN(pairs_are_kept_apart);
    RUN(there_is_a_bound);
    RUN(nobody_elses);
    TESTS_END;
}
