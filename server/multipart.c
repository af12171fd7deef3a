/* multipart.c: the parser is a small state machine over bytes.
 *
 *     PREAMBLE ─ delimiter → AFTER ─ CRLF → HEADERS ─ empty line → DATA ─ delimiter → AFTER …
 *                                └ "--" → CLOSED (what follows is ignored)
 *
 * The delimiter is CRLF, two hyphens and the boundary. Its first byte, CR, appears nowhere else in it
 * (a boundary holds no control bytes), so when a match breaks off, what was matched is data, and a new
 * match can only begin at the byte that broke it: no table of failures is needed.
 */
#include "server/multipart.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_BOUNDARY 70 /* RFC 2046 */

enum state { PREAMBLE, AFTER, HEADERS, DATA, CLOSED, FAILED };

struct multipart {
    const struct multipart_sink *sink;
    void *arg;
    enum state state;
    char delimiter[MAX_BOUNDARY + 5]; /* "\r\n--boundary" */
    size_t delimiter_len;
    size_t matched; /* bytes of the delimiter seen */
    size_t parts;
    char head[MULTIPART_MAX_HEADERS + 1]; /* headers, and what follows a delimiter */
    size_t head_len;
    struct multipart_part part;
};

/* ---- the Content-Type ------------------------------------------------------------------------ */

static const char *skip_space(const char *at)
{
    return at + strspn(at, " \t");
}

/* A token or a quoted string into `out`; what follows, or NULL when it is too long or unclosed. */
static const char *read_value(const char *at, char *out, size_t size)
{
    bool quoted = *at == '"';
    size_t n = 0;
    at += quoted;
    while (quoted ? *at != '"' && *at != '\0' : *at != '\0' && strchr("; \t", *at) == NULL) {
        if (quoted && *at == '\\' && (at[1] == '"' || at[1] == '\\')) {
            at++;
        }
        if (n + 1 >= size) {
            return NULL;
        }
        out[n++] = *at++;
    }
    out[n] = '\0';
    if (!quoted) {
        return at;
    }
    return *at == '"' ? at + 1 : NULL;
}

/* Finds parameter `name` behind the first ';' of a header's value. 1: found; 0: none; -1: malformed. */
static int find_parameter(const char *value, const char *name, char *out, size_t size)
{
    const char *at = strchr(value, ';');
    char scratch[MULTIPART_MAX_HEADERS + 1];
    while (at != NULL && *at == ';') {
        at = skip_space(at + 1);
        size_t len = strcspn(at, "=; \t");
        bool wanted = len == strlen(name) && strncasecmp(at, name, len) == 0;
        at = skip_space(at + len);
        if (*at == '=') {
            at = read_value(skip_space(at + 1), wanted ? out : scratch,
                            wanted ? size : sizeof scratch);
            if (at == NULL) {
                return -1;
            }
            if (wanted) {
                return 1;
            }
            at = skip_space(at);
        }
    }
    return at != NULL && *at != '\0' ? -1 : 0;
}

static bool boundary_ok(const char *boundary)
{
    size_t len = strlen(boundary);
    for (size_t i = 0; i < len; i++) {
        if (boundary[i] < 0x20 || boundary[i] > 0x7E) {
            return false;
        }
    }
    return len > 0 && boundary[len - 1] != ' ';
}

struct multipart *multipart_new(const char *content_type, const struct multipart_sink *sink,
                                void *arg, char *why, size_t size)
{
    static const char kind[] = "multipart/form-data";
    char boundary[MAX_BOUNDARY + 1] = "";
    if (content_type == NULL || strncasecmp(content_type, kind, sizeof kind - 1) != 0 ||
        strchr("; \t", content_type[sizeof kind - 1]) == NULL) {
        snprintf(why, size, "the Content-Type must be multipart/form-data with a boundary");
        return NULL;
    }
    if (find_parameter(content_type, "boundary", boundary, sizeof boundary) != 1 ||
        !boundary_ok(boundary)) {
        snprintf(why, size, "the Content-Type names no boundary of 1 to %d printable characters",
                 MAX_BOUNDARY);
        return NULL;
    }
    struct multipart *form = calloc(1, sizeof *form);
    if (form == NULL) {
        why[0] = '\0';
        return NULL;
    }
    form->sink = sink;
    form->arg = arg;
    form->matched = 2; /* the first delimiter may stand at the very beginning, without CRLF */
    form->delimiter_len =
        (size_t)snprintf(form->delimiter, sizeof form->delimiter, "\r\n--%s", boundary);
    return form;
}

