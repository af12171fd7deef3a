/* modeldir.c: a model directory that eng_model_open and Hugging Face's BertModel read alike. */
#include "engine/modeldir.h"

#include "engine/mapfile.h"
#include "engine/newfile.h"
#include "engine/params.h"
#include "engine/safetensors.h"
#include "engine/status.h"
#include "engine/tokenizer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

eng_status modeldir_path(const char *dir, const char *file, char path[PATH_MAX], eng_error *err)
{
    int len = snprintf(path, PATH_MAX, "%s/%s", dir, file);
    if (len < 0 || len >= PATH_MAX) {
        return fail(err, ENG_ELIMIT, "to", "the path of %s is longer than %d bytes", file,
                    PATH_MAX - 1);
    }
    return ENG_OK;
}

eng_status modeldir_make(const char *dir, eng_error *err)
{
    if (mkdir(dir, 0777) != 0 && errno != EEXIST) {
        return fail(err, ENG_EIO, "to", "cannot make %s: %s", dir, strerror(errno));
    }
    return ENG_OK;
}

static eng_status write_bytes(const char *dir, const char *name, const void *bytes, size_t size,
                              eng_error *err)
{
    char path[PATH_MAX];
    eng_status status = modeldir_path(dir, name, path, err);
    return status == ENG_OK ? newfile_put(path, bytes, size, true, err) : status;
}

eng_status modeldir_copy(const char *from, const char *dir, const char *name, eng_error *err)
{
    struct mapfile map = {.fd = -1};
    eng_status status = mapfile_open(from, TOKENIZER_MAX_FILE_BYTES, &map, err);
    if (status == ENG_OK) {
        status = write_bytes(dir, name, map.data, map.size, err);
    }
    mapfile_close(&map);
    return status;
}

static eng_status write_config(const char *dir, const eng_model *model, const char *architecture,
                               eng_error *err)
{
    const struct encoder_params *params = &model->params;
    char text[1024];
    int32_t pad = tokenizer_id(model->tokenizer, "[PAD]");
    int len = snprintf(text, sizeof text,
                       "{\n  \"model_type\": \"bert\",\n"
                       "  \"architectures\": [\n    \"%s\"\n  ],\n"
                       "  \"vocab_size\": %zu,\n  \"hidden_size\": %zu,\n"
                       "  \"num_hidden_layers\": %zu,\n  \"num_attention_heads\": %zu,\n"
                       "  \"intermediate_size\": %zu,\n  \"max_position_embeddings\": %zu,\n"
                       "  \"layer_norm_eps\": %.9g,\n  \"hidden_act\": \"gelu\",\n"
                       "  \"type_vocab_size\": %zu,\n  \"pad_token_id\": %d\n}\n",
                       architecture, params->vocab, params->hidden, params->layers, params->heads,
                       params->ffn, params->positions, (double)params->epsilon, params->types,
                       pad < 0 ? 0 : (int)pad);
    return write_bytes(dir, "config.json", text, (size_t)len, err);
}

/* The backbone's tensors into entries, their names into names. */
static void list_backbone(eng_model *model, struct safetensors_entry *entries, char (*names)[128])
{
    for (size_t i = 0; i < params_count(&model->params); i++) {
        struct param param;
        params_at(&model->params, i, &param);
        snprintf(names[i], sizeof names[i], "bert.%s", param.name);
        entries[i] = (struct safetensors_entry){.name = names[i],
                                                .dtype = DTYPE_F32,
                                                .dims = param.dims,
                                                .shape = {param.shape[0], param.shape[1]},
                                                .values = *param.place};
    }
}

static eng_status write_tensors(const char *dir, eng_model *model, const struct run_tensor *head,
                                size_t n, eng_error *err)
{
    static const struct safetensors_meta meta = {"format", "pt"};
    char path[PATH_MAX];
    size_t backbone = params_count(&model->params);
    struct safetensors_entry *entries = calloc(backbone + n, sizeof *entries);
    char(*names)[128] = calloc(backbone, sizeof *names);
    eng_status status = entries != NULL && names != NULL
                            ? modeldir_path(dir, "model.safetensors", path, err)
                            : fail_nomem(err, "to");
    if (status == ENG_OK) {
        list_backbone(model, entries, names);
        for (size_t i = 0; i < n; i++) {
            entries[backbone + i] =
                (struct safetensors_entry){.name = head[i].name,
                                           .dtype = DTYPE_F32,
                                           .dims = head[i].dims,
                                           .shape = {head[i].shape[0], head[i].shape[1]},
                                           .values = head[i].values};
        }
        status = safetensors_write(path, entries, backbone + n, &meta, 1, true, err);
    }
    free(entries);
    free(names);
    return status;
}

eng_status modeldir_write(const char *dir, eng_model *model, const char *architecture,
                          const struct run_tensor *head, size_t n, eng_error *err)
{
    eng_status status = write_config(dir, model, architecture, err);
    return status == ENG_OK ? write_tensors(dir, model, head, n, err) : status;
}
