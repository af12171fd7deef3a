/* jsonload.c: the scan in front of jansson. It needs no grammar: strings are skipped (with their
 * escapes), the six structural characters outside them are counted; jansson checks the rest. */
#include "engine/jsonload.h"

#include "engine/mapfile.h"
#include "engine/status.h"

#include <pthread.h>
#include <stdlib.h>
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

/* ---- jansson when memory runs out ------------------------------------------------------------
 *
 * jansson 2.14's scanner does not look whether the buffer of the token at hand could grow: a byte is
 * lost, and a string that lost its closing quote is read, and written, past its end. So the scanner's
 * request is always met: json_read sets a block aside that is large enough for any token of this text,
 * and the hook hands it out when malloc fails. From then on the text ends: bytes are fed one at a
 * time, the next one is not there, and the parser gives up by itself without another byte to store. */

static _Thread_local struct {
    void *block; /* for the first failure; NULL: handed out */
    size_t size;
    bool ran_out;
} reserve;

static void *noted_malloc(size_t size)
{
    void *made = malloc(size);
    if (made == NULL) {
        reserve.ran_out = true;
        if (size <= reserve.size) {
            made = reserve.block;
            reserve.block = NULL;
            reserve.size = 0;
        }
    }
    return made;
}

static pthread_once_t hooked = PTHREAD_ONCE_INIT; /* by the first model, before there are threads */

static void hook(void)
{
    json_set_alloc_funcs(noted_malloc, free);
}

struct feed {
    const char *at, *end;
};

static size_t feed_byte(void *buffer, size_t size, void *arg)
{
    struct feed *feed = arg;
    if (size == 0 || feed->at == feed->end || reserve.ran_out) {
        return 0;
    }
    *(char *)buffer = *feed->at++;
    return 1;
}

static json_t *json_read(const char *text, size_t len, size_t flags, json_error_t *error,
                         bool *nomem)
{
    struct feed feed = {text, text + len};
    pthread_once(&hooked, hook);
    reserve.ran_out = false;
    reserve.size = 2 * len + 64; /* the scanner doubles its buffer */
    reserve.block = malloc(reserve.size);
    *nomem = reserve.block == NULL;
    if (*nomem) {
        reserve.size = 0;
        return NULL;
    }
    json_t *root = json_load_callback(feed_byte, &feed, JSON_REJECT_DUPLICATES | flags, error);
    free(reserve.block);
    reserve.block = NULL;
    reserve.size = 0;
    if (reserve.ran_out) {
        json_decref(root);
        root = NULL;
        *nomem = true;
    }
    return root;
}

json_t *eng_json_parse(const char *text, size_t len, size_t flags, eng_json_fault *fault)
{
    json_error_t error;
    bool nomem = false;
    json_t *root = json_read(text, len, flags, &error, &nomem);
    if (root == NULL) {
        *fault = (eng_json_fault){.nomem = nomem,
                                  .code = nomem ? 0 : (int)json_error_code(&error),
                                  .line = nomem ? 0 : error.line,
                                  .column = nomem ? 0 : error.column};
    }
    return root;
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
    bool nomem = false;
    json_t *root = json_read(text, len, 0, &error, &nomem);
    if (nomem) {
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
