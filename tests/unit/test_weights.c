/* test_weights.c: the same values from every format, and what the readers make of views and names. */
#include "engine/model.h"
#include "engine/weights.h"
#include "tests/unit/test.h"

#define GOLDEN TEST_SOURCE_DIR "/tests/golden/"

static struct weights *open_or_report(const char *path)
{
    struct weights *weights = NULL;
    eng_error err = {0};
    if (weights_open(path, &weights, &err) != ENG_OK) {
        fprintf(stderr, "%s: %s\n", err.field, err.text);
    }
    return weights;
}

/* Every tensor of `a` is in `b` with the same shape and values within `tolerance`. */
static void compare(struct weights *a, struct weights *b, double tolerance)
{
    CHECK_INT(weights_count(a), weights_count(b));
    for (size_t i = 0; i < weights_count(a); i++) {
        const struct tensor *x = weights_at(a, i), *y = weights_find(b, x->name);
        const float *xs = NULL, *ys = NULL;
        REQUIRE(y != NULL);
        REQUIRE(x->dims == y->dims && memcmp(x->shape, y->shape, sizeof x->shape) == 0);
        REQUIRE(weights_f32(a, x, &xs, NULL) == ENG_OK);
        REQUIRE(weights_f32(b, y, &ys, NULL) == ENG_OK);
        size_t wrong = 0;
        for (size_t j = 0; j < x->count; j++) {
            wrong += !(fabs((double)xs[j] - (double)ys[j]) <= tolerance);
        }
        CHECK_INT(wrong, 0);
    }
}

static void same_values(const char *file, double tolerance)
{
    struct weights *reference = open_or_report(GOLDEN "model.safetensors");
    struct weights *other = open_or_report(file);
    if (reference == NULL || other == NULL) {
        TEST_FAIL_("%s does not open", file);
    } else {
        CHECK_INT(weights_count(reference), 55);
        compare(reference, other, tolerance);
    }
    weights_free(reference);
    weights_free(other);
}

static void zip_equals_safetensors(void)
{
    same_values(GOLDEN "pytorch_model.bin", 0);
}

static void legacy_equals_safetensors(void)
{
    same_values(GOLDEN "pytorch_model_legacy.bin", 0);
}

static void half_zip_is_near(void)
{
    same_values(GOLDEN "pytorch_model_fp16.bin", 1e-3);
}

/* The authors' files leave the layer dimension out when there is one layer. */
static void compare_bank(const char *th, const char *safetensors)
{
    static const char *const names[] = {"A", "z", "router", "lmhead"};
    struct weights *a = open_or_report(th), *b = open_or_report(safetensors);
    REQUIRE(a != NULL && b != NULL);
    CHECK_INT(weights_count(a), 4); /* the optimisers' states are left out */
    for (size_t i = 0; i < 4; i++) {
        const struct tensor *x = weights_find(a, names[i]), *y = weights_find(b, names[i]);
        const float *xs = NULL, *ys = NULL;
        REQUIRE(x != NULL && y != NULL && x->count == y->count);
        REQUIRE(weights_f32(a, x, &xs, NULL) == ENG_OK);
        REQUIRE(weights_f32(b, y, &ys, NULL) == ENG_OK);
        CHECK(memcmp(xs, ys, x->count * sizeof *xs) == 0);
    }
    weights_free(a);
    weights_free(b);
}

static void authors_banks_equal_ours(void)
{
    compare_bank(GOLDEN "bank_shallow.th", GOLDEN "bank_shallow.safetensors");
    compare_bank(GOLDEN "bank_deep.th", GOLDEN "bank_deep.safetensors");
}

/* An aligned float32 safetensors tensor is not copied. */
static void float32_is_used_in_place(void)
{
    struct weights *weights = open_or_report(GOLDEN "model.safetensors");
    REQUIRE(weights != NULL);
    const struct tensor *tensor = weights_at(weights, 0);
    const float *values = NULL;
    CHECK(weights_f32(weights, tensor, &values, NULL) == ENG_OK);
    CHECK((const unsigned char *)values == tensor->data);
    CHECK_STR(weights_metadata(weights, "format"), "pt");
    CHECK(weights_metadata(weights, "no such key") == NULL);
    CHECK(weights_find(weights, "no such tensor") == NULL);
    weights_free(weights);
}

static void integers_are_read_as_such(void)
{
    struct weights *weights = open_or_report(GOLDEN "expected_shallow.safetensors");
    REQUIRE(weights != NULL);
    const struct tensor *ids = weights_find(weights, "ids.0");
    REQUIRE(ids != NULL && ids->count == 23);
    int64_t values[23];
    const float *floats = NULL;
    eng_error err = {0};
    CHECK(tensor_read_i64(ids, values, NULL) == ENG_OK);
    CHECK(values[0] >= 0 && values[0] < 160);
    CHECK(weights_f32(weights, ids, &floats, &err) == ENG_EUNSUPPORTED);
    CHECK(strstr(err.text, "ids.0") != NULL && strstr(err.text, "I32") != NULL);
    weights_free(weights);
}

int main(void)
{
    TESTS_BEGIN;
    RUN(zip_equals_safetensors);
    RUN(legacy_equals_safetensors);
    RUN(half_zip_is_near);
    RUN(authors_banks_equal_ours);
    RUN(float32_is_used_in_place);
    RUN(integers_are_read_as_such);
    TESTS_END;
}
