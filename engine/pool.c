/* pool.c: compute threads and the turn. Contract in pool.h.
 *
 * A forward pass is a few dozen short parallel loops, microseconds apart for a small model, so
 * starting a loop must not cost a system call: a worker that has just worked spins for some tens of
 * microseconds before it sleeps. An idle pool sleeps in the kernel and burns nothing.
 *
 * The gate is one atomic word: a generation number, an "open" bit and the count of workers inside.
 * The caller opens it with a new generation; a worker joins by adding one while it is open, takes
 * tasks until they run out, and leaves by subtracting one. The caller works too, then closes the gate
 * and waits only for those inside: a worker that the kernel has not scheduled yet is locked out and
 * costs nothing. Job fields are written only while the gate is closed and empty, and read only inside,
 * so the gate's ordering covers them.
 *
 * Every thread has its own stretch of the task numbers, the same in every loop over as many: what it
 * wrote in one loop it finds in its own cache in the next. It takes from the front; when nothing is
 * left there, it takes from the back of the others'.
 *
 * In a server each thread offers its core, after some work, to whoever waits for it (sched_yield): a request
 * changes threads four times, and each may otherwise wait for a tick.
 *
 * A sleeper counts itself before it looks at the gate a last time; the caller opens the gate before
 * it looks at the count (both sequentially consistent): one of them sees the other.
 */
#include "engine/pool.h"
#include "engine/gemm.h"
#include "engine/status.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define GATE_INSIDE        ((uint64_t)0xffff)
#define GATE_OPEN          ((uint64_t)1 << 16)
#define GATE_GENERATION    ((uint64_t)1 << 17)

#define SPINS_BEFORE_SLEEP 4000   /* some 50 µs */
#define SPINS_BEFORE_YIELD 2000   /* waiting for a worker that may have lost its core */
#define WORK_WORTH_WAKING  150000 /* floating-point operations: a few microseconds of one core */
#define WORK_BEFORE_OFFER  2e7    /* a tenth of a millisecond of two cores */

/* Tasks first … end-1 that nobody has taken: end in the upper half, so that one word says both. Alone
 * in its cache line. */
struct stretch {
    _Atomic uint64_t left;
    char apart[64 - sizeof(uint64_t)];
};

struct worker {
    eng_compute *compute;
    size_t index;
    pthread_t thread;
};

struct eng_compute {
    eng_compute_info info;
    enum simd simd;
    char blas[128];
    size_t started; /* workers running, at most threads - 1 */
    struct worker workers[POOL_MAX_THREADS];
    void *scratch[POOL_MAX_THREADS];

    pthread_mutex_t turn_lock; /* covers the turn_ fields */
    pthread_cond_t turn_free[ENG_CLASSES];
    bool turn_taken;
    size_t turn_waiting[ENG_CLASSES];

    _Atomic uint64_t gate;
    bool offering;  /* eng_compute_offer_cores; with one thread it gained nothing */
    double work;    /* since the threads last offered their cores */
    pool_task task; /* job: written while the gate is closed and empty */
    void *arg;
    bool offers;      /* cores, at the end of this job */
    size_t stretches; /* in use: the number of threads, or of tasks when they are fewer */
    struct stretch stretch[POOL_MAX_THREADS];

    pthread_mutex_t sleep_lock; /* with `wake`: the sleepers' bed */
    pthread_cond_t wake;
    _Atomic size_t sleepers;
    _Atomic bool stop;
};

static void spin_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

/* ---- the turn ---- */

/* The most urgent class that waits, or ENG_CLASSES. With the lock. */
static size_t first_waiting(const eng_compute *compute)
{
    size_t who = 0;
    while (who < ENG_CLASSES && compute->turn_waiting[who] == 0) {
        who++;
    }
    return who;
}

/* With the lock. */
static void wait_for_turn(eng_compute *compute, eng_class who)
{
    compute->turn_waiting[who]++;
    while (compute->turn_taken || first_waiting(compute) < who) {
        pthread_cond_wait(&compute->turn_free[who], &compute->turn_lock);
    }
    compute->turn_waiting[who]--;
    compute->turn_taken = true;
}