void multipart_free(struct multipart *form)
{
    free(form);
}

bool multipart_complete(const struct multipart *form)
{
    return form->state == CLOSED;
}

/* ---- the headers of a part -------------------------------------------------------------------- */

/* Well-formed UTF-8 without control bytes? */
static bool text_ok(const char *text)
{
    const unsigned char *at = (const unsigned char *)text;
    while (*at != '\0') {
        size_t more = *at < 0x80 ? 0 : *at >= 0xF0 ? 3 : *at >= 0xE0 ? 2 : 1;
        if (*at < 0x20 || *at == 0x7F || (*at >= 0x80 && *at < 0xC2) || *at > 0xF4) {
            return false;
        }
        for (at++; more > 0; more--, at++) {
            if ((*at & 0xC0) != 0x80) {
                return false;
            }
        }
    }
    return true;
}

static void drop_directories(char *filename)
{
    char *slash = strrchr(filename, '/');
    char *back = strrchr(slash != NULL ? slash : filename, '\\');
    char *base = back != NULL ? back + 1 : slash != NULL ? slash + 1 : filename;
    memmove(filename, base, strlen(base) + 1);
}

static bool read_disposition(struct multipart *form, const char *value, char *why, size_t size)
{
    struct multipart_part *part = &form->part;
    if (strncasecmp(value, "form-data", 9) != 0 ||
        find_parameter(value, "name", part->name, sizeof part->name) != 1 ||
        find_parameter(value, "filename", part->filename, sizeof part->filename) < 0) {
        snprintf(why, size,
                 "part %zu: its Content-Disposition is not form-data with a name, and file names "
                 "have at most %d bytes",
                 form->parts, MULTIPART_MAX_NAME);
        return false;
    }
    drop_directories(part->filename);
    if (!text_ok(part->name) || !text_ok(part->filename)) {
        snprintf(why, size, "part %zu: its name or file name is not UTF-8 text", form->parts);
        return false;
    }
    return true;
}

/* One header line, NUL-terminated. */
static bool read_header(struct multipart *form, const char *line, char *why, size_t size)
{
    static const char disposition[] = "content-disposition:", type[] = "content-type:";
    if (strncasecmp(line, disposition, sizeof disposition - 1) == 0) {
        return read_disposition(form, skip_space(line + sizeof disposition - 1), why, size);
    }
    if (strncasecmp(line, type, sizeof type - 1) == 0) {
        snprintf(form->part.content_type, sizeof form->part.content_type, "%s",
                 skip_space(line + sizeof type - 1));
    }
    return true;
}

/* All headers of a part, each line ended by CRLF, the empty one last. */
static bool read_headers(struct multipart *form, char *why, size_t size)
{
    char *line = form->head;
    form->head[form->head_len] = '\0';
    form->part = (struct multipart_part){0};
    if (strlen(form->head) != form->head_len) {
        snprintf(why, size, "part %zu: a NUL byte in its headers", form->parts);
        return false;
    }
    for (char *end = strstr(line, "\r\n"); end != NULL && end != line; end = strstr(line, "\r\n")) {
        *end = '\0';
        if (!read_header(form, line, why, size)) {
            return false;
        }
        line = end + 2;
    }
    if (form->part.name[0] == '\0') {
        snprintf(why, size, "part %zu has no Content-Disposition with a name", form->parts);
        return false;
    }
    return form->sink->begin(form->arg, &form->part);
}

