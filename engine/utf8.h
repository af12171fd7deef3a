/* utf8.h (private): strict UTF-8 decoding. Pure functions, any thread. */
#ifndef ENGINE_UTF8_H
#define ENGINE_UTF8_H

#include <stddef.h>
#include <stdint.h>

static inline size_t utf8_tail(const unsigned char *s, size_t left, size_t tail, uint32_t low,
                               uint32_t *code_point)
{
    if (left <= tail) {
        return 0;
    }
    uint32_t c = *code_point;
    for (size_t i = 1; i <= tail; i++) {
        if ((s[i] & 0xC0) != 0x80) {
            return 0;
        }
        c = c << 6 | (s[i] & 0x3Fu);
    }
    if (c < low || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) {
        return 0;
    }
    *code_point = c;
    return tail + 1;
}

/* Decodes the code point at s[0 .. left). Returns its bytes, 0 when s does not begin with one
 * (truncated, overlong, a surrogate, beyond U+10FFFF). left > 0. */
static inline size_t utf8_decode(const unsigned char *s, size_t left, uint32_t *code_point)
{
    unsigned char lead = s[0];
    if (lead < 0x80) {
        *code_point = lead;
        return 1;
    }
    if (lead >= 0xE0 && lead < 0xF0) {
        *code_point = lead & 0x0Fu;
        return utf8_tail(s, left, 2, 0x800, code_point);
    }
    if (lead >= 0xC2 && lead < 0xE0) {
        *code_point = lead & 0x1Fu;
        return utf8_tail(s, left, 1, 0x80, code_point);
    }
    if (lead >= 0xF0 && lead < 0xF5) {
        *code_point = lead & 0x07u;
        return utf8_tail(s, left, 3, 0x10000, code_point);
    }
    return 0;
}

/* Writes code_point (a scalar value) to out[0 .. 4); returns its bytes. */
static inline size_t utf8_encode(uint32_t code_point, unsigned char *out)
{
    if (code_point < 0x80) {
        out[0] = (unsigned char)code_point;
        return 1;
    }
    if (code_point < 0x800) {
        out[0] = (unsigned char)(0xC0 | code_point >> 6);
        out[1] = (unsigned char)(0x80 | (code_point & 0x3F));
        return 2;
    }
    if (code_point < 0x10000) {
        out[0] = (unsigned char)(0xE0 | code_point >> 12);
        out[1] = (unsigned char)(0x80 | (code_point >> 6 & 0x3F));
        out[2] = (unsigned char)(0x80 | (code_point & 0x3F));
        return 3;
    }
    out[0] = (unsigned char)(0xF0 | code_point >> 18);
    out[1] = (unsigned char)(0x80 | (code_point >> 12 & 0x3F));
    out[2] = (unsigned char)(0x80 | (code_point >> 6 & 0x3F));
    out[3] = (unsigned char)(0x80 | (code_point & 0x3F));
    return 4;
}

#endif
