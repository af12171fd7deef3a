/* test_mlm.c: the masked language modelling head against tests/golden (float64 PyTorch), with both
 * matrix-product back ends, its gradients against finite differences of the whole forward, and the head of a
 * model directory. */
#include "engine/encoder_tape.h"
#include "engine/gemm.h"
#include "engine/mlm.h"
#include "engine/params.h"
#include "engine/rng.h"
#include "engine/safetensors.h"
#include "tests/unit/golden.h"

#define TOLERANCE 2e-5
#define TARGETS   3 /* a sequence */
#define ALL       ((size_t)(GOLDEN_SEQUENCES * TARGETS))

struct run {
    struct golden g; /* bank unused */
    eng_compute *compute;
    struct encoder_tape *tape;
    struct mlm_tape *mlm;
    struct mlm_params head;
    float *block; /* the head's parameters */
    eng_sequence sequences[GOLDEN_SEQUENCES];
    size_t rows[ALL];
    int32_t targets[ALL];
};

static void close_run(struct run *r)
{
    free(r->block);
    mlm_tape_free(r->mlm);
    encoder_tape_free(r->tape);
    eng_compute_stop(r->compute);
    golden_close(&r->g);
}

static bool read_ints(struct run *r, const char *what, size_t s, int64_t *out, size_t *count)
{
    char name[32];
    snprintf(name, sizeof name, "mlm.%s.%zu", what, s);
    const struct tensor *tensor = weights_find(r->g.expected, name);
    if (tensor == NULL || tensor->count > GOLDEN_MAX_LEN ||
        tensor_read_i64(tensor, out, NULL) != ENG_OK) {
        return false;
    }
    *count = tensor->count;
    return true;
}

static bool read_inputs(struct run *r)
{
    for (size_t s = 0; s < GOLDEN_SEQUENCES; s++) {
        int64_t ids[GOLDEN_MAX_LEN], at[GOLDEN_MAX_LEN], target[GOLDEN_MAX_LEN];
        size_t n = 0, n_target = 0;
        if (!read_ints(r, "ids", s, ids, &r->g.lens[s]) || !read_ints(r, "pos", s, at, &n) ||
            !read_ints(r, "target", s, target, &n_target) || n != TARGETS || n_target != TARGETS) {
            return false;
        }
        for (size_t t = 0; t < r->g.lens[s]; t++) {
            r->g.ids[s][t] = (int32_t)ids[t];
        }
        for (size_t i = 0; i < TARGETS; i++) {
            r->rows[s * TARGETS + i] = r->g.tokens + (size_t)at[i];
            r->targets[s * TARGETS + i] = (int32_t)target[i];
        }
        r->g.tokens += r->g.lens[s];
        r->sequences[s] = (eng_sequence){.ids = r->g.ids[s], .len = r->g.lens[s]};
    }
    return true;
}

static bool read_head(struct run *r)
{
    struct encoder_params *params = &r->g.model->params;
    r->block = malloc(mlm_params_total(params) * sizeof *r->block);
    if (r->block == NULL) {
        return false;
    }
    mlm_params_place(params, &r->head, r->block);
    float *to = r->block;
    for (size_t i = 0; i < MLM_PARAMS; i++) {
        struct param param;
        size_t count = 0;
        mlm_params_at(params, &r->head, i, &param);
        const float *values = golden_tensor(&r->g, param.name, &count);
        if (values == NULL || count != param.count) {
            return false;
        }
        memcpy(to, values, count * sizeof *to);
        to += count;
    }
    return true;
}

static bool open_run(struct run *r, const char *kernel)
{
    eng_error err = {0};
    memset(r, 0, sizeof *r);
    bool ok =
        eng_model_open(GOLDEN_DIR, &r->g.model, &err) == ENG_OK &&
        weights_open(GOLDEN_DIR "/expected_mlm.safetensors", &r->g.expected, &err) == ENG_OK &&
        read_inputs(r) && read_head(r) &&
        eng_compute_start(2, kernel, &r->compute, &err) == ENG_OK &&
        encoder_tape_new(r->g.model, r->g.tokens, GOLDEN_SEQUENCES, WANT_WEIGHTS, &r->tape, &err) ==
            ENG_OK &&
        mlm_tape_new(r->g.model, ALL, &r->mlm, &err) == ENG_OK;
    if (!ok) {
        TEST_FAIL_("%s: %s", kernel, err.text);
        close_run(r);
    }
    return ok;
}

