/* vocab.h (private): the tokens of a vocab.txt, by id and by spelling.
 *
 * Never changes after vocab_new: any thread may read. A token written "##x" continues a word; it is
 * found under x with `continues`.
 */
#ifndef ENGINE_VOCAB_H
#define ENGINE_VOCAB_H

#include "engine/engine.h"

struct vocab {
    char *strings;     /* the tokens, each with a NUL */
    uint32_t *offsets; /* (n) into strings */
    uint32_t *lens;    /* (n) bytes */
    size_t n;
    struct vocab_slot *slots; /* (mask + 1), open addressing */
    size_t mask;
    size_t longest[2]; /* characters of the longest token: words' beginnings, continuations */
};

/* Reads one token a line. Errors as tokenizer_from_vocab. */
ENG_MUST_CHECK eng_status vocab_init(struct vocab *vocab, eng_text text, eng_error *err);
void vocab_fini(struct vocab *vocab);

/* A hash that grows by a byte at a time, so that every prefix of a word is hashed in one pass. */
static inline uint64_t vocab_hash_start(bool continues)
{
    return continues ? 0x9E3779B97F4A7C15u : 0xCBF29CE484222325u;
}
static inline uint64_t vocab_hash_byte(uint64_t hash, unsigned char byte)
{
    return (hash ^ byte) * 0x100000001B3u;
}
/* Id of the token with these bytes and this hash, or -1. */
int32_t vocab_find(const struct vocab *vocab, uint64_t hash, bool continues, const void *bytes,
                   size_t len);
/* Id of a token as written ("##x"), or -1. */
int32_t vocab_find_string(const struct vocab *vocab, const char *token, size_t len);

#endif
