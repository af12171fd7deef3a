/* fuzz_tokenizer.c: the input as a text for a small vocabulary and, when it holds a zero byte, what
 * stands before it as a vocabulary for what stands behind. Offsets must lie in the text and hold
 * something; ids must have a spelling. */
#include <stdlib.h>
#include <string.h>

#include "engine/tokenizer.h"
#include "engine/vocab.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char small[] =
    "[UNK]\n[CLS]\n[SEP]\na\nb\n##a\n##ab\nabc\n好\n的\n,\n。\n1\n##1\ne\n##e\n";

static void run(const struct tokenizer *tokenizer, const uint8_t *data, size_t size)
{
    struct token_list list = {0};
    size_t n = 0;
    eng_status status =
        tokenizer_run(tokenizer, (eng_text){(const char *)data, size}, &list, &n, NULL);
    if (status != ENG_OK && (status != ENG_EFORMAT || list.n != 0)) {
        abort();
    }
    for (size_t i = 0; i < list.n; i++) {
        const eng_token *token = &list.tokens[i];
        if (token->start >= token->end || token->end > n ||
            tokenizer_string(tokenizer, token->id) == NULL) {
            abort();
        }
    }
    token_list_fini(&list);
}

/* The vocabulary alone; seldom the whole tokenizer, whose opening walks the basic plane. */
static void with_vocab(eng_text text, const struct tokenizer_options *options, bool whole,
                       const uint8_t *data, size_t size)
{
    struct tokenizer *tokenizer;
    struct vocab vocab;
    if (vocab_init(&vocab, text, NULL) == ENG_OK) {
        for (size_t i = 0; i < vocab.n; i++) {
            const char *token = vocab.strings + vocab.offsets[i];
            int32_t id = vocab_find_string(&vocab, token, vocab.lens[i]);
            if (id != (vocab.lens[i] > 0 ? (int32_t)i : -1)) {
                abort();
            }
        }
        vocab_fini(&vocab);
    }
    if (whole && tokenizer_from_vocab(text, options, &tokenizer, NULL) == ENG_OK) {
        run(tokenizer, data, size);
        tokenizer_free(tokenizer);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tokenizer *tokenizers[8];
    if (size == 0) {
        return 0;
    }
    unsigned bits = data[0] & 7;
    struct tokenizer_options options = {(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0};
    if (tokenizers[bits] == NULL &&
        tokenizer_from_vocab((eng_text){small, sizeof small - 1}, &options, &tokenizers[bits],
                             NULL) != ENG_OK) {
        abort();
    }
    run(tokenizers[bits], data + 1, size - 1);
    const uint8_t *zero = memchr(data + 1, 0, size - 1);
    if (zero != NULL) {
        size_t used = (size_t)(zero - data) + 1;
        with_vocab((eng_text){(const char *)data + 1, used - 2}, &options, data[0] >= 0xF8,
                   zero + 1, size - used);
    }
    return 0;
}
