/* pickle.c: the stack machine that executes nothing.
 *
 * The state is a stack of nodes, the stack heights of open MARKs, and the memo. Every limit is on
 * something the file can ask for: bytes, stack, marks, memo, nodes, string length. Memory grows with
 * what was really pushed, never with a number read from the file.
 */
#include "engine/pickle_impl.h"

#include "engine/status.h"

#include <stdlib.h>
#include <string.h>

static eng_status push_int(struct machine *m, enum pickle_kind kind, int64_t value)
{
    struct node *node = NULL;
    eng_status status = pickle_push_new(m, kind, &node);
    if (status == ENG_OK) {
        node->integer = value;
    }
    return status;
}

/* ---- reading operands ------------------------------------------------------------------------------- */

/* An unsigned operand of `n` little-endian bytes. */
static bool take_number(struct machine *m, size_t n, uint64_t *out)
{
    const unsigned char *bytes = pickle_take(m, n);
    *out = 0;
    for (size_t i = 0; bytes != NULL && i < n; i++) {
        *out |= (uint64_t)bytes[i] << (8 * i);
    }
    return bytes != NULL;
}

static eng_status op_int(struct machine *m, size_t n)
{
    uint64_t value = 0;
    if (!take_number(m, n, &value)) {
        return pickle_cut_short(m);
    }
    return push_int(m, PICKLE_INT, n == 4 ? (int32_t)(uint32_t)value : (int64_t)value);
}

/* LONG1: two's complement of as many bytes as it says. */
static eng_status op_long(struct machine *m)
{
    uint64_t n = 0, value = 0;
    if (!take_number(m, 1, &n)) {
        return pickle_cut_short(m);
    }
    if (n > 8) {
        return pickle_bad(m, "a number of more than 64 bits");
    }
    if (!take_number(m, (size_t)n, &value)) {
        return pickle_cut_short(m);
    }
    if (n > 0 && n < 8 && (value >> (8 * n - 1) & 1) != 0) {
        value |= UINT64_MAX << (8 * n);
    }
    return push_int(m, PICKLE_INT, (int64_t)value);
}

static eng_status op_float(struct machine *m)
{
    const unsigned char *bytes = pickle_take(m, 8);
    struct node *node = NULL;
    if (bytes == NULL) {
        return pickle_cut_short(m);
    }
    uint64_t bits = 0;
    for (size_t i = 0; i < 8; i++) { /* the one big-endian operand of pickle */
        bits = bits << 8 | bytes[i];
    }
    eng_status status = pickle_push_new(m, PICKLE_FLOAT, &node);
    if (status == ENG_OK) {
        memcpy(&node->real, &bits, sizeof bits);
    }
    return status;
}

static eng_status op_string(struct machine *m, size_t length_bytes)
{
    uint64_t len = 0;
    struct node *node = NULL;
    if (!take_number(m, length_bytes, &len)) {
        return pickle_cut_short(m);
    }
    if (len > PICKLE_MAX_STRING) {
        return fail(m->err, ENG_ELIMIT, "pickle",
                    "%s: pickle, byte %zu: a string of %llu bytes, at most %d are read", m->what,
                    m->at, (unsigned long long)len, PICKLE_MAX_STRING);
    }
    const unsigned char *bytes = pickle_take(m, (size_t)len);
    if (bytes == NULL) {
        return pickle_cut_short(m);
    }
    eng_status status = pickle_push_new(m, PICKLE_STRING, &node);
    if (status == ENG_OK) {
        node->string.bytes = (const char *)bytes;
        node->string.len = (uint32_t)len;
    }
    return status;
}

/* ---- memo ------------------------------------------------------------------------------------------- */

