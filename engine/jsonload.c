/* jsonload.c: the scan in front of jansson. It needs no grammar: strings are skipped (with their
 * escapes), the six structural characters outside them are counted; jansson checks the rest. */
#include "engine/jsonload.h"

#include "engine/mapfile.h"
#include "engine/status.h"

#include <errno.h>
#include <string.h>

#define JSON_DEPTH_MOST 64

/* Index just behind the string that opens at text[i] == '"'. */
static size_t skip_string(const char *text, size_t len, size_t i)
{
    for (i++; i < len && text[i] != '"'; i++) {
        if (text[i] == '\\') {
            i++;
        }
    }
    return i + 1;
}

static eng_status scan(const char *text, size_t len, const char *what,
                       const struct json_limits *limits, eng_error *err)
{
    size_t depth_limit = limits->depth < JSON_DEPTH_MOST ? limits->depth : JSON_DEPTH_MOST;
    size_t depth = 0, tokens = 0;
    for (size_t i = 0; i < len;) {
        if (text[i] == '"') {
            i = skip_string(text, len, i);
            continue;
        }
        if (text[i] != '\0' && strchr("{}[]:,", text[i]) != NULL) {
            tokens++;
        }
        if (text[i] == '{' || text[i] == '[') {
            depth++;
        } else if ((text[i] == '}' || text[i] == ']') && depth > 0) {
            depth--;
        }
        if (depth > depth_limit) {
            return fail(err, ENG_ELIMIT, what, "%s: JSON nested deeper than %zu at byte %zu", what,
                        depth_limit, i);
        }
        if (tokens > limits->tokens) {
            return fail(err, ENG_ELIMIT, what, "%s: JSON of more than %zu structural tokens", what,
                        limits->tokens);
        }
        i++;
    }
    return ENG_OK;
}

eng_status json_load_limited(const char *text, size_t len, const char *what,
                             const struct json_limits *limits, json_t **out, eng_error *err)
{
    *out = NULL;
    if (len > limits->bytes) {
        return fail(err, ENG_ELIMIT, what, "%s: JSON of %zu bytes, at most %zu are read", what, len,
                    limits->bytes);
    }
    eng_status status = scan(text, len, what, limits, err);
    if (status != ENG_OK) {
        return status;
    }
    json_error_t error;
    /* jansson's scanner does not look whether its own allocations worked, and what it then makes of the
     * text can be anything. errno tells, unless a number came later. */
    errno = 0;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
    if (errno == ENOMEM || (root == NULL && error.text[0] == '\0')) {
        json_decref(root);
        return fail_nomem(err, what);
    }
    if (root == NULL) {
        char *near = strstr(error.text, " near '"); /* do not echo the input */
        if (near != NULL) {
            *near = '\0';
        }
        return fail(err, ENG_EFORMAT, what, "%s: not valid JSON at line %d, column %d: %s", what,
                    error.line, error.column, error.text);
    }
    *out = root;
    return ENG_OK;
}

eng_status json_load_file_limited(const char *path, const struct json_limits *limits, json_t **out,
                                  eng_error *err)
{
    *out = NULL;
    struct mapfile map;
    eng_status status = mapfile_open(path, limits->bytes, &map, err);
    if (status != ENG_OK) {
        return status;
    }
    const char *text = (const char *)mapfile_slice(&map, 0, map.size);
    status = json_load_limited(text, map.size, path, limits, out, err);
    mapfile_close(&map);
    return status;
}
