/* test_adapt.c: learning a route. The optimiser through the model against the golden trace; a toy
 * whose options say nothing; the same bytes twice; ends that are not successes. */
#include "engine/opt_adamw.h"
#include "engine/rng.h"
#include "tests/unit/golden.h"
#include "tests/unit/toy_task.h"

/* ---- five AdamW steps on the route of the golden model ------------------------------------------- */

struct trace {
    eng_sequence sequences[GOLDEN_SEQUENCES];
    struct encoder_tape *tape;
    eng_compute *compute;
    float *dprompt, *dmerged;
    float start[256], end[256], dstart[256], dend[256];
};

static double loss_and_gradient(struct golden *g, struct trace *t, const float *route, float *mix,
                                float *gradient)
{
    size_t floats = g->bank->info.layers * g->bank->info.prompt_tokens * g->model->info.hidden;
    eng_route_mix(g->bank, route, mix);
    CHECK(encoder_forward_keep(t->compute, t->tape, ENG_TRAINING, t->sequences, GOLDEN_SEQUENCES,
                               t->start, t->end, NULL) == ENG_OK);
    double loss = encoder_mrc_loss(t->sequences, GOLDEN_SEQUENCES, t->start, t->end,
                                   g->target_start, g->target_end, t->dstart, t->dend);
    CHECK(encoder_backward(t->compute, t->tape, ENG_TRAINING, t->dstart, t->dend, t->dprompt,
                           NULL) == ENG_OK);
    memset(t->dmerged, 0, floats * sizeof(float));
    for (size_t i = 0; i < GOLDEN_SEQUENCES * floats; i++) {
        t->dmerged[i % floats] += t->dprompt[i];
    }
    bank_route_gradient(g->bank, route, t->dmerged, gradient);
    return loss;
}

static void follow_trace(struct golden *g, struct trace *t)
{
    float route[64], gradient[64], mix[64];
    char name[32];
    struct adamw *opt = NULL;
    size_t n = g->bank->info.route_len;
    REQUIRE(adamw_new(n, &opt, NULL) == ENG_OK);
    eng_bank_row(g->bank, g->row, route);
    for (size_t i = 0; i < GOLDEN_SEQUENCES; i++) {
        t->sequences[i] =
            (eng_sequence){.ids = g->ids[i], .len = g->lens[i], .bank = g->bank, .mix = mix};
    }
    for (int step = 0; step < 5; step++) {
        float loss = (float)loss_and_gradient(g, t, route, mix, gradient);
        snprintf(name, sizeof name, "adamw.loss.%d", step);
        golden_check(g, name, &loss, 1, 1e-4);
        adamw_step(opt, 3e-3, 0.01, gradient, route);
        snprintf(name, sizeof name, "adamw.route.%d", step);
        golden_check(g, name, route, n, 1e-4);
    }
    adamw_free(opt);
}

static void golden_trace(const char *kind)
{
    struct golden g;
    struct trace t = {.tape = NULL};
    REQUIRE(golden_open(&g, kind, NULL));
    size_t floats = g.bank->info.layers * g.bank->info.prompt_tokens * g.model->info.hidden;
    t.dprompt = calloc(GOLDEN_SEQUENCES * floats, sizeof(float));
    t.dmerged = calloc(floats, sizeof(float));
    REQUIRE(t.dprompt != NULL && t.dmerged != NULL);
    REQUIRE(eng_compute_start(2, NULL, &t.compute, NULL) == ENG_OK);
    REQUIRE(encoder_tape_new(g.model, g.tokens, GOLDEN_SEQUENCES, WANT_PROMPT, &t.tape, NULL) ==
            ENG_OK);
    follow_trace(&g, &t);
    encoder_tape_free(t.tape);
    eng_compute_stop(t.compute);
    free(t.dprompt);
    free(t.dmerged);
    golden_close(&g);
}

static void five_steps_shallow(void)
{
    golden_trace("shallow");
}

static void five_steps_deep(void)
{
    golden_trace("deep");
}

/* ---- the toy ---------------------------------------------------------------------------------------- */