static double forward(struct run *r)
{
    eng_error err = {0};
    double loss = 0;
    CHECK(encoder_forward_bare(r->compute, r->tape, ENG_TRAINING, r->sequences, GOLDEN_SEQUENCES,
                               &err) == ENG_OK);
    CHECK(mlm_forward(r->compute, r->mlm, ENG_TRAINING, &r->head, r->tape, r->rows, r->targets, ALL,
                      &loss, &err) == ENG_OK);
    return loss;
}

static float *word_gradient(struct run *r)
{
    return (float *)(uintptr_t)encoder_gradient(r->tape, "embeddings.word_embeddings.weight", NULL);
}

static void backward(struct run *r)
{
    eng_error err = {0};
    mlm_backward(r->compute, r->mlm, ENG_TRAINING, &r->head, 1, r->tape, word_gradient(r));
    CHECK(encoder_backward_bare(r->compute, r->tape, ENG_TRAINING, &err) == ENG_OK);
    CHECK(encoder_backward_bare(r->compute, r->tape, ENG_TRAINING, &err) == ENG_EINVAL);
}

static void check_logits(struct run *r)
{
    size_t V = r->g.model->params.vocab;
    float *logits = malloc(TARGETS * V * sizeof *logits);
    REQUIRE(logits != NULL);
    for (size_t s = 0; s < GOLDEN_SEQUENCES; s++) {
        char name[32];
        for (size_t i = 0; i < TARGETS; i++) {
            memcpy(logits + i * V, mlm_logits(r->mlm) + (s * TARGETS + i) * gemm_stride(V),
                   V * sizeof *logits);
        }
        snprintf(name, sizeof name, "mlm.logits.%zu", s);
        golden_check(&r->g, name, logits, TARGETS * V, TOLERANCE);
    }
    free(logits);
}

static void check_gradients(struct run *r)
{
    struct encoder_params params = r->g.model->params;
    char name[160];
    for (size_t i = 0; i < params_count(&params); i++) {
        struct param param;
        size_t count = 0;
        params_at(&params, i, &param);
        const float *gradient = encoder_gradient(r->tape, param.name, &count);
        snprintf(name, sizeof name, "grad.bert.%s", param.name);
        golden_check(&r->g, name, gradient, count, TOLERANCE);
    }
    struct mlm_params gradient;
    mlm_params_place(&params, &gradient, mlm_gradient(r->mlm));
    for (size_t i = 0; i < MLM_PARAMS; i++) {
        struct param param;
        mlm_params_at(&params, &gradient, i, &param);
        snprintf(name, sizeof name, "grad.%s", param.name);
        golden_check(&r->g, name, *param.place, param.count, TOLERANCE);
    }
}

static void golden(const char *kernel)
{
    struct run r;
    if (!open_run(&r, kernel)) {
        return;
    }
    float loss = (float)forward(&r);
    golden_check(&r.g, "mlm.loss", &loss, 1, TOLERANCE);
    check_logits(&r);
    backward(&r);
    check_gradients(&r);
    close_run(&r);
}

static void golden_with_every_kernel(void)
{
    for (enum simd simd = SIMD_NONE; simd <= gemm_cpu(); simd++) {
        golden(gemm_kernel_name(simd));
    }
}

/* The directional derivative along a random direction of each of the head's tensors. */
static void finite_differences(void)
{
    struct run r;
    struct rng rng;
    if (!open_run(&r, "openblas")) {
        return;
    }
    (void)forward(&r);
    backward(&r);
    rng_seed(&rng, 5);
    const double step = 2e-3;
    float *at = r.block, *gradient = mlm_gradient(r.mlm);
    for (size_t i = 0; i < MLM_PARAMS; i++) {
        struct param param;
        double slope = 0;
        float direction[32 * 32], kept[32 * 32];
        mlm_params_at(&r.g.model->params, &r.head, i, &param);
        REQUIRE(param.count <= 32 * 32);
        memcpy(kept, at, param.count * sizeof *at);
        for (size_t j = 0; j < param.count; j++) {
            direction[j] = (float)rng_normal(&rng);
            slope += (double)direction[j] * gradient[j];
        }
        double losses[2];
        for (int side = 0; side < 2; side++) {
            for (size_t j = 0; j < param.count; j++) {
                at[j] = kept[j] + (float)(side == 0 ? step : -step) * direction[j];
            }
            losses[side] = forward(&r);
        }
        memcpy(at, kept, param.count * sizeof *at);
        CHECK_NEAR((losses[0] - losses[1]) / (2 * step), slope, 2e-3 * (1 + fabs(slope)));
        at += param.count;
        gradient += param.count;
    }
    close_run(&r);
}

