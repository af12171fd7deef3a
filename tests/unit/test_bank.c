/* test_bank.c: mixes, merged prompts and their gradients against plain sums and central differences,
 * for shallow, deep and tied banks; fingerprints. */
#include "engine/bank.h"
#include "engine/encoder.h"
#include "engine/rng.h"
#include "tests/unit/test.h"

#define H          24
#define P          3
#define K          5
#define D          4
#define MAX_LAYERS 3
#define STEP       1e-5

static eng_model *model;
static struct rng rng;

static bool setup(void)
{
    const eng_model_info shape = {.layers = MAX_LAYERS,
                                  .hidden = H,
                                  .heads = 2,
                                  .ffn = 16,
                                  .vocab = 10,
                                  .positions = 16,
                                  .types = 2};
    rng_seed(&rng, 8);
    return eng_model_random(&shape, 1, &model, NULL) == ENG_OK;
}

/* Σ weight·p[l], p merged from modules = z·A by their definition, in double. */
static double merged_value(const eng_bank *bank, const double *route,
                           const struct bank_noise *noise, const double *z, const double *A,
                           const float *weight)
{
    double value = 0;
    for (size_t l = 0; l < bank->info.layers; l++) {
        double w[K], sum = 1e-12;
        for (size_t k = 0; k < K; k++) {
            double r = route[bank->info.tied ? k : l * K + k];
            if (noise != NULL) {
                double u = noise->u[l * K + k];
                r = (r + log(u) - log(1 - u)) / noise->tau;
            }
            w[k] = 1 / (1 + exp(-r));
            sum += w[k];
        }
        for (size_t i = 0; i < P * H; i++) {
            double p = 0;
            for (size_t k = 0; k < K; k++) {
                for (size_t d = 0; d < D; d++) {
                    p += w[k] / sum * z[(l * K + k) * D + d] * A[(l * D + d) * P * H + i];
                }
            }
            value += p * weight[l * P * H + i];
        }
    }
    return value;
}

struct tensors {
    double route[MAX_LAYERS * K], z[MAX_LAYERS * K * D], A[MAX_LAYERS * D * P * H];
    float froute[MAX_LAYERS * K], u[MAX_LAYERS * K], mix[MAX_LAYERS * K];
    float weight[MAX_LAYERS * P * H], merged[MAX_LAYERS * P * H];
    float droute[MAX_LAYERS * K], dz[MAX_LAYERS * K * D], dA[MAX_LAYERS * D * P * H];
};

static void check_slope(const eng_bank *bank, struct tensors *t, const struct bank_noise *noise,
                        double *at, float got)
{
    double keep = *at;
    *at = keep + STEP;
    double up = merged_value(bank, t->route, noise, t->z, t->A, t->weight);
    *at = keep - STEP;
    double down = merged_value(bank, t->route, noise, t->z, t->A, t->weight);
    *at = keep;
    CHECK_NEAR(got, (up - down) / (2 * STEP), 2e-6);
}

static void check_bank(size_t layers, bool tied, bool noisy)
{
    static struct tensors t;
    eng_bank *bank = NULL;
    memset(&t, 0, sizeof t);
    REQUIRE(eng_bank_random(model, layers, K, P, D, 3, &bank, NULL) == ENG_OK);
    bank->info.tied = tied;
    bank->info.route_len = tied ? K : layers * K;
    for (size_t i = 0; i < bank->info.route_len; i++) {
        t.route[i] = t.froute[i] = (float)rng_normal(&rng);
    }
    for (size_t i = 0; i < layers * K; i++) {
        t.u[i] = 0.1f + 0.8f * (float)rng_uniform(&rng);
    }
    for (size_t i = 0; i < layers * P * H; i++) {
        t.weight[i] = (float)rng_normal(&rng);
    }
    for (size_t i = 0; i < layers * K * D; i++) {
        t.z[i] = bank->z[i];
    }
    for (size_t i = 0; i < layers * D * P * H; i++) {
        t.A[i] = bank->A[i];
    }
    const struct bank_noise noise = {t.u, 0.7f}, *used = noisy ? &noise : NULL;
    bank_mix(bank, t.froute, used, t.mix, NULL);
    eng_merged_prompt(bank, t.mix, t.merged);
    double value = 0;
    for (size_t i = 0; i < layers * P * H; i++) {
        value += t.merged[i] * t.weight[i];
    }
    CHECK_NEAR(value, merged_value(bank, t.route, used, t.z, t.A, t.weight), 1e-5);
    bank_mix_gradient(bank, t.froute, used, t.weight, t.droute);
    bank_za_gradient(bank, t.mix, t.weight, t.dz, t.dA);
    for (size_t i = 0; i < bank->info.route_len; i++) {
        check_slope(bank, &t, used, &t.route[i], t.droute[i]);
    }
    for (size_t i = 0; i < layers * K * D; i++) {
        check_slope(bank, &t, used, &t.z[i], t.dz[i]);
    }
    for (size_t i = 0; i < layers * D * P * H; i += 7) {
        check_slope(bank, &t, used, &t.A[i], t.dA[i]);
    }
    eng_bank_free(bank);
}

