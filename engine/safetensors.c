/* safetensors.c: the safetensors reader.
 *
 *     u64 n | n bytes of JSON | data        little endian
 *     {"__metadata__":{…}, "name":{"dtype":"F32","shape":[2,3],"data_offsets":[begin,end]}, …}
 *
 * Offsets count from the start of the data. The tensors must tile the data exactly: sorted by offset,
 * the first begins at 0, each begins where the one before ends, the last ends with the file. So no
 * byte is read twice or hidden, and a truncated file is always noticed.
 */
#include "engine/jsonload.h"
#include "engine/status.h"
#include "engine/weights_impl.h"

#include <stdlib.h>
#include <string.h>

#define HEADER_MAX  ((size_t)16 << 20)
#define DEPTH_MAX   4
#define TOKENS_MAX  ((size_t)32 * WEIGHTS_MAX_TENSORS)
#define LENGTH_SIZE 8

struct reading {
    const struct mapfile *map;
    struct weights *weights;
    const char *file;
    uint64_t data_start, data_size;
    eng_error *err;
};

struct entry {
    struct tensor tensor;
    uint64_t begin, end;
    size_t order; /* in the header, for tensors of no bytes that begin at the same place */
};

static eng_status bad(const struct reading *in, const char *name, const char *problem)
{
    return fail(in->err, ENG_EFORMAT, name, "%s: tensor \"%s\": %s", in->file, name, problem);
}

static eng_status parse_dtype(const struct reading *in, const char *name, const json_t *value,
                              enum tensor_dtype *out)
{
    const char *text = json_string_value(value);
    if (text == NULL) {
        return bad(in, name, "\"dtype\" is missing or not a string");
    }
    if (!dtype_parse(text, out)) {
        return fail(in->err, ENG_EUNSUPPORTED, name,
                    "%s: tensor \"%s\" has dtype \"%.16s\"; F32, F16, BF16, F64 and I64, I32, I16, "
                    "I8, U8, BOOL are read",
                    in->file, name, text);
    }
    return ENG_OK;
}

/* An integer of 0 or more. Numbers past int64 and reals never get here as JSON integers. */
static bool parse_size(const json_t *value, uint64_t *out)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return false;
    }
    *out = (uint64_t)json_integer_value(value);
    return true;
}

static eng_status parse_shape(const struct reading *in, const char *name, const json_t *shape,
                              struct tensor *tensor)
{
    if (!json_is_array(shape)) {
        return bad(in, name, "\"shape\" is missing or not a list");
    }
    if (json_array_size(shape) > TENSOR_MAX_DIMS) {
        return fail(in->err, ENG_ELIMIT, name,
                    "%s: tensor \"%s\" has %zu dimensions, at most %d are read", in->file, name,
                    json_array_size(shape), TENSOR_MAX_DIMS);
    }
    tensor->dims = json_array_size(shape);
    for (size_t i = 0; i < tensor->dims; i++) {
        uint64_t size = 0;
        if (!parse_size(json_array_get(shape, i), &size)) {
            return bad(in, name, "\"shape\" holds something that is not an integer of 0 or more");
        }
        tensor->shape[i] = (size_t)size;
    }
    if (!tensor_set_contiguous(tensor)) {
        return bad(in, name, "the product of \"shape\" overflows");
    }
    return ENG_OK;
}

static eng_status parse_offsets(const struct reading *in, const char *name, const json_t *offsets,
                                struct entry *entry)
{
    if (!json_is_array(offsets) || json_array_size(offsets) != 2 ||
        !parse_size(json_array_get(offsets, 0), &entry->begin) ||
        !parse_size(json_array_get(offsets, 1), &entry->end)) {
        return bad(in, name, "\"data_offsets\" is not two integers of 0 or more");
    }
    if (entry->end < entry->begin || entry->end > in->data_size) {
        return fail(in->err, ENG_EFORMAT, name,
                    "%s: tensor \"%s\" lies at %llu to %llu of %llu bytes of data: the header is "
                    "wrong or the file is cut short",
                    in->file, name, (unsigned long long)entry->begin,
                    (unsigned long long)entry->end, (unsigned long long)in->data_size);
    }
    uint64_t bytes = entry->tensor.count * dtype_size(entry->tensor.dtype);
    if (entry->end - entry->begin != bytes) {
        char shape[160];
        tensor_shape_text(entry->tensor.shape, entry->tensor.dims, shape, sizeof shape);
        return fail(in->err, ENG_EFORMAT, name,
                    "%s: tensor \"%s\" of %s %s wants %llu bytes, its offsets hold %llu", in->file,
                    name, dtype_name(entry->tensor.dtype), shape, (unsigned long long)bytes,
                    (unsigned long long)(entry->end - entry->begin));
    }
    return ENG_OK;
}

static eng_status parse_entry(const struct reading *in, const char *name, const json_t *object,
                              struct entry *entry)
{
    if (!tensor_name_ok(name, strlen(name))) {
        return fail(in->err, ENG_EFORMAT, "header",
                    "%s: a tensor name is empty, longer than %d bytes or holds control characters",
                    in->file, TENSOR_MAX_NAME);
    }
    entry->tensor = (struct tensor){.name = name};
    if (!json_is_object(object)) {
        return bad(in, name, "its header entry is not an object");
    }
    eng_status status =
        parse_dtype(in, name, json_object_get(object, "dtype"), &entry->tensor.dtype);
    if (status == ENG_OK) {
        status = parse_shape(in, name, json_object_get(object, "shape"), &entry->tensor);
    }
    if (status == ENG_OK) {
        status = parse_offsets(in, name, json_object_get(object, "data_offsets"), entry);
    }
    return status;
}

