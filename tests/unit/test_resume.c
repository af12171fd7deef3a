/* test_resume.c: checkpoints of adaptation. A run that is paused anywhere and resumed ends with the bytes
 * of one left alone; a block of another run, cut, altered or forged is refused. */
#include "engine/blob.h"
#include "engine/model.h"
#include "engine/rng.h"
#include "tests/unit/toy_task.h"

#include <math.h>

/* Under a sanitizer everything runs, but short. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SHORT 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SHORT 1
#endif
#endif
#ifndef SHORT
#define SHORT 0
#endif

static struct toy toy;
enum { ROWS = 6 };
static size_t train[ROWS], dev[ROWS];

static const struct {
    const char *name;
    size_t steps, evaluations;
} methods[] = {{"route", 7, 0}, {"prompt", 5, 0},          {"route+prompt", 4, 0},
               {"full", 6, 0},  {"blackbox-route", 0, 26}, {"blackbox", 0, 64}};
enum { METHODS = sizeof methods / sizeof methods[0], BLACKBOX_ROUTE = 4 };

/* The last block handed over. */
struct kept {
    unsigned char *block;
    size_t bytes, times;
};

static void keep(void *arg, const void *block, size_t bytes)
{
    struct kept *kept = arg;
    free(kept->block);
    kept->block = malloc(bytes);
    memcpy(kept->block, block, bytes);
    kept->bytes = bytes;
    kept->times++;
}

static eng_adapt_config config_of(size_t m, struct kept *kept)
{
    eng_adapt_config config;
    eng_adapt_defaults(toy.bank, &config);
    config.method = methods[m].name;
    config.init = ENG_INIT_RANDOM;
    config.seed = 5;
    config.batch = 4; /* several epochs, shuffled */
    config.steps = methods[m].steps;
    config.eval_every = 2;
    config.prompt_lr = 5e-3;
    config.evaluations = methods[m].evaluations;
    config.on_checkpoint = keep;
    config.checkpoint_arg = kept;
    return config;
}

/* Pauses once so many calls have passed; 0: never. */
struct watch {
    size_t calls, pause_at;
    eng_verdict verdict;
};

static eng_verdict on_progress(void *arg, const eng_progress *progress)
{
    struct watch *watch = arg;
    (void)progress;
    return ++watch->calls == watch->pause_at ? watch->verdict : ENG_GO_ON;
}

static eng_status adapt(const eng_adapt_config *config, struct watch *watch,
                        eng_adapt_result *result, eng_error *err)
{
    return eng_adapt(toy.compute, toy.model, toy.bank, toy.task, toy.set, train, ROWS, toy.set, dev,
                     ROWS, config, on_progress, watch, result, err);
}

static bool same_floats(const float *a, const float *b, size_t n)
{
    return (a == NULL) == (b == NULL) && (a == NULL || memcmp(a, b, n * sizeof *a) == 0);
}

static bool same_model(const eng_model *a, const eng_model *b)
{
    return (a == NULL) == (b == NULL) &&
           (a == NULL || strcmp(a->info.fingerprint, b->info.fingerprint) == 0);
}

static void check_same(const char *name, const eng_adapt_result *a, const eng_adapt_result *b)
{
    bool same = same_floats(a->route, b->route, a->route_len) &&
                same_floats(a->prompt, b->prompt, a->prompt_len) &&
                same_floats(a->head, b->head, a->head_len) &&
                same_floats(a->label_scaling, b->label_scaling, a->label_scaling_len) &&
                same_floats(a->dev_label_scaling, b->dev_label_scaling, a->label_scaling_len) &&
                same_model(a->model, b->model) &&
                memcmp(&a->train_loss, &b->train_loss, sizeof a->train_loss) == 0 &&
                a->dev_loss == b->dev_loss && a->dev_accuracy_before == b->dev_accuracy_before &&
                a->best_step == b->best_step && a->steps == b->steps && a->tokens == b->tokens &&
                a->forward_passes == b->forward_passes &&
                strcmp(a->started_from, b->started_from) == 0;
    if (!same) {
        TEST_FAIL_("%s: a resumed run ends otherwise: loss %.17g and %.17g, step %zu and %zu, "
                   "%zu and %zu tokens",
                   name, a->dev_loss, b->dev_loss, a->best_step, b->best_step, a->tokens,
                   b->tokens);
    }
}

/* Runs to the end, pausing after every `every` calls and going on from the block. */
static bool run_in_pieces(size_t m, size_t every, eng_adapt_result *result)
{
    struct kept kept = {0};
    eng_adapt_config config = config_of(m, &kept);
    eng_error err = {.text = ""};
    eng_status status = ENG_ECANCELLED;
    size_t pieces = 0, calls = 0;
    while (status == ENG_ECANCELLED) {
        struct watch watch = {.pause_at = every, .verdict = ENG_PAUSE};
        unsigned char *block = kept.block;
        kept.block = NULL;
        config.resume = block;
        config.resume_bytes = kept.bytes;
        status = adapt(&config, &watch, result, &err);
        calls += watch.calls;
        free(block);
        pieces++;
    }
    free(kept.block);
    if (status != ENG_OK) {
        TEST_FAIL_("%s: %s: %s", methods[m].name, err.field, err.text);
        return false;
    }
    CHECK_INT(calls, result->steps); /* no step is lost or done twice */
    CHECK(pieces > 1);
    return true;
}

