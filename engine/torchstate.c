/* torchstate.c: which tensors of a checkpoint count, and whether each lies inside its storage.
 *
 * A view of shape n and strides s at offset o touches values o … o + Σ (n_i - 1)·s_i of its storage;
 * the last must be inside. Tied weights are two views of one storage, which is fine; a view that has
 * more values than its storage (an expanded tensor) is refused, because reading it would turn a small
 * file into as much memory as it likes.
 */
#include "engine/torchstate.h"

#include "engine/status.h"

#include <string.h>

#define WRAPPER_DEPTH 3

struct collecting {
    const struct pickle *pickle;
    torch_storage_find find;
    void *arg;
    struct weights *weights;
    eng_error *err;
};

static bool is_wrapper(const char *key, size_t len)
{
    static const char *const names[] = {"state_dict", "model_state_dict", "model",  "module",
                                        "net",        "network",          "weights"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (len == strlen(names[i]) && memcmp(key, names[i], len) == 0) {
            return true;
        }
    }
    return false;
}

/* Number of values from the storage's first to the view's last, both included. */
static bool view_end(const struct pickle_tensor *view, uint64_t *end)
{
    *end = view->offset;
    for (size_t i = 0; i < view->dims; i++) {
        uint64_t step = 0;
        if (view->shape[i] == 0) {
            *end = 0;
            return true;
        }
        if (__builtin_mul_overflow(view->shape[i] - 1, view->stride[i], &step) ||
            __builtin_add_overflow(*end, step, end)) {
            return false;
        }
    }
    return !__builtin_add_overflow(*end, 1, end);
}

/* C order without gaps? A stride of a dimension of one value does not matter. */
static bool is_contiguous(const struct pickle_tensor *view, const struct tensor *tensor)
{
    for (size_t i = 0; i < view->dims; i++) {
        if (view->shape[i] > 1 && view->stride[i] != tensor->stride[i]) {
            return false;
        }
    }
    return true;
}

static eng_status outside(const struct collecting *c, const char *name,
                          const struct pickle_tensor *view, const struct pickle_storage *storage)
{
    char shape[160], strides[160];
    tensor_shape_text(view->shape, view->dims, shape, sizeof shape);
    tensor_shape_text(view->stride, view->dims, strides, sizeof strides);
    return fail(c->err, ENG_EFORMAT, name,
                "%s: tensor \"%.64s\": shape %.60s with strides %.60s from value %llu does not fit "
                "its storage of %llu values",
                weights_file(c->weights), name, shape, strides, (unsigned long long)view->offset,
                (unsigned long long)storage->count);
}

static eng_status add_view(const struct collecting *c, const char *name,
                           const struct pickle_tensor *view)
{
    const struct pickle_storage *storage = pickle_storage(c->pickle, view->storage);
    struct tensor tensor = {.name = name, .dtype = storage->dtype, .dims = view->dims};
    uint64_t end = 0;
    memcpy(tensor.shape, view->shape, sizeof tensor.shape);
    if (!tensor_set_contiguous(&tensor) || !view_end(view, &end) || end > storage->count ||
        tensor.count > storage->count) {
        return outside(c, name, view, storage);
    }
    tensor.contiguous = tensor.count == 0 || is_contiguous(view, &tensor);
    memcpy(tensor.stride, view->stride, sizeof tensor.stride);
    eng_status status = c->find(c->arg, storage, &tensor.data, c->err);
    if (status != ENG_OK) {
        return status;
    }
    if (tensor.count > 0) {
        tensor.data += view->offset * dtype_size(tensor.dtype);
    }
    return weights_add(c->weights, &tensor, c->err);
}

static eng_status add_named(const struct collecting *c, const char *key, size_t len,
                            const struct pickle_tensor *view)
{
    char name[TENSOR_MAX_NAME + 1];
    if (!tensor_name_ok(key, len)) {
        return fail(c->err, ENG_EFORMAT, "pickle",
                    "%s: a tensor name is empty, longer than %d bytes or holds control characters",
                    weights_file(c->weights), TENSOR_MAX_NAME);
    }
    memcpy(name, key, len);
    name[len] = '\0';
    return add_view(c, name, view);
}

static eng_status collect(const struct collecting *c, uint32_t dict, size_t depth)
{
    eng_status status = ENG_OK;
    uint32_t cursor = 0, key = 0, value = 0;
    while (status == ENG_OK && pickle_next(c->pickle, dict, &cursor, &key, &value)) {
        size_t len = 0;
        const char *name = pickle_string(c->pickle, key, &len);
        const struct pickle_tensor *view = pickle_tensor(c->pickle, value);
        if (name == NULL) {
            continue;
        }
        if (view != NULL) {
            status = add_named(c, name, len, view);
        } else if (depth < WRAPPER_DEPTH && is_wrapper(name, len) &&
                   pickle_kind(c->pickle, value) == PICKLE_DICT) {
            status = collect(c, value, depth + 1);
        }
    }
    return status;
}

eng_status torchstate_collect(const struct pickle *pickle, torch_storage_find find, void *arg,
                              struct weights *weights, eng_error *err)
{
    const struct collecting c = {pickle, find, arg, weights, err};
    size_t before = weights_count(weights);
    uint32_t root = pickle_root(pickle);
    if (pickle_kind(pickle, root) != PICKLE_DICT) {
        return fail(err, ENG_EFORMAT, "pickle",
                    "%s: not a dictionary of tensors; save model.state_dict()",
                    weights_file(weights));
    }
    eng_status status = collect(&c, root, 0);
    if (status == ENG_OK && weights_count(weights) == before) {
        status = fail(err, ENG_EFORMAT, "pickle", "%s: a dictionary without tensors by name",
                      weights_file(weights));
    }
    return status;
}
