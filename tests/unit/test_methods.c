/* test_methods.c: the adaptation methods beyond the route's gradient, each on the toy: it learns, gives
 * the same bytes twice, keeps to its budget, stops when told, and ends well when no loss is finite. */
#include "engine/bank.h"
#include "engine/model.h"
#include "tests/unit/toy_task.h"

#include <math.h>

/* Under a sanitizer everything runs, but short: what is learnt is judged elsewhere. */
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
enum { ROWS = 8 };
static size_t train[ROWS], dev[ROWS]; /* both labels alike */

static eng_adapt_config config_of(const char *method, size_t evaluations)
{
    eng_adapt_config config;
    eng_adapt_defaults(toy.bank, &config);
    config.method = method;
    config.init = ENG_INIT_AVERAGE;
    config.seed = 8;
    config.steps = SHORT ? 2 : 10;
    config.eval_every = SHORT ? 1 : 5;
    config.evaluations = evaluations;
    config.no_label_scaling = true; /* what is judged are the vectors: test_label_scaling.c */
    return config;
}

static eng_status adapt(const eng_adapt_config *config, eng_on_progress on_progress, void *arg,
                        eng_adapt_result *result, eng_error *err)
{
    return eng_adapt(toy.compute, toy.model, toy.bank, toy.task, toy.set, train, ROWS, toy.set, dev,
                     ROWS, config, on_progress, arg, result, err);
}

struct seen {
    size_t calls, looks, better, stop_at;
    size_t last_step, steps;
    double first_loss, last_loss;
    bool rose;
};

static eng_verdict watch(void *arg, const eng_progress *progress)
{
    struct seen *seen = arg;
    seen->calls++;
    seen->looks += isnan(progress->dev_accuracy) ? 0 : 1;
    seen->better += progress->best ? 1 : 0;
    seen->first_loss = seen->calls == 1 ? progress->train_loss : seen->first_loss;
    seen->rose = seen->rose || (seen->calls > 1 && progress->train_loss > seen->last_loss);
    seen->last_loss = progress->train_loss;
    seen->last_step = progress->step;
    seen->steps = progress->steps;
    return seen->calls != seen->stop_at ? ENG_GO_ON : ENG_STOP;
}

static bool run(const eng_adapt_config *config, struct seen *seen, eng_adapt_result *result)
{
    eng_error err = {.text = ""};
    eng_status status = adapt(config, watch, seen, result, &err);
    if (status != ENG_OK) {
        TEST_FAIL_("%s: %s: %s", config->method, err.field, err.text);
    }
    return status == ENG_OK;
}

/* ---- each method --------------------------------------------------------------------------------- */

static void a_black_box_finds_a_route(void)
{
    eng_adapt_config config = config_of("blackbox-route", SHORT ? 6 : 40);
    eng_adapt_result result;
    struct seen seen = {0};
    REQUIRE(run(&config, &seen, &result));
    CHECK_INT(seen.calls, config.evaluations);
    CHECK_INT(result.steps, config.evaluations);
    CHECK_INT(seen.steps, config.evaluations);
    CHECK(!seen.rose && (SHORT || seen.last_loss < seen.first_loss - 0.1));
    CHECK(seen.looks >= 1 && seen.looks < config.evaluations);
    CHECK(result.dev_accuracy >= result.dev_accuracy_before);
    CHECK(result.prompt == NULL && result.prompt_len == 0);
    for (size_t i = 0; i < result.route_len; i++) {
        CHECK(fabsf(result.route[i]) <= 5);
    }
    /* the start's two losses, every evaluation, and a look for every improvement */
    CHECK_INT(result.forward_passes, ROWS * (2 + config.evaluations + seen.looks));
    eng_adapt_result_fini(&result);
}

/* What is reported is what the route gives when it is evaluated. */
static void the_result_is_the_candidate_that_dev_chose(void)
{
    eng_adapt_config config = config_of("blackbox-route", SHORT ? 6 : 30);
    eng_adapt_result result;
    struct seen seen = {0};
    eng_scores scores;
    float mix[64];
    REQUIRE(run(&config, &seen, &result));
    eng_route_mix(toy.bank, result.route, mix);
    REQUIRE(eng_evaluate(toy.compute, ENG_SERVING, toy.model, toy.bank, toy.task, toy.set, dev,
                         ROWS, mix, NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL, &scores,
                         NULL) == ENG_OK);
    CHECK(scores.accuracy == result.dev_accuracy && scores.loss == result.dev_loss);
    eng_adapt_result_fini(&result);
}

