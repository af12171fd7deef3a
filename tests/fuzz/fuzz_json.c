/* fuzz_json.c: the pre-scan and the parser behind it. What passes both must be within the limits, and
 * print as text that passes again.
 */
#include "server/json.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t depth_of(const json_t *value)
{
    size_t deepest = 0, i;
    const char *key;
    json_t *item;
    if (json_is_object(value)) {
        json_object_foreach((json_t *)value, key, item)
        {
            size_t depth = depth_of(item);
            deepest = depth > deepest ? depth : deepest;
        }
    } else if (json_is_array(value)) {
        json_array_foreach(value, i, item)
        {
            size_t depth = depth_of(item);
            deepest = depth > deepest ? depth : deepest;
        }
    } else {
        return 0;
    }
    return deepest + 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct json_limits limits = {1 << 16, JSON_MAX_DEPTH, 2000};
    static const char *const known[] = {"a", "name", NULL};
    char why[256];
    json_t *value = json_parse((const char *)data, size, &limits, why, sizeof why);
    if (value == NULL) {
        return 0;
    }
    if (depth_of(value) > JSON_MAX_DEPTH) {
        abort();
    }
    struct problems problems = {0};
    const char *text = NULL;
    uint64_t number = 0;
    json_only(value, "#", known, &problems);
    json_get_string(value, "#", "a", JSON_REQUIRED_FIELD, 1, 3, &text, &problems);
    json_get_u64(value, "#", "a", JSON_OPTIONAL_FIELD, 1, 3, &number, &problems);
    size_t len = 0;
    char *again = json_text(value, &len);
    json_t *second = again != NULL ? json_loadb(again, len, JSON_REJECT_DUPLICATES, NULL) : NULL;
    if (second == NULL) {
        abort();
    }
    json_decref(second);
    free(again);
    json_decref(value);
    return 0;
}