static eng_status memo_put(struct machine *m, uint64_t index)
{
    uint32_t node = 0;
    if (!pickle_top(m, &node)) {
        return pickle_bad(m, "memo of an empty stack");
    }
    if (index >= PICKLE_MAX_MEMO) {
        return fail(m->err, ENG_ELIMIT, "pickle",
                    "%s: pickle, byte %zu: memo index %llu, at most %d are kept", m->what, m->at,
                    (unsigned long long)index, PICKLE_MAX_MEMO);
    }
    /* Writers number the memo in order; a gap would be memory asked for by a number in the file. */
    if (index > m->memo.n) {
        return pickle_bad(m, "a memo index out of order");
    }
    uint32_t *slot = index < m->memo.n ? pickle_array_at(&m->memo, (size_t)index)
                                       : pickle_array_push(&m->memo, PICKLE_MAX_MEMO);
    if (slot == NULL) {
        return fail_nomem(m->err, m->what);
    }
    *slot = node;
    return ENG_OK;
}

static eng_status op_put(struct machine *m, size_t n)
{
    uint64_t index = 0;
    return take_number(m, n, &index) ? memo_put(m, index) : pickle_cut_short(m);
}

static eng_status op_get(struct machine *m, size_t n)
{
    uint64_t index = 0;
    if (!take_number(m, n, &index)) {
        return pickle_cut_short(m);
    }
    if (index >= m->memo.n) {
        return pickle_bad(m, "a memo index that was never set");
    }
    return pickle_push(m, *(uint32_t *)pickle_array_at(&m->memo, (size_t)index));
}

/* ---- containers ------------------------------------------------------------------------------------- */

static eng_status op_mark(struct machine *m)
{
    if (m->n_marks == PICKLE_MAX_MARKS) {
        return fail(m->err, ENG_ELIMIT, "pickle",
                    "%s: pickle, byte %zu: more than %d constructions inside each other", m->what,
                    m->at, PICKLE_MAX_MARKS);
    }
    m->marks[m->n_marks++] = m->stack.n;
    return ENG_OK;
}

/* Closes the innermost MARK: its values are items first … first+count of the stack. */
static bool close_mark(struct machine *m, size_t *first, size_t *count)
{
    if (m->n_marks == 0) {
        return false;
    }
    *first = m->marks[--m->n_marks];
    *count = m->stack.n - *first;
    return true;
}

static eng_status make_tuple(struct machine *m, size_t count)
{
    struct array *items = &m->pickle->items;
    size_t first = items->n, from = m->stack.n - count;
    for (size_t i = 0; i < count; i++) {
        uint32_t *slot = pickle_array_push(items, PICKLE_MAX_NODES);
        if (slot == NULL) {
            return pickle_full(m, items, "items of tuples", PICKLE_MAX_NODES);
        }
        *slot = *(uint32_t *)pickle_array_at(&m->stack, from + i);
    }
    m->stack.n = from;
    struct node *node = NULL;
    eng_status status = pickle_push_new(m, PICKLE_TUPLE, &node);
    if (status == ENG_OK) {
        node->tuple.first = (uint32_t)first;
        node->tuple.count = (uint32_t)count;
    }
    return status;
}

static eng_status op_tuple(struct machine *m)
{
    size_t first = 0, count = 0;
    return close_mark(m, &first, &count) ? make_tuple(m, count)
                                         : pickle_bad(m, "TUPLE without MARK");
}

static eng_status op_small_tuple(struct machine *m, size_t count)
{
    return m->stack.n - pickle_floor(m) < count
               ? pickle_bad(m, "a tuple of more than the stack holds")
               : make_tuple(m, count);
}

static eng_status append(struct machine *m, uint32_t container, uint32_t key, uint32_t value)
{
    struct array *entries = &m->pickle->entries;
    struct entry *entry = pickle_array_push(entries, PICKLE_MAX_NODES);
    if (entry == NULL) {
        return pickle_full(m, entries, "entries of lists and dictionaries", PICKLE_MAX_NODES);
    }
    *entry = (struct entry){.key = key, .value = value};
    uint32_t number = (uint32_t)(entries->n - 1);
    struct chain *chain = &pickle_node(m->pickle, container)->chain;
    if (chain->head == 0) {
        chain->head = number;
    } else {
        ((struct entry *)pickle_array_at(entries, chain->tail))->next = number;
    }
    chain->tail = number;
    return ENG_OK;
}

