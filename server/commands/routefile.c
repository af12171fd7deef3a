/* routefile.c: the members are those of an exported task version, so that a file made on the command
 * line can be imported over HTTP and the other way round.
 */
#include "server/commands/routefile.h"

#include "server/commands/commands.h"
#include "server/commands/opened.h"
#include "server/json.h"
#include "server/reading.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_FILE ((size_t)32 << 20) /* the prompt of a deep bank on a large model has 7 MB */

json_t *json_number_or_null(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

/* ---- writing ------------------------------------------------------------------------------------- */

static json_t *labels_json(const eng_task *task)
{
    json_t *labels = json_array();
    for (size_t i = 0; i < eng_task_label_count(task); i++) {
        json_array_append_new(labels, json_string(eng_task_label(task, i)));
    }
    return labels;
}

/* The floats of this machine (little-endian) as base64: 50,000 numbers would be a long array. */
static json_t *floats_text(const float *floats, size_t n)
{
    size_t bytes = n * sizeof *floats;
    size_t room = sodium_base64_encoded_len(bytes, sodium_base64_VARIANT_ORIGINAL);
    char *text = malloc(room);
    json_t *out = NULL;
    if (text != NULL) {
        sodium_bin2base64(text, room, (const unsigned char *)floats, bytes,
                          sodium_base64_VARIANT_ORIGINAL);
        out = json_string(text);
    }
    free(text);
    return out;
}

/* True also when there is nothing to put, or nowhere. */
static bool put_floats(json_t *root, const char *key, const float *floats, size_t n)
{
    return root == NULL || floats == NULL ||
           json_object_set_new(root, key, floats_text(floats, n)) == 0;
}

json_t *route_json_make(const eng_model *model, const eng_bank *bank, const eng_task *task,
                        bool may_have_no_answer, const char *method, const eng_adapt_result *result,
                        json_t *metrics)
{
    json_t *root = json_pack(
        "{s:s, s:s, s:o, s:s, s:o, s:s, s:s, s:s, s:s, s:s, s:s, s:o}", "object", "task.version",
        "type", eng_task_type_name(eng_task_get_type(task)), "labels", labels_json(task),
        "template", eng_task_template(task), "route", json_floats(result->route, result->route_len),
        "method", method, "started_from", result->started_from, "model",
        eng_model_get_info(model)->name, "bank", eng_bank_get_info(bank)->name, "model_fingerprint",
        eng_model_get_info(model)->fingerprint, "bank_fingerprint",
        eng_bank_get_info(bank)->fingerprint, "metrics", metrics);
    if (root != NULL && may_have_no_answer) {
        json_object_set_new(root, "may_have_no_answer", json_true());
    }
    if (root != NULL && result->answer_length.sigma > 0) {
        json_object_set_new(root, "answer_length", answer_length_json(&result->answer_length));
    }
    if (root != NULL && result->label_scaling != NULL) {
        json_object_set_new(root, "label_scaling",
                            label_scaling_json(&(eng_label_scaling){result->label_scaling,
                                                                    result->label_scaling_len},
                                               eng_task_label_count(task)));
    }
    if (!put_floats(root, "prompt", result->prompt, result->prompt_len) ||
        !put_floats(root, "head", result->head, result->head_len)) {
        json_decref(root);
        return NULL;
    }
    return root;
}

static bool write_all(const char *path, const char *text)
{
    FILE *file = fopen(path, "wb");
    if (file == NULL) {
        return false;
    }
    bool ok = fputs(text, file) >= 0 && fputc('\n', file) != EOF && fflush(file) == 0 &&
              fsync(fileno(file)) == 0;
    return (fclose(file) == 0) && ok;
}

int route_file_write(const char *command, const char *path, const json_t *root)
{
    char temporary[PATH_MAX];
    char *text = root != NULL ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) : NULL;
    if (text == NULL) {
        fprintf(stderr, "mp2 %s: out of memory\n", command);
        return EXIT_FAILED;
    }
    bool ok = false;
    if (strcmp(path, "-") == 0) {
        ok = puts(text) >= 0 && fflush(stdout) == 0;
    } else {
        int len = snprintf(temporary, sizeof temporary, "%s.part", path);
        errno = ENAMETOOLONG;
        ok = len > 0 && (size_t)len < sizeof temporary && write_all(temporary, text) &&
             rename(temporary, path) == 0;
    }
    free(text);
    if (!ok) {
        fprintf(stderr, "mp2 %s: %s: %s\n", command, path, strerror(errno));
    }
    return ok ? EXIT_DONE : EXIT_FAILED;
}

/* ---- reading ------------------------------------------------------------------------------------- */

static int bad(const char *command, const char *path, const char *why)
{
    fprintf(stderr, "mp2 %s: %s: %s\n", command, path, why);
    return EXIT_FAILED;
}

static bool same(const json_t *root, const char *key, const char *mine)
{
    const char *given = json_string_value(json_object_get(root, key));
    return given != NULL && strcmp(given, mine) == 0;
}

static bool read_form(struct route_file *file)
{
    const char *type = json_string_value(json_object_get(file->root, "type"));
    const json_t *text = json_object_get(file->root, "template");
    const json_t *labels = json_object_get(file->root, "labels");
    size_t n = json_array_size(labels);
    if (type == NULL || !eng_task_type_parse(type, &file->spec.type) || n > ENG_MAX_LABELS) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *label = json_array_get(labels, i);
        if (!json_is_string(label)) {
            return false;
        }
        file->labels[i] = (eng_text){json_string_value(label), json_string_length(label)};
    }
    if (json_is_string(text)) {
        file->spec.text_template = (eng_text){json_string_value(text), json_string_length(text)};
    }
    file->spec.labels = file->labels;
    file->spec.n_labels = n;
    file->spec.may_have_no_answer = json_is_true(json_object_get(file->root, "may_have_no_answer"));
    return true;
}

