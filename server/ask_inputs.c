/* ask_inputs.c: JSON inputs become the engine's, on the encoding thread.
 *
 * A string stands for the only field of a template with one field. An object names the template's
 * fields, and a choice its options. Every fault is gathered with its pointer, so that one answer tells
 * all that is wrong.
 */
#include "server/ask_inputs.h"

#include "server/fault.h"
#include "server/json.h"

#include <string.h>

/* The fields that inputs of this task have. */
struct reader {
    struct ask *ask;
    const char *names[ENG_MAX_FIELDS];
    size_t n_names;
    eng_task_type type;
    struct problems *problems;
};

static eng_text text_of(const char *string)
{
    return (eng_text){string, strlen(string)};
}

static void list_names(const struct reader *reader, char *out, size_t size)
{
    size_t at = 0;
    out[0] = '\0';
    for (size_t i = 0; i < reader->n_names && at < size; i++) {
        at +=
            (size_t)snprintf(out + at, size - at, "%s\"%s\"", i > 0 ? ", " : "", reader->names[i]);
    }
    if (reader->type == ENG_CHOICE && at < size) {
        snprintf(out + at, size - at, ", \"options\"");
    }
}

static bool is_optional(const struct reader *reader, const char *name)
{
    return reader->type == ENG_CHOICE && strcmp(name, "context") == 0;
}

/* A text of an input. False: it is no use, and why is noted. */
static bool read_text(struct reader *reader, const json_t *value, const char *base, const char *key,
                      eng_text *out)
{
    size_t max = reader->ask->max_text;
    if (!json_is_string(value)) {
        problem_add(reader->problems, base, key, "must be a string, found %s",
                    json_type_word(value));
        return false;
    }
    *out = (eng_text){json_string_value(value), json_string_length(value)};
    if (out->len == 0) {
        problem_add(reader->problems, base, key, "the text is empty: there is nothing to read");
        return false;
    }
    if (out->len > max) {
        problem_add(reader->problems, base, key,
                    "a text may have at most %zu bytes (setting max_text), found %zu", max,
                    out->len);
        return false;
    }
    return true;
}

static bool read_options(struct reader *reader, const json_t *object, const char *base,
                         eng_input *input)
{
    json_t *list = NULL;
    if (!json_get_array(object, base, "options", JSON_REQUIRED_FIELD, 2, ENG_MAX_LABELS, &list,
                        reader->problems)) {
        return true;
    }
    size_t n = json_array_size(list);
    eng_text *options = request_alloc(reader->ask->req, n * sizeof *options);
    for (size_t i = 0; options != NULL && i < n; i++) {
        char place[176], key[24];
        snprintf(place, sizeof place, "%s/options", base);
        snprintf(key, sizeof key, "%zu", i);
        read_text(reader, json_array_get(list, i), place, key, &options[i]);
    }
    input->options = options;
    input->n_options = n;
    return options != NULL;
}

static bool is_known(const struct reader *reader, const char *key)
{
    for (size_t i = 0; i < reader->n_names; i++) {
        if (strcmp(reader->names[i], key) == 0) {
            return true;
        }
    }
    return reader->type == ENG_CHOICE && strcmp(key, "options") == 0;
}

static void check_keys(struct reader *reader, const json_t *object, const char *base)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        if (!is_known(reader, key)) {
            char names[400];
            list_names(reader, names, sizeof names);
            problem_add(reader->problems, base, key,
                        "inputs of this task have no field \"%.64s\"; they have %s", key, names);
        }
    }
}

/* False: out of memory. */
static bool read_object(struct reader *reader, const json_t *object, const char *base,
                        eng_input *input)
{
    eng_field *fields = request_alloc(reader->ask->req, (reader->n_names + 1) * sizeof *fields);
    if (fields == NULL) {
        return false;
    }
    check_keys(reader, object, base);
    input->fields = fields;
    for (size_t i = 0; i < reader->n_names; i++) {
        const char *name = reader->names[i];
        const json_t *value = json_object_get(object, name);
        eng_field *field = &fields[input->n_fields];
        field->name = text_of(name);
        if ((value == NULL || json_is_null(value)) && is_optional(reader, name)) {
            continue;
        }
        if (value == NULL) {
            problem_add(reader->problems, base, name, "\"%s\" is missing: give a string", name);
        } else if (read_text(reader, value, base, name, &field->value)) {
            input->n_fields++;
        }
    }
    return reader->type != ENG_CHOICE || read_options(reader, object, base, input);
}

static bool read_string(struct reader *reader, const json_t *value, const char *base,
                        eng_input *input)
{
    if (reader->n_names != 1 || reader->type == ENG_CHOICE) {
        char names[400];
        list_names(reader, names, sizeof names);
        problem_add(reader->problems, base, NULL,
                    "an input of this task is an object with %s, found a string", names);
        return true;
    }
    eng_field *field = request_alloc(reader->ask->req, sizeof *field);
    if (field == NULL) {
        return false;
    }
    field->name = text_of(reader->names[0]);
    if (read_text(reader, value, base, NULL, &field->value)) {
        input->fields = field;
        input->n_fields = 1;
    }
    return true;
}

static bool read_input(struct reader *reader, const json_t *value, size_t i, eng_input *input)
{
    char base[120];
    if (reader->ask->alone) {
        snprintf(base, sizeof base, "%s", reader->ask->pointer);
    } else {
        snprintf(base, sizeof base, "%s/%zu", reader->ask->pointer, i);
    }
    if (json_is_string(value)) {
        return read_string(reader, value, base, input);
    }
    if (!json_is_object(value)) {
        problem_add(reader->problems, base, NULL, "an input is a string or an object, found %s",
                    json_type_word(value));
        return true;
    }
    return read_object(reader, value, base, input);
}

static bool read_all(struct reader *reader, eng_input *inputs)
{
    struct ask *ask = reader->ask;
    for (size_t i = 0; i < ask->prediction.n; i++) {
        const json_t *value = ask->alone ? ask->inputs : json_array_get(ask->inputs, i);
        inputs[i] = (eng_input){0};
        if (!read_input(reader, value, i, &inputs[i])) {
            return false;
        }
    }
    return true;
}

bool ask_prepare(struct prediction *prediction)
{
    struct ask *ask = prediction->arg;
    struct problems problems = {.count = 0};
    struct reader reader = {.ask = ask, .problems = &problems};
    const eng_task *task = NULL;
    if (form_compile(prediction->version->form, &task, &prediction->err) != ENG_OK) {
        return false;
    }
    reader.type = eng_task_get_type(task);
    reader.n_names = eng_task_fields(task, reader.names);
    size_t bytes = 0;
    eng_input *inputs = NULL;
    if (mul_sizes(prediction->n, sizeof *inputs, &bytes)) {
        inputs = request_alloc(ask->req, bytes);
    }
    if (inputs == NULL || !read_all(&reader, inputs)) {
        (void)fault_nomem(&prediction->err, "inputs");
        return false;
    }
    prediction->inputs = inputs;
    if (problems.count > 0) {
        (void)fault(&prediction->err, ENG_EINVAL, "inputs", "see the problems");
        ask->problems = request_alloc(ask->req, sizeof problems);
        if (ask->problems != NULL) {
            *ask->problems = problems;
        }
        return false;
    }
    return true;
}
