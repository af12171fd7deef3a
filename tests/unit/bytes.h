/* bytes.h: files put together byte by byte for the tests of the readers.
 *
 * A struct bytes grows as it is written. hostile() hands a reader an exact-size copy, so that the
 * address sanitizer sees a read one byte too far.
 */
#ifndef TESTS_UNIT_BYTES_H
#define TESTS_UNIT_BYTES_H

#include "engine/weights.h"
#include "tests/unit/test.h"

#include <sys/stat.h>
#include <unistd.h>

struct bytes {
    unsigned char *data;
    size_t n, room;
};

static inline void put(struct bytes *b, const void *data, size_t n)
{
    if (b->n + n > b->room) {
        b->room = 2 * (b->n + n) + 256;
        b->data = realloc(b->data, b->room);
        if (b->data == NULL) {
            abort();
        }
    }
    if (n > 0) {
        memcpy(b->data + b->n, data, n);
    }
    b->n += n;
}

static inline void put_text(struct bytes *b, const char *text)
{
    put(b, text, strlen(text));
}

/* `n` little-endian bytes of a number. */
static inline void put_number(struct bytes *b, uint64_t value, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)(i < 8 ? value >> (8 * i) : 0);
        put(b, &byte, 1);
    }
}

static inline void put_repeated(struct bytes *b, char value, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        put(b, &value, 1);
    }
}

static inline void bytes_fini(struct bytes *b)
{
    free(b->data);
    *b = (struct bytes){0};
}

static inline struct bytes read_whole(const char *path)
{
    struct bytes b = {0};
    FILE *file = fopen(path, "rb");
    char chunk[4096];
    for (size_t n; file != NULL && (n = fread(chunk, 1, sizeof chunk, file)) > 0;) {
        put(&b, chunk, n);
    }
    if (file != NULL) {
        fclose(file);
    }
    return b;
}

static inline bool write_whole(const char *path, const void *data, size_t n)
{
    FILE *file = fopen(path, "wb");
    bool good = file != NULL && fwrite(data, 1, n, file) == n;
    return file != NULL && fclose(file) == 0 && good;
}

/* Opens the first n bytes as a file and looks at every value there is. */
static inline eng_status open_bytes(const unsigned char *data, size_t n, eng_error *err)
{
    struct weights *weights = NULL;
    unsigned char *copy = malloc(n > 0 ? n : 1);
    if (copy == NULL) {
        abort();
    }
    if (n > 0) {
        memcpy(copy, data, n);
    }
    *err = (eng_error){0};
    eng_status status = weights_open_memory(copy, n, "test file", &weights, err);
    volatile double sum = 0; /* so that the reads happen */
    for (size_t i = 0; status == ENG_OK && i < weights_count(weights); i++) {
        const struct tensor *tensor = weights_at(weights, i);
        const float *values = NULL;
        if (weights_f32(weights, tensor, &values, NULL) == ENG_OK) {
            for (size_t j = 0; j < tensor->count; j++) {
                sum = sum + (double)values[j];
            }
        }
    }
    weights_free(weights);
    free(copy);
    return status;
}

/* The bytes must be refused with this status and with these words in the text. */
static inline void refused(const char *what, const struct bytes *b, eng_status want,
                           const char *words)
{
    eng_error err;
    eng_status got = open_bytes(b->data, b->n, &err);
    if (got != want || strstr(err.text, words) == NULL) {
        TEST_FAIL_("%s: %s \"%s\", want %s with \"%s\"", what, eng_status_name(got), err.text,
                   eng_status_name(want), words);
    }
}

/* Every beginning of a good file is an error, never a crash. From `dense` on, only every step-th. */
static inline void truncated_everywhere(const char *path, size_t dense, size_t step)
{
    struct bytes b = read_whole(path);
    eng_error err;
    CHECK(b.n > 0 && open_bytes(b.data, b.n, &err) == ENG_OK);
    size_t opened = 0, silent = 0;
    for (size_t n = 0; n < b.n; n += n < dense ? 1 : step) {
        opened += open_bytes(b.data, n, &err) == ENG_OK;
        silent += err.text[0] == '\0';
    }
    CHECK_INT(opened, 0);
    CHECK_INT(silent, 0);
    bytes_fini(&b);
}

/* One changed byte anywhere is an error or other values, never a crash. */
static inline void flipped_everywhere(const char *path, size_t dense, size_t step)
{
    static const unsigned char masks[] = {0x01, 0x80, 0xFF};
    struct bytes b = read_whole(path);
    eng_error err;
    size_t refusals = 0;
    CHECK(b.n > 0);
    for (size_t i = 0; i < b.n; i += i < dense ? 1 : step) {
        for (size_t m = 0; m < sizeof masks; m++) {
            b.data[i] ^= masks[m];
            refusals += open_bytes(b.data, b.n, &err) != ENG_OK;
            b.data[i] ^= masks[m];
        }
    }
    CHECK(refusals > 0);
    bytes_fini(&b);
}

#endif
