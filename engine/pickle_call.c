/* pickle_call.c: the names a checkpoint may use, and what a call of them becomes.
 *
 * THE allow-list is globals[]. Nothing is called: _rebuild_tensor_v2 becomes a tensor node, OrderedDict
 * an empty dictionary, a persistent id a storage node.
 */
#include "engine/pickle_impl.h"

#include "engine/status.h"

#include <string.h>

/* ---- names: the allow-list ------------------------------------------------------------------------- */

enum global_role {
    ROLE_DICT,
    ROLE_TENSOR,
    ROLE_OLD_TENSOR,
    ROLE_PARAMETER,
    ROLE_SIZE,
    ROLE_STORAGE
};

static const struct {
    const char *module, *name;
    enum global_role role;
    enum tensor_dtype dtype;
} globals[] = {
    {"collections", "OrderedDict", ROLE_DICT, 0},
    {"torch._utils", "_rebuild_tensor_v2", ROLE_TENSOR, 0},
    {"torch._utils", "_rebuild_tensor", ROLE_OLD_TENSOR, 0},
    {"torch._utils", "_rebuild_parameter", ROLE_PARAMETER, 0},
    {"torch", "Size", ROLE_SIZE, 0},
    {"torch", "FloatStorage", ROLE_STORAGE, DTYPE_F32},
    {"torch", "HalfStorage", ROLE_STORAGE, DTYPE_F16},
    {"torch", "BFloat16Storage", ROLE_STORAGE, DTYPE_BF16},
    {"torch", "DoubleStorage", ROLE_STORAGE, DTYPE_F64},
    {"torch", "LongStorage", ROLE_STORAGE, DTYPE_I64},
    {"torch", "IntStorage", ROLE_STORAGE, DTYPE_I32},
    {"torch", "ShortStorage", ROLE_STORAGE, DTYPE_I16},
    {"torch", "CharStorage", ROLE_STORAGE, DTYPE_I8},
    {"torch", "ByteStorage", ROLE_STORAGE, DTYPE_U8},
    {"torch", "BoolStorage", ROLE_STORAGE, DTYPE_BOOL},
};

static bool same(const char *bytes, size_t len, const char *text)
{
    return len == strlen(text) && memcmp(bytes, text, len) == 0;
}

/* A name from the file, made fit for a message. */
static void printable(const char *bytes, size_t len, char *out, size_t size)
{
    size_t n = len < size - 1 ? len : size - 1;
    for (size_t i = 0; i < n; i++) {
        out[i] = bytes[i] >= 0x20 && bytes[i] < 0x7F ? bytes[i] : '?';
    }
    out[n] = '\0';
}

static eng_status push_global(struct machine *m, const char *module, size_t module_len,
                              const char *name, size_t name_len)
{
    for (size_t i = 0; i < sizeof globals / sizeof globals[0]; i++) {
        if (same(module, module_len, globals[i].module) && same(name, name_len, globals[i].name)) {
            struct node *node = NULL;
            eng_status status = pickle_push_new(m, PICKLE_GLOBAL, &node);
            if (status == ENG_OK) {
                node->global = (uint32_t)i;
            }
            return status;
        }
    }
    char shown_module[64], shown_name[64];
    printable(module, module_len, shown_module, sizeof shown_module);
    printable(name, name_len, shown_name, sizeof shown_name);
    return fail(m->err, ENG_EUNSUPPORTED, "pickle",
                "%s: pickle, byte %zu: asks for \"%s.%s\", which is not allowed (nothing in a "
                "checkpoint is ever executed); save a plain dictionary of tensors, or safetensors",
                m->what, m->at, shown_module, shown_name);
}

/* Operand text up to a newline. */
static const char *take_line(struct machine *m, size_t *len)
{
    const unsigned char *start = m->bytes + m->at;
    size_t left = m->size - m->at;
    left = left < PICKLE_MAX_STRING ? left : PICKLE_MAX_STRING;
    const unsigned char *end = left > 0 ? memchr(start, '\n', left) : NULL;
    if (end == NULL) {
        return NULL;
    }
    *len = (size_t)(end - start);
    m->at += *len + 1;
    return (const char *)start;
}