static bool read_number(const json_t *number, float *out)
{
    *out = (float)json_number_value(number);
    return json_is_number(number) && isfinite(*out);
}

/* The n finite numbers of a list into `out`. */
static bool read_numbers(const json_t *list, size_t n, float *out)
{
    bool good = out != NULL && json_array_size(list) == n;
    for (size_t i = 0; good && i < n; i++) {
        good = read_number(json_array_get(list, i), &out[i]);
    }
    return good;
}

static bool read_route(struct route_file *file, size_t n)
{
    file->route = calloc(n, sizeof *file->route);
    return read_numbers(json_object_get(file->root, "route"), n, file->route);
}

/* The n finite numbers of `key` into *out; true also when there are none. */
static bool read_floats(const struct route_file *file, const char *key, size_t n, float **out)
{
    const json_t *text = json_object_get(file->root, key);
    size_t bytes = n * sizeof **out, len = 0;
    if (text == NULL) {
        return true;
    }
    float *floats = *out = calloc(n, sizeof *floats);
    if (floats == NULL || !json_is_string(text) ||
        sodium_base642bin((unsigned char *)floats, bytes, json_string_value(text),
                          json_string_length(text), NULL, &len, NULL,
                          sodium_base64_VARIANT_ORIGINAL) != 0 ||
        len != bytes) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(floats[i])) {
            return false;
        }
    }
    return true;
}

/* True also when it is not there. */
static bool read_length(struct route_file *file)
{
    const json_t *length = json_object_get(file->root, "answer_length");
    if (length == NULL || json_is_null(length)) {
        return true;
    }
    return read_number(json_object_get(length, "mu"), &file->answer_length.mu) &&
           read_number(json_object_get(length, "sigma"), &file->answer_length.sigma) &&
           file->answer_length.sigma > 0;
}

/* True also when it is not there. */
static bool read_scaling(struct route_file *file)
{
    const json_t *given = json_object_get(file->root, "label_scaling");
    const json_t *cross = json_object_get(given, "cross");
    size_t labels = file->spec.n_labels;
    bool has_cross = json_is_array(cross);
    if (given == NULL || json_is_null(given)) {
        return true;
    }
    if (labels == 0 || (has_cross && labels > ENG_MAX_CROSS_LABELS)) {
        return false;
    }
    size_t len = eng_label_scaling_len(labels, has_cross);
    float *numbers = file->scaling = calloc(len, sizeof *numbers);
    bool good = numbers != NULL && read_number(json_object_get(given, "scale"), numbers) &&
                read_numbers(json_object_get(given, "bias"), labels, numbers + 1) &&
                (!has_cross || json_array_size(cross) == labels);
    for (size_t i = 0; good && has_cross && i < labels; i++) {
        good = read_numbers(json_array_get(cross, i), labels, numbers + 1 + labels + i * labels);
    }
    file->label_scaling = (eng_label_scaling){numbers, len};
    return good;
}

static size_t prompt_floats(const eng_model *model, const eng_bank *bank)
{
    const eng_bank_info *info = eng_bank_get_info(bank);
    return info->layers * info->prompt_tokens * eng_model_get_info(model)->hidden;
}

int route_file_read(const char *command, const char *path, const eng_model *model,
                    const eng_bank *bank, struct route_file *out)
{
    size_t len = 0;
    memset(out, 0, sizeof *out);
    char *text = read_text_file(command, path, MAX_FILE, &len);
    if (text == NULL) {
        return EXIT_NO_INPUT;
    }
    json_error_t error;
    out->root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
    free(text);
    if (!json_is_object(out->root)) {
        return bad(command, path, "not a JSON object");
    }
    if (!same(out->root, "model_fingerprint", eng_model_get_info(model)->fingerprint)) {
        return bad(
            command, path,
            "this route was learnt on another backbone (model_fingerprint): give its --model");
    }
    if (!same(out->root, "bank_fingerprint", eng_bank_get_info(bank)->fingerprint)) {
        return bad(command, path,
                   "this route was learnt on another bank (bank_fingerprint): give its --bank, and "
                   "--tied as it was");
    }
    if (!read_form(out)) {
        return bad(command, path, "type, labels or template is not one of a task");
    }
    if (!read_route(out, eng_bank_get_info(bank)->route_len)) {
        return bad(command, path, "route is not an array of the bank's count of finite numbers");
    }
    if (!read_floats(out, "prompt", prompt_floats(model, bank), &out->prompt)) {
        return bad(command, path,
                   "prompt is not base64 of the bank's layers x prompt tokens x hidden floats");
    }
    if (!read_floats(out, "head", 2 * eng_model_get_info(model)->hidden + 2, &out->head)) {
        return bad(command, path, "head is not base64 of 2 x hidden + 2 floats");
    }
    if (!read_length(out)) {
        return bad(command, path,
                   "answer_length is not {\"mu\": number, \"sigma\": number above 0}");
    }
    if (!read_scaling(out)) {
        return bad(command, path,
                   "label_scaling is not {\"scale\": number, \"bias\": [a number a label], "
                   "\"cross\": [as many a label], or null}");
    }
    return EXIT_DONE;
}

void route_file_fini(struct route_file *file)
{
    json_decref(file->root);
    free(file->route);
    free(file->prompt);
    free(file->head);
    free(file->scaling);
    memset(file, 0, sizeof *file);
}
