/* weights_dir.c: the weights of a model directory, whole or in shards.
 *
 * A sharded model has an index, {"weight_map": {tensor: file, …}}. The index comes from the outside
 * like the shards do, so a file name in it must be a plain name in the same directory: nothing with a
 * slash, nothing hidden. Every tensor must be in the shard that the index says.
 */
#include "engine/jsonload.h"
#include "engine/status.h"
#include "engine/weights_impl.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define INDEX_MAX ((size_t)16 << 20)

static bool join(const char *dir, const char *name, char path[PATH_MAX])
{
    int len = snprintf(path, PATH_MAX, "%s/%s", dir, name);
    return len > 0 && len < PATH_MAX;
}

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text), end_len = strlen(end);
    return len > end_len && strcmp(text + len - end_len, end) == 0;
}

static bool shard_name_ok(const char *name)
{
    return name[0] != '.' && strchr(name, '/') == NULL && strlen(name) <= NAME_MAX &&
           tensor_name_ok(name, strlen(name)) &&
           (ends_with(name, ".safetensors") || ends_with(name, ".bin"));
}

/* The distinct file names of the map, in order of first appearance. */
struct shards {
    const char *names[WEIGHTS_MAX_SHARDS];
    size_t n;
};

static eng_status list_shards(const char *index, const json_t *map, struct shards *shards,
                              eng_error *err)
{
    const char *tensor;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)map, tensor, value)
    {
        const char *name = json_string_value(value);
        if (name == NULL || !shard_name_ok(name)) {
            return fail(err, ENG_EFORMAT, "weight_map",
                        "%s: weight_map sends a tensor to \"%.64s\"; a shard is a .safetensors or "
                        ".bin file in the same directory",
                        index, name != NULL ? name : "something that is not a string");
        }
        size_t i = 0;
        while (i < shards->n && strcmp(shards->names[i], name) != 0) {
            i++;
        }
        if (i < shards->n) {
            continue;
        }
        if (shards->n == WEIGHTS_MAX_SHARDS) {
            return fail(err, ENG_ELIMIT, "weight_map", "%s: more than %d shards", index,
                        WEIGHTS_MAX_SHARDS);
        }
        shards->names[shards->n++] = name;
    }
    return ENG_OK;
}

static eng_status check_places(const char *index, const json_t *map, const struct weights *weights,
                               eng_error *err)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)map, name, value)
    {
        const struct tensor *tensor = weights_find(weights, name);
        const char *shard = json_string_value(value);
        if (tensor == NULL || !ends_with(tensor->file, shard)) {
            return fail(err, ENG_EFORMAT, name,
                        "%s: tensor \"%s\" is not in %s, where it should be", index, name, shard);
        }
    }
    return ENG_OK;
}

static eng_status read_shards(const char *dir, const char *index, const json_t *root,
                              struct weights *weights, eng_error *err)
{
    const json_t *map = json_object_get(root, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0) {
        return fail(err, ENG_EFORMAT, "weight_map", "%s: \"weight_map\" is missing or empty",
                    index);
    }
    struct shards shards = {.n = 0};
    eng_status status = list_shards(index, map, &shards, err);
    for (size_t i = 0; i < shards.n && status == ENG_OK; i++) {
        char path[PATH_MAX];
        if (!join(dir, shards.names[i], path)) {
            return fail(err, ENG_ELIMIT, "path", "%s/%s is longer than %d bytes", dir,
                        shards.names[i], PATH_MAX);
        }
        status = weights_add_file(weights, path, err);
    }
    if (status == ENG_OK) {
        status = weights_finish(weights, err);
    }
    return status == ENG_OK ? check_places(index, map, weights, err) : status;
}

static eng_status open_index(const char *dir, const char *index, struct weights **out,
                             eng_error *err)
{
    const struct json_limits limits = {INDEX_MAX, 8, (size_t)4 * WEIGHTS_MAX_TENSORS};
    json_t *root = NULL;
    eng_status status = json_load_file_limited(index, &limits, &root, err);
    if (status != ENG_OK) {
        return status;
    }
    struct weights *weights = weights_new(dir);
    if (weights == NULL) {
        status = fail_nomem(err, dir);
    } else {
        status = read_shards(dir, index, root, weights, err);
    }
    json_decref(root);
    if (status != ENG_OK) {
        weights_free(weights);
        return status;
    }
    *out = weights;
    return ENG_OK;
}

eng_status weights_open_dir(const char *dir, struct weights **out, eng_error *err)
{
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json",
                                        "pytorch_model.bin", "pytorch_model.bin.index.json"};
    *out = NULL;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[PATH_MAX];
        struct stat st;
        if (!join(dir, names[i], path)) {
            return fail(err, ENG_ELIMIT, "path", "%s/%s is longer than %d bytes", dir, names[i],
                        PATH_MAX);
        }
        /* What is there but unreadable, or a dangling link, is an error, not a reason to go on. */
        if (lstat(path, &st) != 0) {
            continue;
        }
        return i % 2 == 1 ? open_index(dir, path, out, err) : weights_open(path, out, err);
    }
    return fail(err, ENG_ENOTFOUND, dir,
                "%s holds no weights: wanted model.safetensors, model.safetensors.index.json or "
                "pytorch_model.bin",
                dir);
}
