/* test_golden.c: forward, loss and every gradient against tests/golden (float64 PyTorch), with every
 * matrix-product back end. METHOD.md 6 says what the tensors are. */
#include "engine/encoder_tape.h"
#include "engine/gemm.h"
#include "engine/params.h"
#include "tests/unit/golden.h"

#define TOLERANCE 2e-5

struct run {
    struct golden g;
    eng_compute *compute;
    struct encoder_tape *tape;
    eng_sequence sequences[GOLDEN_SEQUENCES];
    float start[GOLDEN_SEQUENCES * GOLDEN_MAX_LEN], end[GOLDEN_SEQUENCES * GOLDEN_MAX_LEN];
    float dstart[GOLDEN_SEQUENCES * GOLDEN_MAX_LEN], dend[GOLDEN_SEQUENCES * GOLDEN_MAX_LEN];
    float route[64], mix[64];
    float *dprompt, *dmerged;
    size_t merged; /* floats of one merged prompt */
};

static void close_run(struct run *r)
{
    free(r->dprompt);
    free(r->dmerged);
    encoder_tape_free(r->tape);
    eng_compute_stop(r->compute);
    golden_close(&r->g);
}

static bool open_run(struct run *r, const char *kind, const char *weights, const char *kernel,
                     unsigned want)
{
    eng_error err = {0};
    memset(r, 0, sizeof *r);
    if (!golden_open(&r->g, kind, weights)) {
        return false;
    }
    const eng_bank_info *info = eng_bank_get_info(r->g.bank);
    r->merged = info->layers * info->prompt_tokens * eng_model_get_info(r->g.model)->hidden;
    r->dprompt = calloc(GOLDEN_SEQUENCES * r->merged, sizeof(float));
    r->dmerged = calloc(r->merged, sizeof(float));
    if (eng_compute_start(2, kernel, &r->compute, &err) != ENG_OK ||
        encoder_tape_new(r->g.model, r->g.tokens, GOLDEN_SEQUENCES, want, &r->tape, &err) !=
            ENG_OK ||
        r->dprompt == NULL || r->dmerged == NULL) {
        TEST_FAIL_("%s: %s", kernel, err.text);
        close_run(r);
        return false;
    }
    for (size_t s = 0; s < GOLDEN_SEQUENCES; s++) {
        r->sequences[s] = (eng_sequence){
            .ids = r->g.ids[s], .len = r->g.lens[s], .bank = r->g.bank, .mix = r->mix};
    }
    eng_bank_row(r->g.bank, r->g.row, r->route);
    return true;
}

/* Forward, loss and backward; dmerged = Σ over the sequences, which share one route. */
static double step(struct run *r)
{
    eng_error err = {0};
    CHECK(encoder_forward_keep(r->compute, r->tape, ENG_TRAINING, r->sequences, GOLDEN_SEQUENCES,
                               r->start, r->end, &err) == ENG_OK);
    double loss = encoder_mrc_loss(r->sequences, GOLDEN_SEQUENCES, r->start, r->end,
                                   r->g.target_start, r->g.target_end, r->dstart, r->dend);
    CHECK(encoder_backward(r->compute, r->tape, ENG_TRAINING, r->dstart, r->dend, r->dprompt,
                           &err) == ENG_OK);
    memset(r->dmerged, 0, r->merged * sizeof(float));
    for (size_t i = 0; i < GOLDEN_SEQUENCES * r->merged; i++) {
        r->dmerged[i % r->merged] += r->dprompt[i];
    }
    return loss;
}

static void check_logits(struct run *r, const char *stage)
{
    size_t at = 0;
    for (size_t s = 0; s < GOLDEN_SEQUENCES; s++) {
        char name[64];
        snprintf(name, sizeof name, "%s.start.%zu", stage, s);
        golden_check(&r->g, name, r->start + at, r->g.lens[s], TOLERANCE);
        snprintf(name, sizeof name, "%s.end.%zu", stage, s);
        golden_check(&r->g, name, r->end + at, r->g.lens[s], TOLERANCE);
        at += r->g.lens[s];
    }
}

static void check_named(struct run *r, const char *stage, const char *what, const float *got,
                        size_t count)
{
    char name[160];
    snprintf(name, sizeof name, "%s.%s", stage, what);
    golden_check(&r->g, name, got, count, TOLERANCE);
}

