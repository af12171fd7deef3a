/* test_prompt_encoder.c: backward of the prompt encoders against finite differences of the forward, in
 * double; what they start as; and that nothing of them is left in a written bank. */
#include "engine/prompt_encoder.h"
#include "engine/prompts.h"
#include "tests/unit/prompts_fixture.h"

enum { MODULES = 2, P = 3, H = 4, ALL = MODULES * P * H };

struct check {
    eng_compute *compute;
    struct prompt_encoder *encoder;
    struct pretrain_run run;
    float base[ALL], out[ALL], dout[ALL], dbase[ALL];
};

static bool make_check(struct check *c, eng_prompt_encoder kind, bool zero)
{
    struct rng rng;
    eng_error err = {0};
    rng_seed(&rng, 11);
    *c = (struct check){.compute = NULL};
    if (eng_compute_start(2, NULL, &c->compute, &err) != ENG_OK ||
        run_init(&c->run, 16, &err) != ENG_OK ||
        prompt_encoder_new(kind, MODULES, P, H, &rng, &c->encoder, &err) != ENG_OK ||
        prompt_encoder_add(c->encoder, 1, &c->run, &err) != ENG_OK) {
        TEST_FAIL_("encoder: %s", err.text);
        return false;
    }
    for (size_t i = 0; i < ALL; i++) {
        c->base[i] = (float)rng_normal(&rng);
        c->dout[i] = (float)rng_normal(&rng);
    }
    const struct run_tensor *wo = &c->run.tensors[c->run.n - 1];
    for (size_t i = 0; !zero && i < wo->count; i++) {
        wo->values[i] = (float)rng_normal(&rng);
    }
    return true;
}

static void end_check(struct check *c)
{
    prompt_encoder_free(c->encoder);
    run_fini(&c->run);
    eng_compute_stop(c->compute);
}

/* <out, dout>, in double */
static double value(struct check *c)
{
    double sum = 0;
    prompt_encoder_forward(c->compute, c->encoder, c->base, c->out);
    for (size_t m = 0; m < MODULES; m++) {
        const double *exact = prompt_encoder_exact(c->encoder, m);
        for (size_t i = 0; i < P * H; i++) {
            sum += exact[i] * c->dout[m * P * H + i];
        }
    }
    return sum;
}

static double slope(struct check *c, float *at)
{
    float kept = *at;
    float up = kept + 1e-3f, down = kept - 1e-3f;
    *at = up;
    double above = value(c);
    *at = down;
    double below = value(c);
    *at = kept;
    return (above - below) / ((double)up - down);
}

static void check_backward(eng_prompt_encoder kind)
{
    struct check c;
    REQUIRE(make_check(&c, kind, false));
    (void)value(&c);
    prompt_encoder_backward(c.compute, c.encoder, c.base, c.dout, c.dbase);
    for (size_t i = 0; i < ALL; i++) {
        CHECK_NEAR(c.dbase[i], slope(&c, &c.base[i]), 2e-5);
    }
    for (size_t t = 0; t < c.run.n; t++) {
        const struct run_tensor *tensor = &c.run.tensors[t];
        double most = 0;
        for (size_t i = 0; i < tensor->count; i++) {
            double want = slope(&c, &tensor->values[i]);
            most = fmax(most, fabs(want));
            if (fabs(tensor->gradient[i] - want) > 2e-5) {
                TEST_FAIL_("%s[%zu] is %g, want %g", tensor->name, i, (double)tensor->gradient[i],
                           want);
            }
        }
        CHECK(most > 1e-2); /* of every tensor something depends */
    }
    end_check(&c);
}

static void lstm_backward(void)
{
    check_backward(ENG_PROMPT_LSTM);
}

static void transformer_backward(void)
{
    check_backward(ENG_PROMPT_TRANSFORMER);
}