/* Moves the values from stack index `first` on into the container below them; step 2 with keys. */
static eng_status fill(struct machine *m, size_t first, size_t step, enum pickle_kind kind)
{
    size_t count = m->stack.n - first;
    uint32_t container = UINT32_MAX;
    if (first > pickle_floor(m)) {
        container = *(uint32_t *)pickle_array_at(&m->stack, first - 1);
    }
    if (container == UINT32_MAX || pickle_node(m->pickle, container)->kind != kind ||
        count % step != 0) {
        return pickle_bad(m, "items for something that is not a list or dictionary");
    }
    for (size_t i = first; i < first + count; i += step) {
        uint32_t key = *(uint32_t *)pickle_array_at(&m->stack, i);
        uint32_t value = *(uint32_t *)pickle_array_at(&m->stack, i + step - 1);
        eng_status status = append(m, container, key, value);
        if (status != ENG_OK) {
            return status;
        }
    }
    m->stack.n = first;
    return ENG_OK;
}

static eng_status op_fill_many(struct machine *m, size_t step, enum pickle_kind kind)
{
    size_t first = 0, count = 0;
    return close_mark(m, &first, &count) ? fill(m, first, step, kind)
                                         : pickle_bad(m, "items without MARK");
}

static eng_status op_fill_one(struct machine *m, size_t step, enum pickle_kind kind)
{
    if (m->stack.n - pickle_floor(m) < step) {
        return pickle_bad(m, "an item of an empty stack");
    }
    return fill(m, m->stack.n - step, step, kind);
}

/* ---- the machine ------------------------------------------------------------------------------------ */

static eng_status op_proto(struct machine *m)
{
    uint64_t version = 0;
    if (!take_number(m, 1, &version)) {
        return pickle_cut_short(m);
    }
    return version >= 2 && version <= 5 ? ENG_OK : pickle_bad(m, "a protocol that is not 2 to 5");
}

static eng_status op_stop(struct machine *m)
{
    if (m->n_marks != 0 || !pickle_pop(m, &m->pickle->root) || m->stack.n != 0) {
        return pickle_bad(m, "ends with an unfinished construction");
    }
    m->stopped = true;
    return ENG_OK;
}

static eng_status unknown(struct machine *m, unsigned char opcode)
{
    return fail(m->err, ENG_EUNSUPPORTED, "pickle",
                "%s: pickle, byte %zu: instruction 0x%02x is not one that torch.save writes for "
                "tensors; save a plain dictionary of tensors, or safetensors",
                m->what, m->at - 1, opcode);
}

