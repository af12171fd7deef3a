/* torchlegacy.c: the stream that torch.save wrote before version 1.6.
 *
 *     five pickles: magic number, protocol 1001, system information, the object, list of storage keys
 *     then for each key of that list: int64 count | count values
 *
 * Nothing says how long a storage is but its own count, and only the pickle knows the size of its
 * values; so every key of the list must be a storage that the object names.
 */
#include "engine/status.h"
#include "engine/torchstate.h"

#include <stdlib.h>
#include <string.h>

/* The first pickle whole: PROTO 2, LONG1 of ten bytes, STOP. */
static const unsigned char magic[] = {0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46,
                                      0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e};
/* The second: PROTO 2, BININT2 1001, STOP. */
static const unsigned char protocol[] = {0x80, 0x02, 0x4d, 0xe9, 0x03, 0x2e};

/* A storage that the object names, and where it lies once the stream was walked. */
struct place {
    const struct pickle_storage *storage;
    const unsigned char *data;
};

struct legacy {
    const struct mapfile *map;
    const char *file;
    size_t at;
    struct place *places; /* in order of key, distinct */
    size_t n;
    eng_error *err;
};

bool torchlegacy_is(const struct mapfile *map)
{
    const unsigned char *bytes = mapfile_slice(map, 0, sizeof magic);
    return bytes != NULL && memcmp(bytes, magic, sizeof magic) == 0;
}

static eng_status bad(const struct legacy *in, const char *problem)
{
    return fail(in->err, ENG_EFORMAT, "stream", "%s: legacy PyTorch stream, byte %zu: %s", in->file,
                in->at, problem);
}

static eng_status next_pickle(struct legacy *in, struct pickle **out)
{
    size_t used = 0;
    const unsigned char *bytes = mapfile_slice(in->map, in->at, in->map->size - in->at);
    eng_status status = pickle_parse(bytes, in->map->size - in->at, in->file, &used, out, in->err);
    in->at += used;
    return status;
}

/* System information: only little_endian matters. */
static eng_status check_system(struct legacy *in)
{
    struct pickle *system = NULL;
    eng_status status = next_pickle(in, &system);
    if (status == ENG_OK && pickle_kind(system, pickle_root(system)) != PICKLE_DICT) {
        status = bad(in, "no system information");
    }
    uint32_t cursor = 0, key = 0, value = 0;
    while (status == ENG_OK && pickle_next(system, pickle_root(system), &cursor, &key, &value)) {
        size_t len = 0;
        const char *name = pickle_string(system, key, &len);
        bool truth = false;
        if (name != NULL && len == 13 && memcmp(name, "little_endian", len) == 0 &&
            (!pickle_bool(system, value, &truth) || !truth)) {
            status = bad(in, "values of another byte order are not read");
        }
    }
    pickle_free(system);
    return status;
}

/* ---- places ----------------------------------------------------------------------------------- */

static int compare_keys(const struct pickle_storage *a, const char *key, size_t len)
{
    int order = memcmp(a->key, key, a->key_len < len ? a->key_len : len);
    return order != 0 ? order : (a->key_len > len) - (a->key_len < len);
}

static int by_key(const void *a, const void *b)
{
    const struct pickle_storage *x = ((const struct place *)a)->storage;
    const struct pickle_storage *y = ((const struct place *)b)->storage;
    return compare_keys(x, y->key, y->key_len);
}

/* One place a distinct storage; the same key must always mean the same storage. */
static eng_status list_places(struct legacy *in, const struct pickle *object)
{
    size_t n = pickle_storages(object);
    in->places = calloc(n > 0 ? n : 1, sizeof *in->places);
    if (in->places == NULL) {
        return fail_nomem(in->err, in->file);
    }
    for (size_t i = 0; i < n; i++) {
        in->places[i].storage = pickle_storage(object, i);
    }
    qsort(in->places, n, sizeof *in->places, by_key);
    for (size_t i = 0; i < n; i++) {
        struct place *last = in->n > 0 ? &in->places[in->n - 1] : NULL;
        if (last == NULL || by_key(last, &in->places[i]) != 0) {
            in->places[in->n++] = in->places[i];
        } else if (last->storage->dtype != in->places[i].storage->dtype ||
                   last->storage->count != in->places[i].storage->count) {
            return bad(in, "one storage key with two types or sizes");
        }
    }
    return ENG_OK;
}