/* A prompt of its own, that scores as reported when it is evaluated. */
static void check_prompt(const eng_adapt_result *result)
{
    const eng_bank_info *info = eng_bank_get_info(toy.bank);
    eng_scores scores;
    REQUIRE(result->prompt != NULL);
    CHECK_INT(result->prompt_len,
              info->layers * info->prompt_tokens * eng_model_get_info(toy.model)->hidden);
    REQUIRE(eng_evaluate(toy.compute, ENG_SERVING, toy.model, toy.bank, toy.task, toy.set, dev,
                         ROWS, NULL, result->prompt, result->head, NULL, 0, NULL, NULL, NULL, NULL,
                         &scores, NULL) == ENG_OK);
    CHECK(scores.accuracy == result->dev_accuracy && scores.loss == result->dev_loss);
}

static void prompt_methods_learn(void)
{
    static const char *const names[] = {"route+prompt", "prompt"};
    for (size_t i = 0; i < 2; i++) {
        eng_adapt_config config = config_of(names[i], 0);
        eng_adapt_result result;
        struct seen seen = {0};
        config.prompt_lr = i == 0 ? 1e-3 : 5e-3;
        REQUIRE(run(&config, &seen, &result));
        CHECK_INT(seen.calls, config.steps * (i == 0 ? 2 : 1));
        CHECK_INT(seen.steps, seen.calls);
        CHECK(SHORT || seen.last_loss < seen.first_loss - 0.1);
        CHECK_STR(result.started_from, i == 0 ? "average" : "scratch");
        if (result.prompt != NULL || !SHORT) {
            check_prompt(&result);
        }
        eng_adapt_result_fini(&result);
    }
}

/* Every weight of a model of its own: the caller's stays as it was, and the copy scores as reported. */
static void full_tunes_a_copy(void)
{
    eng_adapt_config config = config_of("full", 0);
    eng_adapt_result result;
    eng_scores scores;
    struct seen seen = {0};
    float mix[64], word = toy.model->params.word[5000];
    REQUIRE(run(&config, &seen, &result));
    CHECK_INT(seen.calls, config.steps);
    CHECK(SHORT || seen.last_loss < seen.first_loss - 0.1);
    CHECK(toy.model->params.word[5000] == word && result.prompt == NULL);
    CHECK_INT(result.tuned, eng_model_get_info(toy.model)->parameters + 2 * 128 + 2);
    REQUIRE(SHORT || result.model != NULL);
    if (result.model != NULL) {
        const eng_model_info *info = eng_model_get_info(result.model);
        CHECK(strcmp(info->fingerprint, eng_model_get_info(toy.model)->fingerprint) != 0);
        eng_route_mix(result.bank, result.route, mix);
        REQUIRE(eng_evaluate(toy.compute, ENG_SERVING, result.model, result.bank, toy.task, toy.set,
                             dev, ROWS, mix, NULL, result.head, NULL, 0, NULL, NULL, NULL, NULL,
                             &scores, NULL) == ENG_OK);
        CHECK(scores.accuracy == result.dev_accuracy);
        CHECK_NEAR(scores.loss, result.dev_loss, 1e-4); /* packed weights add in another order */
    }
    eng_adapt_result_fini(&result);
}

static void cmaes_tunes_what_the_route_began(void)
{
    eng_adapt_config config = config_of("blackbox", SHORT ? 60 : 120);
    eng_adapt_result result;
    struct seen seen = {0};
    REQUIRE(run(&config, &seen, &result));
    /* not compared across stages: dev chooses where the second starts, not the loss */
    CHECK(SHORT || seen.last_loss < seen.first_loss);
    CHECK(result.steps > config.evaluations / 2 && result.steps <= config.evaluations);
    CHECK(result.dev_accuracy >= result.dev_accuracy_before);
    if (result.prompt != NULL || !SHORT) {
        check_prompt(&result);
    }
    eng_adapt_result_fini(&result);
}

