/* pretrain_files.c: what a run leaves on disk.
 *
 * The checkpoint is one file, replaced whole: a fixed head, then the parameters, the head's parameters
 * and every optimiser's block, in table order. It belongs to the machine and the settings it was made
 * with: a hash of settings, vocabulary and sizes of the texts is in it.
 */
#include "engine/newfile.h"
#include "engine/pretrain.h"
#include "engine/safetensors.h"
#include "engine/status.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC "mp2 pretrain 1\n"

struct saved {
    char magic[16];
    unsigned char settings[PRETRAIN_SETTINGS];
    uint64_t step, tokens;
    struct rng rng;
    uint64_t at[TEXT_MAX_LANES];
};

static eng_status place(const eng_pretrain_config *config, const char *file, char path[PATH_MAX],
                        eng_error *err)
{
    int len = snprintf(path, PATH_MAX, "%s/%s", config->to, file);
    if (len < 0 || len >= PATH_MAX) {
        return fail(err, ENG_ELIMIT, "to", "the path of %s is longer than %d bytes", file,
                    PATH_MAX - 1);
    }
    return ENG_OK;
}

eng_status pretrain_make_dir(const eng_pretrain_config *config, eng_error *err)
{
    static const char *const files[] = {"checkpoint.bin", "model.safetensors"};
    char path[PATH_MAX];
    if (mkdir(config->to, 0777) != 0 && errno != EEXIST) {
        return fail(err, ENG_EIO, "to", "cannot make %s: %s", config->to, strerror(errno));
    }
    for (size_t i = 0; i < 2; i++) {
        eng_status status = place(config, files[i], path, err);
        if (status != ENG_OK) {
            return status;
        }
        bool there = access(path, F_OK) == 0;
        if (there && config->resume && i == 0) {
            return ENG_OK; /* a model beside its checkpoint was being finished */
        }
        if (there) {
            return fail(err, ENG_EINVAL, "to", "%s is there already; %s", path,
                        i == 0 ? "resume, or write to another directory"
                               : "write to another directory");
        }
    }
    return ENG_OK;
}

/* ---- checkpoint ---- */

eng_status pretrain_save(struct pretrain *p, eng_error *err)
{
    char path[PATH_MAX];
    struct newfile file;
    struct saved saved = {.magic = MAGIC, .step = p->step, .tokens = p->tokens, .rng = p->rng};
    memcpy(saved.settings, p->settings, sizeof saved.settings);
    memcpy(saved.at, p->text.at, sizeof saved.at);
    eng_status status = place(p->config, "checkpoint.bin", path, err);
    if (status == ENG_OK) {
        status = newfile_begin(path, &file, err);
    }
    if (status != ENG_OK) {
        return status;
    }
    status = newfile_write(&file, &saved, sizeof saved, err);
    for (size_t i = 0; status == ENG_OK && i < pretrain_tensors(p); i++) {
        struct pretrain_tensor tensor;
        pretrain_tensor_at(p, i, &tensor);
        status = newfile_write(&file, tensor.values, tensor.param.count * sizeof(float), err);
    }
    for (size_t i = 0; status == ENG_OK && i < pretrain_tensors(p); i++) {
        status = newfile_write(&file, p->optimisers[i], adamw_bytes(p->optimisers[i]), err);
    }
    if (status != ENG_OK) {
        newfile_abandon(&file);
        return status;
    }
    return newfile_commit(&file, true, err);
}

static size_t saved_bytes(struct pretrain *p)
{
    size_t bytes = sizeof(struct saved);
    for (size_t i = 0; i < pretrain_tensors(p); i++) {
        struct pretrain_tensor tensor;
        pretrain_tensor_at(p, i, &tensor);
        bytes += tensor.param.count * sizeof(float) + adamw_bytes(p->optimisers[i]);
    }
    return bytes;
}

static eng_status load_from(struct pretrain *p, const struct mapfile *map, const char *path,
                            eng_error *err)
{
    struct saved saved;
    if (map->size < sizeof saved || memcmp(map->data, MAGIC, sizeof MAGIC) != 0) {
        return fail(err, ENG_EFORMAT, "to", "%s is not a checkpoint", path);
    }
    memcpy(&saved, map->data, sizeof saved);
    if (memcmp(saved.settings, p->settings, sizeof saved.settings) != 0) {
        return fail(err, ENG_EMISMATCH, "to",
                    "%s was made with other settings, text or vocabulary; use the same ones", path);
    }
    if (map->size != saved_bytes(p)) {
        return fail(err, ENG_EFORMAT, "to", "%s has %zu bytes, want %zu", path, map->size,
                    saved_bytes(p));
    }
    for (size_t lane = 0; lane < p->text.lanes; lane++) {
        if (saved.at[lane] > textstream_bytes(&p->text)) {
            return fail(err, ENG_EFORMAT, "to", "%s points behind the end of the text", path);
        }
    }
    const unsigned char *from = map->data + sizeof saved;
    for (size_t i = 0; i < pretrain_tensors(p); i++) {
        struct pretrain_tensor tensor;
        pretrain_tensor_at(p, i, &tensor);
        memcpy(tensor.values, from, tensor.param.count * sizeof(float));
        from += tensor.param.count * sizeof(float);
    }
    for (size_t i = 0; i < pretrain_tensors(p); i++) {
        size_t bytes = adamw_bytes(p->optimisers[i]);
        eng_status status = adamw_load(p->optimisers[i], from, bytes, err);
        if (status != ENG_OK) {
            return status;
        }
        from += bytes;
    }
    memcpy(p->text.at, saved.at, sizeof saved.at);
    p->rng = saved.rng;
    p->step = saved.step;
    p->tokens = saved.tokens;
    return ENG_OK;
}

