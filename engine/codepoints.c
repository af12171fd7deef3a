/* codepoints.c: walking texts by code point, on the decoder of utf8.h. */
#include "engine/codepoints.h"

#include "engine/utf8.h"

int32_t cp_next(eng_text text, size_t *at)
{
    uint32_t cp = 0;
    size_t bytes = utf8_decode((const unsigned char *)text.data + *at, text.len - *at, &cp);
    *at += bytes;
    return bytes > 0 ? (int32_t)cp : -1;
}

size_t cp_valid_prefix(eng_text text)
{
    size_t at = 0;
    while (at < text.len && cp_next(text, &at) >= 0) {
    }
    return at;
}

size_t cp_count(eng_text text)
{
    size_t n = 0;
    for (size_t i = 0; i < text.len; i++) {
        n += ((unsigned char)text.data[i] & 0xC0) != 0x80;
    }
    return n;
}

size_t cp_offset(eng_text text, size_t n)
{
    size_t i = 0;
    for (; i < text.len; i++) {
        if (((unsigned char)text.data[i] & 0xC0) != 0x80 && n-- == 0) {
            break;
        }
    }
    return i;
}

size_t cp_fit(eng_text text, size_t most)
{
    if (text.len <= most) {
        return text.len;
    }
    while (most > 0 && ((unsigned char)text.data[most] & 0xC0) == 0x80) {
        most--;
    }
    return most;
}
