/* tokenizer_json.c: the tokenizer of a directory that has tokenizer.json and no vocab.txt.
 *
 * Hugging Face's tokenizer.json describes any pipeline; only BERT's is read (BertNormalizer,
 * BertPreTokenizer, WordPiece with ## and [UNK]), and everything that would make other tokens is refused
 * by name. The vocabulary, a map from token to id, is written out as the lines of a vocab.txt: one
 * reader checks both.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/jsonload.h"
#include "engine/status.h"
#include "engine/tokenizer.h"

static const char file[] = "tokenizer.json";

/* The string at object[key], "" when it is not one. */
static const char *string_at(const json_t *object, const char *key)
{
    const char *string = json_string_value(json_object_get(object, key));
    return string != NULL ? string : "";
}

static eng_status want(const json_t *object, const char *where, const char *key, const char *wanted,
                       eng_error *err)
{
    const char *found = string_at(object, key);
    if (strcmp(found, wanted) != 0) {
        return fail(err, ENG_EUNSUPPORTED, file, "%s.%s is \"%.64s\"; only BERT's \"%s\" is read",
                    where, key, found, wanted);
    }
    return ENG_OK;
}

static eng_status check_pipeline(const json_t *root, eng_error *err)
{
    const json_t *model = json_object_get(root, "model");
    const json_t *longest = json_object_get(model, "max_input_chars_per_word");
    eng_status status =
        want(json_object_get(root, "normalizer"), "normalizer", "type", "BertNormalizer", err);
    if (status == ENG_OK) {
        status = want(json_object_get(root, "pre_tokenizer"), "pre_tokenizer", "type",
                      "BertPreTokenizer", err);
    }
    if (status == ENG_OK) {
        status = want(model, "model", "type", "WordPiece", err);
    }
    if (status == ENG_OK) {
        status = want(model, "model", "unk_token", "[UNK]", err);
    }
    if (status == ENG_OK) {
        status = want(model, "model", "continuing_subword_prefix", "##", err);
    }
    if (status == ENG_OK && json_integer_value(longest) != TOKENIZER_MAX_WORD) {
        status = fail(err, ENG_EUNSUPPORTED, file, "model.max_input_chars_per_word must be %d",
                      TOKENIZER_MAX_WORD);
    }
    return status;
}

static eng_status read_normalizer(const json_t *root, struct tokenizer_options *options,
                                  eng_error *err)
{
    const json_t *normalizer = json_object_get(root, "normalizer");
    bool clean = true;
    *options = tokenizer_defaults();
    eng_status status = tokenizer_flag(normalizer, file, "clean_text", &clean, err);
    if (status == ENG_OK && !clean) {
        status = fail(err, ENG_EUNSUPPORTED, file, "normalizer.clean_text must be true");
    }
    if (status == ENG_OK) {
        status = tokenizer_flag(normalizer, file, "lowercase", &options->lower_case, err);
    }
    options->strip_accents = options->lower_case;
    if (status == ENG_OK) {
        status = tokenizer_flag(normalizer, file, "strip_accents", &options->strip_accents, err);
    }
    if (status == ENG_OK) {
        status = tokenizer_flag(normalizer, file, "handle_chinese_chars", &options->split_cjk, err);
    }
    return status;
}

/* tokens[id] = token for every entry of the map: each id from 0 to n - 1 once. */
static eng_status sort_by_id(json_t *map, const char **tokens, size_t n, size_t *bytes,
                             eng_error *err)
{
    const char *token;
    json_t *id;
    json_object_foreach(map, token, id)
    {
        json_int_t value = json_is_integer(id) ? json_integer_value(id) : -1;
        if (value < 0 || (size_t)value >= n || tokens[value] != NULL) {
            return fail(err, ENG_EFORMAT, file,
                        "model.vocab: the %zu tokens must have the ids 0 to %zu, each once; "
                        "\"%.64s\" has not",
                        n, n - 1, token);
        }
        if (strpbrk(token, "\r\n") != NULL) {
            return fail(err, ENG_EFORMAT, file, "model.vocab: token %lld holds a line break",
                        (long long)value);
        }
        tokens[value] = token;
        *bytes += strlen(token) + 1; /* within the file's size */
    }
    return ENG_OK;
}

static char *join_lines(const char **tokens, size_t n, size_t bytes)
{
    char *lines = malloc(bytes + 1);
    char *to = lines;
    for (size_t i = 0; lines != NULL && i < n; i++) {
        size_t len = strlen(tokens[i]);
        memcpy(to, tokens[i], len);
        to[len] = '\n';
        to += len + 1;
    }
    return lines;
}

static eng_status from_map(json_t *map, const struct tokenizer_options *options,
                           struct tokenizer **out, eng_error *err)
{
    size_t n = json_object_size(map), bytes = 0;
    if (n == 0 || n > TOKENIZER_MAX_TOKENS) {
        return fail(err, n == 0 ? ENG_EFORMAT : ENG_ELIMIT, file,
                    "model.vocab: %zu tokens; 1 to %zu are read", n, TOKENIZER_MAX_TOKENS);
    }
    const char **tokens = calloc(n, sizeof *tokens);
    char *lines = NULL;
    eng_status status =
        tokens != NULL ? sort_by_id(map, tokens, n, &bytes, err) : fail_nomem(err, file);
    if (status == ENG_OK) {
        lines = join_lines(tokens, n, bytes);
        status = lines != NULL ? tokenizer_from_vocab((eng_text){lines, bytes}, options, out, err)
                               : fail_nomem(err, file);
    }
    free(lines);
    free(tokens);
    return status;
}

static eng_status from_root(const json_t *root, struct tokenizer **out, eng_error *err)
{
    struct tokenizer_options options;
    eng_status status = check_pipeline(root, err);
    if (status == ENG_OK) {
        status = read_normalizer(root, &options, err);
    }
    if (status == ENG_OK) {
        json_t *map = json_object_get(json_object_get(root, "model"), "vocab");
        status = from_map(map, &options, out, err);
    }
    return status;
}

eng_status tokenizer_from_json_file(const char *path, struct tokenizer **out, eng_error *err)
{
    /* a token is a key, a colon and a comma */
    static const struct json_limits limits = {TOKENIZER_MAX_FILE_BYTES, 16,
                                              2 * TOKENIZER_MAX_TOKENS + 10000};
    json_t *root = NULL;
    *out = NULL;
    eng_status status = json_load_file_limited(path, &limits, &root, err);
    if (status == ENG_OK) {
        status = from_root(root, out, err);
    }
    json_decref(root);
    return status;
}
