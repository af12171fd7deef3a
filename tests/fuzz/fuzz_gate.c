/* fuzz_gate.c: the gate and the search in the table of endpoints. The first line of the input is the
 * target, the rest header lines. A path that is let in must decode to UTF-8 without control bytes, and
 * none of its segments to "." or "..".
 */
#include "server/endpoints.h"
#include "server/gate.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_segment(const char *segment, size_t len)
{
    char *out = malloc(len + 1);
    size_t n = 0;
    if (out == NULL) {
        return;
    }
    if (!percent_decode(segment, len, false, out, &n) || !utf8_valid(out, n) || strlen(out) != n ||
        strcmp(out, ".") == 0 || strcmp(out, "..") == 0) {
        abort();
    }
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)out[i] < 0x20 || out[i] == 0x7F) {
            abort();
        }
    }
    free(out);
}

static void check_path(const char *path)
{
    struct endpoint_match match;
    if (gate_path(path) != NULL) {
        return;
    }
    for (const char *at = path + 1; *at != '\0';) {
        size_t len = strcspn(at, "/");
        check_segment(at, len);
        at += len + (at[len] == '/');
    }
    endpoint_find("GET", path, &match);
    for (size_t i = 0; i < match.n_params; i++) {
        check_segment(match.params[i].raw, match.params[i].raw_len);
    }
}

static void check_headers(const char *text)
{
    struct gate_headers headers = {0};
    while (*text != '\0') {
        size_t len = strcspn(text, "\n");
        size_t name = strcspn(text, ":\n");
        size_t value = name < len ? name + 1 : len;
        gate_header(&headers, text, name, text + value, len - value);
        text += len + (text[len] == '\n');
    }
    if (gate_finish(&headers, "HTTP/1.1") == NULL &&
        (headers.hosts != 1 || headers.lengths + headers.encodings > 1)) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    if (text == NULL) {
        return 0;
    }
    memcpy(text, data, size);
    text[size] = '\0';
    char *line = strchr(text, '\n');
    if (line != NULL) {
        *line = '\0';
        check_headers(line + 1);
    }
    char *query = strchr(text, '?');
    if (query != NULL) {
        *query = '\0';
        gate_query(query + 1);
    }
    check_path(text);
    free(text);
    return 0;
}
