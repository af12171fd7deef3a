/* test_slice.c: a brief thread keeps its policy and its niceness. */
#include "server/slice.h"
#include "tests/unit/test.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Of the thread, not the process: Linux takes a thread's number here. */
static int niceness(void)
{
    return getpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid));
}

static void *become_brief(void *arg)
{
    int *nice_after = arg;
    if (setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), 7) == 0) {
        slice_brief();
        *nice_after = niceness();
    }
    return sched_getscheduler(0) == SCHED_OTHER ? arg : NULL;
}

static void nothing_else_changes(void)
{
    int before = niceness(), nice_after = -1;
    pthread_t thread;
    void *same_policy = NULL;
    REQUIRE(pthread_create(&thread, NULL, become_brief, &nice_after) == 0);
    pthread_join(thread, &same_policy);
    CHECK_INT(nice_after, 7);
    CHECK(same_policy == &nice_after);
    CHECK_INT(niceness(), before);
}

int main(void)
{
    TESTS_BEGIN;
    RUN(nothing_else_changes);
    TESTS_END;
}