/* With the lock. */
static void pass_turn_on(eng_compute *compute)
{
    compute->turn_taken = false;
    size_t next = first_waiting(compute);
    if (next < ENG_CLASSES) {
        pthread_cond_signal(&compute->turn_free[next]);
    }
}

void compute_turn_take(eng_compute *compute, eng_class who)
{
    pthread_mutex_lock(&compute->turn_lock);
    wait_for_turn(compute, who);
    pthread_mutex_unlock(&compute->turn_lock);
}

void compute_turn_give(eng_compute *compute)
{
    pthread_mutex_lock(&compute->turn_lock);
    pass_turn_on(compute);
    pthread_mutex_unlock(&compute->turn_lock);
}

/* Under one lock: who gives way waits before the turn can be free again, or a less urgent caller would
 * slip in. */
void compute_turn_yield(eng_compute *compute, eng_class who)
{
    pthread_mutex_lock(&compute->turn_lock);
    if (first_waiting(compute) < who) {
        pass_turn_on(compute);
        wait_for_turn(compute, who);
    }
    pthread_mutex_unlock(&compute->turn_lock);
}

size_t compute_turn_waiting(eng_compute *compute, eng_class who)
{
    pthread_mutex_lock(&compute->turn_lock);
    size_t waiting = compute->turn_waiting[who];
    pthread_mutex_unlock(&compute->turn_lock);
    return waiting;
}

/* ---- parallel loops ---- */

/* First task of the stretch of `thread`: the first n % threads have one more. */
static size_t stretch_first(size_t n, size_t threads, size_t thread)
{
    size_t longer = n % threads;
    return thread * (n / threads) + (thread < longer ? thread : longer);
}

size_t pool_dealt(size_t n, size_t threads, size_t index)
{
    threads = n < threads ? n : threads;
    size_t each = n / threads, longer = n % threads, in_longer = longer * (each + 1);
    size_t thread = index < in_longer ? index / (each + 1) : longer + (index - in_longer) / each;
    return (index - stretch_first(n, threads, thread)) * threads + thread;
}

static void deal_tasks(eng_compute *compute, size_t n)
{
    size_t threads = compute->started + 1;
    compute->stretches = n < threads ? n : threads;
    for (size_t i = 0; i < compute->stretches; i++) {
        uint64_t first = stretch_first(n, compute->stretches, i);
        uint64_t end = stretch_first(n, compute->stretches, i + 1);
        atomic_store_explicit(&compute->stretch[i].left, end << 32 | first, memory_order_relaxed);
    }
}

