/* test_pool.c: parallel loops, the turn between serving and training, an idle pool that sleeps. */
#include "engine/pool.h"
#include "tests/unit/test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <time.h>

#define WORTH_WAKING 1e9
#define TASKS        257

static void nap(long milliseconds)
{
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static void count_task(void *arg, size_t index, size_t thread, void *scratch)
{
    _Atomic int *counts = arg;
    memset(scratch, (int)thread, 4096); /* a race here if two tasks shared a scratch */
    atomic_fetch_add(&counts[index], 1);
}

static void every_task_once(void)
{
    for (size_t threads = 1; threads <= 4; threads++) {
        eng_compute *compute = NULL;
        REQUIRE(eng_compute_start(threads, NULL, &compute, NULL) == ENG_OK);
        if (threads % 2 == 0) {
            eng_compute_offer_cores(compute); /* WORTH_WAKING: after every loop */
        }
        for (size_t round = 0; round < 200; round++) {
            _Atomic int counts[TASKS] = {0};
            compute_turn_take(compute, ENG_SERVING);
            pool_run(compute, TASKS, WORTH_WAKING, count_task, counts);
            compute_turn_give(compute);
            int wrong = 0;
            for (size_t i = 0; i < TASKS; i++) {
                wrong += counts[i] != 1;
            }
            CHECK_INT(wrong, 0);
            if (round % 50 == 0) {
                nap(2); /* long enough for the workers to fall asleep */
            }
        }
        eng_compute_stop(compute);
    }
}

static void dealing_is_a_permutation(void)
{
    for (size_t threads = 1; threads <= 5; threads++) {
        for (size_t n = 1; n <= 23; n++) {
            int seen[23] = {0}, wrong = 0;
            for (size_t i = 0; i < n; i++) {
                size_t task = pool_dealt(n, threads, i);
                REQUIRE(task < n);
                seen[task]++;
            }
            for (size_t i = 0; i < n; i++) {
                wrong += seen[i] != 1;
            }
            CHECK_INT(wrong, 0);
            /* the first of every thread's stretch are the first of all */
            CHECK(pool_dealt(n, threads, 0) == 0);
            CHECK(n < 2 || threads < 2 || pool_dealt(n, threads, (n + threads - 1) / threads) == 1);
        }
    }
}

/* ---- several callers ---- */

struct caller {
    eng_compute *compute;
    eng_class who;
    size_t rounds;
    _Atomic int *inside;
    int overlaps, wrong;
};

static void *caller_main(void *arg)
{
    struct caller *c = arg;
    for (size_t round = 0; round < c->rounds; round++) {
        _Atomic int counts[TASKS] = {0};
        compute_turn_take(c->compute, c->who);
        c->overlaps += atomic_fetch_add(c->inside, 1) != 0;
        pool_run(c->compute, TASKS, WORTH_WAKING, count_task, counts);
        atomic_fetch_sub(c->inside, 1);
        compute_turn_give(c->compute);
        for (size_t i = 0; i < TASKS; i++) {
            c->wrong += counts[i] != 1;
        }
    }
    return NULL;
}

static void callers_take_turns(void)
{
    eng_compute *compute = NULL;
    REQUIRE(eng_compute_start(2, NULL, &compute, NULL) == ENG_OK);
    _Atomic int inside = 0;
    struct caller callers[4];
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++) {
        callers[i] =
            (struct caller){compute, i % 2 == 0 ? ENG_SERVING : ENG_TRAINING, 100, &inside, 0, 0};
        REQUIRE(pthread_create(&threads[i], NULL, caller_main, &callers[i]) == 0);
    }
    for (size_t i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        CHECK_INT(callers[i].overlaps, 0);
        CHECK_INT(callers[i].wrong, 0);
    }
    eng_compute_stop(compute);
}

struct waiter {
    eng_compute *compute;
    eng_class who;
    _Atomic int *order;
    int place;
};

static void *waiter_main(void *arg)
{
    struct waiter *w = arg;
    compute_turn_take(w->compute, w->who);
    w->place = atomic_fetch_add(w->order, 1);
    compute_turn_give(w->compute);
    return NULL;
}

static void wait_for_waiters(eng_compute *compute, eng_class who, size_t n)
{
    while (compute_turn_waiting(compute, who) < n) {
        nap(1);
    }
}

