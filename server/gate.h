/* gate.h: what may enter. Checks on names, values and paths that hold for every request, whatever the
 * HTTP library lets through: libmicrohttpd 0.9.75 accepts several requests that newer ones refuse,
 * and a proxy in front may read such a request differently than we do.
 *
 * Threads. Pure functions.
 */
#ifndef SERVER_GATE_H
#define SERVER_GATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* NULL: fine. Otherwise a sentence saying what is wrong, a static string. */

/* Raw request target up to the query: origin form, valid percent codes, decoded: valid UTF-8, no
 * control bytes, no NUL, no "." or ".." or empty segment (a single trailing slash aside). */
const char *gate_path(const char *path);
/* Raw query: the same for percent codes, control bytes and UTF-8. */
const char *gate_query(const char *query);

/* A token of at most 32 characters. */
bool gate_method(const char *method);

/* Gathers the headers of one request. Start with {0}. */
struct gate_headers {
    unsigned n, hosts, lengths, encodings;
    bool chunked;
    uint64_t length; /* of Content-Length */
    const char *wrong;
};
/* One header, in any order. */
void gate_header(struct gate_headers *headers, const char *name, size_t name_len, const char *value,
                 size_t value_len);
/* When all have been given. `version`: "HTTP/1.1". */
const char *gate_finish(const struct gate_headers *headers, const char *version);

bool utf8_valid(const char *bytes, size_t len);
/* Decodes %XX (and + as a space with `plus`) into out, which has room for len + 1 bytes; ends it with
 * NUL. False: a bad code. *out_len may be NULL. */
bool percent_decode(const char *raw, size_t len, bool plus, char *out, size_t *out_len);
/* x-request-id that we take over: 1 to 64 letters, digits and -_. */
bool gate_request_id(const char *id);

#endif