/* ---- bytes ---------------------------------------------------------------------------------- */

static bool take_header_byte(struct multipart *form, char byte, char *why, size_t size)
{
    if (form->head_len == MULTIPART_MAX_HEADERS) {
        snprintf(why, size, "part %zu: its headers have more than %d bytes", form->parts,
                 MULTIPART_MAX_HEADERS);
        return false;
    }
    form->head[form->head_len++] = byte;
    bool empty = form->head_len == 2 && memcmp(form->head, "\r\n", 2) == 0;
    bool ends = form->head_len >= 4 && memcmp(form->head + form->head_len - 4, "\r\n\r\n", 4) == 0;
    if (!empty && !ends) {
        return true;
    }
    form->state = DATA;
    form->matched = 0;
    return read_headers(form, why, size);
}

/* Behind a delimiter: "--" closes; blanks and CRLF begin a part. */
static bool take_after_byte(struct multipart *form, char byte, char *why, size_t size)
{
    char last = form->head_len > 0 ? form->head[form->head_len - 1] : '\0';
    if (byte == '-' && (form->head_len == 0 || (form->head_len == 1 && last == '-'))) {
        form->head[form->head_len++] = byte;
        form->state = form->head_len == 2 ? CLOSED : AFTER;
        return true;
    }
    if ((byte == ' ' || byte == '\t') && last != '-' && last != '\r') {
        return true;
    }
    if (byte == '\r' && form->head_len == 0) {
        form->head[form->head_len++] = byte;
        return true;
    }
    if (byte == '\n' && last == '\r') {
        form->state = HEADERS;
        form->head_len = 0;
        if (++form->parts <= MULTIPART_MAX_PARTS) {
            return true;
        }
        snprintf(why, size, "more than %d parts", MULTIPART_MAX_PARTS);
        return false;
    }
    snprintf(why, size, "a delimiter is followed by other bytes than a line end or \"--\"");
    return false;
}

static bool give(struct multipart *form, const char *bytes, size_t len)
{
    return form->state != DATA || len == 0 || form->sink->data(form->arg, bytes, len);
}

/* Data or preamble up to the next delimiter; *used says how many bytes were eaten. */
static bool take_data(struct multipart *form, const char *bytes, size_t len, size_t *used)
{
    size_t i = 0; /* bytes[0 .. i - matched) are data not yet given */
    while (i < len) {
        if (bytes[i] == form->delimiter[form->matched]) {
            i++;
            if (++form->matched < form->delimiter_len) {
                continue;
            }
            *used = i;
            size_t data = i > form->matched ? i - form->matched : 0;
            bool ok =
                give(form, bytes, data) && (form->state != DATA || form->sink->end(form->arg));
            form->state = AFTER;
            form->head_len = 0;
            return ok;
        }
        if (form->matched == 0) {
            const char *next = memchr(bytes + i, '\r', len - i);
            i = next != NULL ? (size_t)(next - bytes) : len;
            continue;
        }
        /* What was matched is data after all; its part from earlier pieces is gone from `bytes`. */
        if (form->matched > i && !give(form, form->delimiter, form->matched - i)) {
            return false;
        }
        form->matched = 0;
    }
    *used = len;
    size_t data = len > form->matched ? len - form->matched : 0;
    return give(form, bytes, data);
}

bool multipart_feed(struct multipart *form, const char *bytes, size_t len, char *why, size_t size)
{
    why[0] = '\0';
    for (size_t i = 0; i < len && form->state != CLOSED;) {
        bool ok = false;
        size_t used = 1;
        if (form->state == AFTER) {
            ok = take_after_byte(form, bytes[i], why, size);
        } else if (form->state == HEADERS) {
            ok = take_header_byte(form, bytes[i], why, size);
        } else if (form->state != FAILED) {
            ok = take_data(form, bytes + i, len - i, &used);
        }
        if (!ok) {
            form->state = FAILED;
            return false;
        }
        i += used;
    }
    return true;
}