static void a_resumed_run_ends_the_same(void)
{
    static const size_t every[] = {1, 3, 5};
    for (size_t m = 0; m < METHODS; m++) {
        struct kept kept = {0};
        struct watch watch = {0};
        eng_adapt_config config = config_of(m, &kept);
        eng_adapt_result whole, pieces;
        REQUIRE(adapt(&config, &watch, &whole, NULL) == ENG_OK);
        CHECK_INT(kept.times, 0);
        for (size_t i = 0; i < (SHORT ? 1 : 3); i++) {
            if (run_in_pieces(m, SHORT ? 3 : every[i], &pieces)) {
                check_same(methods[m].name, &whole, &pieces);
                eng_adapt_result_fini(&pieces);
            }
        }
        eng_adapt_result_fini(&whole);
    }
}

/* Each layer's search of a deep bank is in the block. */
static void deep_searches_are_resumed(void)
{
    struct toy shallow = toy, other = {.model = NULL};
    eng_error err = {.text = ""};
    if (eng_model_open(TEST_SOURCE_DIR "/tests/models/boot-deep", &other.model, &err) != ENG_OK ||
        eng_bank_open_default(other.model, false, &other.bank, &err) != ENG_OK ||
        !toy_set_up(&other)) {
        TEST_FAIL_("deep model: %s", err.text);
        toy_close(&other);
        return;
    }
    toy = other;
    struct kept kept = {0};
    struct watch watch = {0};
    eng_adapt_config config = config_of(METHODS - 1, &kept);
    eng_adapt_result whole, pieces;
    config.evaluations = 69;
    CHECK(adapt(&config, &watch, &whole, NULL) == ENG_OK);
    watch = (struct watch){.pause_at = 50, .verdict = ENG_PAUSE}; /* in the second or third layer */
    CHECK(adapt(&config, &watch, &pieces, NULL) == ENG_ECANCELLED);
    unsigned char *block = kept.block;
    kept.block = NULL;
    config.resume = block;
    config.resume_bytes = kept.bytes;
    CHECK(adapt(&config, &watch, &pieces, &err) == ENG_OK);
    check_same("deep", &whole, &pieces);
    eng_adapt_result_fini(&whole);
    eng_adapt_result_fini(&pieces);
    free(block);
    toy_close(&toy);
    toy = shallow;
}

/* Cross-validation, paused in every run of it. */
static void folds_are_resumed(void)
{
    struct kept kept = {0};
    struct watch watch = {0};
    eng_adapt_config config = config_of(0, &kept);
    eng_adapt_result whole, pieces;
    eng_status status = ENG_ECANCELLED;
    config.folds = 3;
    REQUIRE(eng_adapt(toy.compute, toy.model, toy.bank, toy.task, toy.set, train, ROWS, NULL, NULL,
                      0, &config, on_progress, &watch, &whole, NULL) == ENG_OK);
    while (status == ENG_ECANCELLED) {
        unsigned char *block = kept.block;
        eng_error err = {.text = ""};
        kept.block = NULL;
        config.resume = block;
        config.resume_bytes = kept.bytes;
        watch = (struct watch){.pause_at = 3, .verdict = ENG_PAUSE};
        status = eng_adapt(toy.compute, toy.model, toy.bank, toy.task, toy.set, train, ROWS, NULL,
                           NULL, 0, &config, on_progress, &watch, &pieces, &err);
        CHECK(status == ENG_OK || status == ENG_ECANCELLED);
        free(block);
    }
    CHECK(kept.times >= 2 * 3);
    check_same("folds", &whole, &pieces);
    eng_adapt_result_fini(&whole);
    eng_adapt_result_fini(&pieces);
    free(kept.block);
}

static void checkpoints_come_on_the_way(void)
{
    struct kept kept = {0};
    struct watch watch = {0};
    eng_adapt_config config = config_of(0, &kept);
    eng_adapt_result result;
    config.checkpoint_seconds = 1e-9;
    REQUIRE(adapt(&config, &watch, &result, NULL) == ENG_OK);
    CHECK_INT(kept.times, config.steps);
    eng_adapt_result_fini(&result);
    kept.times = 0;
    config.checkpoint_seconds = 1e9;
    watch = (struct watch){.pause_at = 2, .verdict = ENG_STOP};
    CHECK(adapt(&config, &watch, &result, NULL) == ENG_ECANCELLED);
    CHECK_INT(kept.times, 0); /* what is cancelled needs no block */
    free(kept.block);
}

/* ---- blocks that are not ours ------------------------------------------------------------------------ */