static void refusals(void)
{
    struct run r;
    eng_error err = {0};
    double loss;
    if (!open_run(&r, "openblas")) {
        return;
    }
    (void)forward(&r);
    float unused[GOLDEN_SEQUENCES * GOLDEN_MAX_LEN] = {0};
    CHECK(encoder_backward(r.compute, r.tape, ENG_TRAINING, unused, unused, NULL, &err) ==
          ENG_EINVAL);
    CHECK(mlm_forward(r.compute, r.mlm, ENG_TRAINING, &r.head, r.tape, r.rows, r.targets, 0, &loss,
                      &err) == ENG_EINVAL);
    CHECK(mlm_forward(r.compute, r.mlm, ENG_TRAINING, &r.head, r.tape, r.rows, r.targets, ALL + 1,
                      &loss, &err) == ENG_ELIMIT);
    r.rows[1] = r.g.tokens;
    CHECK(mlm_forward(r.compute, r.mlm, ENG_TRAINING, &r.head, r.tape, r.rows, r.targets, ALL,
                      &loss, &err) == ENG_EINVAL);
    r.rows[1] = 0;
    r.targets[1] = (int32_t)r.g.model->params.vocab;
    CHECK(mlm_forward(r.compute, r.mlm, ENG_TRAINING, &r.head, r.tape, r.rows, r.targets, ALL,
                      &loss, &err) == ENG_EINVAL);
    close_run(&r);
}

/* ---- eng_mlm_logits ---- */

static char dir[] = "/tmp/mp2-test-XXXXXX", config_file[64], weights_file[64];

/* The golden directory with the head's tensors [first, MLM_PARAMS) beside the backbone, in `dir`;
 * `narrow`: the head's bias one value too short. */
static bool write_directory(struct run *r, size_t first, bool narrow)
{
    struct weights *golden = NULL;
    struct safetensors_entry entries[128] = {0};
    size_t n = 0;
    bool ok = weights_open_dir(GOLDEN_DIR, &golden, NULL) == ENG_OK && weights_count(golden) <= 100;
    for (size_t i = 0; ok && i < weights_count(golden) + MLM_PARAMS - first; i++, n++) {
        const struct tensor *tensor;
        struct weights *of = golden;
        if (i < weights_count(golden)) {
            tensor = weights_at(golden, i);
        } else {
            struct param param;
            mlm_params_at(&r->g.model->params, &r->head, first + i - weights_count(golden), &param);
            of = r->g.expected;
            tensor = weights_find(of, param.name);
        }
        const float *values = NULL;
        ok = tensor != NULL && weights_f32(of, tensor, &values, NULL) == ENG_OK;
        if (ok) {
            entries[n] = (struct safetensors_entry){.name = tensor->name,
                                                    .dtype = DTYPE_F32,
                                                    .dims = tensor->dims,
                                                    .shape = {tensor->shape[0], tensor->shape[1]},
                                                    .values = values};
        }
    }
    if (ok && narrow) {
        entries[n - 1].shape[0]--;
    }
    ok = ok && safetensors_write(weights_file, entries, n, NULL, 0, true, NULL) == ENG_OK;
    weights_free(golden);
    return ok;
}

/* Opens `dir` as it is now and asks for the logits of golden sequence s. */
static eng_status ask(struct run *r, size_t s, float *logits, eng_error *err)
{
    eng_model *model = NULL;
    eng_status status = eng_model_open(dir, &model, err);
    if (status == ENG_OK) {
        status =
            eng_mlm_logits(r->compute, ENG_SERVING, model, r->g.ids[s], r->g.lens[s], logits, err);
    }
    eng_model_free(model);
    return status;
}