eng_status pickle_op_global(struct machine *m)
{
    size_t module_len = 0, name_len = 0;
    const char *module = take_line(m, &module_len);
    const char *name = module != NULL ? take_line(m, &name_len) : NULL;
    return name != NULL ? push_global(m, module, module_len, name, name_len) : pickle_cut_short(m);
}

eng_status pickle_op_stack_global(struct machine *m)
{
    uint32_t name = 0, module = 0;
    if (!pickle_pop(m, &name) || !pickle_pop(m, &module)) {
        return pickle_bad(m, "STACK_GLOBAL of an empty stack");
    }
    const struct node *n = pickle_node(m->pickle, name), *mod = pickle_node(m->pickle, module);
    if (n->kind != PICKLE_STRING || mod->kind != PICKLE_STRING) {
        return pickle_bad(m, "STACK_GLOBAL of something that is not a name");
    }
    return push_global(m, mod->string.bytes, mod->string.len, n->string.bytes, n->string.len);
}

/* ---- what calls become ------------------------------------------------------------------------------ */

/* Item i of a tuple of at least `i + 1` items and of the wanted kind, else NULL. */
static const struct node *item(const struct machine *m, uint32_t tuple, size_t i,
                               enum pickle_kind kind)
{
    const struct node *node = pickle_node(m->pickle, tuple);
    if (node->kind != PICKLE_TUPLE || i >= node->tuple.count) {
        return NULL;
    }
    uint32_t number = *(uint32_t *)pickle_array_at(&m->pickle->items, node->tuple.first + i);
    const struct node *found = pickle_node(m->pickle, number);
    return found->kind == kind ? found : NULL;
}

static uint32_t item_number(const struct machine *m, uint32_t tuple, size_t i)
{
    return *(uint32_t *)pickle_array_at(&m->pickle->items,
                                        pickle_node(m->pickle, tuple)->tuple.first + i);
}

/* Up to 8 sizes of 0 or more from a tuple. */
static bool read_sizes(const struct machine *m, const struct node *tuple, uint64_t *out, size_t *n)
{
    if (tuple == NULL || tuple->tuple.count > TENSOR_MAX_DIMS) {
        return false;
    }
    *n = tuple->tuple.count;
    for (size_t i = 0; i < *n; i++) {
        uint32_t number = *(uint32_t *)pickle_array_at(&m->pickle->items, tuple->tuple.first + i);
        const struct node *size = pickle_node(m->pickle, number);
        if (size->kind != PICKLE_INT || size->integer < 0) {
            return false;
        }
        out[i] = (uint64_t)size->integer;
    }
    return true;
}

/* _rebuild_tensor_v2(storage, offset, shape, stride, requires_grad, hooks[, metadata]) */
static eng_status call_tensor(struct machine *m, uint32_t args)
{
    const struct node *storage = item(m, args, 0, PICKLE_STORAGE);
    const struct node *offset = item(m, args, 1, PICKLE_INT);
    struct pickle_tensor tensor = {0};
    size_t strides = 0;
    if (storage == NULL || offset == NULL || offset->integer < 0) {
        return pickle_bad(m, "a tensor without storage or offset");
    }
    if (!read_sizes(m, item(m, args, 2, PICKLE_TUPLE), tensor.shape, &tensor.dims) ||
        !read_sizes(m, item(m, args, 3, PICKLE_TUPLE), tensor.stride, &strides) ||
        strides != tensor.dims) {
        return pickle_bad(
            m, "a tensor whose shape and strides are not up to 8 sizes of 0 or more each");
    }
    tensor.storage = storage->index;
    tensor.offset = (uint64_t)offset->integer;
    struct pickle_tensor *slot = pickle_array_push(&m->pickle->tensors, PICKLE_MAX_NODES);
    if (slot == NULL) {
        return pickle_full(m, &m->pickle->tensors, "tensors", PICKLE_MAX_NODES);
    }
    *slot = tensor;
    struct node *node = NULL;
    eng_status status = pickle_push_new(m, PICKLE_TENSOR, &node);
    if (status == ENG_OK) {
        node->index = (uint32_t)(m->pickle->tensors.n - 1);
    }
    return status;
}

