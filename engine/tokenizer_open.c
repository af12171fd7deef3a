/* tokenizer_open.c: the files of a tokenizer in a model directory.
 *
 * vocab.txt gives the tokens; tokenizer_config.json, when it is there, says whether text is lower
 * cased, accents stripped and ideographs split. Everything else in it is Hugging Face's own affair.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/status.h"
#include "engine/tokenizer.h"

#define CONFIG_MAX_BYTES ((size_t)1 << 20)

/* Reads at most `limit` bytes of dir/name. ENG_ENOTFOUND when there is no such file. */
static eng_status read_file(const char *dir, const char *name, size_t limit, char **bytes,
                            size_t *len, eng_error *err)
{
    char path[2048];
    *bytes = NULL;
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path) {
        return fail(err, ENG_EINVAL, name, "the directory's name is longer than %zu bytes",
                    sizeof path - 2 - strlen(name));
    }
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return fail(err, errno == ENOENT ? ENG_ENOTFOUND : ENG_EIO, name, "%s: %s", path,
                    strerror(errno));
    }
    eng_status status = ENG_OK;
    char *buffer = malloc(limit + 1);
    size_t n = buffer != NULL ? fread(buffer, 1, limit + 1, file) : 0;
    if (buffer == NULL) {
        status = fail_nomem(err, name);
    } else if (ferror(file)) {
        status = fail(err, ENG_EIO, name, "%s: %s", path, strerror(errno));
    } else if (n > limit) {
        status = fail(err, ENG_ELIMIT, name, "%s: more than %zu bytes", path, limit);
    }
    if (status == ENG_OK) {
        *bytes = buffer;
        *len = n;
        buffer = NULL;
    }
    free(buffer);
    (void)fclose(file);
    return status;
}

/* A boolean of the configuration; missing or null leaves *value. */
static eng_status config_flag(const json_t *config, const char *key, bool *value, eng_error *err)
{
    const json_t *flag = json_object_get(config, key);
    if (flag == NULL || json_is_null(flag)) {
        return ENG_OK;
    }
    if (!json_is_boolean(flag)) {
        return fail(err, ENG_EFORMAT, "tokenizer_config.json", "%s must be true or false", key);
    }
    *value = json_is_true(flag);
    return ENG_OK;
}

static eng_status parse_config(const char *bytes, size_t len, struct tokenizer_options *options,
                               eng_error *err)
{
    json_error_t why;
    json_t *config = json_loadb(bytes, len, 0, &why);
    if (config == NULL || !json_is_object(config)) {
        json_decref(config);
        return fail(err, ENG_EFORMAT, "tokenizer_config.json", "not a JSON object");
    }
    eng_status status = config_flag(config, "do_lower_case", &options->lower_case, err);
    options->strip_accents = options->lower_case;
    if (status == ENG_OK) {
        status = config_flag(config, "strip_accents", &options->strip_accents, err);
    }
    if (status == ENG_OK) {
        status = config_flag(config, "tokenize_chinese_chars", &options->split_cjk, err);
    }
    json_decref(config);
    return status;
}

static eng_status read_options(const char *dir, struct tokenizer_options *options, eng_error *err)
{
    char *bytes;
    size_t len;
    *options = tokenizer_defaults();
    eng_status status =
        read_file(dir, "tokenizer_config.json", CONFIG_MAX_BYTES, &bytes, &len, err);
    if (status == ENG_ENOTFOUND) {
        return ENG_OK;
    }
    if (status == ENG_OK) {
        status = parse_config(bytes, len, options, err);
    }
    free(bytes);
    return status;
}

eng_status tokenizer_open(const char *dir, size_t model_vocab, struct tokenizer **out,
                          eng_error *err)
{
    char *bytes = NULL;
    size_t len = 0;
    struct tokenizer_options options;
    *out = NULL;
    eng_status status = read_file(dir, "vocab.txt", TOKENIZER_MAX_FILE_BYTES, &bytes, &len, err);
    if (status == ENG_OK) {
        status = read_options(dir, &options, err);
    }
    if (status == ENG_OK) {
        status = tokenizer_from_vocab((eng_text){bytes, len}, &options, out, err);
    }
    if (status == ENG_OK && tokenizer_size(*out) > model_vocab) {
        status = fail(err, ENG_EMISMATCH, "vocab.txt",
                      "%zu tokens, but the model embeds only %zu: it belongs to another model",
                      tokenizer_size(*out), model_vocab);
        tokenizer_free(*out);
        *out = NULL;
    }
    free(bytes);
    return status;
}
