/* codepoints.h (private): UTF-8 counted in Unicode code points. Pure functions, any thread. */
#ifndef ENGINE_CODEPOINTS_H
#define ENGINE_CODEPOINTS_H

#include "engine/engine.h"

/* The code point at text.data[*at]; moves *at behind it. -1 (and *at unmoved) when the bytes there
 * are not UTF-8 (truncated, overlong, surrogate, beyond U+10FFFF). *at < text.len. */
int32_t cp_next(eng_text text, size_t *at);
/* Bytes of the longest valid prefix: text.len when all of it is UTF-8. */
size_t cp_valid_prefix(eng_text text);
/* Code points of a valid text. */
size_t cp_count(eng_text text);
/* Byte offset of code point `n` of a valid text; text.len when there are fewer. */
size_t cp_offset(eng_text text, size_t n);
/* Bytes of `text` that fit `most` bytes without cutting a character. */
size_t cp_fit(eng_text text, size_t most);

#endif
