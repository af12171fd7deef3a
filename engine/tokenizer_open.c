/* tokenizer_open.c: the files of a tokenizer in a model directory.
 *
 * vocab.txt gives the tokens, and tokenizer_config.json, when it is there, says whether text is lower
 * cased, accents stripped and ideographs split; everything else in it is Hugging Face's own affair.
 * Without a vocab.txt, tokenizer.json gives both.
 */
#include <stdio.h>
#include <string.h>

#include "engine/jsonload.h"
#include "engine/mapfile.h"
#include "engine/status.h"
#include "engine/tokenizer.h"

#define PATH_BYTES 2048

static const struct json_limits config_limits = {(size_t)1 << 20, 32, 100000};

static eng_status path_in(const char *dir, const char *name, char path[PATH_BYTES], eng_error *err)
{
    int n = snprintf(path, PATH_BYTES, "%s/%s", dir, name);
    if (n < 0 || n >= PATH_BYTES) {
        return fail(err, ENG_ELIMIT, name, "path of %zu bytes, at most %d",
                    strlen(dir) + 1 + strlen(name), PATH_BYTES - 1);
    }
    return ENG_OK;
}

eng_status tokenizer_flag(const json_t *object, const char *file, const char *key, bool *value,
                          eng_error *err)
{
    const json_t *flag = json_object_get(object, key);
    if (flag == NULL || json_is_null(flag)) {
        return ENG_OK;
    }
    if (!json_is_boolean(flag)) {
        return fail(err, ENG_EFORMAT, file, "%s must be true, false or null", key);
    }
    *value = json_is_true(flag);
    return ENG_OK;
}

static eng_status read_config(const json_t *config, struct tokenizer_options *options,
                              eng_error *err)
{
    static const char file[] = "tokenizer_config.json";
    if (!json_is_object(config)) {
        return fail(err, ENG_EFORMAT, file, "not a JSON object");
    }
    eng_status status = tokenizer_flag(config, file, "do_lower_case", &options->lower_case, err);
    options->strip_accents = options->lower_case;
    if (status == ENG_OK) {
        status = tokenizer_flag(config, file, "strip_accents", &options->strip_accents, err);
    }
    if (status == ENG_OK) {
        status = tokenizer_flag(config, file, "tokenize_chinese_chars", &options->split_cjk, err);
    }
    return status;
}

static eng_status read_options(const char *dir, struct tokenizer_options *options, eng_error *err)
{
    char path[PATH_BYTES];
    json_t *config = NULL;
    *options = tokenizer_defaults();
    eng_status status = path_in(dir, "tokenizer_config.json", path, err);
    if (status == ENG_OK) {
        status = json_load_file_limited(path, &config_limits, &config, err);
        if (status == ENG_ENOTFOUND) {
            return ENG_OK;
        }
    }
    if (status == ENG_OK) {
        status = read_config(config, options, err);
    }
    json_decref(config);
    return status;
}

static eng_status open_vocab(const char *dir, const struct mapfile *vocab, struct tokenizer **out,
                             eng_error *err)
{
    struct tokenizer_options options;
    eng_status status = read_options(dir, &options, err);
    if (status == ENG_OK) {
        eng_text text = {(const char *)vocab->data, vocab->size};
        status = tokenizer_from_vocab(text, &options, out, err);
    }
    return status;
}

/* vocab.txt, else tokenizer.json; *name is the one that was there. */
static eng_status open_either(const char *dir, const char **name, struct tokenizer **out,
                              eng_error *err)
{
    char path[PATH_BYTES];
    struct mapfile map = {.fd = -1};
    *name = "vocab.txt";
    eng_status status = path_in(dir, *name, path, err);
    if (status == ENG_OK) {
        status = mapfile_open(path, TOKENIZER_MAX_FILE_BYTES, &map, err);
    }
    if (status == ENG_OK) {
        status = open_vocab(dir, &map, out, err);
        mapfile_close(&map);
    } else if (status == ENG_ENOTFOUND) {
        *name = "tokenizer.json";
        status = path_in(dir, *name, path, err);
        if (status == ENG_OK) {
            status = tokenizer_from_json_file(path, out, err);
        }
    }
    return status;
}

eng_status tokenizer_open(const char *dir, size_t model_vocab, struct tokenizer **out,
                          eng_error *err)
{
    const char *name;
    *out = NULL;
    eng_status status = open_either(dir, &name, out, err);
    if (status == ENG_OK && tokenizer_size(*out) > model_vocab) {
        status = fail(err, ENG_EMISMATCH, name,
                      "%zu tokens, but the model embeds only %zu: it belongs to another model",
                      tokenizer_size(*out), model_vocab);
        tokenizer_free(*out);
        *out = NULL;
    }
    return status;
}
