/* trace.h: W3C Trace Context: a request that is part of a trace is answered as a part of it.
 *
 * Threads. Pure functions.
 */
#ifndef SERVER_TRACE_H
#define SERVER_TRACE_H

#include <stdbool.h>

#define TRACE_CHARS    55 /* "00-" 32 hex "-" 16 hex "-" 2 hex */
#define TRACE_ID_CHARS 32

/* The answer's traceparent for a request's: same trace and flags, a parent id of our own. False: not
 * a valid traceparent, *out is "". */
bool trace_answer(const char *traceparent, char out[TRACE_CHARS + 1]);

#endif