/* z of the mix through A is the merged prompt, as far as float32 goes. */
static void the_intrinsic_vector_gives_the_merged_prompt(void)
{
    const eng_bank_info *info = eng_bank_get_info(toy.bank);
    size_t n = info->layers * info->prompt_tokens * eng_model_get_info(toy.model)->hidden;
    float mix[64], route[64];
    float *z = calloc(info->layers * info->intrinsic, sizeof *z);
    float *merged = calloc(n, sizeof *merged), *through = calloc(n, sizeof *through);
    REQUIRE(z != NULL && merged != NULL && through != NULL);
    eng_bank_row(toy.bank, 0, route);
    eng_route_mix(toy.bank, route, mix);
    eng_merged_prompt(toy.bank, mix, merged);
    bank_intrinsic(toy.bank, mix, z);
    bank_intrinsic_prompt(toy.bank, z, through);
    for (size_t i = 0; i < n; i++) {
        CHECK(fabsf(merged[i] - through[i]) < 1e-4f * (1 + fabsf(merged[i])));
    }
    free(z);
    free(merged);
    free(through);
}

/* Every layer is a block that takes its turn. */
static void deep_layers_take_turns(void)
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
    eng_adapt_config config = config_of("blackbox", 69); /* 9/69 … 4 for the route, 20 a layer */
    eng_adapt_result result;
    CHECK(adapt(&config, NULL, NULL, &result, &err) == ENG_OK);
    eng_adapt_result_fini(&result);
    config.evaluations = 60;
    CHECK(adapt(&config, NULL, NULL, &result, &err) == ENG_EINVAL);
    CHECK_STR(err.field, "evaluations");
    toy_close(&toy);
    toy = shallow;
}

/* ---- who chooses the step ---------------------------------------------------------------------------- */

static void patience_ends_a_stage(void)
{
    eng_adapt_config config = config_of("route", 0);
    eng_adapt_result result;
    struct seen seen = {0};
    config.steps = 1000;
    config.eval_every = 1;
    config.patience = 2;
    config.lr = 1e-12; /* nothing gets better */
    REQUIRE(run(&config, &seen, &result));
    CHECK(result.steps >= 2 && result.steps < 50);
    CHECK_INT(result.steps - result.best_step, 2);
    eng_adapt_result_fini(&result);
}

static eng_status cross_validate(const eng_adapt_config *config, struct seen *seen,
                                 eng_adapt_result *result, eng_error *err)
{
    return eng_adapt(toy.compute, toy.model, toy.bank, toy.task, toy.set, train, ROWS, NULL, NULL,
                     0, config, watch, seen, result, err);
}

/* Every row is left out once; the last run trains on all of them for as long as was best. */
static void folds_choose_the_steps(void)
{
    static const char *const names[] = {"route", "route+prompt", "blackbox-route", "full"};
    for (size_t i = 0; i < (SHORT ? 1 : 4); i++) {
        eng_adapt_config config = config_of(names[i], i == 2 ? 24 : 0);
        eng_adapt_result a, b;
        struct seen seen = {0};
        eng_error err = {.text = ""};
        config.folds = 2;
        config.eval_every = SHORT ? 1 : 4;
        config.steps = SHORT ? 2 : 12;
        config.lr = 0.1;
        if (cross_validate(&config, &seen, &a, &err) != ENG_OK) {
            TEST_FAIL_("%s: %s: %s", names[i], err.field, err.text);
            return;
        }
        CHECK_INT(a.folds, 2);
        CHECK_INT(a.best_step % config.eval_every, 0);
        CHECK(a.dev_loss <= a.dev_loss_before || a.dev_accuracy > a.dev_accuracy_before);
        CHECK(a.dev_accuracy * ROWS == floor(a.dev_accuracy * ROWS)); /* of all rows together */
        CHECK(SHORT || i > 0 || a.steps == a.best_step);
        CHECK(seen.last_step <= seen.steps);
        REQUIRE(cross_validate(&config, &seen, &b, NULL) == ENG_OK);
        CHECK(memcmp(a.route, b.route, a.route_len * sizeof *a.route) == 0);
        CHECK(a.dev_loss == b.dev_loss && a.tokens == b.tokens);
        eng_adapt_result_fini(&a);
        eng_adapt_result_fini(&b);
    }
}

