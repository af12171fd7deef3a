/* fault.h: how server code reports through an eng_error, and checked sizes. Any thread. */
#ifndef SERVER_FAULT_H
#define SERVER_FAULT_H

#include "engine/engine.h"

/* Fills *err (when not NULL) and returns `status`. */
eng_status fault(eng_error *err, eng_status status, const char *field, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
eng_status fault_nomem(eng_error *err, const char *field);

/* a*b and a+b into *out; false when the result does not fit. */
bool mul_sizes(size_t a, size_t b, size_t *out);
bool add_sizes(size_t a, size_t b, size_t *out);

#endif