/* Under a sanitizer everything runs, but few steps: what is learnt is judged elsewhere. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FEW_STEPS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define FEW_STEPS 1
#endif
#endif
#ifndef FEW_STEPS
#define FEW_STEPS 0
#endif
enum { STEPS = FEW_STEPS ? 2 : 20, EVERY = STEPS / 2 };

static struct toy toy;
static size_t train[TOY_EACH], dev[TOY_EACH]; /* half of the rows each, both labels alike */

static eng_adapt_config config_of(const char *method, eng_init init)
{
    eng_adapt_config config;
    eng_adapt_defaults(toy.bank, &config);
    config.method = method;
    config.init = init;
    config.seed = 8;
    config.steps = STEPS;
    config.eval_every = EVERY;
    return config;
}

static eng_status adapt(const eng_adapt_config *config, eng_on_progress on_progress, void *arg,
                        eng_adapt_result *result, eng_error *err)
{
    return eng_adapt(toy.compute, toy.model, toy.bank, toy.task, toy.set, train, TOY_EACH, toy.set,
                     dev, TOY_EACH, config, on_progress, arg, result, err);
}

struct seen {
    size_t steps, looks, stop_at;
    double first_loss, last_loss;
};

static eng_verdict watch(void *arg, const eng_progress *progress)
{
    struct seen *seen = arg;
    seen->steps++;
    seen->looks += isnan(progress->dev_accuracy) ? 0 : 1;
    seen->first_loss = seen->steps == 1 ? progress->train_loss : seen->first_loss;
    seen->last_loss = progress->train_loss;
    return seen->steps != seen->stop_at ? ENG_GO_ON : ENG_STOP;
}

static void learns_what_the_options_do_not_say(void)
{
    eng_adapt_config config = config_of("route", ENG_INIT_AVERAGE);
    eng_adapt_result result;
    struct seen seen = {0};
    eng_error err = {.text = ""};
    if (adapt(&config, watch, &seen, &result, &err) != ENG_OK) {
        TEST_FAIL_("%s: %s", err.field, err.text);
        return;
    }
    CHECK_INT(result.route_len, eng_bank_get_info(toy.bank)->route_len);
    CHECK_INT(seen.steps, STEPS);
    CHECK_INT(seen.looks, 2);
    CHECK(FEW_STEPS || seen.last_loss < seen.first_loss - 0.1);
    CHECK(FEW_STEPS || result.dev_accuracy >= 0.75);
    CHECK(result.dev_accuracy >= result.dev_accuracy_before);
    CHECK(result.best_step % EVERY == 0 && (FEW_STEPS || result.best_step > 0));
    CHECK_STR(result.started_from, "average");
    CHECK(result.forward_passes ==
          TOY_EACH * (STEPS + 2 * 3)); /* a look: dev, and the rows that train */
    CHECK(result.tokens > result.forward_passes * 20 && result.seconds > 0);
    eng_adapt_result_fini(&result);
}

static void the_same_seed_gives_the_same_bytes(void)
{
    eng_adapt_config config = config_of("route", ENG_INIT_RANDOM);
    eng_adapt_result a, b, c;
    config.steps = FEW_STEPS ? 4 : 6;
    config.batch = 5; /* several epochs, shuffled */
    config.eval_every = 2;
    REQUIRE(adapt(&config, NULL, NULL, &a, NULL) == ENG_OK);
    REQUIRE(adapt(&config, NULL, NULL, &b, NULL) == ENG_OK);
    CHECK(memcmp(a.route, b.route, a.route_len * sizeof *a.route) == 0);
    CHECK(memcmp(&a.dev_loss, &b.dev_loss, sizeof a.dev_loss) == 0);
    config.seed = 9;
    REQUIRE(adapt(&config, NULL, NULL, &c, NULL) == ENG_OK);
    CHECK(memcmp(a.route, c.route, a.route_len * sizeof *a.route) != 0);
    eng_adapt_result_fini(&a);
    eng_adapt_result_fini(&b);
    eng_adapt_result_fini(&c);
}

