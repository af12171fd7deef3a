/* gate.c: see gate.h. RFC 9110 section 5 for names and values, RFC 9112 sections 3 and 6 for targets
 * and framing.
 *
 * Framing is the part that matters most: a request whose length can be read in two ways lets a client
 * hide a second request from a proxy. So exactly one Content-Length of digits only, or exactly one
 * Transfer-Encoding that is "chunked", never both, and a name must be a token (a space before the
 * colon makes another name of it).
 */
#include "server/gate.h"

#include <string.h>
#include <strings.h>

static bool is_token_char(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool is_control(unsigned char c)
{
    return c < 0x20 || c == 0x7F;
}

/* Bytes of the sequence that starts here, 0 when it is not valid UTF-8 (overlong forms, surrogates and
 * what lies past U+10FFFF are not). */
static size_t utf8_sequence(const unsigned char *s, size_t len)
{
    if (s[0] < 0x80) {
        return 1;
    }
    size_t n = s[0] >= 0xF0 ? 4 : s[0] >= 0xE0 ? 3 : 2;
    if (s[0] < 0xC2 || s[0] > 0xF4 || n > len) {
        return 0;
    }
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    bool bad = (s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] > 0x9F) ||
               (s[0] == 0xF0 && s[1] < 0x90) || (s[0] == 0xF4 && s[1] > 0x8F);
    return bad ? 0 : n;
}

