/* json.c: jansson behind limits.
 *
 * jansson builds a tree that can be 75 times as large as its text and has no bound on depth that suits
 * us, so a linear pass counts depth and structural tokens first: what is too much is refused before a
 * byte is allocated for it. The pass needs to know strings only to skip them; whether the text is JSON
 * is jansson's to say. jansson's own error text echoes input, so only its position is passed on.
 */
#include "server/json.h"

#include "engine/engine.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- problems ------------------------------------------------------------------------------------ */

/* Appends `key` as one pointer step (RFC 6901: ~ and /; RFC 3986: what a fragment may not hold). */
static void add_step(char *pointer, size_t size, const char *key)
{
    size_t at = strlen(pointer);
    if (at + 2 > size) {
        return;
    }
    pointer[at++] = '/';
    for (; *key != '\0'; key++) {
        unsigned char c = (unsigned char)*key;
        char step[8];
        if (c == '~' || c == '/') {
            snprintf(step, sizeof step, "~%c", c == '~' ? '0' : '1');
        } else if (c <= 0x20 || c >= 0x7F || strchr("\"%<>\\^`{|}#[]", c) != NULL) {
            snprintf(step, sizeof step, "%%%02X", c);
        } else {
            snprintf(step, sizeof step, "%c", c);
        }
        size_t n = strlen(step);
        if (at + n + 1 > size) {
            break;
        }
        memcpy(pointer + at, step, n);
        at += n;
    }
    pointer[at] = '\0';
}

void problem_add(struct problems *problems, const char *base, const char *key, const char *format,
                 ...)
{
    size_t i = problems->count++;
    if (i >= MAX_PROBLEMS) {
        return;
    }
    struct problem *problem = &problems->items[i];
    snprintf(problem->pointer, sizeof problem->pointer, "%s", base);
    if (key != NULL) {
        add_step(problem->pointer, sizeof problem->pointer, key);
    }
    va_list args;
    va_start(args, format);
    vsnprintf(problem->detail, sizeof problem->detail, format, args);
    va_end(args);
}

/* ---- parsing ------------------------------------------------------------------------------------- */

/* The byte after the string that begins at bytes[i] = '"'. */
static size_t skip_string(const char *bytes, size_t len, size_t i)
{
    for (i++; i < len && bytes[i] != '"'; i++) {
        if (bytes[i] == '\\') {
            i++;
        }
    }
    return i < len ? i + 1 : len;
}

bool json_scan(const char *bytes, size_t len, const struct json_limits *limits, char *why,
               size_t size)
{
    if (len > limits->max_bytes) {
        snprintf(why, size, "the JSON text has %zu bytes, at most %zu are read", len,
                 limits->max_bytes);
        return false;
    }
    size_t depth = 0, tokens = 0;
    for (size_t i = 0; i < len;) {
        switch (bytes[i]) {
        case '"':
            i = skip_string(bytes, len, i);
            continue;
        case '{':
        case '[':
            depth++;
            tokens++;
            break;
        case '}':
        case ']':
            depth -= depth > 0;
            tokens++;
            break;
        case ',':
        case ':':
            tokens++;
            break;
        default:
            break;
        }
        if (depth > limits->max_depth) {
            snprintf(why, size, "the JSON text is nested deeper than %zu levels at byte %zu",
                     limits->max_depth, i);
            return false;
        }
        if (tokens > limits->max_tokens) {
            snprintf(why, size,
                     "the JSON text has more than %zu brackets, commas and colons (setting "
                     "max_json_tokens)",
                     limits->max_tokens);
            return false;
        }
        i++;
    }
    return true;
}

static const char *parse_reason(enum json_error_code code)
{
    switch (code) {
    case json_error_duplicate_key:
        return "an object has the same key twice";
    case json_error_invalid_utf8:
        return "the text is not valid UTF-8";
    case json_error_null_character:
    case json_error_null_byte_in_key:
        return "a string holds a NUL character";
    case json_error_numeric_overflow:
        return "a number is out of range";
    case json_error_premature_end_of_input:
        return "the text ends too early";
    case json_error_end_of_input_expected:
        return "there is something after the end of the value";
    default:
        return "the text is not JSON";
    }
}

