/* fuzz_multipart.c: any body, in pieces of any size, gives the same parts as in one piece. The first
 * byte of the input chooses the size of the pieces; the boundary is "b". */
#include "server/multipart.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct seen {
    uint64_t hash;
    size_t begun, ended, bytes;
};

static void mix(struct seen *seen, const void *data, size_t len)
{
    const unsigned char *at = data;
    for (size_t i = 0; i < len; i++) {
        seen->hash = (seen->hash ^ at[i]) * 1099511628211u;
    }
}

static bool begin(void *arg, const struct multipart_part *part)
{
    struct seen *seen = arg;
    seen->begun++;
    mix(seen, part->name, strlen(part->name) + 1);
    mix(seen, part->filename, strlen(part->filename) + 1);
    return true;
}

static bool data(void *arg, const char *bytes, size_t len)
{
    struct seen *seen = arg;
    seen->bytes += len;
    mix(seen, bytes, len);
    return true;
}

static bool end(void *arg)
{
    ((struct seen *)arg)->ended++;
    return true;
}

static struct seen parse(const char *bytes, size_t len, size_t piece)
{
    static const struct multipart_sink sink = {begin, data, end};
    struct seen seen = {.hash = 14695981039346656037u};
    char why[256];
    struct multipart *form =
        multipart_new("multipart/form-data; boundary=b", &sink, &seen, why, sizeof why);
    if (form == NULL) {
        abort();
    }
    for (size_t i = 0; i < len; i += piece) {
        size_t n = len - i < piece ? len - i : piece;
        char *copy = malloc(n); /* so that reading past a piece is seen */
        if (copy == NULL) {
            abort();
        }
        memcpy(copy, bytes + i, n);
        bool ok = multipart_feed(form, copy, n, why, sizeof why);
        free(copy);
        if (!ok) {
            mix(&seen, "failed", 6);
            break;
        }
    }
    if (multipart_complete(form)) {
        mix(&seen, "complete", 8);
    }
    multipart_free(form);
    return seen;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    char why[256], type[256];
    if (size < 1) {
        return 0;
    }
    const char *bytes = (const char *)input + 1;
    struct seen whole = parse(bytes, size - 1, size);
    struct seen pieces = parse(bytes, size - 1, (size_t)input[0] % 16 + 1);
    if (whole.begun != pieces.begun || whole.ended > whole.begun) {
        abort();
    }
    /* A failing body may have given less of its last part before the failure was seen. */
    if (whole.hash != pieces.hash && whole.bytes == pieces.bytes) {
        abort();
    }
    size_t n = size - 1 < sizeof type - 1 ? size - 1 : sizeof type - 1;
    memcpy(type, bytes, n);
    type[n] = '\0';
    multipart_free(
        multipart_new(type, &(struct multipart_sink){begin, data, end}, &whole, why, sizeof why));
    return 0;
}