/* The chosen number of steps is what the route shows: the same run, left alone for so long. */
static void the_last_run_takes_what_was_chosen(void)
{
    eng_adapt_config config = config_of("route", 0);
    eng_adapt_result folds, alone;
    struct seen seen = {0};
    config.folds = 2;
    config.steps = SHORT ? 2 : 12;
    config.eval_every = SHORT ? 1 : 4;
    REQUIRE(cross_validate(&config, &seen, &folds, NULL) == ENG_OK);
    REQUIRE(SHORT || folds.best_step > 0);
    config.folds = 0;
    config.steps = folds.best_step;
    config.eval_every = 1000000; /* one look, at the end */
    if (config.steps > 0) {
        REQUIRE(cross_validate(&config, &seen, &alone, NULL) == ENG_OK);
        CHECK(alone.best_step < config.steps ||
              memcmp(folds.route, alone.route, alone.route_len * sizeof *alone.route) == 0);
        eng_adapt_result_fini(&alone);
    }
    eng_adapt_result_fini(&folds);
}

/* A budget below eval_every is looked at all the same; a method without steps is measured, too. */
static void folds_of_short_runs(void)
{
    eng_adapt_config config = config_of("route", 0);
    eng_adapt_result result;
    struct seen seen = {0};
    config.folds = 2;
    config.steps = 3;
    config.eval_every = 20;
    config.lr = 0.1;
    REQUIRE(cross_validate(&config, &seen, &result, NULL) == ENG_OK);
    CHECK_INT(result.best_step, 3);
    CHECK_INT(result.steps, 3);
    CHECK(result.dev_loss < result.dev_loss_before);
    eng_adapt_result_fini(&result);
    config.method = "average";
    REQUIRE(cross_validate(&config, &seen, &result, NULL) == ENG_OK);
    CHECK_INT(result.folds, 2);
    CHECK_INT(result.steps, 0);
    CHECK(isfinite(result.dev_loss) && result.dev_loss == result.dev_loss_before);
    eng_adapt_result_fini(&result);
}

