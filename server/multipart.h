/* multipart.h: a multipart/form-data body (RFC 7578) read piece by piece, never held.
 *
 * Bounds: at most MULTIPART_MAX_PARTS parts, MULTIPART_MAX_HEADERS bytes of headers each, names and
 * file names of at most MULTIPART_MAX_NAME bytes of UTF-8. The size of the whole is the caller's affair.
 *
 * Threads.   A parser belongs to one thread at a time.
 */
#ifndef SERVER_MULTIPART_H
#define SERVER_MULTIPART_H

#include <stdbool.h>
#include <stddef.h>

#define MULTIPART_MAX_PARTS   32
#define MULTIPART_MAX_HEADERS 4096
#define MULTIPART_MAX_NAME    256

struct multipart_part {
    char name[MULTIPART_MAX_NAME + 1];
    char filename[MULTIPART_MAX_NAME + 1]; /* "" when it has none; no directories */
    char content_type[128];                /* as sent; "" when it has none */
};

/* Each returns false to end the parse: multipart_feed then returns false with `why` empty. */
struct multipart_sink {
    bool (*begin)(void *arg, const struct multipart_part *part);
    bool (*data)(void *arg, const char *bytes, size_t len);
    bool (*end)(void *arg);
};

struct multipart;

/* `content_type`: of the request. NULL: `why` says what is wrong with it, or is empty: out of memory. */
struct multipart *multipart_new(const char *content_type, const struct multipart_sink *sink,
                                void *arg, char *why, size_t size);
void multipart_free(struct multipart *form); /* NULL is fine */
/* False: the body is malformed or over a limit, `why` says how; feed no more. */
bool multipart_feed(struct multipart *form, const char *bytes, size_t len, char *why, size_t size);
/* True when the closing delimiter has come. */
bool multipart_complete(const struct multipart *form);

#endif
