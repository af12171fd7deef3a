/* jsonload.h (private): JSON from a file or a caller, bounded before it is parsed.
 *
 * jansson builds a value of 16 to 75 times the text, and recurses by depth. So the text is scanned
 * first: its depth and its structural tokens ({ } [ ] : ,) are counted against limits, in one pass and
 * without memory. Duplicate keys, NUL characters and trailing text are refused. Any thread.
 */
#ifndef ENGINE_JSONLOAD_H
#define ENGINE_JSONLOAD_H

#include "engine/engine.h"

#include <jansson.h>

struct json_limits {
    size_t bytes;  /* of the text */
    size_t depth;  /* of nested objects and arrays; at most 64 */
    size_t tokens; /* structural tokens */
};

/* Parses `len` bytes at `text`. `what` names the text in errors ("model/config.json"). The caller owns
 * *out (json_decref). ENG_ELIMIT names the limit; ENG_EFORMAT the line and column. */
ENG_MUST_CHECK eng_status json_load_limited(const char *text, size_t len, const char *what,
                                            const struct json_limits *limits, json_t **out,
                                            eng_error *err);
/* The same from a file. */
ENG_MUST_CHECK eng_status json_load_file_limited(const char *path, const struct json_limits *limits,
                                                 json_t **out, eng_error *err);

#endif