static eng_status parse_metadata(const struct reading *in, json_t *object)
{
    const char *key;
    json_t *value;
    if (!json_is_object(object)) {
        return fail(in->err, ENG_EFORMAT, "__metadata__", "%s: __metadata__ is not an object",
                    in->file);
    }
    json_object_foreach(object, key, value)
    {
        if (!json_is_string(value)) {
            return fail(in->err, ENG_EFORMAT, "__metadata__",
                        "%s: __metadata__ key \"%.64s\" is not a string", in->file, key);
        }
        eng_status status =
            weights_add_metadata(in->weights, key, json_string_value(value), in->err);
        if (status != ENG_OK) {
            return status;
        }
    }
    return ENG_OK;
}

static int compare_entries(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->begin != y->begin) {
        return x->begin < y->begin ? -1 : 1;
    }
    if (x->end != y->end) { /* no bytes before some bytes */
        return x->end < y->end ? -1 : 1;
    }
    return x->order < y->order ? -1 : 1;
}

/* Sorts by place, refuses holes and overlaps, hands the tensors over. */
static eng_status tile(const struct reading *in, struct entry *entries, size_t n)
{
    uint64_t expected = 0;
    qsort(entries, n, sizeof *entries, compare_entries);
    for (size_t i = 0; i < n; i++) {
        struct entry *entry = &entries[i];
        if (entry->begin != expected) {
            return fail(in->err, ENG_EFORMAT, entry->tensor.name,
                        "%s: tensor \"%s\" begins at byte %llu of the data, %s: expected %llu",
                        in->file, entry->tensor.name, (unsigned long long)entry->begin,
                        entry->begin < expected ? "overlapping another" : "after a hole",
                        (unsigned long long)expected);
        }
        expected = entry->end;
        entry->tensor.data =
            mapfile_slice(in->map, in->data_start + entry->begin, entry->end - entry->begin);
        eng_status status = weights_add(in->weights, &entry->tensor, in->err);
        if (status != ENG_OK) {
            return status;
        }
    }
    if (expected != in->data_size) {
        return fail(in->err, ENG_EFORMAT, "header",
                    "%s: the tensors end at byte %llu of the data, the file has %llu", in->file,
                    (unsigned long long)expected, (unsigned long long)in->data_size);
    }
    return ENG_OK;
}

static eng_status parse_header(const struct reading *in, json_t *header)
{
    size_t n = 0, room = json_object_size(header);
    if (room > WEIGHTS_MAX_TENSORS + 1) {
        return fail(in->err, ENG_ELIMIT, "header", "%s: %zu tensors, at most %d are read", in->file,
                    room, WEIGHTS_MAX_TENSORS);
    }
    struct entry *entries = calloc(room > 0 ? room : 1, sizeof *entries);
    if (entries == NULL) {
        return fail_nomem(in->err, in->file);
    }
    eng_status status = ENG_OK;
    const char *key;
    json_t *value;
    json_object_foreach(header, key, value)
    {
        if (strcmp(key, "__metadata__") == 0) {
            status = parse_metadata(in, value);
        } else {
            entries[n].order = n;
            status = parse_entry(in, key, value, &entries[n++]);
        }
        if (status != ENG_OK) {
            goto out;
        }
    }
    status = tile(in, entries, n);
out:
    free(entries);
    return status;
}

eng_status safetensors_read(const struct mapfile *map, struct weights *weights, eng_error *err)
{
    struct reading in = {.map = map, .weights = weights, .file = weights_file(weights), .err = err};
    const unsigned char *length = mapfile_slice(map, 0, LENGTH_SIZE);
    if (length == NULL) {
        return fail(err, ENG_EFORMAT, "header", "%s has %zu bytes, too few for a header length",
                    in.file, map->size);
    }
    uint64_t size = load_u64(length);
    if (size > HEADER_MAX) {
        return fail(err, ENG_ELIMIT, "header",
                    "%s: header of %llu bytes, at most %zu are read (or this is not safetensors)",
                    in.file, (unsigned long long)size, HEADER_MAX);
    }
    const unsigned char *text = mapfile_slice(map, LENGTH_SIZE, size);
    if (text == NULL) {
        return fail(err, ENG_EFORMAT, "header",
                    "%s: header of %llu bytes, but the file has only %zu: it is cut short", in.file,
                    (unsigned long long)size, map->size);
    }
    if (size == 0 || text[0] != '{') {
        return fail(err, ENG_EFORMAT, "header", "%s: the header does not begin with '{'", in.file);
    }
    in.data_start = LENGTH_SIZE + size;
    in.data_size = map->size - in.data_start;
    const struct json_limits limits = {HEADER_MAX, DEPTH_MAX, TOKENS_MAX};
    json_t *header = NULL;
    eng_status status =
        json_load_limited((const char *)text, (size_t)size, in.file, &limits, &header, err);
    if (status == ENG_OK) {
        status = parse_header(&in, header);
        json_decref(header);
    }
    return status;
}
