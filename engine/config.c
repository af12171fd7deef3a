/* config.c: config.json, one table of sizes with their two names and limits. */
#include "engine/config.h"

#include "engine/jsonload.h"
#include "engine/mapfile.h"
#include "engine/status.h"

#include <math.h>
#include <string.h>

#define CONFIG_MAX_BYTES  ((size_t)1 << 20)
#define CONFIG_MAX_DEPTH  16
#define CONFIG_MAX_TOKENS 65536

struct size_setting {
    const char *bert, *bart; /* names; bart NULL when both use the same */
    size_t max;
    size_t fallback; /* 0: the setting must be there */
    size_t *place;
};

static eng_status read_size(const json_t *root, const char *what,
                            const struct size_setting *setting, eng_error *err)
{
    const char *name = setting->bert;
    const json_t *value = json_object_get(root, name);
    if (value == NULL && setting->bart != NULL) {
        name = setting->bart;
        value = json_object_get(root, name);
    }
    if (value == NULL) {
        if (setting->fallback == 0) {
            return fail(err, ENG_EFORMAT, setting->bert, "%s: \"%s\" is missing", what,
                        setting->bert);
        }
        *setting->place = setting->fallback;
        return ENG_OK;
    }
    json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < 1) {
        return fail(err, ENG_EFORMAT, name, "%s: \"%s\" must be an integer of 1 or more", what,
                    name);
    }
    if ((uint64_t)number > setting->max) {
        return fail(err, ENG_ELIMIT, name, "%s: \"%s\" is %lld, at most %zu are allowed", what,
                    name, (long long)number, setting->max);
    }
    *setting->place = (size_t)number;
    return ENG_OK;
}

static eng_status read_sizes(const json_t *root, const char *what, struct encoder_params *params,
                             eng_error *err)
{
    const struct size_setting table[] = {
        {"hidden_size", "d_model", CONFIG_MAX_HIDDEN, 0, &params->hidden},
        {"num_hidden_layers", "encoder_layers", ENG_MAX_LAYERS, 0, &params->layers},
        {"num_attention_heads", "encoder_attention_heads", CONFIG_MAX_HIDDEN, 0, &params->heads},
        {"intermediate_size", "encoder_ffn_dim", CONFIG_MAX_FFN, 0, &params->ffn},
        {"vocab_size", NULL, CONFIG_MAX_VOCAB, 0, &params->vocab},
        {"max_position_embeddings", NULL, CONFIG_MAX_POSITIONS, 512, &params->positions},
        {"type_vocab_size", NULL, CONFIG_MAX_TYPES, 2, &params->types},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        eng_status status = read_size(root, what, &table[i], err);
        if (status != ENG_OK) {
            return status;
        }
    }
    if (params->hidden % params->heads != 0) {
        return fail(err, ENG_EFORMAT, "num_attention_heads",
                    "%s: %zu heads do not divide the hidden size %zu", what, params->heads,
                    params->hidden);
    }
    return ENG_OK;
}

static eng_status read_epsilon(const json_t *root, const char *what, struct encoder_params *params,
                               eng_error *err)
{
    const json_t *value = json_object_get(root, "layer_norm_eps");
    double epsilon = value == NULL ? 1e-12 : json_number_value(value);
    if ((value != NULL && !json_is_number(value)) || !(epsilon >= 0) || !(epsilon <= 0.1)) {
        return fail(err, ENG_EFORMAT, "layer_norm_eps",
                    "%s: \"layer_norm_eps\" must be a number from 0 to 0.1", what);
    }
    params->epsilon = (float)epsilon;
    return ENG_OK;
}

/* A setting that must have one of two values, or be absent. */
static eng_status must_be(const json_t *root, const char *what, const char *name, const char *one,
                          const char *other, eng_error *err)
{
    const json_t *value = json_object_get(root, name);
    const char *text = json_string_value(value);
    if (value == NULL || (text != NULL && (strcmp(text, one) == 0 || strcmp(text, other) == 0))) {
        return ENG_OK;
    }
    return fail(err, ENG_EUNSUPPORTED, name, "%s: \"%s\" is \"%.32s\", only \"%s\" is computed",
                what, name, text != NULL ? text : "not a string", one);
}

static eng_status check_kind(const json_t *root, const char *what, bool cpt, eng_error *err)
{
    const json_t *kind = json_object_get(root, "model_type");
    const char *text = json_string_value(kind);
    if (kind != NULL && !cpt && (text == NULL || strcmp(text, "bert") != 0)) {
        return fail(err, ENG_EUNSUPPORTED, "model_type",
                    "%s: \"model_type\" is \"%.32s\"; BERT encoders and CPT are read", what,
                    text != NULL ? text : "not a string");
    }
    eng_status status =
        must_be(root, what, cpt ? "activation_function" : "hidden_act", "gelu", "gelu_python", err);
    if (status == ENG_OK) {
        status = must_be(root, what, "position_embedding_type", "absolute", "absolute", err);
    }
    return status;
}

/* CPT's files say model_type "bart" (or "cpt") and carry d_model. */
static bool is_cpt(const json_t *root)
{
    const char *kind = json_string_value(json_object_get(root, "model_type"));
    return json_object_get(root, "d_model") != NULL &&
           (kind == NULL || strcmp(kind, "bart") == 0 || strcmp(kind, "cpt") == 0);
}

eng_status config_parse(const char *text, size_t len, const char *what,
                        struct encoder_params *params, bool *positions_from_file, eng_error *err)
{
    const struct json_limits limits = {CONFIG_MAX_BYTES, CONFIG_MAX_DEPTH, CONFIG_MAX_TOKENS};
    json_t *root = NULL;
    *positions_from_file = false;
    eng_status status = json_load_limited(text, len, what, &limits, &root, err);
    if (status != ENG_OK) {
        return status;
    }
    if (!json_is_object(root)) {
        status = fail(err, ENG_EFORMAT, what, "%s: not a JSON object", what);
        goto out;
    }
    bool cpt = is_cpt(root);
    status = check_kind(root, what, cpt, err);
    if (status == ENG_OK) {
        status = read_sizes(root, what, params, err);
    }
    if (status == ENG_OK) {
        status = read_epsilon(root, what, params, err);
    }
    *positions_from_file = cpt;
out:
    json_decref(root);
    return status;
}

eng_status config_read(const char *path, struct encoder_params *params, bool *positions_from_file,
                       eng_error *err)
{
    struct mapfile map;
    eng_status status = mapfile_open(path, CONFIG_MAX_BYTES, &map, err);
    if (status != ENG_OK) {
        return status;
    }
    const char *text = (const char *)mapfile_slice(&map, 0, map.size);
    status = config_parse(text, map.size, path, params, positions_from_file, err);
    mapfile_close(&map);
    return status;
}