static eng_status call(struct machine *m, uint32_t function, uint32_t args)
{
    const struct node *name = pickle_node(m->pickle, function);
    if (name->kind != PICKLE_GLOBAL || pickle_node(m->pickle, args)->kind != PICKLE_TUPLE) {
        return pickle_bad(m, "a call of something that is not a known name");
    }
    switch (globals[name->global].role) {
    case ROLE_DICT:
        return pickle_node(m->pickle, args)->tuple.count == 0
                   ? pickle_push_new(m, PICKLE_DICT, NULL)
                   : pickle_bad(m, "an OrderedDict made from arguments");
    case ROLE_TENSOR:
    case ROLE_OLD_TENSOR:
        return call_tensor(m, args);
    case ROLE_PARAMETER:
        return item(m, args, 0, PICKLE_TENSOR) != NULL
                   ? pickle_push(m, item_number(m, args, 0))
                   : pickle_bad(m, "a parameter without tensor");
    case ROLE_SIZE:
        return item(m, args, 0, PICKLE_TUPLE) != NULL ? pickle_push(m, item_number(m, args, 0))
                                                      : pickle_bad(m, "a torch.Size without sizes");
    case ROLE_STORAGE:
        break;
    }
    return pickle_bad(m, "a call of a storage type");
}

eng_status pickle_op_reduce(struct machine *m)
{
    uint32_t function = 0, args = 0;
    if (!pickle_pop(m, &args) || !pickle_pop(m, &function)) {
        return pickle_bad(m, "a call on an empty stack");
    }
    return call(m, function, args);
}

/* BUILD sets attributes (an OrderedDict's _metadata): left out. */
eng_status pickle_op_build(struct machine *m)
{
    uint32_t state = 0, object = 0;
    if (!pickle_pop(m, &state) || !pickle_top(m, &object)) {
        return pickle_bad(m, "BUILD on an empty stack");
    }
    enum pickle_kind kind = pickle_node(m->pickle, object)->kind;
    return kind == PICKLE_DICT || kind == PICKLE_TENSOR
               ? ENG_OK
               : pickle_bad(m, "BUILD of an unknown object");
}

/* ('storage', <type>, key, location, count[, None]) */
eng_status pickle_op_persistent(struct machine *m)
{
    uint32_t id = 0;
    if (!pickle_pop(m, &id)) {
        return pickle_bad(m, "a storage of an empty stack");
    }
    const struct node *tag = item(m, id, 0, PICKLE_STRING), *type = item(m, id, 1, PICKLE_GLOBAL);
    const struct node *key = item(m, id, 2, PICKLE_STRING), *count = item(m, id, 4, PICKLE_INT);
    if (tag == NULL || !same(tag->string.bytes, tag->string.len, "storage") || type == NULL ||
        globals[type->global].role != ROLE_STORAGE || key == NULL || count == NULL ||
        count->integer < 0) {
        return pickle_bad(m, "a persistent id that is not a storage");
    }
    if (pickle_node(m->pickle, id)->tuple.count > 5 && item(m, id, 5, PICKLE_NONE) == NULL) {
        return pickle_bad(m, "a storage that is a view of another");
    }
    struct pickle_storage *storage = pickle_array_push(&m->pickle->storages, PICKLE_MAX_NODES);
    if (storage == NULL) {
        return pickle_full(m, &m->pickle->storages, "storages", PICKLE_MAX_NODES);
    }
    *storage = (struct pickle_storage){.key = key->string.bytes,
                                       .key_len = key->string.len,
                                       .dtype = globals[type->global].dtype,
                                       .count = (uint64_t)count->integer};
    struct node *node = NULL;
    eng_status status = pickle_push_new(m, PICKLE_STORAGE, &node);
    if (status == ENG_OK) {
        node->index = (uint32_t)(m->pickle->storages.n - 1);
    }
    return status;
}