static void check_sequence(struct run *r, size_t s, const float *logits)
{
    size_t V = r->g.model->params.vocab, before = 0;
    float rows[TARGETS * 256];
    char name[32];
    REQUIRE(V <= 256);
    for (size_t i = 0; i < s; i++) {
        before += r->g.lens[i];
    }
    for (size_t i = 0; i < TARGETS; i++) {
        memcpy(rows + i * V, logits + (r->rows[s * TARGETS + i] - before) * V, V * sizeof *rows);
    }
    snprintf(name, sizeof name, "mlm.logits.%zu", s);
    golden_check(&r->g, name, rows, TARGETS * V, TOLERANCE);
}

static void logits_of_a_directory(void)
{
    struct run r;
    eng_error err = {0};
    if (!open_run(&r, NULL)) {
        return;
    }
    size_t V = r.g.model->params.vocab;
    float *logits = malloc(GOLDEN_MAX_LEN * V * sizeof *logits);
    REQUIRE(logits != NULL && write_directory(&r, 0, false));
    for (size_t s = 0; s < GOLDEN_SEQUENCES; s++) {
        CHECK(ask(&r, s, logits, &err) == ENG_OK);
        check_sequence(&r, s, logits);
    }
    free(logits);
    close_run(&r);
}

static void no_head_or_a_wrong_one(void)
{
    struct run r;
    eng_error err = {0};
    if (!open_run(&r, NULL)) {
        return;
    }
    float *logits = calloc(GOLDEN_MAX_LEN * r.g.model->params.vocab, sizeof *logits);
    REQUIRE(logits != NULL);
#define ASK(ids, len) eng_mlm_logits(r.compute, ENG_SERVING, r.g.model, ids, len, logits, &err)
    CHECK(ASK(r.g.ids[0], 2) == ENG_EUNSUPPORTED); /* all five are named */
    CHECK(strstr(err.text, "transform.dense.weight,") != NULL);
    CHECK(strstr(err.text, ", cls.predictions.bias") != NULL);
    CHECK(ASK(r.g.ids[0], 0) == ENG_EINVAL);
    CHECK(ASK(r.g.ids[0], GOLDEN_MAX_LEN + 1) == ENG_ELIMIT);
    CHECK(write_directory(&r, 1, false) && ask(&r, 0, logits, &err) == ENG_EUNSUPPORTED);
    CHECK(strstr(err.text, "transform.dense.weight") != NULL);
    CHECK(strstr(err.text, "bias") == NULL);
    CHECK(write_directory(&r, 0, true) && ask(&r, 0, logits, &err) == ENG_EFORMAT);
    CHECK_STR(err.field, "cls.predictions.bias");
    r.g.ids[0][1] = (int32_t)r.g.model->params.vocab;
    CHECK(write_directory(&r, 0, false) && ask(&r, 0, logits, &err) == ENG_EINVAL);
    eng_model *random = NULL;
    REQUIRE(eng_model_random(&r.g.model->info, 1, &random, &err) == ENG_OK);
    CHECK(eng_mlm_logits(r.compute, ENG_SERVING, random, r.g.ids[0], 1, logits, &err) ==
          ENG_EUNSUPPORTED);
    eng_model_free(random);
    free(logits);
    close_run(&r);
}

/* `dir` with the golden config.json. */
static bool make_directory(void)
{
    if (mkdtemp(dir) == NULL) {
        return false;
    }
    snprintf(config_file, sizeof config_file, "%s/config.json", dir);
    snprintf(weights_file, sizeof weights_file, "%s/model.safetensors", dir);
    return symlink(GOLDEN_DIR "/config.json", config_file) == 0;
}

static void remove_directory(void)
{
    unlink(config_file);
    unlink(weights_file);
    rmdir(dir);
}

int main(void)
{
    TESTS_BEGIN;
    if (!make_directory()) {
        return 1;
    }
    RUN(golden_with_every_kernel);
    RUN(finite_differences);
    RUN(refusals);
    RUN(logits_of_a_directory);
    RUN(no_head_or_a_wrong_one);
    remove_directory();
    TESTS_END;
}