static eng_status step(struct machine *m, unsigned char opcode)
{
    switch (opcode) {
    case 0x80:
        return op_proto(m);
    case 0x95: /* FRAME */
        return pickle_take(m, 8) != NULL ? ENG_OK : pickle_cut_short(m);
    case '(':
        return op_mark(m);
    case '.':
        return op_stop(m);
    case 'N':
        return pickle_push_new(m, PICKLE_NONE, NULL);
    case 0x88: /* NEWTRUE */
        return push_int(m, PICKLE_BOOL, 1);
    case 0x89: /* NEWFALSE */
        return push_int(m, PICKLE_BOOL, 0);
    case 'K': /* BININT1 */
        return op_int(m, 1);
    case 'M': /* BININT2 */
        return op_int(m, 2);
    case 'J': /* BININT */
        return op_int(m, 4);
    case 0x8a: /* LONG1 */
        return op_long(m);
    case 'G': /* BINFLOAT */
        return op_float(m);
    case 'X': /* BINUNICODE */
    case 'T': /* BINSTRING */
        return op_string(m, 4);
    case 0x8c: /* SHORT_BINUNICODE */
    case 'U':  /* SHORT_BINSTRING */
        return op_string(m, 1);
    case 'q': /* BINPUT */
        return op_put(m, 1);
    case 'r': /* LONG_BINPUT */
        return op_put(m, 4);
    case 0x94: /* MEMOIZE */
        return memo_put(m, m->memo.n);
    case 'h': /* BINGET */
        return op_get(m, 1);
    case 'j': /* LONG_BINGET */
        return op_get(m, 4);
    case '}':
        return pickle_push_new(m, PICKLE_DICT, NULL);
    case ']':
        return pickle_push_new(m, PICKLE_LIST, NULL);
    case ')':
        return make_tuple(m, 0);
    case 't':
        return op_tuple(m);
    case 0x85: /* TUPLE1, 2, 3 */
    case 0x86:
    case 0x87:
        return op_small_tuple(m, (size_t)opcode - 0x84);
    case 's': /* SETITEM */
        return op_fill_one(m, 2, PICKLE_DICT);
    case 'u': /* SETITEMS */
        return op_fill_many(m, 2, PICKLE_DICT);
    case 'a': /* APPEND */
        return op_fill_one(m, 1, PICKLE_LIST);
    case 'e': /* APPENDS */
        return op_fill_many(m, 1, PICKLE_LIST);
    case 'c':
        return pickle_op_global(m);
    case 0x93: /* STACK_GLOBAL */
        return pickle_op_stack_global(m);
    case 'R':  /* REDUCE */
    case 0x81: /* NEWOBJ: the same for the one class it can name here */
        return pickle_op_reduce(m);
    case 'b':
        return pickle_op_build(m);
    case 'Q': /* BINPERSID */
        return pickle_op_persistent(m);
    default:
        return unknown(m, opcode);
    }
}

static struct pickle *pickle_new(void)
{
    struct pickle *pickle = calloc(1, sizeof *pickle);
    if (pickle != NULL) {
        pickle->nodes.size = sizeof(struct node);
        pickle->items.size = sizeof(uint32_t);
        pickle->entries.size = sizeof(struct entry);
        pickle->storages.size = sizeof(struct pickle_storage);
        pickle->tensors.size = sizeof(struct pickle_tensor);
        if (pickle_array_push(&pickle->entries, PICKLE_MAX_NODES) == NULL) { /* entry 0: none */
            pickle_free(pickle);
            return NULL;
        }
    }
    return pickle;
}

eng_status pickle_parse(const unsigned char *bytes, size_t size, const char *what, size_t *used,
                        struct pickle **out, eng_error *err)
{
    struct machine m = {.bytes = bytes,
                        .size = size < PICKLE_MAX_BYTES ? size : PICKLE_MAX_BYTES,
                        .what = what,
                        .err = err,
                        .stack = {.size = sizeof(uint32_t)},
                        .memo = {.size = sizeof(uint32_t)}};
    eng_status status = ENG_OK;
    *out = NULL;
    m.pickle = pickle_new();
    if (m.pickle == NULL) {
        return fail_nomem(err, what);
    }
    while (status == ENG_OK && !m.stopped) {
        const unsigned char *opcode = pickle_take(&m, 1);
        status = opcode != NULL ? step(&m, *opcode) : pickle_cut_short(&m);
    }
    free(m.stack.items);
    free(m.memo.items);
    if (status != ENG_OK) {
        pickle_free(m.pickle);
        return status;
    }
    *used = m.at;
    *out = m.pickle;
    return ENG_OK;
}

void pickle_free(struct pickle *pickle)
{
    if (pickle != NULL) {
        free(pickle->nodes.items);
        free(pickle->items.items);
        free(pickle->entries.items);
        free(pickle->storages.items);
        free(pickle->tensors.items);
        free(pickle);
    }
}