bool utf8_valid(const char *bytes, size_t len)
{
    const unsigned char *s = (const unsigned char *)bytes;
    for (size_t i = 0; i < len;) {
        size_t n = utf8_sequence(s + i, len - i);
        if (n == 0) {
            return false;
        }
        i += n;
    }
    return true;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

bool percent_decode(const char *raw, size_t len, bool plus, char *out, size_t *out_len)
{
    size_t n = 0;
    bool ok = true;
    for (size_t i = 0; i < len && ok; i++) {
        if (raw[i] == '%') {
            int high = len - i > 2 ? hex_digit(raw[i + 1]) : -1;
            int low = len - i > 2 ? hex_digit(raw[i + 2]) : -1;
            ok = high >= 0 && low >= 0;
            out[n++] = (char)(high * 16 + low);
            i += 2;
        } else {
            out[n++] = plus && raw[i] == '+' ? ' ' : raw[i];
        }
    }
    out[ok ? n : 0] = '\0';
    if (out_len != NULL) {
        *out_len = ok ? n : 0;
    }
    return ok;
}

/* Percent codes, control bytes and UTF-8 of one piece of a target, decoded in a small window so that
 * nothing is allocated. */
static const char *check_encoded(const char *raw, size_t len)
{
    unsigned char window[4];
    size_t held = 0;
    for (size_t i = 0; i < len || held > 0;) {
        while (held < sizeof window && i < len) {
            int c = (unsigned char)raw[i];
            if (c == '%') {
                int high = len - i > 2 ? hex_digit(raw[i + 1]) : -1;
                int low = len - i > 2 ? hex_digit(raw[i + 2]) : -1;
                if (high < 0 || low < 0) {
                    return "the request target holds a percent sign without two hexadecimal digits";
                }
                c = high * 16 + low;
                i += 2;
            } else if (is_control((unsigned char)c) || c == ' ') {
                return "the request target holds a space or a control byte";
            }
            i++;
            if (is_control((unsigned char)c)) {
                return "the request target holds an encoded control byte or NUL";
            }
            window[held++] = (unsigned char)c;
        }
        size_t n = utf8_sequence(window, held);
        if (n == 0) {
            return "the request target is not valid UTF-8 once decoded";
        }
        held -= n;
        memmove(window, window + n, held);
    }
    return NULL;
}

/* "." or ".." in any spelling: "%2e" is "." too. */
static bool is_dots(const char *segment, size_t len)
{
    size_t dots = 0;
    for (size_t i = 0; i < len; dots++) {
        if (segment[i] == '.') {
            i++;
        } else if (len - i > 2 && strncasecmp(segment + i, "%2e", 3) == 0) {
            i += 3;
        } else {
            return false;
        }
    }
    return dots == 1 || dots == 2;
}

const char *gate_path(const char *path)
{
    if (path[0] != '/') {
        return "the request target must begin with a slash";
    }
    const char *wrong = check_encoded(path, strlen(path));
    for (const char *segment = path + 1; wrong == NULL && *segment != '\0';) {
        size_t len = strcspn(segment, "/");
        if (len == 0) {
            wrong = "the path holds an empty segment";
        } else if (is_dots(segment, len)) {
            wrong = "the path holds a \".\" or \"..\" segment";
        }
        segment += len;
        segment += *segment == '/';
    }
    return wrong;
}

const char *gate_query(const char *query)
{
    return check_encoded(query, strlen(query));
}

bool gate_method(const char *method)
{
    size_t len = strlen(method);
    for (size_t i = 0; i < len; i++) {
        if (!is_token_char((unsigned char)method[i])) {
            return false;
        }
    }
    return len >= 1 && len <= 32;
}

static bool name_is(const char *name, size_t len, const char *want)
{
    return strlen(want) == len && strncasecmp(name, want, len) == 0;
}

/* Digits only: "+25", "2 5" and "25,25" have two readings. */
static void take_length(struct gate_headers *headers, const char *value, size_t len)
{
    headers->lengths++;
    headers->length = 0;
    bool ok = len > 0;
    for (size_t i = 0; i < len && ok; i++) {
        uint64_t digit = (uint64_t)(value[i] - '0');
        ok = value[i] >= '0' && value[i] <= '9' &&
             !__builtin_mul_overflow(headers->length, 10, &headers->length) &&
             !__builtin_add_overflow(headers->length, digit, &headers->length);
    }
    if (!ok) {
        headers->wrong = "Content-Length is not a whole number";
    }
}

void gate_header(struct gate_headers *headers, const char *name, size_t name_len, const char *value,
                 size_t value_len)
{
    headers->n++;
    for (size_t i = 0; i < name_len; i++) {
        if (!is_token_char((unsigned char)name[i])) {
            headers->wrong = "a header name holds a byte that is not allowed there";
        }
    }
    if (name_len == 0) {
        headers->wrong = "a header has no name";
    }
    for (size_t i = 0; i < value_len; i++) {
        if (is_control((unsigned char)value[i]) && value[i] != '\t') {
            headers->wrong = "a header value holds a control byte";
        }
    }
    if (name_is(name, name_len, "host")) {
        headers->hosts++;
    } else if (name_is(name, name_len, "content-length")) {
        take_length(headers, value, value_len);
    } else if (name_is(name, name_len, "transfer-encoding")) {
        headers->encodings++;
        headers->chunked = name_is(value, value_len, "chunked");
    }
}

const char *gate_finish(const struct gate_headers *headers, const char *version)
{
    if (headers->wrong != NULL) {
        return headers->wrong;
    }
    if (headers->hosts > 1) {
        return "there is more than one Host header";
    }
    if (headers->hosts == 0 && strcmp(version, "HTTP/1.1") == 0) {
        return "there is no Host header";
    }
    if (headers->lengths > 1) {
        return "there is more than one Content-Length header";
    }
    if (headers->encodings > 1 || (headers->encodings == 1 && !headers->chunked)) {
        return "Transfer-Encoding must be \"chunked\", once";
    }
    if (headers->encodings > 0 && headers->lengths > 0) {
        return "there are both Content-Length and Transfer-Encoding";
    }
    if (headers->encodings > 0 && strcmp(version, "HTTP/1.1") != 0) {
        return "Transfer-Encoding needs HTTP/1.1";
    }
    return NULL;
}

bool gate_request_id(const char *id)
{
    size_t len = strlen(id);
    for (size_t i = 0; i < len; i++) {
        bool plain = (id[i] >= '0' && id[i] <= '9') || (id[i] >= 'a' && id[i] <= 'z') ||
                     (id[i] >= 'A' && id[i] <= 'Z') || id[i] == '-' || id[i] == '_' || id[i] == '.';
        if (!plain) {
            return false;
        }
    }
    return len >= 1 && len <= 64;
}
