/* golden.h: the golden model, a bank and the expected tensors of tests/golden, for tests. */
#ifndef TESTS_UNIT_GOLDEN_H
#define TESTS_UNIT_GOLDEN_H

#include "engine/bank.h"
#include "engine/encoder.h"
#include "engine/weights.h"
#include "tests/unit/test.h"

#include <unistd.h>

#define GOLDEN_DIR       TEST_SOURCE_DIR "/tests/golden"
#define GOLDEN_SEQUENCES 3
#define GOLDEN_MAX_LEN   64

struct golden {
    eng_model *model;
    eng_bank *bank;
    struct weights *expected;
    int32_t ids[GOLDEN_SEQUENCES][GOLDEN_MAX_LEN];
    size_t lens[GOLDEN_SEQUENCES], tokens;
    size_t target_start[GOLDEN_SEQUENCES], target_end[GOLDEN_SEQUENCES];
    size_t row; /* of the router */
};

/* Values of an expected tensor; NULL (and a failed check) when there is none. */
static inline const float *golden_tensor(struct golden *g, const char *name, size_t *count)
{
    eng_error err = {0};
    const float *values = NULL;
    const struct tensor *tensor = weights_find(g->expected, name);
    if (tensor == NULL || weights_f32(g->expected, tensor, &values, &err) != ENG_OK) {
        TEST_FAIL_("no tensor %s: %s", name, err.text);
        return NULL;
    }
    if (count != NULL) {
        *count = tensor->count;
    }
    return values;
}

/* Fails once when any of `count` values is further than `tolerance` from the expected tensor. */
static inline void golden_check(struct golden *g, const char *name, const float *got, size_t count,
                                double tolerance)
{
    size_t n = 0, worst = 0;
    const float *want = golden_tensor(g, name, &n);
    if (want == NULL || got == NULL || n != count) {
        TEST_FAIL_("%s: %zu values, want %zu", name, got == NULL ? 0 : count, n);
        return;
    }
    for (size_t i = 1; i < n; i++) {
        double error = fabs((double)got[i] - want[i]);
        if (!(error <= fabs((double)got[worst] - want[worst]))) {
            worst = i;
        }
    }
    if (!(fabs((double)got[worst] - want[worst]) <= tolerance)) {
        TEST_FAIL_("%s[%zu] is %.9g, want %.9g within %g", name, worst, (double)got[worst],
                   (double)want[worst], tolerance);
    }
}

static inline bool golden_ids(struct golden *g)
{
    int64_t spans[2 * GOLDEN_SEQUENCES], row = 0;
    const struct tensor *span = weights_find(g->expected, "spans");
    const struct tensor *task = weights_find(g->expected, "task");
    if (span == NULL || task == NULL || tensor_read_i64(span, spans, NULL) != ENG_OK ||
        tensor_read_i64(task, &row, NULL) != ENG_OK) {
        return false;
    }
    g->row = (size_t)row;
    g->tokens = 0;
    for (size_t s = 0; s < GOLDEN_SEQUENCES; s++) {
        char name[32];
        int64_t ids[GOLDEN_MAX_LEN];
        snprintf(name, sizeof name, "ids.%zu", s);
        const struct tensor *tensor = weights_find(g->expected, name);
        if (tensor == NULL || tensor->count > GOLDEN_MAX_LEN ||
            tensor_read_i64(tensor, ids, NULL) != ENG_OK) {
            return false;
        }
        for (size_t t = 0; t < tensor->count; t++) {
            g->ids[s][t] = (int32_t)ids[t];
        }
        g->lens[s] = tensor->count;
        g->tokens += tensor->count;
        g->target_start[s] = (size_t)spans[2 * s];
        g->target_end[s] = (size_t)spans[2 * s + 1];
    }
    return true;
}

static inline void golden_close(struct golden *g)
{
    weights_free(g->expected);
    eng_bank_free(g->bank);
    eng_model_free(g->model);
    *g = (struct golden){0};
}

/* A folder of its own with config.json and one PyTorch file of the golden weights, called as
 * transformers calls it. */
static inline bool golden_torch_dir(const char *file, char dir[32])
{
    char from[512], to[512];
    snprintf(dir, 32, "/tmp/mp2-golden-XXXXXX");
    if (mkdtemp(dir) == NULL) {
        return false;
    }
    snprintf(from, sizeof from, "%s/config.json", GOLDEN_DIR);
    snprintf(to, sizeof to, "%s/config.json", dir);
    bool ok = symlink(from, to) == 0;
    snprintf(from, sizeof from, "%s/%s", GOLDEN_DIR, file);
    snprintf(to, sizeof to, "%s/pytorch_model.bin", dir);
    return symlink(from, to) == 0 && ok;
}

static inline void golden_remove_dir(const char *dir)
{
    char path[512];
    snprintf(path, sizeof path, "%s/config.json", dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/pytorch_model.bin", dir);
    unlink(path);
    rmdir(dir);
}

static bool golden_half; /* open models with float16 weights */

/* `kind` is "shallow" or "deep"; `weights` NULL for the safetensors files, or the name of a PyTorch
 * file of the same backbone, and then the bank is the authors' .th. */
static inline bool golden_open(struct golden *g, const char *kind, const char *weights)
{
    eng_error err = {0};
    char bank[512], expected[512], dir[32] = "";
    *g = (struct golden){0};
    snprintf(bank, sizeof bank, "%s/bank_%s.%s", GOLDEN_DIR, kind,
             weights != NULL ? "th" : "safetensors");
    snprintf(expected, sizeof expected, "%s/expected_%s.safetensors", GOLDEN_DIR, kind);
    bool ok = weights == NULL || golden_torch_dir(weights, dir);
    eng_status (*open)(const char *, eng_model **, eng_error *) =
        golden_half ? eng_model_open_half : eng_model_open;
    ok = ok && open(weights != NULL ? dir : GOLDEN_DIR, &g->model, &err) == ENG_OK &&
         eng_bank_open(g->model, bank, false, &g->bank, &err) == ENG_OK &&
         weights_open(expected, &g->expected, &err) == ENG_OK && golden_ids(g);
    if (dir[0] != '\0') {
        golden_remove_dir(dir);
    }
    if (!ok) {
        TEST_FAIL_("golden %s: %s %s", kind, err.field, err.text);
        golden_close(g);
    }
    return ok;
}

#endif
