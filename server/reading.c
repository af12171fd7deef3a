/* reading.c: "answer_length" and "label_scaling", read and written. What they mean: engine/answer_length.c,
 * engine/label_scaling.c.
 */
#include "server/reading.h"

#include <string.h>

#define MAX_LOG_TOKENS 10  /* of answer_length: e^10 tokens */
#define MAX_SCALING    1e6 /* of label_scaling, each number */
#define LEAST_SIGMA    0.01

/* ---- reading them ---------------------------------------------------------------------------- */

static void read_length(const json_t *object, const char *base, eng_answer_length *out,
                        struct problems *problems)
{
    static const char *const known[] = {"mu", "sigma", NULL};
    char at[64];
    json_t *length = NULL;
    double mu = 0, sigma = 0;
    snprintf(at, sizeof at, "%s/answer_length", base);
    if (json_is_null(json_object_get(object, "answer_length")) ||
        !json_get_object(object, base, "answer_length", JSON_OPTIONAL_FIELD, &length, problems)) {
        return;
    }
    json_only(length, at, known, problems);
    if (json_get_double(length, at, "mu", JSON_REQUIRED_FIELD, 0, MAX_LOG_TOKENS, &mu, problems) &&
        json_get_double(length, at, "sigma", JSON_REQUIRED_FIELD, LEAST_SIGMA, MAX_LOG_TOKENS,
                        &sigma, problems)) {
        *out = (eng_answer_length){(float)mu, (float)sigma};
    }
}

/* "cross", (labels, labels) where it is given. `at` points at the scaling. */
static void read_cross(struct request *req, const json_t *given, const char *at, size_t labels,
                       float *out, struct problems *problems)
{
    char rows_at[80];
    json_t *rows = NULL;
    snprintf(rows_at, sizeof rows_at, "%s/cross", at);
    if (json_is_null(json_object_get(given, "cross")) ||
        !json_get_array(given, at, "cross", JSON_OPTIONAL_FIELD, labels, labels, &rows, problems)) {
        return;
    }
    for (size_t i = 0; i < labels; i++) {
        char key[24];
        const json_t *row = json_array_get(rows, i);
        snprintf(key, sizeof key, "%zu", i);
        if (json_array_size(row) != labels) {
            problem_add(problems, rows_at, key, "must be an array of %zu numbers", labels);
            return;
        }
        const float *numbers = task_read_numbers(req, row, rows_at, key, MAX_SCALING, problems);
        if (numbers != NULL) {
            memcpy(out + i * labels, numbers, labels * sizeof *out);
        }
    }
}

static bool read_scaling(struct request *req, const json_t *object, const char *base,
                         eng_label_scaling *out, struct problems *problems)
{
    static const char *const known[] = {"scale", "bias", "cross", NULL};
    char at[64];
    json_t *given = NULL, *biases = NULL;
    double scale = 1;
    snprintf(at, sizeof at, "%s/label_scaling", base);
    if (json_is_null(json_object_get(object, "label_scaling")) ||
        !json_get_object(object, base, "label_scaling", JSON_OPTIONAL_FIELD, &given, problems)) {
        return true;
    }
    bool cross = json_is_array(json_object_get(given, "cross"));
    json_only(given, at, known, problems);
    json_get_double(given, at, "scale", JSON_REQUIRED_FIELD, -MAX_SCALING, MAX_SCALING, &scale,
                    problems);
    if (!json_get_array(given, at, "bias", JSON_REQUIRED_FIELD, 2,
                        cross ? ENG_MAX_CROSS_LABELS : ENG_MAX_LABELS, &biases, problems)) {
        return true;
    }
    size_t labels = json_array_size(biases), len = eng_label_scaling_len(labels, cross);
    const float *bias = task_read_numbers(req, biases, at, "bias", MAX_SCALING, problems);
    float *numbers = request_alloc(req, len * sizeof *numbers);
    if (bias == NULL || numbers == NULL) {
        return problems->count > 0;
    }
    numbers[0] = (float)scale;
    memcpy(numbers + 1, bias, labels * sizeof *numbers);
    read_cross(req, given, at, labels, numbers + 1 + labels, problems);
    *out = (eng_label_scaling){numbers, len};
    return true;
}

bool reading_read(struct request *req, const json_t *object, const char *base,
                  eng_answer_length *length, eng_label_scaling *scaling, struct problems *problems)
{
    read_length(object, base, length, problems);
    return read_scaling(req, object, base, scaling, problems);
}

size_t reading_labels(const json_t *object)
{
    return json_array_size(json_object_get(json_object_get(object, "label_scaling"), "bias"));
}

/* ---- writing them ---------------------------------------------------------------------------- */

json_t *answer_length_json(const eng_answer_length *length)
{
    return length->sigma > 0
               ? json_pack("{s:f, s:f}", "mu", (double)length->mu, "sigma", (double)length->sigma)
               : json_null();
}

/* (n, n) as an array of arrays. */
static json_t *square_json(const float *numbers, size_t n)
{
    json_t *rows = json_array();
    for (size_t i = 0; rows != NULL && i < n; i++) {
        if (json_array_append_new(rows, json_floats(numbers + i * n, n)) != 0) {
            json_decref(rows);
            rows = NULL;
        }
    }
    return rows;
}

json_t *label_scaling_json(const eng_label_scaling *scaling, size_t labels)
{
    if (scaling->len == 0) {
        return json_null();
    }
    const float *bias = scaling->numbers + 1;
    bool cross = scaling->len > 1 + labels;
    return json_pack("{s:f, s:o, s:o}", "scale", (double)scaling->numbers[0], "bias",
                     json_floats(bias, labels), "cross",
                     cross ? square_json(bias + labels, labels) : json_null());
}
