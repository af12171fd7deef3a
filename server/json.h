/* json.h: reading and writing JSON with the limits that jansson lacks, and errors that point.
 *
 * Threads.   Pure functions; a `struct problems` belongs to one thread.
 */
#ifndef SERVER_JSON_H
#define SERVER_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSON_MAX_DEPTH 32

/* ---- what is wrong with an input, in full ------------------------------------------------------ */

#define MAX_PROBLEMS 16

struct problem {
    char pointer[160]; /* "#/inputs/3/text": RFC 6901 as a URI fragment */
    char detail[320];
};

struct problems {
    size_t count; /* all that were found; items holds the first MAX_PROBLEMS */
    struct problem items[MAX_PROBLEMS];
};

/* `base` is the pointer of the object ("#", "#/inputs/3"), `key` its member or NULL for itself. Keys
 * are escaped. */
void problem_add(struct problems *problems, const char *base, const char *key, const char *format,
                 ...) __attribute__((format(printf, 4, 5)));

/* ---- parsing ----------------------------------------------------------------------------------- */

struct json_limits {
    size_t max_bytes;
    size_t max_depth;
    size_t max_tokens; /* brackets, commas and colons outside strings */
};

/* One pass over the bytes: size, depth, tokens. False: `why` names the limit and what was found. */
bool json_scan(const char *bytes, size_t len, const struct json_limits *limits, char *why,
               size_t size);
/* Scan, then strict parse: duplicates, NUL, invalid UTF-8, lone surrogates and trailing bytes are
 * refused. NULL: `why` says what and where, never echoing the input; it is empty when memory ran out. */
json_t *json_parse(const char *bytes, size_t len, const struct json_limits *limits, char *why,
                   size_t size);

/* What the database holds as JSON text. NULL: absent, damaged, or out of memory. */
json_t *json_stored(const char *text);

/* ---- getters: absent, null, wrong type and out of bounds become problems -------------------------- */

enum json_need { JSON_OPTIONAL_FIELD, JSON_REQUIRED_FIELD };

/* Each returns true when *out was set; an absent optional field leaves *out alone. Outputs are
 * borrowed from the object. Lengths in bytes, bounds inclusive. */
bool json_get_string(const json_t *object, const char *base, const char *key, enum json_need need,
                     size_t min, size_t max, const char **out, struct problems *problems);
bool json_get_u64(const json_t *object, const char *base, const char *key, enum json_need need,
                  uint64_t min, uint64_t max, uint64_t *out, struct problems *problems);
bool json_get_double(const json_t *object, const char *base, const char *key, enum json_need need,
                     double min, double max, double *out, struct problems *problems);
bool json_get_bool(const json_t *object, const char *base, const char *key, enum json_need need,
                   bool *out, struct problems *problems);
bool json_get_array(const json_t *object, const char *base, const char *key, enum json_need need,
                    size_t min, size_t max, json_t **out, struct problems *problems);
bool json_get_object(const json_t *object, const char *base, const char *key, enum json_need need,
                     json_t **out, struct problems *problems);
/* One of `words` (NULL-terminated); *out is its index. */
bool json_get_choice(const json_t *object, const char *base, const char *key, enum json_need need,
                     const char *const *words, size_t *out, struct problems *problems);
/* Every member that is not in `known` (NULL-terminated) becomes a problem naming the known ones. */
void json_only(const json_t *object, const char *base, const char *const *known,
               struct problems *problems);
/* "array", "string", "whole number", … */
const char *json_type_word(const json_t *value);

/* ---- writing --------------------------------------------------------------------------------------- */

/* Compact text, floats with 9 digits; malloc'ed by jansson (free with free). NULL: out of memory. */
char *json_text(const json_t *value, size_t *len);
/* object[key] = value; takes `value`; false when anything is NULL or memory is out. Chains with &&. */
bool json_put(json_t *object, const char *key, json_t *value);
/* An array of n numbers. NULL: out of memory. */
json_t *json_floats(const float *numbers, size_t n);
/* A string, or null when text is NULL. */
json_t *json_text_or_null(const char *text);
/* Seconds since 1970 of a store time; null for 0. */
json_t *json_seconds(int64_t ms);

#endif