/* *least: mean −log p(true option) of the training rows under a route, at the temperature where it is least. */
static void answer_loss(const float *route, double *least)
{
    const double temperatures[] = {0.5, 1, 2, 4, 8};
    double sums[5] = {0};
    float mix[64], start[512], end[512], p[2];
    eng_route_mix(toy.bank, route, mix);
    for (size_t i = 0; i < TOY_EACH; i++) {
        eng_example row;
        size_t len = 0;
        eng_dataset_row(toy.set, train[i], &row, NULL);
        eng_encoded *encoded = toy_forward(&toy, toy.task, &row.input, mix, start, end, &len);
        REQUIRE(encoded != NULL);
        eng_decode_options(encoded, start, end, NULL, p);
        /* the set's labels come in the order of its rows, 乙 first; the task has 甲 first */
        size_t truth = train[i] % 2 == 0 ? 1 : 0;
        for (size_t t = 0; t < 5; t++) {
            double other = log((double)p[1 - truth]) - log((double)p[truth]);
            sums[t] += log1p(exp(other / temperatures[t])) / TOY_EACH;
        }
        eng_encoded_free(encoded);
    }
    *least = sums[0];
    for (size_t t = 1; t < 5; t++) {
        *least = fmin(*least, sums[t]);
    }
}

static void retrieve_takes_the_row_that_serves_best(void)
{
    eng_adapt_config config = config_of("retrieve", ENG_INIT_RANDOM);
    eng_adapt_result result;
    float route[64] = {0}, best[64] = {0};
    const char *name = "average";
    double least = 1e9, loss = 1e9;
    answer_loss(route, &least);
    REQUIRE(adapt(&config, NULL, NULL, &result, NULL) == ENG_OK);
    for (size_t row = 0; row < eng_bank_get_info(toy.bank)->rows; row++) {
        eng_bank_row(toy.bank, row, route);
        answer_loss(route, &loss);
        if (loss < least) {
            least = loss;
            name = eng_bank_row_name(toy.bank, row);
            memcpy(best, route, sizeof best);
        }
    }
    CHECK_STR(result.started_from, name);
    CHECK(memcmp(result.route, best, result.route_len * sizeof *best) == 0);
    CHECK_INT(result.steps, 0);
    eng_adapt_result_fini(&result);
}

static void average_is_all_zeros(void)
{
    eng_adapt_config config = config_of("average", ENG_INIT_RANDOM);
    eng_adapt_result result;
    REQUIRE(adapt(&config, NULL, NULL, &result, NULL) == ENG_OK);
    for (size_t i = 0; i < result.route_len; i++) {
        CHECK(result.route[i] == 0.0f);
    }
    eng_adapt_result_fini(&result);
}

/* ---- ends that are not successes ------------------------------------------------------------------- */

static void a_caller_can_stop_it(void)
{
    eng_adapt_config config = config_of("route", ENG_INIT_AVERAGE);
    eng_adapt_result result;
    struct seen seen = {.stop_at = 2};
    eng_error err = {.text = ""};
    CHECK(adapt(&config, watch, &seen, &result, &err) == ENG_ECANCELLED);
    CHECK_INT(seen.steps, 2);
    CHECK(result.route == NULL);
    eng_adapt_result_fini(&result);
}

static void an_absurd_step_size_ends_with_the_best_so_far(void)
{
    eng_adapt_config config = config_of("route", ENG_INIT_RETRIEVE);
    eng_adapt_result result;
    eng_error err = {.text = ""};
    config.lr = 1e30;
    config.weight_decay = 1e30;
    CHECK(adapt(&config, NULL, NULL, &result, &err) == ENG_EDIVERGED);
    CHECK(strstr(err.text, "step size") != NULL);
    REQUIRE(result.route != NULL);
    for (size_t i = 0; i < result.route_len; i++) {
        CHECK(isfinite(result.route[i]));
    }
    eng_adapt_result_fini(&result);
}

static void time_is_a_budget(void)
{
    eng_adapt_config config = config_of("route", ENG_INIT_AVERAGE);
    eng_adapt_result result;
    config.steps = 100000;
    config.seconds = 0.05;
    REQUIRE(adapt(&config, NULL, NULL, &result, NULL) == ENG_OK);
    CHECK(result.steps >= 1 && result.steps < 1000);
    CHECK(result.route != NULL);
    eng_adapt_result_fini(&result);
}