/* One task of a stretch, its first or its last; false when none is left. */
static bool take_task(struct stretch *stretch, bool first, size_t *index)
{
    uint64_t left = atomic_load_explicit(&stretch->left, memory_order_relaxed), rest = 0;
    do {
        uint64_t from = left & UINT32_MAX, end = left >> 32;
        if (from == end) {
            return false;
        }
        *index = (size_t)(first ? from : end - 1);
        rest = first ? left + 1 : left - ((uint64_t)1 << 32);
    } while (!atomic_compare_exchange_weak_explicit(&stretch->left, &left, rest,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

static void take_tasks(eng_compute *compute, size_t thread)
{
    size_t stretches = compute->stretches, index = 0;
    for (size_t i = 0; i < stretches; i++) {
        size_t whose = (thread + i) % stretches;
        while (take_task(&compute->stretch[whose], whose == thread, &index)) {
            compute->task(compute->arg, index, thread, compute->scratch[thread]);
        }
    }
}

/* Joins a job this worker has not seen. */
static bool join(eng_compute *compute, uint64_t *seen)
{
    uint64_t gate = atomic_load(&compute->gate);
    while ((gate & GATE_OPEN) != 0 && gate / GATE_GENERATION != *seen) {
        if (atomic_compare_exchange_weak(&compute->gate, &gate, gate + 1)) {
            *seen = gate / GATE_GENERATION;
            return true;
        }
    }
    return false;
}

/* False when the pool stops. */
static bool wait_for_job(eng_compute *compute, uint64_t *seen)
{
    for (size_t i = 0; i < SPINS_BEFORE_SLEEP; i++) {
        if (join(compute, seen)) {
            return true;
        }
        spin_pause();
    }
    bool joined = false;
    pthread_mutex_lock(&compute->sleep_lock);
    atomic_fetch_add(&compute->sleepers, 1);
    while (!(joined = join(compute, seen)) && !atomic_load(&compute->stop)) {
        pthread_cond_wait(&compute->wake, &compute->sleep_lock);
    }
    atomic_fetch_sub(&compute->sleepers, 1);
    pthread_mutex_unlock(&compute->sleep_lock);
    return joined;
}

static void *worker_main(void *arg)
{
    struct worker *worker = arg;
    eng_compute *compute = worker->compute;
    uint64_t seen = 0;
    while (wait_for_job(compute, &seen)) {
        take_tasks(compute, worker->index);
        bool offers = compute->offers;
        atomic_fetch_sub(&compute->gate, 1);
        if (offers) {
            sched_yield();
        }
    }
    return NULL;
}

static void wake_sleepers(eng_compute *compute)
{
    if (atomic_load(&compute->sleepers) > 0) {
        pthread_mutex_lock(&compute->sleep_lock);
        pthread_cond_broadcast(&compute->wake);
        pthread_mutex_unlock(&compute->sleep_lock);
    }
}

static void close_gate(eng_compute *compute)
{
    atomic_fetch_and(&compute->gate, ~GATE_OPEN);
    for (size_t spins = 0; (atomic_load(&compute->gate) & GATE_INSIDE) != 0; spins++) {
        if (spins < SPINS_BEFORE_YIELD) {
            spin_pause();
        } else {
            sched_yield();
        }
    }
}

/* Alone, or with the workers. */
static void run_tasks(eng_compute *compute, size_t n, double work, pool_task task, void *arg)
{
    if (compute->started == 0 || n < 2 || work < WORK_WORTH_WAKING) {
        for (size_t i = 0; i < n; i++) {
            task(arg, i, 0, compute->scratch[0]);
        }
        return;
    }
    compute->task = task;
    compute->arg = arg;
    deal_tasks(compute, n);
    uint64_t generation = atomic_load(&compute->gate) / GATE_GENERATION + 1;
    atomic_store(&compute->gate, generation * GATE_GENERATION | GATE_OPEN);
    wake_sleepers(compute);
    take_tasks(compute, 0);
    close_gate(compute);
}

void pool_run(eng_compute *compute, size_t n, double work, pool_task task, void *arg)
{
    compute->work += work;
    compute->offers = compute->offering && compute->work >= WORK_BEFORE_OFFER;
    run_tasks(compute, n, work, task, arg);
    if (compute->offers) {
        compute->work = 0;
        sched_yield();
    }
}

/* ---- start and stop ---- */

static size_t usable_cores(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return count > 1 ? (size_t)count : 1;
}

/* The best kernel the processor has, or the one asked for by name. */
static eng_status choose_kernel(eng_compute *compute, const char *kernel, eng_error *err)
{
    enum simd simd = gemm_cpu();
    while (kernel != NULL && strcmp(kernel, gemm_kernel_name(simd)) != 0) {
        if (simd == SIMD_NONE) {
            bool known = strcmp(kernel, gemm_kernel_name(SIMD_AVX2)) == 0 ||
                         strcmp(kernel, gemm_kernel_name(SIMD_AVX512)) == 0;
            return known ? fail(err, ENG_EUNSUPPORTED, "kernel",
                                "this processor cannot run %s; its best is %s", kernel,
                                gemm_kernel_name(gemm_cpu()))
                         : fail(err, ENG_EINVAL, "kernel",
                                "\"%s\" is not avx512-packed, avx2-packed or openblas", kernel);
        }
        simd--;
    }
    compute->simd = simd;
    compute->info.kernel = gemm_kernel_name(simd);
    return ENG_OK;
}

static eng_status start_workers(eng_compute *compute, eng_error *err)
{
    for (size_t i = 0; i < compute->info.threads; i++) {
        compute->scratch[i] = aligned_alloc(64, POOL_SCRATCH);
        if (compute->scratch[i] == NULL) {
            return fail_nomem(err, "threads");
        }
    }
    for (size_t i = 1; i < compute->info.threads; i++) {
        struct worker *worker = &compute->workers[i];
        *worker = (struct worker){.compute = compute, .index = i};
        int code = pthread_create(&worker->thread, NULL, worker_main, worker);
        if (code != 0) {
            return fail(err, ENG_ENOMEM, "threads", "cannot start thread %zu of %zu: %s", i,
                        compute->info.threads, strerror(code));
        }
        compute->started++;
    }
    return ENG_OK;
}

eng_status eng_compute_start(size_t threads, const char *kernel, eng_compute **out, eng_error *err)
{
    *out = NULL;
    if (threads > POOL_MAX_THREADS) {
        return fail(err, ENG_ELIMIT, "threads", "at most %d compute threads, got %zu",
                    POOL_MAX_THREADS, threads);
    }
    eng_compute *compute = calloc(1, sizeof *compute);
    if (compute == NULL) {
        return fail_nomem(err, "threads");
    }
    pthread_mutex_init(&compute->turn_lock, NULL);
    for (size_t who = 0; who < ENG_CLASSES; who++) {
        pthread_cond_init(&compute->turn_free[who], NULL);
    }
    pthread_mutex_init(&compute->sleep_lock, NULL);
    pthread_cond_init(&compute->wake, NULL);
    size_t cores = usable_cores();
    compute->info.threads = threads != 0 ? threads : cores;
    if (compute->info.threads > POOL_MAX_THREADS) {
        compute->info.threads = POOL_MAX_THREADS;
    }
    compute->info.blas = compute->blas;
    eng_status status = gemm_blas_check(compute->blas, sizeof compute->blas, err);
    if (status == ENG_OK) {
        status = choose_kernel(compute, kernel, err);
    }
    if (status == ENG_OK) {
        status = start_workers(compute, err);
    }
    if (status != ENG_OK) {
        eng_compute_stop(compute);
        return status;
    }
    *out = compute;
    return ENG_OK;
}

void eng_compute_offer_cores(eng_compute *compute)
{
    compute->offering = compute->started > 0;
}

void eng_compute_stop(eng_compute *compute)
{
    if (compute == NULL) {
        return;
    }
    pthread_mutex_lock(&compute->sleep_lock);
    atomic_store(&compute->stop, true);
    pthread_cond_broadcast(&compute->wake);
    pthread_mutex_unlock(&compute->sleep_lock);
    for (size_t i = 1; i <= compute->started; i++) {
        pthread_join(compute->workers[i].thread, NULL);
    }
    for (size_t i = 0; i < POOL_MAX_THREADS; i++) {
        free(compute->scratch[i]);
    }
    pthread_cond_destroy(&compute->wake);
    pthread_mutex_destroy(&compute->sleep_lock);
    for (size_t who = 0; who < ENG_CLASSES; who++) {
        pthread_cond_destroy(&compute->turn_free[who]);
    }
    pthread_mutex_destroy(&compute->turn_lock);
    free(compute);
}

const eng_compute_info *eng_compute_get_info(const eng_compute *compute)
{
    return &compute->info;
}

enum simd compute_simd(const eng_compute *compute)
{
    return compute->simd;
}

size_t compute_threads(const eng_compute *compute)
{
    return compute->info.threads;
}

void *compute_scratch(eng_compute *compute)
{
    return compute->scratch[0];
}
