/* test_bench.c: the benches run, and count what they say they count. No timing is judged here. */
#include "engine/engine.h"
#include "server/commands/bench_figures.h"
#include "server/commands/bench_serve.h"
#include "server/commands/bench_tasks.h"
#include "server/commands/commands.h"
#include "tests/unit/test.h"

#include <stdlib.h>
#include <unistd.h>

static eng_compute *compute;
static eng_model *model;
static eng_bank *bank;

static bool setup(void)
{
    const eng_model_info shape = {.layers = 2,
                                  .hidden = 64,
                                  .heads = 2,
                                  .ffn = 128,
                                  .vocab = 30,
                                  .positions = 40,
                                  .types = 2};
    return eng_compute_start(2, NULL, &compute, NULL) == ENG_OK &&
           eng_model_random(&shape, 1, &model, NULL) == ENG_OK &&
           eng_bank_random(model, 1, 8, 5, 6, 1, &bank, NULL) == ENG_OK;
}

static void gemm(void)
{
    double rate = 0;
    eng_error err = {0};
    CHECK(eng_bench_gemm(compute, NULL, 30, 64, 64, 0.01, &rate, &err) == ENG_OK && rate > 0);
    CHECK(eng_bench_gemm(compute, "openblas", 30, 64, 64, 0.01, &rate, &err) == ENG_OK && rate > 0);
    CHECK(eng_bench_gemm(compute, "peak", 0, 0, 0, 0.01, &rate, &err) == ENG_OK);
    CHECK(eng_bench_gemm(compute, "magic", 30, 64, 64, 0.01, &rate, &err) == ENG_EINVAL);
    CHECK(eng_bench_gemm(compute, NULL, 0, 64, 64, 0.01, &rate, &err) == ENG_EINVAL);
    CHECK(eng_bench_gemm(compute, NULL, SIZE_MAX / 8, 64, 64, 0.01, &rate, &err) == ENG_ELIMIT);
    CHECK(rate == 0);
}

/* Two layers; per token 2·(4·64² + 2·64·128) and 4·len·64 for attention; 4·64 for the head. */
static void flops(void)
{
    const size_t lens[] = {10, 20};
    double want = 0;
    for (size_t s = 0; s < 2; s++) {
        double len = (double)lens[s];
        want += 2 * (len * 2 * (4 * 64 * 64 + 2 * 64 * 128) + 4 * len * len * 64) + 4 * len * 64;
    }
    CHECK_NEAR(eng_forward_flops(model, lens, 2), want, 0.5);
    CHECK_NEAR(eng_forward_flops(model, lens, 0), 0, 0);
}

static void train(void)
{
    double seconds = 0;
    eng_error err = {0};
    CHECK(eng_bench_train_step(compute, model, bank, 20, 3, &seconds, &err) == ENG_OK);
    CHECK(seconds > 0);
    CHECK(eng_bench_train_step(compute, model, bank, 41, 1, &seconds, &err) == ENG_ELIMIT);
    CHECK(eng_bench_train_step(compute, model, bank, SIZE_MAX, 2, &seconds, &err) == ENG_ELIMIT);
}

/* Every prediction of a small load comes back; more tasks than one are asked. Without a model: no input. */
static void serve(void)
{
    struct bench_serve_options options = {.threads = 1,
                                          .tasks = 10,
                                          .tenants = 3,
                                          .inflight = 4,
                                          .rounds = 1,
                                          .seconds = 0.05,
                                          .json = true};
    CHECK_INT(bench_serve(&options), EXIT_DONE);
    options.model = "/nonexistent";
    CHECK_INT(bench_serve(&options), EXIT_NO_INPUT);
}

/* A database is made, read twice and looked up, each task found; one that does not hold them all fails. */
static void tasks(void)
{
    char path[] = "/tmp/mp2-test-bench-XXXXXX", db[64];
    struct bench_tasks_options options = {.tasks = 60, .tenants = 7, .rounds = 2, .json = true};
    CHECK_INT(bench_tasks(&options), EXIT_DONE);
    CHECK(mkdtemp(path) != NULL);
    snprintf(db, sizeof db, "%s/tasks.db", path);
    options.db = db;
    CHECK_INT(bench_tasks(&options), EXIT_DONE);
    CHECK_INT(bench_tasks(&options), EXIT_DONE);
    options.tasks = 61;
    CHECK_INT(bench_tasks(&options), EXIT_FAILED);
    options.rounds = 0;
    CHECK_INT(bench_tasks(&options), EXIT_USAGE);
    static const char *const ends[] = {"", "-lock"};
    for (size_t i = 0; i < 2; i++) {
        char name[80];
        snprintf(name, sizeof name, "%s%s", db, ends[i]);
        CHECK_INT(unlink(name), 0);
    }
    CHECK_INT(rmdir(path), 0);
}

static void quantiles(void)
{
    double values[] = {5, 1, 4, 2, 3};
    sort_values(values, 5);
    CHECK_NEAR(quantile(values, 5, 0.5), 3, 0);
    CHECK_NEAR(quantile(values, 5, 0.99), 5, 0);
    CHECK_NEAR(quantile(values, 5, 1), 5, 0);
    CHECK_NEAR(quantile(values, 5, 0), 1, 0);
    CHECK_NEAR(quantile(values, 0, 0.5), 0, 0);
}

int main(void)
{
    TESTS_BEGIN;
    if (!setup()) {
        fprintf(stderr, "cannot make the random model\n");
        return 1;
    }
    RUN(gemm);
    RUN(flops);
    RUN(train);
    RUN(serve);
    RUN(tasks);
    RUN(quantiles);
    eng_bank_free(bank);
    eng_model_free(model);
    eng_compute_stop(compute);
    TESTS_END;
}