static void shallow(void)
{
    check_bank(1, false, false);
    check_bank(1, false, true);
}

static void deep(void)
{
    check_bank(MAX_LAYERS, false, false);
    check_bank(MAX_LAYERS, false, true);
}

static void tied(void)
{
    check_bank(MAX_LAYERS, true, false);
    check_bank(MAX_LAYERS, true, true);
}

/* Routes far out do not become NaN: sigmoid stays finite, a dead layer divides by epsilon. */
static void extreme_routes(void)
{
    eng_bank *bank = NULL;
    REQUIRE(eng_bank_random(model, 1, K, P, D, 3, &bank, NULL) == ENG_OK);
    float route[K] = {-1e30f, -3e38f, -200, -1e30f, -1e30f}, mix[K], droute[K];
    float dmerged[P * H];
    for (size_t i = 0; i < P * H; i++) {
        dmerged[i] = 1;
    }
    eng_route_mix(bank, route, mix);
    bank_route_gradient(bank, route, dmerged, droute);
    for (size_t k = 0; k < K; k++) {
        CHECK(isfinite(mix[k]) && mix[k] >= 0 && mix[k] <= 1);
        CHECK(isfinite(droute[k]));
    }
    route[1] = 3e38f;
    eng_route_mix(bank, route, mix);
    CHECK(mix[1] == 1);
    eng_bank_free(bank);
}

static void fingerprints(void)
{
    eng_bank *a = NULL, *b = NULL, *c = NULL;
    REQUIRE(eng_bank_random(model, 1, K, P, D, 3, &a, NULL) == ENG_OK);
    REQUIRE(eng_bank_random(model, 1, K, P, D, 3, &b, NULL) == ENG_OK);
    REQUIRE(eng_bank_random(model, 1, K, P, D, 4, &c, NULL) == ENG_OK);
    CHECK(strlen(a->info.fingerprint) == 64);
    CHECK_STR(a->info.fingerprint, b->info.fingerprint);
    CHECK(strcmp(a->info.fingerprint, c->info.fingerprint) != 0);
    b->info.token_type = 0;
    REQUIRE(bank_prepare(b, NULL) == ENG_OK);
    CHECK(strcmp(a->info.fingerprint, b->info.fingerprint) != 0);
    b->info.token_type = a->info.token_type;
    b->head_b[1] = 1;
    REQUIRE(bank_prepare(b, NULL) == ENG_OK);
    CHECK(strcmp(a->info.fingerprint, b->info.fingerprint) != 0);
    eng_bank_free(a);
    eng_bank_free(b);
    eng_bank_free(c);
}

static void banks_that_cannot_be(void)
{
    eng_bank *bank = NULL;
    eng_error err = {0};
    CHECK(eng_bank_random(model, 2, K, P, D, 1, &bank, &err) == ENG_EINVAL);
    CHECK(eng_bank_random(model, 1, K, 16, D, 1, &bank, &err) == ENG_EINVAL);
    CHECK(eng_bank_random(model, 1, SIZE_MAX / 2, P, D, 1, &bank, &err) == ENG_ENOMEM);
    CHECK(bank == NULL);
}

int main(void)
{
    TESTS_BEGIN;
    if (!setup()) {
        fprintf(stderr, "cannot make the random model\n");
        return 1;
    }
    RUN(shallow);
    RUN(deep);
    RUN(tied);
    RUN(extreme_routes);
    RUN(fingerprints);
    RUN(banks_that_cannot_be);
    eng_model_free(model);
    TESTS_END;
}
