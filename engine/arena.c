/* arena.c: see arena.h. Large blocks ask the kernel for huge pages: a forward pass walks matrices
 * whose rows lie kilobytes apart, and with 4 KiB pages every row would cost an address translation. */
#include "engine/arena.h"
#include "engine/status.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define HUGE_PAGE ((size_t)2 << 20)

struct arena arena_plan(void)
{
    return (struct arena){.size = SIZE_MAX};
}

eng_status arena_init(struct arena *arena, const struct arena *plan, const char *field,
                      eng_error *err)
{
    *arena = (struct arena){0};
    size_t align = plan->used >= HUGE_PAGE ? HUGE_PAGE : ARENA_ALIGN;
    size_t size = 0;
    if (plan->overflow || !size_add(plan->used, align, &size)) {
        return fail(err, ENG_ELIMIT, field, "the sizes asked for overflow; ask for less");
    }
    size = size / align * align;
    void *base = aligned_alloc(align, size);
    if (base == NULL) {
        return fail_nomem(err, field);
    }
    if (align == HUGE_PAGE) {
        (void)madvise(base, size, MADV_HUGEPAGE); /* only a hint */
    }
    *arena = (struct arena){.base = base, .size = size};
    return ENG_OK;
}

void arena_fini(struct arena *arena)
{
    free(arena->base);
    *arena = (struct arena){0};
}

void *arena_take(struct arena *arena, size_t count, size_t size)
{
    size_t bytes = 0, end = 0;
    bool fits = size_mul(count, size, &bytes) && size_add(bytes, ARENA_ALIGN - 1, &bytes);
    bytes = bytes / ARENA_ALIGN * ARENA_ALIGN;
    if (arena->overflow || !fits || !size_add(arena->used, bytes, &end) || end > arena->size) {
        arena->overflow = true;
        return NULL;
    }
    void *taken = arena->base != NULL ? arena->base + arena->used : NULL;
    arena->used = end;
    return taken;
}

float *arena_floats(struct arena *arena, size_t rows, size_t stride)
{
    size_t count = 0;
    if (!size_mul(rows, stride, &count)) {
        arena->overflow = true;
        return NULL;
    }
    return arena_take(arena, count, sizeof(float));
}

void arena_drop(const void *from, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t start = ((uintptr_t)from + page - 1) / page * page;
    uintptr_t end = ((uintptr_t)from + bytes) / page * page;
    if (start < end) {
        (void)madvise((void *)start, end - start, MADV_DONTNEED); /* only a saving */
    }
}

size_t arena_mark(const struct arena *arena)
{
    return arena->used;
}

void arena_release(struct arena *arena, size_t mark)
{
    if (mark <= arena->used) {
        arena->used = mark;
        arena->overflow = false;
    }
}
