/* vocab.c: reads a vocab.txt and finds tokens in it.
 *
 * One block holds the spellings; an open-addressing table at most half full maps a spelling to its id.
 * The slot keeps 32 bits of the hash, so that a miss (most look-ups of the longest-match search miss)
 * rarely touches the spellings.
 */
#include "engine/vocab.h"

#include <stdlib.h>
#include <string.h>

#include "engine/status.h"
#include "engine/tokenizer.h"
#include "engine/utf8.h"

struct vocab_slot {
    int32_t id; /* -1: empty */
    uint32_t tag;
};

/* FNV's low bits are weak for short keys: fold the high ones in. */
static uint64_t mix(uint64_t hash)
{
    hash ^= hash >> 32;
    hash *= 0xD6E8FEB86659FD93u;
    return hash ^ hash >> 32;
}

static bool is_continuation(const char *token, size_t len)
{
    return len > 2 && token[0] == '#' && token[1] == '#';
}

static uint64_t hash_bytes(bool continues, const char *bytes, size_t len)
{
    uint64_t hash = vocab_hash_start(continues);
    for (size_t i = 0; i < len; i++) {
        hash = vocab_hash_byte(hash, (unsigned char)bytes[i]);
    }
    return hash;
}

static bool slot_holds(const struct vocab *vocab, const struct vocab_slot *slot, bool continues,
                       const void *bytes, size_t len)
{
    size_t skip = continues ? 2 : 0;
    const char *token = vocab->strings + vocab->offsets[slot->id];
    size_t token_len = vocab->lens[slot->id];
    return token_len == len + skip && is_continuation(token, token_len) == continues &&
           memcmp(token + skip, bytes, len) == 0;
}

int32_t vocab_find(const struct vocab *vocab, uint64_t hash, bool continues, const void *bytes,
                   size_t len)
{
    uint64_t mixed = mix(hash);
    uint32_t tag = (uint32_t)(mixed >> 32);
    for (size_t i = (size_t)mixed & vocab->mask;; i = (i + 1) & vocab->mask) {
        const struct vocab_slot *slot = &vocab->slots[i];
        if (slot->id < 0) {
            return -1;
        }
        if (slot->tag == tag && slot_holds(vocab, slot, continues, bytes, len)) {
            return slot->id;
        }
    }
}

int32_t vocab_find_string(const struct vocab *vocab, const char *token, size_t len)
{
    bool continues = is_continuation(token, len);
    const char *bytes = continues ? token + 2 : token;
    size_t bytes_len = continues ? len - 2 : len;
    return vocab_find(vocab, hash_bytes(continues, bytes, bytes_len), continues, bytes, bytes_len);
}

static void insert(struct vocab *vocab, int32_t id)
{
    const char *token = vocab->strings + vocab->offsets[id];
    size_t len = vocab->lens[id];
    bool continues = is_continuation(token, len);
    size_t skip = continues ? 2 : 0;
    uint64_t mixed = mix(hash_bytes(continues, token + skip, len - skip));
    size_t i = (size_t)mixed & vocab->mask;
    while (vocab->slots[i].id >= 0) {
        i = (i + 1) & vocab->mask;
    }
    vocab->slots[i] = (struct vocab_slot){id, (uint32_t)(mixed >> 32)};
}

static size_t count_lines(eng_text text)
{
    size_t n = 0;
    for (size_t i = 0; i < text.len; i++) {
        n += text.data[i] == '\n';
    }
    return n + (text.len > 0 && text.data[text.len - 1] != '\n');
}

static eng_status allocate(struct vocab *vocab, size_t lines, size_t bytes, eng_error *err)
{
    size_t slots = 16;
    while (slots < 2 * lines) { /* lines <= TOKENIZER_MAX_TOKENS */
        slots *= 2;
    }
    vocab->mask = slots - 1;
    vocab->strings = malloc(bytes + lines + 1);
    vocab->offsets = malloc((lines + 1) * sizeof *vocab->offsets);
    vocab->lens = malloc((lines + 1) * sizeof *vocab->lens);
    vocab->slots = malloc(slots * sizeof *vocab->slots);
    if (vocab->strings == NULL || vocab->offsets == NULL || vocab->lens == NULL ||
        vocab->slots == NULL) {
        return fail_nomem(err, "vocab.txt");
    }
    for (size_t i = 0; i < slots; i++) {
        vocab->slots[i].id = -1;
    }
    return ENG_OK;
}

