/* pickle_impl.h (private to pickle*.c): the arena, the stack machine's state and its small change. */
#ifndef ENGINE_PICKLE_IMPL_H
#define ENGINE_PICKLE_IMPL_H

#include "engine/pickle.h"

/* Entry 0 of `entries` is never used: 0 ends a chain. */
struct chain {
    uint32_t head, tail;
};

struct node {
    enum pickle_kind kind;
    union {
        int64_t integer; /* INT, BOOL */
        double real;
        struct {
            const char *bytes;
            uint32_t len;
        } string;
        struct {
            uint32_t first, count; /* in items */
        } tuple;
        struct chain chain; /* LIST, DICT */
        uint32_t global;    /* index into globals[] */
        uint32_t index;     /* STORAGE, TENSOR */
    };
};

struct entry {
    uint32_t key, value, next;
};

/* A growable array of fixed-size items. */
struct array {
    void *items;
    size_t n, room, size;
};

struct pickle {
    struct array nodes, items, entries, storages, tensors;
    uint32_t root;
};

struct machine {
    struct pickle *pickle;
    const unsigned char *bytes;
    size_t size, at;
    struct array stack, memo; /* of node numbers */
    size_t marks[PICKLE_MAX_MARKS], n_marks;
    bool stopped;
    const char *what;
    eng_error *err;
};

/* Array items are addressed by number: pointers end with the next push. */
void *pickle_array_at(const struct array *array, size_t i);
/* One more zeroed item, or NULL: full (n == max) or out of memory. */
void *pickle_array_push(struct array *array, size_t max);
struct node *pickle_node(const struct pickle *pickle, uint32_t node);

/* ENG_EFORMAT with the place in the file. */
eng_status pickle_bad(struct machine *m, const char *problem);
eng_status pickle_cut_short(struct machine *m);
/* Why a push on `array` failed: ENG_ELIMIT "more than `max` `what`", or ENG_ENOMEM. */
eng_status pickle_full(struct machine *m, const struct array *array, const char *what, size_t max);

ENG_MUST_CHECK eng_status pickle_push(struct machine *m, uint32_t node);
/* Makes a node and pushes it; *out (may be NULL) is good until the next one is made. */
ENG_MUST_CHECK eng_status pickle_push_new(struct machine *m, enum pickle_kind kind,
                                          struct node **out);
/* The stack's part above the last MARK belongs to the innermost construction. */
size_t pickle_floor(const struct machine *m);
bool pickle_pop(struct machine *m, uint32_t *node);
bool pickle_top(const struct machine *m, uint32_t *node);
/* `n` operand bytes, or NULL at the end of the file. */
const unsigned char *pickle_take(struct machine *m, size_t n);

/* pickle_call.c: the opcodes that name things. */
ENG_MUST_CHECK eng_status pickle_op_global(struct machine *m);
ENG_MUST_CHECK eng_status pickle_op_stack_global(struct machine *m);
ENG_MUST_CHECK eng_status pickle_op_reduce(struct machine *m);
ENG_MUST_CHECK eng_status pickle_op_build(struct machine *m);
ENG_MUST_CHECK eng_status pickle_op_persistent(struct machine *m);

#endif
