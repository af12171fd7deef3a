/* textout.h: writes text directly, JSON above all, for answers with many numbers.
 *
 * A failed allocation, or text beyond the maximum, is remembered: check `failed` once at the end.
 * Threads. A struct text_out belongs to one thread at a time.
 */
#ifndef SERVER_TEXTOUT_H
#define SERVER_TEXTOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct text_out {
    char *data; /* malloc'ed; take it or free it */
    size_t len, room, max;
    bool failed;
};

void text_init(struct text_out *out, size_t max);
void text_put(struct text_out *out, const char *bytes, size_t len);
void text_puts(struct text_out *out, const char *string);
/* `len` bytes from offset `at` of what is there already, once more. */
void text_again(struct text_out *out, size_t at, size_t len);
/* Quoted and escaped; the bytes are valid UTF-8. */
void text_string(struct text_out *out, const char *bytes, size_t len);
/* Nine digits, enough to read a float back as it was; null when not finite. */
void text_number(struct text_out *out, double value);
void text_integer(struct text_out *out, int64_t value);

#endif