static void folds_of_rows_without_labels(void)
{
    static const size_t cases[][2] = {{2, 0}, {4, 2}, {7, 3}, {8, 4}, {31, 4}, {32, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[32 * 96];
        size_t len = 0;
        eng_dataset *set = NULL;
        for (size_t r = 0; r < cases[i][0]; r++) {
            len += (size_t)snprintf(text + len, sizeof text - len,
                                    "{\"question\":\"q%zu\",\"options\":[\"a\",\"b\"],"
                                    "\"context\":\"c\",\"label\":\"a\"}\n",
                                    r);
        }
        REQUIRE(eng_dataset_parse((eng_text){text, len}, ENG_ROWS_JSONL, NULL, &set, NULL, NULL,
                                  NULL) == ENG_OK);
        CHECK_INT(eng_folds(set), cases[i][1]);
        eng_dataset_free(set);
    }
}

static void the_rule_for_folds(void)
{
    static const struct {
        size_t each;
        size_t folds;
    } cases[] = {{1, 0}, {3, 3}, {4, 4}, {15, 4}, {16, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[32 * 64];
        size_t len = 0;
        eng_dataset *set = NULL;
        for (size_t r = 0; r < 2 * cases[i].each; r++) {
            len += (size_t)snprintf(text + len, sizeof text - len,
                                    "{\"text\":\"t%zu\",\"label\":\"%s\"}\n", r,
                                    r % 2 == 0 ? "甲" : "乙");
        }
        REQUIRE(eng_dataset_parse((eng_text){text, len}, ENG_ROWS_JSONL, NULL, &set, NULL, NULL,
                                  NULL) == ENG_OK);
        CHECK_INT(eng_folds(set), cases[i].folds);
        eng_dataset_free(set);
    }
}

/* ---- what all have in common ----------------------------------------------------------------------- */

static const struct {
    const char *name;
    size_t evaluations;
} learnt[] = {
    {"blackbox-route", 24}, {"blackbox", 60}, {"route+prompt", 0}, {"prompt", 0}, {"full", 0}};
enum { LEARNT = sizeof learnt / sizeof learnt[0] };

static bool same_floats(const float *a, const float *b, size_t n)
{
    return (a == NULL) == (b == NULL) && (a == NULL || memcmp(a, b, n * sizeof *a) == 0);
}

static void the_same_seed_gives_the_same_bytes(void)
{
    for (size_t i = 0; i < LEARNT; i++) {
        eng_adapt_config config = config_of(learnt[i].name, learnt[i].evaluations);
        struct seen seen = {0};
        eng_adapt_result a, b, c;
        REQUIRE(run(&config, &seen, &a) && run(&config, &seen, &b));
        CHECK(same_floats(a.route, b.route, a.route_len));
        CHECK(same_floats(a.prompt, b.prompt, a.prompt_len));
        CHECK(a.train_loss == b.train_loss && a.dev_loss == b.dev_loss);
        config.seed = 9;
        config.init = ENG_INIT_RANDOM;
        REQUIRE(run(&config, &seen, &c));
        CHECK(a.train_loss != c.train_loss);
        eng_adapt_result_fini(&a);
        eng_adapt_result_fini(&b);
        eng_adapt_result_fini(&c);
    }
}

static void a_caller_can_stop_each(void)
{
    for (size_t i = 0; i < LEARNT; i++) {
        eng_adapt_config config = config_of(learnt[i].name, learnt[i].evaluations);
        struct seen seen = {.stop_at = 2};
        eng_adapt_result result;
        eng_error err = {.text = ""};
        CHECK(adapt(&config, watch, &seen, &result, &err) == ENG_ECANCELLED);
        CHECK_INT(seen.calls, 2);
        CHECK(result.route == NULL && result.prompt == NULL);
        eng_adapt_result_fini(&result);
    }
}

static void time_is_a_budget_of_each(void)
{
    for (size_t i = 0; i < LEARNT; i++) {
        eng_adapt_config config = config_of(learnt[i].name, 1000);
        struct seen seen = {0};
        eng_adapt_result result;
        config.steps = 100000;
        config.evaluations = config.evaluations > 0 ? 1000 : 0;
        config.seconds = 0.02;
        REQUIRE(run(&config, &seen, &result));
        CHECK(result.steps >= 1 && result.steps < 500 && result.route != NULL);
        eng_adapt_result_fini(&result);
    }
}

/* A head of NaN makes every loss NaN. */
static void no_finite_loss_is_a_divergence(void)
{
    float kept = toy.bank->head_w[0];
    toy.bank->head_w[0] = NAN;
    for (size_t i = 0; i < LEARNT; i++) {
        eng_adapt_config config = config_of(learnt[i].name, learnt[i].evaluations);
        eng_adapt_result result;
        eng_error err = {.text = ""};
        CHECK(adapt(&config, NULL, NULL, &result, &err) == ENG_EDIVERGED);
        CHECK_STR(err.field, "loss");
        REQUIRE(result.route != NULL);
        for (size_t k = 0; k < result.route_len; k++) {
            CHECK(isfinite(result.route[k]));
        }
        eng_adapt_result_fini(&result);
    }
    toy.bank->head_w[0] = kept;
}

static void a_budget_that_is_too_small_is_named(void)
{
    eng_adapt_config config = config_of("blackbox-route", 1);
    eng_adapt_result result;
    eng_error err = {.text = ""};
    CHECK(adapt(&config, NULL, NULL, &result, &err) == ENG_EINVAL);
    CHECK_STR(err.field, "evaluations");
    config.evaluations = 100000000;
    CHECK(adapt(&config, NULL, NULL, &result, &err) == ENG_ELIMIT);
    CHECK_STR(err.field, "evaluations");
}

int main(void)
{
    TESTS_BEGIN;
    for (size_t i = 0; i < ROWS; i++) {
        train[i] = i;
        dev[i] = TOY_EACH + i;
    }
    if (toy_open(&toy)) {
        RUN(a_black_box_finds_a_route);
        RUN(the_result_is_the_candidate_that_dev_chose);
        RUN(prompt_methods_learn);
        RUN(full_tunes_a_copy);
        RUN(cmaes_tunes_what_the_route_began);
        RUN(the_intrinsic_vector_gives_the_merged_prompt);
        RUN(deep_layers_take_turns);
        RUN(patience_ends_a_stage);
        RUN(folds_choose_the_steps);
        RUN(the_last_run_takes_what_was_chosen);
        RUN(folds_of_short_runs);
        RUN(the_rule_for_folds);
        RUN(folds_of_rows_without_labels);
        RUN(the_same_seed_gives_the_same_bytes);
        RUN(a_caller_can_stop_each);
        RUN(time_is_a_budget_of_each);
        RUN(no_finite_loss_is_a_divergence);
        RUN(a_budget_that_is_too_small_is_named);
    }
    toy_close(&toy);
    TESTS_END;
}
