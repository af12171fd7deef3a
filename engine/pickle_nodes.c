/* pickle_nodes.c: the arena of a parsed pickle: arrays, nodes, the stack, and looking at the result. */
#include "engine/pickle_impl.h"

#include "engine/status.h"

#include <stdlib.h>
#include <string.h>

/* ---- arrays ----------------------------------------------------------------------------------- */

void *pickle_array_at(const struct array *array, size_t i)
{
    return (char *)array->items + i * array->size;
}

/* One more zeroed item, or NULL: full (n == max) or out of memory. */
void *pickle_array_push(struct array *array, size_t max)
{
    if (array->n == array->room) {
        size_t room = array->room == 0 ? 64 : 2 * array->room;
        room = room < max ? room : max;
        void *items = room > array->n ? realloc(array->items, room * array->size) : NULL;
        if (items == NULL) {
            return NULL;
        }
        array->items = items;
        array->room = room;
    }
    void *item = pickle_array_at(array, array->n++);
    memset(item, 0, array->size);
    return item;
}

/* ---- errors ------------------------------------------------------------------------------------- */

eng_status pickle_bad(struct machine *m, const char *problem)
{
    return fail(m->err, ENG_EFORMAT, "pickle", "%s: pickle, byte %zu: %s", m->what, m->at, problem);
}

eng_status pickle_full(struct machine *m, const struct array *array, const char *what, size_t max)
{
    if (array->n < max) {
        return fail_nomem(m->err, m->what);
    }
    return fail(m->err, ENG_ELIMIT, "pickle", "%s: pickle, byte %zu: more than %zu %s", m->what,
                m->at, max, what);
}

/* `n` operand bytes, or NULL at the end of the file. */
const unsigned char *pickle_take(struct machine *m, size_t n)
{
    if (n > m->size - m->at) {
        return NULL;
    }
    const unsigned char *bytes = m->bytes + m->at;
    m->at += n;
    return bytes;
}

eng_status pickle_cut_short(struct machine *m)
{
    return pickle_bad(m, "ends in the middle of an instruction: the file is cut short");
}

/* ---- stack and nodes ------------------------------------------------------------------------------ */

eng_status pickle_push(struct machine *m, uint32_t node)
{
    uint32_t *slot = pickle_array_push(&m->stack, PICKLE_MAX_STACK);
    if (slot == NULL) {
        return pickle_full(m, &m->stack, "values on the stack", PICKLE_MAX_STACK);
    }
    *slot = node;
    return ENG_OK;
}

/* The stack's part above the last MARK belongs to the innermost construction. */
size_t pickle_floor(const struct machine *m)
{
    return m->n_marks > 0 ? m->marks[m->n_marks - 1] : 0;
}

bool pickle_pop(struct machine *m, uint32_t *node)
{
    if (m->stack.n <= pickle_floor(m)) {
        return false;
    }
    *node = *(uint32_t *)pickle_array_at(&m->stack, --m->stack.n);
    return true;
}

bool pickle_top(const struct machine *m, uint32_t *node)
{
    if (m->stack.n <= pickle_floor(m)) {
        return false;
    }
    *node = *(uint32_t *)pickle_array_at(&m->stack, m->stack.n - 1);
    return true;
}

struct node *pickle_node(const struct pickle *pickle, uint32_t node)
{
    return pickle_array_at(&pickle->nodes, node);
}

/* Makes a node; its number in *out. The pointer is good until the next node is made. */
static struct node *new_node(struct machine *m, enum pickle_kind kind, uint32_t *out)
{
    struct node *node = pickle_array_push(&m->pickle->nodes, PICKLE_MAX_NODES);
    if (node == NULL) {
        (void)pickle_full(m, &m->pickle->nodes, "values", PICKLE_MAX_NODES);
        return NULL;
    }
    node->kind = kind;
    *out = (uint32_t)(m->pickle->nodes.n - 1);
    return node;
}

eng_status pickle_push_new(struct machine *m, enum pickle_kind kind, struct node **out)
{
    uint32_t number = 0;
    struct node *node = new_node(m, kind, &number);
    if (node == NULL) {
        return m->pickle->nodes.n < PICKLE_MAX_NODES ? ENG_ENOMEM : ENG_ELIMIT;
    }
    if (out != NULL) {
        *out = node;
    }
    return pickle_push(m, number);
}

/* ---- looking ---------------------------------------------------------------------------------------- */

uint32_t pickle_root(const struct pickle *pickle)
{
    return pickle->root;
}

enum pickle_kind pickle_kind(const struct pickle *pickle, uint32_t node)
{
    return pickle_node(pickle, node)->kind;
}

const char *pickle_string(const struct pickle *pickle, uint32_t node, size_t *len)
{
    const struct node *found = pickle_node(pickle, node);
    *len = found->kind == PICKLE_STRING ? found->string.len : 0;
    return found->kind == PICKLE_STRING ? found->string.bytes : NULL;
}

bool pickle_bool(const struct pickle *pickle, uint32_t node, bool *out)
{
    const struct node *found = pickle_node(pickle, node);
    *out = found->kind == PICKLE_BOOL && found->integer != 0;
    return found->kind == PICKLE_BOOL;
}

bool pickle_next(const struct pickle *pickle, uint32_t node, uint32_t *cursor, uint32_t *key,
                 uint32_t *value)
{
    const struct node *found = pickle_node(pickle, node);
    if (found->kind != PICKLE_LIST && found->kind != PICKLE_DICT) {
        return false;
    }
    uint32_t next = *cursor == 0
                        ? found->chain.head
                        : ((struct entry *)pickle_array_at(&pickle->entries, *cursor))->next;
    if (next == 0) {
        return false;
    }
    const struct entry *entry = pickle_array_at(&pickle->entries, next);
    *cursor = next;
    *key = entry->key;
    *value = entry->value;
    return true;
}

const struct pickle_tensor *pickle_tensor(const struct pickle *pickle, uint32_t node)
{
    const struct node *found = pickle_node(pickle, node);
    return found->kind == PICKLE_TENSOR ? pickle_array_at(&pickle->tensors, found->index) : NULL;
}

size_t pickle_storages(const struct pickle *pickle)
{
    return pickle->storages.n;
}

const struct pickle_storage *pickle_storage(const struct pickle *pickle, size_t i)
{
    return pickle_array_at(&pickle->storages, i);
}
