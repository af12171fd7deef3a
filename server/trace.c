/* trace.c: reading a traceparent (https://www.w3.org/TR/trace-context/, section 3.2). */
#include "server/trace.h"

#include <sodium.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* `n` lower-case hex digits at `text`; `some`: not all of them 0. */
static bool is_hex(const char *text, size_t n, bool some)
{
    return strspn(text, "0123456789abcdef") >= n && (!some || strspn(text, "0") < n);
}

static bool is_valid(const char *text)
{
    size_t len = strlen(text);
    if (len < TRACE_CHARS || text[2] != '-' || text[35] != '-' || text[52] != '-' ||
        !is_hex(text, 2, false) || strncmp(text, "ff", 2) == 0 || !is_hex(text + 3, 32, true) ||
        !is_hex(text + 36, 16, true) || !is_hex(text + 53, 2, false)) {
        return false;
    }
    /* Later versions may say more behind what is known. */
    return len == TRACE_CHARS || (strncmp(text, "00", 2) != 0 && text[TRACE_CHARS] == '-');
}

bool trace_answer(const char *traceparent, char out[TRACE_CHARS + 1])
{
    unsigned char bytes[8];
    char parent[2 * sizeof bytes + 1];
    out[0] = '\0';
    if (traceparent == NULL || !is_valid(traceparent)) {
        return false;
    }
    randombytes_buf(bytes, sizeof bytes);
    bytes[0] |= 1; /* never all zero */
    sodium_bin2hex(parent, sizeof parent, bytes, sizeof bytes);
    snprintf(out, TRACE_CHARS + 1, "00-%.32s-%.16s-%.2s", traceparent + 3, parent,
             traceparent + 53);
    return true;
}