json_t *json_parse(const char *bytes, size_t len, const struct json_limits *limits, char *why,
                   size_t size)
{
    if (!json_scan(bytes, len, limits, why, size)) {
        return NULL;
    }
    eng_json_fault fault;
    json_t *value = eng_json_parse(bytes, len, 0, &fault);
    if (value == NULL && fault.nomem) {
        why[0] = '\0';
    } else if (value == NULL) {
        snprintf(why, size, "%s: line %d, column %d",
                 parse_reason((enum json_error_code)fault.code), fault.line, fault.column);
    }
    return value;
}

json_t *json_stored(const char *text)
{
    eng_json_fault fault;
    return text != NULL ? eng_json_parse(text, strlen(text), JSON_DECODE_ANY, &fault) : NULL;
}

/* ---- getters ------------------------------------------------------------------------------------- */

const char *json_type_word(const json_t *value)
{
    if (value == NULL) {
        return "nothing";
    }
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "a whole number";
    case JSON_REAL:
        return "a number";
    case JSON_NULL:
        return "null";
    default:
        return "true or false";
    }
}

/* The member, or NULL with a problem when it is needed. null counts as absent. */
static json_t *get(const json_t *object, const char *base, const char *key, enum json_need need,
                   const char *want, struct problems *problems)
{
    json_t *value = json_object_get(object, key);
    if (json_is_null(value)) {
        value = NULL;
    }
    if (value == NULL && need == JSON_REQUIRED_FIELD) {
        problem_add(problems, base, key, "\"%s\" is missing: give %s", key, want);
    }
    return value;
}

static void add_type_problem(const char *base, const char *key, const char *want,
                             const json_t *value, struct problems *problems)
{
    problem_add(problems, base, key, "\"%s\" must be %s, found %s", key, want,
                json_type_word(value));
}

bool json_get_string(const json_t *object, const char *base, const char *key, enum json_need need,
                     size_t min, size_t max, const char **out, struct problems *problems)
{
    const json_t *value = get(object, base, key, need, "a string", problems);
    if (value == NULL) {
        return false;
    }
    if (!json_is_string(value)) {
        add_type_problem(base, key, "a string", value, problems);
        return false;
    }
    size_t len = json_string_length(value);
    if (len < min || len > max) {
        problem_add(problems, base, key, "\"%s\" must have %zu to %zu bytes, found %zu", key, min,
                    max, len);
        return false;
    }
    *out = json_string_value(value);
    return true;
}

bool json_get_u64(const json_t *object, const char *base, const char *key, enum json_need need,
                  uint64_t min, uint64_t max, uint64_t *out, struct problems *problems)
{
    const json_t *value = get(object, base, key, need, "a whole number", problems);
    if (value == NULL) {
        return false;
    }
    json_int_t number = json_integer_value(value);
    if (json_is_real(value)) {
        /* 20.0 is 20: some clients write every number as a float. */
        double real = json_real_value(value);
        number = real == floor(real) && fabs(real) < 9e15 ? (json_int_t)real : -1;
    } else if (!json_is_integer(value)) {
        add_type_problem(base, key, "a whole number", value, problems);
        return false;
    }
    if (number < 0 || (uint64_t)number < min || (uint64_t)number > max) {
        problem_add(problems, base, key,
                    "\"%s\" must be a whole number from %" PRIu64 " to %" PRIu64 ", found %.15g",
                    key, min, max, json_number_value(value));
        return false;
    }
    *out = (uint64_t)number;
    return true;
}

bool json_get_double(const json_t *object, const char *base, const char *key, enum json_need need,
                     double min, double max, double *out, struct problems *problems)
{
    const json_t *value = get(object, base, key, need, "a number", problems);
    if (value == NULL) {
        return false;
    }
    if (!json_is_number(value)) {
        add_type_problem(base, key, "a number", value, problems);
        return false;
    }
    double number = json_number_value(value);
    if (!isfinite(number) || number < min || number > max) {
        problem_add(problems, base, key, "\"%s\" must be a number from %g to %g, found %g", key,
                    min, max, number);
        return false;
    }
    *out = number;
    return true;
}

