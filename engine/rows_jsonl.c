/* rows_jsonl.c: one JSON object a line.
 *
 * Each line is bounded (bytes, depth, structural tokens) before it is parsed. Strings become fields
 * under their own names, so that a template may use any of them; other values that no type knows are
 * left out. Chat rows ({"messages":[user, assistant]}) become text and label.
 */
#include "engine/codepoints.h"
#include "engine/dataset.h"
#include "engine/jsonload.h"
#include "engine/status.h"

#include <string.h>

static const struct json_limits row_limits = {DATASET_MAX_ROW_BYTES, 8, 4096};

static const char *json_kind(const json_t *value)
{
    static const char *const names[] = {"an object", "an array",  "a string",  "an integer",
                                        "a number",  "a boolean", "a boolean", "null"};
    return names[json_typeof(value)];
}

static eng_text string_text(const json_t *value)
{
    return (eng_text){json_string_value(value), json_string_length(value)};
}

static bool one_of(const char *name, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(name, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

static bool put_field(struct dataset_builder *builder, struct raw_row *row, const char *name,
                      eng_text value)
{
    if (row->n_fields == ENG_MAX_FIELDS) {
        dataset_bad(builder, row->line, "", "more than %d text fields", ENG_MAX_FIELDS);
        return false;
    }
    row->fields[row->n_fields++] = (eng_field){{name, strlen(name)}, value};
    return true;
}

static bool take_label(struct dataset_builder *builder, struct raw_row *row, const json_t *value)
{
    if (json_is_string(value)) {
        row->label_kind = LABEL_WORD;
        row->label = string_text(value);
        return true;
    }
    if (json_is_integer(value)) {
        int len = snprintf(row->digits, sizeof row->digits, "%" JSON_INTEGER_FORMAT,
                           json_integer_value(value));
        row->label_kind = LABEL_NUMBER;
        row->label = (eng_text){row->digits, (size_t)len};
        return true;
    }
    dataset_bad(builder, row->line, "/label", "label wants a string or a whole number, found %s",
                json_kind(value));
    return false;
}

static bool take_options(struct dataset_builder *builder, struct raw_row *row, const json_t *value)
{
    size_t n = json_array_size(value);
    if (!json_is_array(value) || n > ENG_MAX_LABELS) {
        dataset_bad(builder, row->line, "/options",
                    "options wants an array of 2 to %d strings, found %s", ENG_MAX_LABELS,
                    json_is_array(value) ? "more" : json_kind(value));
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *option = json_array_get(value, i);
        if (!json_is_string(option)) {
            char pointer[64];
            snprintf(pointer, sizeof pointer, "/options/%zu", i);
            dataset_bad(builder, row->line, pointer, "option wants a string, found %s",
                        json_kind(option));
            return false;
        }
        row->options[i] = string_text(option);
    }
    row->has_options = true;
    row->n_options = n;
    return true;
}

static bool take_message(struct dataset_builder *builder, struct raw_row *row, size_t i,
                         const json_t *message)
{
    char pointer[64];
    const char *role = json_string_value(json_object_get(message, "role"));
    const json_t *content = json_object_get(message, "content");
    snprintf(pointer, sizeof pointer, "/messages/%zu", i);
    if (role == NULL || !json_is_string(content)) {
        dataset_bad(builder, row->line, pointer, "a message wants a role and a content string");
        return false;
    }
    if (strcmp(role, "system") == 0 || strcmp(role, "developer") == 0) {
        return put_field(builder, row, "system", string_text(content));
    }
    bool user = strcmp(role, "user") == 0;
    if (!user && strcmp(role, "assistant") != 0) {
        dataset_bad(builder, row->line, pointer, "role wants system, user or assistant, found %s",
                    quote((eng_text){role, strlen(role)}).text);
        return false;
    }
    if (user ? row->n_fields > 0 && strcmp(row->fields[row->n_fields - 1].name.data, "text") == 0
             : row->label_kind != LABEL_NONE) {
        dataset_bad(builder, row->line, pointer,
                    "a row holds one user message and one assistant message (the label)");
        return false;
    }
    if (user && row->label_kind == LABEL_NONE) {
        return put_field(builder, row, "text", string_text(content));
    }
    if (!user) {
        return take_label(builder, row, content);
    }
    dataset_bad(builder, row->line, pointer, "the assistant message (the label) comes last");
    return false;
}

static bool take_messages(struct dataset_builder *builder, struct raw_row *row,
                          const json_t *messages)
{
    if (!json_is_array(messages) || json_array_size(messages) > ENG_MAX_FIELDS) {
        dataset_bad(builder, row->line, "/messages",
                    "messages wants an array: a user message, then an assistant message");
        return false;
    }
    row->chat = true;
    for (size_t i = 0; i < json_array_size(messages); i++) {
        if (!take_message(builder, row, i, json_array_get(messages, i))) {
            return false;
        }
    }
    return true;
}

static bool take_answer(struct dataset_builder *builder, struct raw_row *row, const json_t *object)
{
    const json_t *answer = json_object_get(object, "answer");
    const json_t *start = json_object_get(object, "answer_start");
    if (answer != NULL && !json_is_string(answer)) {
        dataset_bad(builder, row->line, "/answer", "answer wants a string, found %s",
                    json_kind(answer));
        return false;
    }
    if (start != NULL && !json_is_number(start)) {
        dataset_bad(builder, row->line, "/answer_start", "answer_start wants a number, found %s",
                    json_kind(start));
        return false;
    }
    row->has_answer = answer != NULL;
    row->answer = answer != NULL ? string_text(answer) : (eng_text){"", 0};
    row->has_start = start != NULL;
    row->answer_start = start != NULL ? json_number_value(start) : 0;
    return true;
}

/* Every string under a name that is not special; a known name must be a string. */
static bool take_strings(struct dataset_builder *builder, struct raw_row *row, json_t *object)
{
    static const char *const special[] = {"label", "options", "messages", "answer_start"};
    static const char *const known[] = {"text", "text_a", "text_b", "question", "context"};
    const char *name;
    json_t *value;
    json_object_foreach(object, name, value)
    {
        bool is_answer = strcmp(name, "answer") == 0 && json_object_get(object, "label") == NULL;
        if (is_answer || one_of(name, special, sizeof special / sizeof special[0])) {
            continue;
        }
        if (json_is_string(value)) {
            if (!put_field(builder, row, name, string_text(value))) {
                return false;
            }
        } else if (one_of(name, known, sizeof known / sizeof known[0])) {
            char pointer[64];
            snprintf(pointer, sizeof pointer, "/%s", name);
            dataset_bad(builder, row->line, pointer, "%s wants a string, found %s", name,
                        json_kind(value));
            return false;
        }
    }
    return true;
}

/* False when the row was reported as bad. */
static bool take_row(struct dataset_builder *builder, struct raw_row *row, json_t *object)
{
    if (!json_is_object(object)) {
        dataset_bad(builder, row->line, "",
                    "the line holds %s: JSONL wants one object a line, no array around them",
                    json_kind(object));
        return false;
    }
    if (json_object_size(object) > DATASET_MAX_COLUMNS) {
        dataset_bad(builder, row->line, "", "the object has %zu keys, at most %d are read",
                    json_object_size(object), DATASET_MAX_COLUMNS);
        return false;
    }
    const json_t *messages = json_object_get(object, "messages");
    const json_t *label = json_object_get(object, "label");
    const json_t *options = json_object_get(object, "options");
    if (messages != NULL && (label != NULL || json_object_get(object, "text") != NULL)) {
        dataset_bad(builder, row->line, "/messages", "messages stands beside text or label");
        return false;
    }
    return (messages == NULL || take_messages(builder, row, messages)) &&
           (label == NULL || take_label(builder, row, label)) &&
           (options == NULL || take_options(builder, row, options)) &&
           take_answer(builder, row, object) && take_strings(builder, row, object);
}

static eng_status read_line(struct dataset_builder *builder, eng_text text, struct raw_row *row,
                            eng_error *err)
{
    eng_error why;
    json_t *object = NULL;
    eng_status status = ENG_OK;
    size_t valid = text.len <= DATASET_MAX_ROW_BYTES ? cp_valid_prefix(text) : text.len;
    if (valid < text.len) {
        dataset_bad(builder, row->line, "", "not UTF-8 at byte %zu of the line", valid + 1);
        return ENG_OK;
    }
    status = json_load_limited(text.data, text.len, "row", &row_limits, &object, &why);
    if (status == ENG_ENOMEM) {
        return fail_nomem(err, "dataset");
    }
    if (status != ENG_OK) {
        dataset_bad(builder, row->line, "", "%s", why.text);
        return ENG_OK;
    }
    if (take_row(builder, row, object)) {
        status = dataset_add(builder, row, err);
    }
    json_decref(object);
    return status;
}

static bool only_blanks(eng_text text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] != ' ' && text.data[i] != '\t' && text.data[i] != '\r') {
            return false;
        }
    }
    return true;
}

eng_status rows_read_jsonl(struct dataset_builder *builder, eng_text bytes, struct raw_row *scratch,
                           eng_error *err)
{
    eng_status status = ENG_OK;
    size_t line = 0;
    for (size_t at = 0; at < bytes.len && status == ENG_OK;) {
        const char *newline = memchr(bytes.data + at, '\n', bytes.len - at);
        size_t end = newline != NULL ? (size_t)(newline - bytes.data) : bytes.len;
        eng_text text = {bytes.data + at, end - at};
        at = end + 1;
        line++;
        if (only_blanks(text)) {
            continue;
        }
        memset(scratch, 0, sizeof *scratch);
        scratch->line = line;
        status = read_line(builder, text, scratch, err);
    }
    return status;
}