eng_status pretrain_load(struct pretrain *p, eng_error *err)
{
    char path[PATH_MAX];
    struct mapfile map = {.fd = -1};
    eng_status status = place(p->config, "checkpoint.bin", path, err);
    if (status != ENG_OK) {
        return status;
    }
    status = mapfile_open(path, 0, &map, err);
    if (status != ENG_OK) {
        return status == ENG_ENOTFOUND ? ENG_OK : status;
    }
    status = load_from(p, &map, path, err);
    mapfile_close(&map);
    return status;
}

/* ---- the model ---- */

static eng_status write_bytes(const eng_pretrain_config *config, const char *name,
                              const void *bytes, size_t size, eng_error *err)
{
    char path[PATH_MAX];
    struct newfile file;
    eng_status status = place(config, name, path, err);
    if (status == ENG_OK) {
        status = newfile_begin(path, &file, err);
    }
    if (status != ENG_OK) {
        return status;
    }
    status = newfile_write(&file, bytes, size, err);
    if (status != ENG_OK) {
        newfile_abandon(&file);
        return status;
    }
    return newfile_commit(&file, true, err);
}

static eng_status write_config(const struct pretrain *p, eng_error *err)
{
    const struct encoder_params *params = &p->model->params;
    char text[1024];
    int32_t pad = tokenizer_id(p->model->tokenizer, "[PAD]");
    int len =
        snprintf(text, sizeof text,
                 "{\n  \"model_type\": \"bert\",\n"
                 "  \"architectures\": [\n    \"BertForMaskedLM\"\n  ],\n"
                 "  \"vocab_size\": %zu,\n  \"hidden_size\": %zu,\n"
                 "  \"num_hidden_layers\": %zu,\n  \"num_attention_heads\": %zu,\n"
                 "  \"intermediate_size\": %zu,\n  \"max_position_embeddings\": %zu,\n"
                 "  \"layer_norm_eps\": %.9g,\n  \"hidden_act\": \"gelu\",\n"
                 "  \"type_vocab_size\": %zu,\n  \"pad_token_id\": %d\n}\n",
                 params->vocab, params->hidden, params->layers, params->heads, params->ffn,
                 params->positions, (double)params->epsilon, params->types, pad < 0 ? 0 : (int)pad);
    return write_bytes(p->config, "config.json", text, (size_t)len, err);
}

static eng_status write_vocab(const struct pretrain *p, eng_error *err)
{
    struct mapfile map = {.fd = -1};
    eng_status status = mapfile_open(p->config->vocab, TOKENIZER_MAX_FILE_BYTES, &map, err);
    if (status == ENG_OK) {
        status = write_bytes(p->config, "vocab.txt", map.data, map.size, err);
    }
    mapfile_close(&map);
    return status;
}

static eng_status write_tensors(struct pretrain *p, eng_error *err)
{
    char path[PATH_MAX];
    size_t n = pretrain_tensors(p);
    struct safetensors_entry *entries = calloc(n, sizeof *entries);
    char(*names)[128] = calloc(n, sizeof *names);
    eng_status status = entries != NULL && names != NULL
                            ? place(p->config, "model.safetensors", path, err)
                            : fail_nomem(err, "to");
    for (size_t i = 0; status == ENG_OK && i < n; i++) {
        struct pretrain_tensor tensor;
        pretrain_tensor_at(p, i, &tensor);
        snprintf(names[i], sizeof names[i], "%s%s",
                 i < params_count(&p->model->params) ? "bert." : "", tensor.param.name);
        entries[i] =
            (struct safetensors_entry){.name = names[i],
                                       .dtype = DTYPE_F32,
                                       .dims = tensor.param.dims,
                                       .shape = {tensor.param.shape[0], tensor.param.shape[1]},
                                       .values = tensor.values};
    }
    if (status == ENG_OK) {
        const struct safetensors_meta meta = {"format", "pt"};
        status = safetensors_write(path, entries, n, &meta, 1, p->config->resume, err);
    }
    free(entries);
    free(names);
    return status;
}

eng_status pretrain_write_model(struct pretrain *p, eng_error *err)
{
    char path[PATH_MAX];
    eng_status status = write_config(p, err);
    if (status == ENG_OK) {
        status = write_vocab(p, err);
    }
    if (status == ENG_OK) {
        status = write_tensors(p, err);
    }
    if (status == ENG_OK) {
        status = place(p->config, "checkpoint.bin", path, err);
    }
    if (status == ENG_OK && unlink(path) != 0 && errno != ENOENT) {
        status = fail(err, ENG_EIO, "to", "cannot remove %s: %s", path, strerror(errno));
    }
    return status;
}