static void check_bank_gradients(struct run *r, const char *stage, const struct bank_noise *noise)
{
    const eng_bank_info *info = eng_bank_get_info(r->g.bank);
    size_t n_z = info->layers * info->modules * info->intrinsic;
    size_t n_A = info->intrinsic * r->merged;
    float droute[64], *dz = calloc(n_z, sizeof *dz), *dA = calloc(n_A, sizeof *dA);
    REQUIRE(dz != NULL && dA != NULL);
    bank_mix_gradient(r->g.bank, r->route, noise, r->dmerged, droute);
    bank_za_gradient(r->g.bank, r->mix, r->dmerged, dz, dA);
    check_named(r, stage, "grad.merged_prompt", r->dmerged, r->merged);
    check_named(r, stage, "grad.route", droute, info->route_len);
    check_named(r, stage, "grad.z", dz, n_z);
    check_named(r, stage, "grad.A", dA, n_A);
    free(dz);
    free(dA);
}

/* Everything METHOD 6 lists for one stage. */
static void check_stage(struct run *r, const char *stage, const struct bank_noise *noise)
{
    const eng_bank_info *info = eng_bank_get_info(r->g.bank);
    float *merged = calloc(r->merged, sizeof *merged);
    REQUIRE(merged != NULL);
    bank_mix(r->g.bank, r->route, noise, r->mix, NULL);
    check_named(r, stage, "weights", r->mix, info->layers * info->modules);
    eng_merged_prompt(r->g.bank, r->mix, merged);
    check_named(r, stage, "merged_prompt", merged, r->merged);
    free(merged);
    float loss = (float)step(r);
    check_named(r, stage, "loss", &loss, 1);
    check_logits(r, stage);
    check_bank_gradients(r, stage, noise);
}

/* The states that enter layer l, before the prompt is added to them. */
static void check_hidden(struct run *r)
{
    size_t prompted = r->g.bank->info.layers, P = r->g.bank->info.prompt_tokens;
    const float *merged = golden_tensor(&r->g, "eval.merged_prompt", NULL);
    size_t layers = eng_model_get_info(r->g.model)->layers;
    size_t H = eng_model_get_info(r->g.model)->hidden, stride = gemm_stride(H), row = 0;
    for (size_t s = 0; s < GOLDEN_SEQUENCES; s++) {
        for (size_t l = 0; l <= layers; l++) {
            char name[64];
            float hidden[GOLDEN_MAX_LEN * 64];
            const float *from = l < layers ? r->tape->values[l].x : r->tape->h;
            for (size_t t = 0; t < r->g.lens[s]; t++) {
                memcpy(hidden + t * H, from + (row + t) * stride, H * sizeof(float));
            }
            for (size_t i = 0; l < prompted && i < P * H; i++) {
                hidden[H + i] -= merged[l * P * H + i];
            }
            snprintf(name, sizeof name, "eval.hidden.%zu.%zu", s, l);
            golden_check(&r->g, name, hidden, r->g.lens[s] * H, TOLERANCE);
        }
        row += r->g.lens[s];
    }
}

static void check_weight_gradients(struct run *r)
{
    struct encoder_params params = r->g.model->params;
    for (size_t i = 0; i < params_count(&params); i++) {
        struct param param;
        size_t count = 0;
        char name[160];
        params_at(&params, i, &param);
        const float *gradient = encoder_gradient(r->tape, param.name, &count);
        snprintf(name, sizeof name, "eval.grad.bert.%s", param.name);
        golden_check(&r->g, name, gradient, count, TOLERANCE);
    }
    size_t H = r->g.model->params.hidden;
    const float *bias = NULL, *head = encoder_head_gradient(r->tape, &bias);
    golden_check(&r->g, "eval.grad.qa_outputs.weight", head, 2 * H, TOLERANCE);
    golden_check(&r->g, "eval.grad.qa_outputs.bias", bias, 2, TOLERANCE);
    CHECK(encoder_gradient(r->tape, "no.such.parameter", NULL) == NULL);
}

static void everything(const char *kind, const char *kernel)
{
    struct run *r = malloc(sizeof *r);
    REQUIRE(r != NULL);
    if (open_run(r, kind, NULL, kernel, WANT_PROMPT | WANT_HEAD | WANT_WEIGHTS)) {
        struct bank_noise noise = {golden_tensor(&r->g, "train.noise_u", NULL), 1};
        check_stage(r, "eval", NULL);
        check_hidden(r);
        check_weight_gradients(r);
        check_stage(r, "train", &noise);
        close_run(r);
    }
    free(r);
}

