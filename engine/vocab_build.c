/* vocab_build.c: a vocabulary of characters, counted in text files.
 *
 *   [PAD] [unused1] … [unused99] [UNK] [CLS] [SEP] [MASK]   a … z 0 … 9   ##a … ##z ##0 … ##9
 *   then the characters of the files by falling count (ties by code point); a letter outside Latin also
 *   with ##, so that words of its script can be spelt.
 * Characters are counted as the tokenizer will see them: decomposed, marks stripped, lower case.
 */
#include "engine/chars.h"
#include "engine/mapfile.h"
#include "engine/newfile.h"
#include "engine/status.h"
#include "engine/tokenizer.h"
#include "engine/utf8.h"

#include <stdlib.h>
#include <string.h>

#define CODE_POINTS ((size_t)0x110000)
#define UNUSED      99

struct counted {
    uint32_t c;
    uint64_t count;
};

struct writer {
    struct newfile file;
    size_t written, size;
};

static void count_char(uint64_t *counts, uint32_t c)
{
    uint32_t parts[CHARS_MAX_DECOMPOSED], lower[CHARS_MAX_LOWER];
    if (chars_is_dropped(c) || chars_is_space(c)) {
        return;
    }
    size_t n = chars_decompose(c, parts);
    for (size_t i = 0; i < n; i++) {
        size_t m = chars_is_mark(parts[i]) ? 0 : chars_lower(parts[i], lower);
        for (size_t j = 0; j < m; j++) {
            counts[lower[j]]++;
        }
    }
}

static eng_status count_file(uint64_t *counts, const char *path, eng_error *err)
{
    struct mapfile map = {.fd = -1};
    eng_status status = mapfile_open(path, 0, &map, err);
    for (size_t at = 0; status == ENG_OK && at < map.size;) {
        uint32_t c = 0;
        size_t bytes = utf8_decode(map.data + at, map.size - at, &c);
        if (bytes == 0) {
            status = fail(err, ENG_EFORMAT, "text", "%s: not UTF-8 at byte %zu", path, at);
            break;
        }
        count_char(counts, c);
        at += bytes;
    }
    mapfile_close(&map);
    return status;
}

static bool is_basic(uint32_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static int by_count(const void *a, const void *b)
{
    const struct counted *x = a, *y = b;
    if (x->count != y->count) {
        return x->count < y->count ? 1 : -1;
    }
    return (x->c > y->c) - (x->c < y->c);
}

static eng_status put(struct writer *writer, const char *prefix, const char *token, eng_error *err)
{
    char line[64];
    if (writer->written == writer->size) {
        return ENG_OK;
    }
    int len = snprintf(line, sizeof line, "%s%s\n", prefix, token);
    writer->written++;
    return newfile_write(&writer->file, line, (size_t)len, err);
}

static eng_status put_fixed(struct writer *writer, eng_error *err)
{
    static const char *const special[] = {"[UNK]", "[CLS]", "[SEP]", "[MASK]"};
    static const char basic[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    eng_status status = put(writer, "", "[PAD]", err);
    for (int i = 1; status == ENG_OK && i <= UNUSED; i++) {
        char token[16];
        snprintf(token, sizeof token, "[unused%d]", i);
        status = put(writer, "", token, err);
    }
    for (size_t i = 0; status == ENG_OK && i < sizeof special / sizeof special[0]; i++) {
        status = put(writer, "", special[i], err);
    }
    for (size_t i = 0; status == ENG_OK && i < 2 * (sizeof basic - 1); i++) {
        char token[2] = {basic[i % (sizeof basic - 1)], '\0'};
        status = put(writer, i < sizeof basic - 1 ? "" : "##", token, err);
    }
    return status;
}

static eng_status put_counted(struct writer *writer, const struct counted *list, size_t n,
                              eng_error *err)
{
    eng_status status = ENG_OK;
    for (size_t i = 0; status == ENG_OK && i < n; i++) {
        unsigned char token[5] = {0};
        utf8_encode(list[i].c, token);
        status = put(writer, "", (const char *)token, err);
        if (status == ENG_OK && !chars_is_cjk(list[i].c) && !chars_is_punctuation(list[i].c)) {
            status = put(writer, "##", (const char *)token, err);
        }
    }
    return status;
}

/* The characters to list, most frequent first. *out is malloc'ed. */
static eng_status rank(const uint64_t *counts, uint64_t min_count, struct counted **out, size_t *n,
                       eng_error *err)
{
    size_t kept = 0;
    for (size_t c = 0; c < CODE_POINTS; c++) {
        kept += counts[c] >= min_count && counts[c] > 0 && !is_basic((uint32_t)c) ? 1 : 0;
    }
    *n = 0;
    *out = calloc(kept + 1, sizeof **out);
    if (*out == NULL) {
        return fail_nomem(err, "text");
    }
    for (size_t c = 0; c < CODE_POINTS; c++) {
        if (counts[c] >= min_count && counts[c] > 0 && !is_basic((uint32_t)c)) {
            (*out)[(*n)++] = (struct counted){(uint32_t)c, counts[c]};
        }
    }
    qsort(*out, *n, sizeof **out, by_count);
    return ENG_OK;
}

static eng_status write_vocab(const char *to, const struct counted *list, size_t n, size_t size,
                              size_t *written, eng_error *err)
{
    struct writer writer = {.size = size};
    eng_status status = newfile_begin(to, &writer.file, err);
    if (status != ENG_OK) {
        return status;
    }
    status = put_fixed(&writer, err);
    if (status == ENG_OK) {
        status = put_counted(&writer, list, n, err);
    }
    if (status != ENG_OK) {
        newfile_abandon(&writer.file);
        return status;
    }
    *written = writer.written;
    return newfile_commit(&writer.file, false, err);
}

eng_status eng_build_vocab(const char *const *files, size_t n, size_t size, size_t min_count,
                           const char *to, size_t *written, eng_error *err)
{
    struct counted *list = NULL;
    size_t n_list = 0;
    *written = 0;
    if (n == 0 || size < ENG_MIN_VOCAB || size > TOKENIZER_MAX_TOKENS) {
        return fail(err, ENG_EINVAL, n == 0 ? "text" : "size",
                    "%zu text files, %zu tokens; wanted at least one file and %d to %zu tokens", n,
                    size, ENG_MIN_VOCAB, TOKENIZER_MAX_TOKENS);
    }
    uint64_t *counts = calloc(CODE_POINTS, sizeof *counts);
    eng_status status = counts != NULL ? ENG_OK : fail_nomem(err, "text");
    for (size_t f = 0; status == ENG_OK && f < n; f++) {
        status = count_file(counts, files[f], err);
    }
    if (status == ENG_OK) {
        status = rank(counts, min_count, &list, &n_list, err);
    }
    if (status == ENG_OK) {
        status = write_vocab(to, list, n_list, size, written, err);
    }
    free(counts);
    free(list);
    return status;
}
