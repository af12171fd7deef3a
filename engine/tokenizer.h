/* tokenizer.h (private): BERT's WordPiece with the way back to the user's text.
 *
 * Equal to Hugging Face's BertTokenizer (the `tokenizers` package's BertNormalizer, BertPreTokenizer
 * and WordPiece), with one difference on purpose: special tokens written in a text ("[SEP]",
 * "[MASK]") are split as punctuation and words, so no user can write a control token.
 * A tokenizer never changes after it is made: any thread may use it. token_list belongs to one
 * thread at a time.
 */
#ifndef ENGINE_TOKENIZER_H
#define ENGINE_TOKENIZER_H

#include "engine/engine.h"

#include <jansson.h>

#define TOKENIZER_MAX_FILE_BYTES  ((size_t)32 << 20) /* vocab.txt */
#define TOKENIZER_MAX_TOKENS      ((size_t)1 << 20)
#define TOKENIZER_MAX_TOKEN_BYTES 512
#define TOKENIZER_MAX_WORD        100 /* characters; a longer word is [UNK], as in BERT */

struct tokenizer;

/* What tokenizer_config.json may say. */
struct tokenizer_options {
    bool lower_case;    /* do_lower_case */
    bool strip_accents; /* strip_accents; null follows do_lower_case */
    bool split_cjk;     /* tokenize_chinese_chars */
};

/* do_lower_case, strip_accents and tokenize_chinese_chars all true. */
struct tokenizer_options tokenizer_defaults(void);

/* Reads dir/vocab.txt (and dir/tokenizer_config.json when there is one), else dir/tokenizer.json. A
 * vocabulary of more than model_vocab tokens (the rows of the model's embedding) is ENG_EMISMATCH.
 * ENG_ENOTFOUND when there is neither; ENG_EUNSUPPORTED for a tokenizer.json that is not BERT's;
 * ENG_EFORMAT names the line: invalid UTF-8, a token twice, [UNK], [CLS] or [SEP]
 * missing; ENG_ELIMIT, ENG_EIO, ENG_ENOMEM. */
ENG_MUST_CHECK eng_status tokenizer_open(const char *dir, size_t model_vocab,
                                         struct tokenizer **out, eng_error *err);
/* The same from the bytes of a vocab.txt: one token a line, LF or CRLF, id = line. */
ENG_MUST_CHECK eng_status tokenizer_from_vocab(eng_text vocab,
                                               const struct tokenizer_options *options,
                                               struct tokenizer **out, eng_error *err);
/* The same from a tokenizer.json. */
ENG_MUST_CHECK eng_status tokenizer_from_json_file(const char *path, struct tokenizer **out,
                                                   eng_error *err);
/* A boolean of a JSON object; missing or null leaves *value. ENG_EFORMAT names `file` and the key. */
ENG_MUST_CHECK eng_status tokenizer_flag(const json_t *object, const char *file, const char *key,
                                         bool *value, eng_error *err);
void tokenizer_free(struct tokenizer *tokenizer);

size_t tokenizer_size(const struct tokenizer *tokenizer);
/* Id of a token as the vocabulary writes it ("[CLS]", "##a"), -1 when it has none. */
int32_t tokenizer_id(const struct tokenizer *tokenizer, const char *token);
int32_t tokenizer_unk(const struct tokenizer *tokenizer);
int32_t tokenizer_cls(const struct tokenizer *tokenizer);
int32_t tokenizer_sep(const struct tokenizer *tokenizer);
const char *tokenizer_string(const struct tokenizer *tokenizer, int32_t id); /* NULL: no such id */

/* A growable list of tokens. Zero-initialise; token_list_fini frees. */
struct token_list {
    eng_token *tokens;
    size_t n, capacity;
};
void token_list_fini(struct token_list *list);

/* Appends the tokens of `text` to `list`; offsets count from the beginning of `text`. After an error
 * the list holds what it held before. *code_points (may be NULL) is the length of the text.
 * ENG_EFORMAT names the byte where the UTF-8 breaks; ENG_ELIMIT beyond 2³² - 1 code points. */
ENG_MUST_CHECK eng_status tokenizer_run(const struct tokenizer *tokenizer, eng_text text,
                                        struct token_list *list, size_t *code_points,
                                        eng_error *err);

/* The same, but free to stop once the list has gained `enough` tokens: those are final, what follows
 * them may be cut short. For callers who will keep fewer, however long the text is. */
ENG_MUST_CHECK eng_status tokenizer_run_some(const struct tokenizer *tokenizer, eng_text text,
                                             size_t enough, struct token_list *list,
                                             eng_error *err);

#endif