/* A block of method m, paused early. */
static void make_block(size_t m, struct kept *kept)
{
    struct watch watch = {.pause_at = 3, .verdict = ENG_PAUSE};
    eng_adapt_config config = config_of(m, kept);
    eng_adapt_result result;
    CHECK(adapt(&config, &watch, &result, NULL) == ENG_ECANCELLED);
    REQUIRE(kept->times == 1);
}

static eng_status resume(eng_adapt_config *config, const void *block, size_t bytes)
{
    struct watch watch = {.pause_at = 1, .verdict = ENG_STOP};
    eng_adapt_result result;
    eng_error err = {.text = ""};
    config->resume = block;
    config->resume_bytes = bytes;
    eng_status status = adapt(config, &watch, &result, &err);
    CHECK(status == ENG_OK || err.text[0] != '\0');
    eng_adapt_result_fini(&result);
    return status;
}

static void another_runs_block_is_refused(void)
{
    struct kept kept = {0};
    make_block(0, &kept);
    eng_adapt_config config = config_of(0, NULL);
    CHECK(resume(&config, kept.block, kept.bytes) == ENG_ECANCELLED); /* it is ours: it goes on */
    config.seed++;
    CHECK(resume(&config, kept.block, kept.bytes) == ENG_EMISMATCH);
    config = config_of(0, NULL);
    config.lr *= 2;
    CHECK(resume(&config, kept.block, kept.bytes) == ENG_EMISMATCH);
    config = config_of(1, NULL);
    CHECK(resume(&config, kept.block, kept.bytes) == ENG_EMISMATCH);
    config = config_of(0, NULL);
    train[0]++;
    CHECK(resume(&config, kept.block, kept.bytes) == ENG_EMISMATCH);
    train[0]--;
    dev[0]++;
    CHECK(resume(&config, kept.block, kept.bytes) == ENG_EMISMATCH);
    dev[0]--;
    toy.bank->info.fingerprint[0] ^= 1;
    CHECK(resume(&config, kept.block, kept.bytes) == ENG_EMISMATCH);
    toy.bank->info.fingerprint[0] ^= 1;
    free(kept.block);
}

static void a_damaged_block_is_refused(void)
{
    struct kept kept = {0};
    struct rng rng;
    rng_seed(&rng, 3);
    make_block(BLACKBOX_ROUTE, &kept);
    eng_adapt_config config = config_of(BLACKBOX_ROUTE, NULL);
    for (size_t i = 0; i < (SHORT ? 4 : 40); i++) {
        size_t cut = i < 4 ? i * 13 : rng_below(&rng, kept.bytes);
        CHECK(resume(&config, kept.block, cut) == ENG_EFORMAT);
        size_t bit = rng_below(&rng, kept.bytes * 8);
        kept.block[bit / 8] ^= (unsigned char)(1 << bit % 8);
        eng_status status = resume(&config, kept.block, kept.bytes);
        CHECK(status == ENG_EFORMAT || status == ENG_EMISMATCH); /* the latter: of its identity */
        kept.block[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    free(kept.block);
}

/* With a checksum that fits, only the numbers are left to be checked: any answer but a crash. */
static void a_forged_block_does_no_harm(void)
{
    struct rng rng;
    rng_seed(&rng, 4);
    for (size_t m = 0; m < METHODS; m++) {
        struct kept kept = {0};
        make_block(m, &kept);
        eng_adapt_config config = config_of(m, NULL);
        uint64_t identity = 0;
        memcpy(&identity, kept.block + 24, sizeof identity);
        struct blob_frame frame = {"checkpoint", 0x4E52, identity};
        for (size_t i = 0; i < (SHORT ? 3 : 30); i++) {
            size_t at =
                40 + rng_below(&rng, (i % 2 == 0 && kept.bytes > 640 ? 640 : kept.bytes) - 48);
            uint64_t old = 0, forged = i % 3 == 0 ? UINT64_MAX >> (i % 8) * 8 : rng_next(&rng);
            memcpy(&old, kept.block + at, sizeof old);
            memcpy(kept.block + at, &forged, sizeof forged);
            blob_close(&frame, kept.block, kept.bytes);
            eng_status status = resume(&config, kept.block, kept.bytes);
            CHECK(status != ENG_EMISMATCH && status != ENG_ENOMEM);
            memcpy(kept.block + at, &old, sizeof old);
        }
        blob_close(&frame, kept.block, kept.bytes);
        CHECK(resume(&config, kept.block, kept.bytes) == ENG_ECANCELLED);
        free(kept.block);
    }
}

int main(void)
{
    TESTS_BEGIN;
    for (size_t i = 0; i < ROWS; i++) {
        train[i] = i;
        dev[i] = TOY_EACH + i;
    }
    if (toy_open(&toy)) {
        RUN(a_resumed_run_ends_the_same);
        RUN(deep_searches_are_resumed);
        RUN(folds_are_resumed);
        RUN(checkpoints_come_on_the_way);
        RUN(another_runs_block_is_refused);
        RUN(a_damaged_block_is_refused);
        RUN(a_forged_block_does_no_harm);
    }
    toy_close(&toy);
    TESTS_END;
}