/* The frozen tape keeps less and must not compute less right. */
static void frozen(const char *kind, const char *weights)
{
    struct run *r = malloc(sizeof *r);
    REQUIRE(r != NULL);
    if (open_run(r, kind, weights, NULL, WANT_PROMPT)) {
        struct bank_noise noise = {golden_tensor(&r->g, "train.noise_u", NULL), 1};
        check_stage(r, "eval", NULL);
        check_stage(r, "train", &noise);
        CHECK(encoder_gradient(r->tape, "embeddings.word_embeddings.weight", NULL) == NULL);
        CHECK(encoder_head_gradient(r->tape, NULL) == NULL);
        close_run(r);
    }
    free(r);
}

/* With every kernel this processor has. */
static void everything_shallow(void)
{
    for (enum simd simd = SIMD_NONE; simd <= gemm_cpu(); simd++) {
        everything("shallow", gemm_kernel_name(simd));
    }
}

static void everything_deep(void)
{
    for (enum simd simd = SIMD_NONE; simd <= gemm_cpu(); simd++) {
        everything("deep", gemm_kernel_name(simd));
    }
}

static void shallow_frozen(void)
{
    frozen("shallow", NULL);
}

static void deep_frozen(void)
{
    frozen("deep", NULL);
}

static void from_a_zip_checkpoint(void)
{
    frozen("shallow", "pytorch_model.bin");
    frozen("deep", "pytorch_model.bin");
}

static void from_a_legacy_checkpoint(void)
{
    frozen("shallow", "pytorch_model_legacy.bin");
    frozen("deep", "pytorch_model_legacy.bin");
}

/* Half precision moves the logits, but not far. */
static void from_a_half_checkpoint(void)
{
    struct run *r = malloc(sizeof *r);
    REQUIRE(r != NULL);
    if (open_run(r, "shallow", "pytorch_model_fp16.bin", NULL, WANT_PROMPT)) {
        eng_route_mix(r->g.bank, r->route, r->mix);
        float loss = (float)step(r);
        golden_check(&r->g, "eval.loss", &loss, 1, 5e-3);
        close_run(r);
    }
    free(r);
}

/* Of a checkpoint whose values are float16 nothing is lost: the same bits, forward and backward. */
static void half_weights_with(enum simd simd)
{
    struct run *whole = malloc(sizeof *whole), *half = malloc(sizeof *half);
    REQUIRE(whole != NULL && half != NULL);
    const char *name = gemm_kernel_name(simd), *file = "pytorch_model_fp16.bin";
    REQUIRE(open_run(whole, "deep", file, name, WANT_PROMPT));
    golden_half = true;
    bool opened = open_run(half, "deep", file, name, WANT_PROMPT);
    golden_half = false;
    REQUIRE(opened);
    CHECK(half->g.model->info.half_weights && !whole->g.model->info.half_weights);
    CHECK(half->g.model->info.bytes < whole->g.model->info.bytes);
    CHECK_STR(half->g.model->info.fingerprint, whole->g.model->info.fingerprint);
    struct run *runs[] = {whole, half};
    for (size_t i = 0; i < 2; i++) {
        eng_route_mix(runs[i]->g.bank, runs[i]->route, runs[i]->mix);
        (void)step(runs[i]);
    }
    double error = 0;
    for (size_t i = 0; i < whole->merged; i++) {
        error = fmax(error, fabs((double)whole->dmerged[i] - half->dmerged[i]));
    }
    CHECK(simd == SIMD_NONE ? error < 1e-6 : !(error > 0));
    CHECK(simd == SIMD_NONE || memcmp(whole->start, half->start, sizeof whole->start) == 0);
    close_run(whole);
    close_run(half);
    free(whole);
    free(half);
}

static void half_weights(void)
{
    for (enum simd simd = SIMD_NONE; gemm_cpu_capable() && simd <= gemm_cpu(); simd++) {
        half_weights_with(simd);
    }
}

int main(void)
{
    TESTS_BEGIN;
    RUN(everything_shallow);
    RUN(everything_deep);
    RUN(shallow_frozen);
    RUN(deep_frozen);
    RUN(from_a_zip_checkpoint);
    RUN(from_a_legacy_checkpoint);
    RUN(from_a_half_checkpoint);
    RUN(half_weights);
    TESTS_END;
}