/* Training waits first, serving comes later and still goes first. */
static void serving_goes_first(void)
{
    eng_compute *compute = NULL;
    REQUIRE(eng_compute_start(1, NULL, &compute, NULL) == ENG_OK);
    _Atomic int order = 0;
    struct waiter training = {compute, ENG_TRAINING, &order, -1};
    struct waiter serving[2] = {{compute, ENG_SERVING, &order, -1},
                                {compute, ENG_SERVING, &order, -1}};
    pthread_t threads[3];
    compute_turn_take(compute, ENG_TRAINING);
    REQUIRE(pthread_create(&threads[0], NULL, waiter_main, &training) == 0);
    wait_for_waiters(compute, ENG_TRAINING, 1);
    for (size_t i = 0; i < 2; i++) {
        REQUIRE(pthread_create(&threads[1 + i], NULL, waiter_main, &serving[i]) == 0);
    }
    wait_for_waiters(compute, ENG_SERVING, 2);
    compute_turn_give(compute);
    compute_turn_take(compute, ENG_TRAINING); /* the trainer's next piece: behind everybody */
    int before = atomic_load(&order);
    compute_turn_give(compute);
    for (size_t i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
    }
    CHECK(before >= 2); /* both serving waiters, perhaps the other trainer too */
    CHECK_INT(training.place, 2);
    eng_compute_stop(compute);
}

/* Between two pieces of a serving pass: an urgent one goes, training does not. */
static void only_who_is_more_urgent_goes_between(void)
{
    eng_compute *compute = NULL;
    REQUIRE(eng_compute_start(1, NULL, &compute, NULL) == ENG_OK);
    _Atomic int order = 0;
    struct waiter urgent = {compute, ENG_URGENT, &order, -1};
    struct waiter training = {compute, ENG_TRAINING, &order, -1};
    pthread_t threads[2];
    compute_turn_take(compute, ENG_SERVING);
    REQUIRE(pthread_create(&threads[0], NULL, waiter_main, &training) == 0);
    wait_for_waiters(compute, ENG_TRAINING, 1);
    compute_turn_yield(compute, ENG_SERVING);
    CHECK_INT(atomic_load(&order), 0);
    REQUIRE(pthread_create(&threads[1], NULL, waiter_main, &urgent) == 0);
    wait_for_waiters(compute, ENG_URGENT, 1);
    compute_turn_yield(compute, ENG_URGENT); /* an equal does not */
    CHECK_INT(atomic_load(&order), 0);
    compute_turn_yield(compute, ENG_SERVING);
    CHECK_INT(atomic_load(&order), 1);
    compute_turn_give(compute);
    for (size_t i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    CHECK_INT(urgent.place, 0);
    CHECK_INT(training.place, 1);
    eng_compute_stop(compute);
}

/* ---- idleness and errors ---- */

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static void an_idle_pool_sleeps(void)
{
    eng_compute *compute = NULL;
    _Atomic int counts[TASKS] = {0};
    REQUIRE(eng_compute_start(4, NULL, &compute, NULL) == ENG_OK);
    compute_turn_take(compute, ENG_SERVING);
    pool_run(compute, TASKS, WORTH_WAKING, count_task, counts);
    compute_turn_give(compute);
    nap(20);
    double before = cpu_seconds();
    nap(300);
    CHECK(cpu_seconds() - before < 0.05);
    eng_compute_stop(compute);
}

static void what_cannot_start(void)
{
    eng_compute *compute = NULL;
    eng_error err = {0};
    CHECK(eng_compute_start(1, "magic", &compute, &err) == ENG_EINVAL);
    CHECK(compute == NULL);
    CHECK_STR(err.field, "kernel");
    CHECK(eng_compute_start(100000, NULL, &compute, &err) == ENG_ELIMIT);
    CHECK(compute == NULL);
    REQUIRE(eng_compute_start(0, NULL, &compute, &err) == ENG_OK);
    CHECK(eng_compute_get_info(compute)->threads >= 1);
    CHECK(strstr(eng_compute_get_info(compute)->blas, "OpenBLAS") != NULL);
    CHECK(strstr(eng_compute_get_info(compute)->blas, "SINGLE_THREADED") == NULL);
    eng_compute_stop(compute);
    eng_compute_stop(NULL);
}

int main(void)
{
    TESTS_BEGIN;
    RUN(every_task_once);
    RUN(dealing_is_a_permutation);
    RUN(callers_take_turns);
    RUN(serving_goes_first);
    RUN(only_who_is_more_urgent_goes_between);
    RUN(an_idle_pool_sleeps);
    RUN(what_cannot_start);
    TESTS_END;
}