/* Code points of a token; ENG_EFORMAT when it is not text. */
static eng_status check_token(const char *token, size_t len, size_t line, size_t *characters,
                              eng_error *err)
{
    if (len > TOKENIZER_MAX_TOKEN_BYTES) {
        return fail(err, ENG_ELIMIT, "vocab.txt", "line %zu has %zu bytes, a token at most %d",
                    line, len, TOKENIZER_MAX_TOKEN_BYTES);
    }
    *characters = 0;
    for (size_t i = 0; i < len;) {
        uint32_t c;
        size_t size = utf8_decode((const unsigned char *)token + i, len - i, &c);
        if (size == 0 || c == 0 || c == '\r') {
            return fail(err, ENG_EFORMAT, "vocab.txt", "line %zu, byte %zu: %s", line, i + 1,
                        size == 0 ? "not UTF-8" : "a control character inside a token");
        }
        i += size;
        (*characters)++;
    }
    return ENG_OK;
}

static eng_status add(struct vocab *vocab, const char *token, size_t len, char **to, eng_error *err)
{
    size_t characters = 0, line = vocab->n + 1;
    eng_status status = check_token(token, len, line, &characters, err);
    if (status != ENG_OK) {
        return status;
    }
    int32_t twin = len > 0 ? vocab_find_string(vocab, token, len) : -1;
    if (twin >= 0) {
        return fail(err, ENG_EFORMAT, "vocab.txt", "lines %d and %zu hold the same token \"%.*s\"",
                    twin + 1, line, (int)(len < 64 ? len : 64), token);
    }
    vocab->offsets[vocab->n] = (uint32_t)(*to - vocab->strings);
    vocab->lens[vocab->n] = (uint32_t)len;
    memcpy(*to, token, len);
    (*to)[len] = '\0';
    *to += len + 1;
    vocab->n++;
    if (len > 0) { /* an empty line takes an id, as in Hugging Face, and is never found */
        insert(vocab, (int32_t)(vocab->n - 1));
        bool continues = is_continuation(token, len);
        size_t length = characters - (continues ? 2 : 0);
        if (length > vocab->longest[continues]) {
            vocab->longest[continues] = length;
        }
    }
    return ENG_OK;
}

static eng_status read_lines(struct vocab *vocab, eng_text text, eng_error *err)
{
    char *to = vocab->strings;
    for (size_t at = 0; at < text.len;) {
        const char *line = text.data + at;
        const char *newline = memchr(line, '\n', text.len - at);
        size_t len = newline != NULL ? (size_t)(newline - line) : text.len - at;
        at += len + 1;
        if (len > 0 && line[len - 1] == '\r') {
            len--;
        }
        eng_status status = add(vocab, line, len, &to, err);
        if (status != ENG_OK) {
            return status;
        }
    }
    return ENG_OK;
}

eng_status vocab_init(struct vocab *vocab, eng_text text, eng_error *err)
{
    *vocab = (struct vocab){0};
    if (text.len >= 3 && memcmp(text.data, "\xEF\xBB\xBF", 3) == 0) {
        text.data += 3; /* a byte order mark is not part of the first token */
        text.len -= 3;
    }
    if (text.len > TOKENIZER_MAX_FILE_BYTES) {
        return fail(err, ENG_ELIMIT, "vocab.txt", "%zu bytes, at most %zu are read", text.len,
                    TOKENIZER_MAX_FILE_BYTES);
    }
    size_t lines = count_lines(text);
    if (lines > TOKENIZER_MAX_TOKENS) {
        return fail(err, ENG_ELIMIT, "vocab.txt", "%zu tokens, at most %zu are read", lines,
                    TOKENIZER_MAX_TOKENS);
    }
    eng_status status = allocate(vocab, lines, text.len, err);
    if (status == ENG_OK) {
        status = read_lines(vocab, text, err);
    }
    if (status != ENG_OK) {
        vocab_fini(vocab);
    }
    return status;
}

void vocab_fini(struct vocab *vocab)
{
    free(vocab->strings);
    free(vocab->offsets);
    free(vocab->lens);
    free(vocab->slots);
    *vocab = (struct vocab){0};
}
