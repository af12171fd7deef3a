/* status.h: how engine code reports a failure. Any thread. */
#ifndef ENGINE_STATUS_H
#define ENGINE_STATUS_H

#include "engine/engine.h"

/* Fills *err (when not NULL) and returns `status`, so that callers write
 *     return fail(err, ENG_EFORMAT, name, "shape has %zu dims, at most 8 are read", dims);
 * `field` may be NULL. Text that does not fit is cut at a UTF-8 boundary. */
eng_status fail(eng_error *err, eng_status status, const char *field, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* ENG_ENOMEM with the usual sentence. */
eng_status fail_nomem(eng_error *err, const char *field);

/* a*b and a+b without overflow: false when the result does not fit size_t (then *out is 0). */
bool size_mul(size_t a, size_t b, size_t *out);
bool size_add(size_t a, size_t b, size_t *out);

#endif