static void starts_as_nothing(void)
{
    for (int kind = ENG_PROMPT_LSTM; kind <= ENG_PROMPT_TRANSFORMER; kind++) {
        struct check c;
        REQUIRE(make_check(&c, (eng_prompt_encoder)kind, true));
        prompt_encoder_forward(c.compute, c.encoder, c.base, c.out);
        CHECK(memcmp(c.out, c.base, sizeof c.base) == 0);
        end_check(&c);
    }
}

/* The bank that is written has the modules of the bank in training, to the bit. */
static void folds_away(void)
{
    struct place place;
    char path[96];
    const char *list;
    eng_error err = {0};
    REQUIRE(make_place(&place));
    for (size_t intrinsic = 2; intrinsic <= 8; intrinsic += 6) { /* fewer and more than modules */
        struct train_bank train = {0};
        struct prompt_tasks tasks = {0};
        struct rng rng;
        eng_compute *compute = NULL;
        eng_model *model = NULL;
        eng_bank *bank = NULL;
        const char *const names[] = {"minus", "plus"};
        eng_prompts_config config = tiny(&place, path, &list);
        config.encoder = ENG_PROMPT_LSTM;
        config.intrinsic = intrinsic;
        config.deep = true;
        rng_seed(&rng, 3);
        REQUIRE(eng_compute_start(2, NULL, &compute, &err) == ENG_OK &&
                eng_model_open(place.model, &model, &err) == ENG_OK &&
                train_bank_init(&train, compute, model, &config, &rng, &err) == ENG_OK &&
                prompt_tasks_open(model, train.bank, &config, &tasks, &err) == ENG_OK &&
                train_bank_rows(&train, names, 2, &rng, &err) == ENG_OK);
        train_bank_modules(&train);
        size_t n = train.bank->info.layers * 4 * 4 * model->info.hidden;
        for (size_t i = 0; i < n; i++) {
            train.bank->modules[i] += (float)rng_normal(&rng); /* as if the encoder had learnt */
        }
        CHECK(train_bank_write(&train, &tasks, "{}", place.to, &err) == ENG_OK);
        CHECK(eng_bank_open(model, place.to, false, &bank, &err) == ENG_OK);
        if (bank != NULL) {
            CHECK_INT(bank->info.intrinsic, intrinsic < 4 ? 4 : intrinsic);
            CHECK(memcmp(bank->modules, train.bank->modules, n * sizeof(float)) == 0);
        }
        eng_bank_free(bank);
        prompt_tasks_fini(&tasks);
        train_bank_fini(&train);
        eng_model_free(model);
        eng_compute_stop(compute);
    }
    remove_dir(place.dir);
}

static void learns_with_an_encoder(void)
{
    struct place place;
    char path[96];
    const char *list;
    eng_error err = {0};
    REQUIRE(make_place(&place));
    eng_prompts_config config = tiny(&place, path, &list);
    char whole[96], parts[96];
    snprintf(whole, sizeof whole, "%s", place.to);
    snprintf(parts, sizeof parts, "%s/parts.bank.safetensors", place.dir);
    config.encoder = ENG_PROMPT_TRANSFORMER;
    config.modules = 2;
    config.schedule.steps = 6;
    struct watch w = {0};
    CHECK(pretrain(&config, 1, &w, &err) == ENG_OK);
    config.to = parts;
    w = (struct watch){.stop_at = 3};
    CHECK(pretrain(&config, 2, &w, &err) == ENG_ECANCELLED);
    config.schedule.resume = true;
    config.encoder = ENG_PROMPT_LSTM;
    CHECK(pretrain(&config, 2, &w, &err) == ENG_EMISMATCH);
    config.encoder = ENG_PROMPT_TRANSFORMER;
    w = (struct watch){0};
    CHECK(pretrain(&config, 2, &w, &err) == ENG_OK);
    CHECK(same_file(whole, parts));
    remove_dir(place.dir);
}

int main(void)
{
    TESTS_BEGIN;
    RUN(lstm_backward);
    RUN(transformer_backward);
    RUN(starts_as_nothing);
    RUN(folds_away);
    RUN(learns_with_an_encoder);
    TESTS_END;
}
