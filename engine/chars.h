/* chars.h (private): what BERT's tokenizer does with a code point. Pure functions, any thread. */
#ifndef ENGINE_CHARS_H
#define ENGINE_CHARS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool chars_is_dropped(uint32_t c); /* NUL, U+FFFD, controls, formats, private use */
bool chars_is_space(uint32_t c);
bool chars_is_cjk(uint32_t c);         /* ideographs: each stands alone */
bool chars_is_mark(uint32_t c);        /* non-spacing marks (Mn), stripped as accents */
bool chars_is_punctuation(uint32_t c); /* every ASCII symbol, and category P */
uint8_t chars_combining_class(uint32_t c);

#define CHARS_MAX_DECOMPOSED 8
/* Canonical decomposition, not yet ordered. Returns how many code points (at least 1). */
size_t chars_decompose(uint32_t c, uint32_t out[CHARS_MAX_DECOMPOSED]);
#define CHARS_MAX_LOWER 2
/* Lower case without context (no final sigma). Returns how many code points, 1 or 2. */
size_t chars_lower(uint32_t c, uint32_t out[CHARS_MAX_LOWER]);

#endif
