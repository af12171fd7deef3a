/* cors.h: which pages of other origins may call the server from a browser.
 *
 * Off unless cors_origins names origins. Keys travel in the Authorization header, which a page must
 * hold itself, so no credentials of the browser are ever allowed.
 *
 * Threads. Pure functions.
 */
#ifndef SERVER_CORS_H
#define SERVER_CORS_H

#include <stdbool.h>
#include <stddef.h>

/* "*", or origins (scheme://host[:port], lower case, nothing behind) separated by commas; "" is none. */
bool cors_origins_ok(const char *list, char *why, size_t size);
/* What Access-Control-Allow-Origin says to `origin` (may be NULL); NULL: nothing. */
const char *cors_allow(const char *list, const char *origin);

#define CORS_REQUEST_HEADERS                                                                       \
    "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, traceparent, X-Request-Id, "     \
    "X-Request-Timeout"
#define CORS_ANSWER_HEADERS                                                                        \
    "x-request-id, x-should-retry, Retry-After, retry-after-ms, RateLimit, RateLimit-Policy, "     \
    "Server-Timing, traceparent"
#define CORS_MAX_AGE "600"

#endif
