/* arena.h (private): one block of memory, carved in order, given back at once or down to a mark.
 *
 * Workspaces and tapes are planned and then carved by the same code: run it on an arena made by
 * arena_plan(), which only counts, then on one of the size it counted. Sizes are therefore never
 * written down twice. One thread at a time.
 */
#ifndef ENGINE_ARENA_H
#define ENGINE_ARENA_H

#include "engine/engine.h"

#define ARENA_ALIGN 64 /* a cache line, and the widest vector */

struct arena {
    unsigned char *base; /* NULL while planning */
    size_t size;         /* SIZE_MAX while planning */
    size_t used;
    bool overflow; /* a request did not fit or wrapped around: everything after it is NULL */
};

/* An arena that hands out NULL and counts. */
struct arena arena_plan(void);
/* Takes one block of `size` bytes from the system. ENG_ENOMEM, or ENG_ELIMIT for a size that a plan
 * overflowed. */
ENG_MUST_CHECK eng_status arena_init(struct arena *arena, const struct arena *plan,
                                     const char *field, eng_error *err);
void arena_fini(struct arena *arena);

/* `count` items of `size` bytes, aligned to ARENA_ALIGN, not cleared. NULL while planning, and when
 * the block is spent (then `overflow` is set). */
void *arena_take(struct arena *arena, size_t count, size_t size);
float *arena_floats(struct arena *arena, size_t rows, size_t stride);

/* Gives the whole pages of [from, from + bytes) back to the system. What was there is lost, unless a file
 * is mapped there: then it is read again when it is looked at. */
void arena_drop(const void *from, size_t bytes);

/* Everything taken after the mark is free again. */
size_t arena_mark(const struct arena *arena);
void arena_release(struct arena *arena, size_t mark);

#endif