static void without_dev_the_training_rows_choose(void)
{
    eng_adapt_config config = config_of("route", ENG_INIT_AVERAGE);
    eng_adapt_result result;
    config.steps = EVERY;
    REQUIRE(eng_adapt(toy.compute, toy.model, toy.bank, toy.task, toy.set, train, TOY_EACH, NULL,
                      NULL, 0, &config, NULL, NULL, &result, NULL) == ENG_OK);
    CHECK(isnan(result.dev_accuracy) && (FEW_STEPS || result.best_step == EVERY));
    eng_adapt_result_fini(&result);
}

static void wrong_settings_are_named(void)
{
    eng_adapt_result result;
    eng_error err;
    eng_adapt_config config = config_of("route", ENG_INIT_AVERAGE);
    config.method = "magic";
    CHECK(adapt(&config, NULL, NULL, &result, &err) == ENG_EINVAL);
    CHECK(strcmp(err.field, "method") == 0 && strstr(err.text, "retrieve") != NULL);
    config = config_of("route", ENG_INIT_AVERAGE);
    config.lr = (double)NAN;
    CHECK(adapt(&config, NULL, NULL, &result, &err) == ENG_EINVAL);
    CHECK_STR(err.field, "lr");
    config = config_of("route", ENG_INIT_AVERAGE);
    config.steps = 100000000;
    CHECK(adapt(&config, NULL, NULL, &result, &err) == ENG_ELIMIT);
    CHECK_STR(err.field, "steps");
    config = config_of("route", ENG_INIT_AVERAGE);
    CHECK(eng_adapt(toy.compute, toy.model, toy.bank, toy.task, toy.set, train, 0, NULL, NULL, 0,
                    &config, NULL, NULL, &result, &err) == ENG_EINVAL);
}

/* ---- deep and tied ------------------------------------------------------------------------------------ */

static void learn_deep(bool tied)
{
    struct toy other = {.model = NULL};
    struct toy shallow = toy;
    eng_error err = {.text = ""};
    if (eng_model_open(TEST_SOURCE_DIR "/tests/models/boot-deep", &other.model, &err) != ENG_OK ||
        eng_bank_open_default(other.model, tied, &other.bank, &err) != ENG_OK ||
        !toy_set_up(&other)) {
        TEST_FAIL_("deep model: %s", err.text);
        toy_close(&other);
        return;
    }
    toy = other;
    eng_adapt_config config = config_of("route", ENG_INIT_AVERAGE);
    eng_adapt_result result;
    struct seen seen = {0};
    config.no_label_scaling = true; /* the route alone has to lower the loss */
    CHECK(eng_bank_get_info(toy.bank)->layers == 3);
    CHECK_INT(eng_bank_get_info(toy.bank)->route_len, tied ? 8 : 24);
    if (adapt(&config, watch, &seen, &result, &err) != ENG_OK) {
        TEST_FAIL_("%s", err.text);
    }
    CHECK(FEW_STEPS || seen.last_loss < seen.first_loss - 0.1);
    CHECK(FEW_STEPS || result.dev_accuracy >= 0.7);
    eng_adapt_result_fini(&result);
    toy_close(&toy);
    toy = shallow;
}

static void deep_routes(void)
{
    learn_deep(false);
}

static void tied_routes(void)
{
    learn_deep(true);
}

int main(void)
{
    TESTS_BEGIN;
    RUN(five_steps_shallow);
    RUN(five_steps_deep);
    for (size_t i = 0; i < TOY_EACH; i++) {
        train[i] = i;
        dev[i] = TOY_EACH + i;
    }
    if (toy_open(&toy)) {
        RUN(learns_what_the_options_do_not_say);
        RUN(the_same_seed_gives_the_same_bytes);
        RUN(retrieve_takes_the_row_that_serves_best);
        RUN(average_is_all_zeros);
        RUN(a_caller_can_stop_it);
        RUN(an_absurd_step_size_ends_with_the_best_so_far);
        RUN(time_is_a_budget);
        RUN(without_dev_the_training_rows_choose);
        RUN(wrong_settings_are_named);
        RUN(deep_routes);
        RUN(tied_routes);
    }
    toy_close(&toy);
    TESTS_END;
}