bool json_get_bool(const json_t *object, const char *base, const char *key, enum json_need need,
                   bool *out, struct problems *problems)
{
    const json_t *value = get(object, base, key, need, "true or false", problems);
    if (value == NULL) {
        return false;
    }
    if (!json_is_boolean(value)) {
        add_type_problem(base, key, "true or false", value, problems);
        return false;
    }
    *out = json_is_true(value);
    return true;
}

bool json_get_array(const json_t *object, const char *base, const char *key, enum json_need need,
                    size_t min, size_t max, json_t **out, struct problems *problems)
{
    json_t *value = get(object, base, key, need, "an array", problems);
    if (value == NULL) {
        return false;
    }
    if (!json_is_array(value)) {
        add_type_problem(base, key, "an array", value, problems);
        return false;
    }
    size_t n = json_array_size(value);
    if (n < min || n > max) {
        problem_add(problems, base, key, "\"%s\" must have %zu to %zu items, found %zu", key, min,
                    max, n);
        return false;
    }
    *out = value;
    return true;
}

bool json_get_object(const json_t *object, const char *base, const char *key, enum json_need need,
                     json_t **out, struct problems *problems)
{
    json_t *value = get(object, base, key, need, "an object", problems);
    if (value == NULL) {
        return false;
    }
    if (!json_is_object(value)) {
        add_type_problem(base, key, "an object", value, problems);
        return false;
    }
    *out = value;
    return true;
}

/* "a, b, c" cut to the buffer. */
static void join_words(const char *const *words, char *text, size_t size)
{
    size_t at = 0;
    text[0] = '\0';
    for (size_t i = 0; words[i] != NULL && at + 1 < size; i++) {
        int n = snprintf(text + at, size - at, "%s%s", i > 0 ? ", " : "", words[i]);
        at += n > 0 ? (size_t)n : 0;
    }
}

bool json_get_choice(const json_t *object, const char *base, const char *key, enum json_need need,
                     const char *const *words, size_t *out, struct problems *problems)
{
    char list[200];
    join_words(words, list, sizeof list);
    const char *word = NULL;
    if (!json_get_string(object, base, key, need, 0, SIZE_MAX, &word, problems)) {
        return false;
    }
    for (size_t i = 0; words[i] != NULL; i++) {
        if (strcmp(words[i], word) == 0) {
            *out = i;
            return true;
        }
    }
    problem_add(problems, base, key, "\"%s\" must be one of: %s", key, list);
    return false;
}

void json_only(const json_t *object, const char *base, const char *const *known,
               struct problems *problems)
{
    char list[200];
    join_words(known, list, sizeof list);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        bool found = false;
        for (size_t i = 0; known[i] != NULL && !found; i++) {
            found = strcmp(known[i], key) == 0;
        }
        if (!found) {
            problem_add(problems, base, key, "unknown field; known here: %s", list);
        }
    }
}

/* ---- writing ------------------------------------------------------------------------------------- */

char *json_text(const json_t *value, size_t *len)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_REAL_PRECISION(9) | JSON_ENCODE_ANY);
    *len = text != NULL ? strlen(text) : 0;
    return text;
}

bool json_put(json_t *object, const char *key, json_t *value)
{
    if (object == NULL) {
        json_decref(value);
        return false;
    }
    return json_object_set_new(object, key, value) == 0;
}

json_t *json_floats(const float *numbers, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; list != NULL && i < n; i++) {
        if (json_array_append_new(list, json_real((double)numbers[i])) != 0) {
            json_decref(list);
            list = NULL;
        }
    }
    return list;
}

json_t *json_text_or_null(const char *text)
{
    return text != NULL ? json_string(text) : json_null();
}

json_t *json_seconds(int64_t ms)
{
    return ms != 0 ? json_integer(ms / 1000) : json_null();
}