static struct place *find_place(const struct legacy *in, const char *key, size_t len)
{
    size_t low = 0, high = in->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare_keys(in->places[middle].storage, key, len);
        if (order == 0) {
            return &in->places[middle];
        }
        if (order > 0) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return NULL;
}

static eng_status read_storage(struct legacy *in, struct place *place)
{
    const struct pickle_storage *storage = place->storage;
    const unsigned char *count = mapfile_slice(in->map, in->at, 8);
    uint64_t bytes = 0;
    if (count == NULL || load_u64(count) != storage->count) {
        return fail(in->err, ENG_EFORMAT, "stream",
                    "%s: legacy PyTorch stream, byte %zu: %s for storage \"%.*s\", expected %llu "
                    "values",
                    in->file, in->at, count == NULL ? "ends" : "another count",
                    storage->key_len < 64 ? (int)storage->key_len : 64, storage->key,
                    (unsigned long long)storage->count);
    }
    in->at += 8;
    const unsigned char *data = NULL;
    if (!__builtin_mul_overflow(storage->count, dtype_size(storage->dtype), &bytes)) {
        data = mapfile_slice(in->map, in->at, bytes);
    }
    if (data == NULL) {
        return bad(in, "ends inside a storage: the file is cut short");
    }
    place->data = data;
    in->at += (size_t)bytes;
    return ENG_OK;
}

static eng_status read_storages(struct legacy *in)
{
    struct pickle *keys = NULL;
    eng_status status = next_pickle(in, &keys);
    uint32_t cursor = 0, unused = 0, value = 0;
    if (status == ENG_OK && pickle_kind(keys, pickle_root(keys)) != PICKLE_LIST) {
        status = bad(in, "no list of storages");
    }
    while (status == ENG_OK && pickle_next(keys, pickle_root(keys), &cursor, &unused, &value)) {
        size_t len = 0;
        const char *key = pickle_string(keys, value, &len);
        struct place *place = key != NULL ? find_place(in, key, len) : NULL;
        if (place == NULL || place->data != NULL) {
            status = bad(in, "the list of storages names one that is unknown or already there");
        } else {
            status = read_storage(in, place);
        }
    }
    pickle_free(keys);
    if (status == ENG_OK && in->at != in->map->size) {
        status = bad(in, "goes on behind its last storage");
    }
    return status;
}

static eng_status find_storage(void *arg, const struct pickle_storage *storage,
                               const unsigned char **out, eng_error *err)
{
    const struct legacy *in = arg;
    const struct place *place = find_place(in, storage->key, storage->key_len);
    if (place == NULL || place->data == NULL) {
        return fail(err, ENG_EFORMAT, "stream", "%s: storage \"%.*s\" is not in the file", in->file,
                    storage->key_len < 64 ? (int)storage->key_len : 64, storage->key);
    }
    *out = place->data;
    return ENG_OK;
}

eng_status torchlegacy_read(const struct mapfile *map, struct weights *weights, eng_error *err)
{
    struct legacy in = {.map = map, .file = weights_file(weights), .at = sizeof magic, .err = err};
    struct pickle *object = NULL;
    const unsigned char *version = mapfile_slice(map, in.at, sizeof protocol);
    if (version == NULL || memcmp(version, protocol, sizeof protocol) != 0) {
        return bad(&in, "not protocol 1001");
    }
    in.at += sizeof protocol;
    eng_status status = check_system(&in);
    if (status == ENG_OK) {
        status = next_pickle(&in, &object);
    }
    if (status == ENG_OK) {
        status = list_places(&in, object);
    }
    if (status == ENG_OK) {
        status = read_storages(&in);
    }
    if (status == ENG_OK) {
        status = torchstate_collect(object, find_storage, &in, weights, err);
    }
    free(in.places);
    pickle_free(object);
    return status;
}
