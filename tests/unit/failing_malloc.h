/* failing_malloc.h: malloc, calloc, realloc and free that stand before glibc's: they count what is alive
 * and can fail the n-th call. Sanitizers bring their own, so there OWN_MALLOC is 0: skip the test.
 *
 * Threads. None: for programs of one thread. Include it in one file.
 */
#ifndef TESTS_UNIT_FAILING_MALLOC_H
#define TESTS_UNIT_FAILING_MALLOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OWN_MALLOC 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define OWN_MALLOC 0
#endif
#endif
#ifndef OWN_MALLOC
#define OWN_MALLOC 1
#endif

static long until_failure; /* 0: never */
static long alive;

#if OWN_MALLOC
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);
void __libc_free(void *old);

static bool fails(void)
{
    return until_failure > 0 && --until_failure == 0;
}

static void *count(void *made)
{
    alive += made != NULL;
    return made;
}

void *malloc(size_t size)
{
    return fails() ? NULL : count(__libc_malloc(size));
}

void *calloc(size_t n, size_t size)
{
    return fails() ? NULL : count(__libc_calloc(n, size));
}

void *realloc(void *old, size_t size)
{
    if (fails()) {
        return NULL;
    }
    void *made = __libc_realloc(old, size);
    alive += made != NULL && old == NULL;
    return made;
}

void free(void *old)
{
    alive -= old != NULL;
    __libc_free(old);
}
#endif

#endif
