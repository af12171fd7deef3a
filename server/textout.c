/* textout.c: growing JSON text. */
#include "server/textout.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void text_init(struct text_out *out, size_t max)
{
    *out = (struct text_out){.max = max};
}

static bool make_room(struct text_out *out, size_t more)
{
    if (out->failed || more > out->max - out->len) {
        out->failed = true;
        return false;
    }
    if (out->len + more <= out->room) {
        return true;
    }
    size_t room = out->room < 512 ? 512 : out->room * 2;
    room = room < out->len + more ? out->len + more : room;
    room = room > out->max ? out->max : room;
    char *data = realloc(out->data, room);
    if (data == NULL) {
        out->failed = true;
        return false;
    }
    out->data = data;
    out->room = room;
    return true;
}

void text_put(struct text_out *out, const char *bytes, size_t len)
{
    if (len > 0 && make_room(out, len)) {
        memcpy(out->data + out->len, bytes, len);
        out->len += len;
    }
}

void text_again(struct text_out *out, size_t at, size_t len)
{
    if (len > 0 && make_room(out, len)) {
        memcpy(out->data + out->len, out->data + at, len);
        out->len += len;
    }
}

void text_puts(struct text_out *out, const char *string)
{
    text_put(out, string, strlen(string));
}

static void put_escaped(struct text_out *out, unsigned char c)
{
    char escape[8];
    if (c == '"' || c == '\\') {
        snprintf(escape, sizeof escape, "\\%c", c);
    } else {
        snprintf(escape, sizeof escape, "\\u%04x", c);
    }
    text_puts(out, escape);
}

void text_string(struct text_out *out, const char *bytes, size_t len)
{
    size_t from = 0;
    text_put(out, "\"", 1);
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)bytes[i];
        if (c < 0x20 || c == '"' || c == '\\') {
            text_put(out, bytes + from, i - from);
            put_escaped(out, c);
            from = i + 1;
        }
    }
    text_put(out, bytes + from, len - from);
    text_put(out, "\"", 1);
}

void text_number(struct text_out *out, double value)
{
    char number[40];
    snprintf(number, sizeof number, "%.9g", value);
    text_puts(out, isfinite(value) ? number : "null");
}

void text_integer(struct text_out *out, int64_t value)
{
    char number[24];
    snprintf(number, sizeof number, "%" PRId64, value);
    text_puts(out, number);
}
