/* tokenizer.c: BERT's WordPiece, from UTF-8 to ids with offsets.
 *
 * One pass over the text, no allocation but the growing list of tokens. Each code point goes through
 * what BERT calls clean-up, ideograph splitting, accent stripping (canonical decomposition in
 * canonical order, non-spacing marks removed), lower case and punctuation splitting; what is left
 * gathers in a word of at most 100 characters, and a finished word is cut into the longest known
 * pieces from the left, or becomes [UNK] as a whole.
 *
 * Most characters of Chinese text need none of this: a table over the basic plane says in advance what
 * to do with each, and for a lone ideograph or punctuation mark which token it is.
 *
 * Every character of a word remembers the code point of the original text it came from; a piece covers
 * the code points of its first to its last character. Characters that vanish (controls, accents)
 * belong to no token unless they stand inside a piece.
 */
#include "engine/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "engine/chars.h"
#include "engine/status.h"
#include "engine/utf8.h"
#include "engine/vocab.h"

#define PLANE             0x10000
#define TOKENS_AT_FIRST   64
#define WORD_BYTES        (4 * TOKENIZER_MAX_WORD)
#define CODE_POINTS_LIMIT UINT32_MAX

enum action {
    ACT_DROP,
    ACT_SPACE,
    ACT_ALONE, /* a token of its own, unchanged by normalisation: `alone` has its id */
    ACT_WORD,  /* part of a word, unchanged */
    ACT_FULL   /* take the long way */
};

struct tokenizer {
    struct vocab vocab;
    struct tokenizer_options options;
    int32_t unk, cls, sep;
    uint8_t action[PLANE];
    int32_t alone[PLANE];
};

/* The word being gathered. n may pass the limit: such a word is [UNK] and keeps only its extent. */
struct word {
    size_t n, bytes;
    uint32_t first, last; /* origins */
    uint32_t origin[TOKENIZER_MAX_WORD];
    uint16_t at[TOKENIZER_MAX_WORD + 1]; /* byte offsets */
    unsigned char text[WORD_BYTES];
};

/* Combining characters waiting to be put into canonical order. Only spacing marks get here, and they
 * all join the word: more of them than a word may hold need not be kept. */
struct pending {
    size_t n;
    struct mark {
        uint32_t code_point, origin;
        uint8_t combining_class;
    } marks[TOKENIZER_MAX_WORD + 1];
};

struct run {
    const struct tokenizer *tokenizer;
    struct token_list *list;
    bool out_of_memory;
    struct word word;
    struct pending pending;
};

/* ---- the list of tokens ------------------------------------------------------------------------ */

void token_list_fini(struct token_list *list)
{
    free(list->tokens);
    *list = (struct token_list){0};
}

static bool grow(struct token_list *list)
{
    size_t capacity, bytes;
    if (!size_mul(list->capacity, 2, &capacity)) {
        return false;
    }
    if (capacity < TOKENS_AT_FIRST) {
        capacity = TOKENS_AT_FIRST;
    }
    if (!size_mul(capacity, sizeof *list->tokens, &bytes)) {
        return false;
    }
    eng_token *tokens = realloc(list->tokens, bytes);
    if (tokens == NULL) {
        return false;
    }
    list->tokens = tokens;
    list->capacity = capacity;
    return true;
}

static void emit(struct run *run, int32_t id, uint32_t start, uint32_t end)
{
    struct token_list *list = run->list;
    if (list->n == list->capacity && !grow(list)) {
        run->out_of_memory = true;
        return;
    }
    list->tokens[list->n++] = (eng_token){id, start, end};
}

/* ---- words into pieces --------------------------------------------------------------------------- */

/* The longest token that begins at character `from`: its id and the character after it, or -1. */
static int32_t longest_piece(const struct tokenizer *tokenizer, const struct word *word,
                             size_t from, size_t *to)
{
    bool continues = from > 0;
    uint64_t hashes[TOKENIZER_MAX_WORD];
    size_t most = tokenizer->vocab.longest[continues];
    size_t end = word->n - from < most ? word->n : from + most;
    uint64_t hash = vocab_hash_start(continues);
    for (size_t i = from; i < end; i++) {
        for (size_t b = word->at[i]; b < word->at[i + 1]; b++) {
            hash = vocab_hash_byte(hash, word->text[b]);
        }
        hashes[i] = hash;
    }
    for (size_t i = end; i > from; i--) {
        int32_t id =
            vocab_find(&tokenizer->vocab, hashes[i - 1], continues, word->text + word->at[from],
                       (size_t)(word->at[i] - word->at[from]));
        if (id >= 0) {
            *to = i;
            return id;
        }
    }
    return -1;
}

/* Canonical order may have moved characters: a piece covers the least to the greatest origin. */
static void emit_piece(struct run *run, int32_t id, size_t from, size_t to)
{
    uint32_t start = run->word.origin[from], last = start;
    for (size_t i = from + 1; i < to; i++) {
        uint32_t origin = run->word.origin[i];
        start = origin < start ? origin : start;
        last = origin > last ? origin : last;
    }
    emit(run, id, start, last + 1);
}

static void flush_word(struct run *run)
{
    struct word *word = &run->word;
    size_t n = word->n, before = run->list->n;
    bool known = n <= TOKENIZER_MAX_WORD;
    for (size_t from = 0, to = 0; known && from < n; from = to) {
        int32_t id = longest_piece(run->tokenizer, word, from, &to);
        if (id >= 0) {
            emit_piece(run, id, from, to);
        } else {
            known = false;
        }
    }
    if (!known) {
        run->list->n = before;
        emit(run, run->tokenizer->unk, word->first, word->last + 1);
    }
    word->n = 0;
    word->bytes = 0;
}

static void push(struct run *run, uint32_t c, uint32_t origin)
{
    struct word *word = &run->word;
    if (word->n == 0) {
        word->first = origin;
        word->last = origin;
        word->at[0] = 0;
    }
    word->last = origin > word->last ? origin : word->last;
    word->first = origin < word->first ? origin : word->first;
    if (word->n < TOKENIZER_MAX_WORD) {
        word->origin[word->n] = origin;
        word->bytes += utf8_encode(c, word->text + word->bytes);
        word->at[word->n + 1] = (uint16_t)word->bytes;
    }
    word->n += word->n <= TOKENIZER_MAX_WORD;
}

/* ---- the long way: normalisation --------------------------------------------------------------------- */

/* A decomposed, ordered character: lower case, then punctuation or word. */
static void finish_character(struct run *run, uint32_t c, uint32_t origin)
{
    uint32_t lower[CHARS_MAX_LOWER] = {c};
    size_t n = run->tokenizer->options.lower_case ? chars_lower(c, lower) : 1;
    for (size_t i = 0; i < n; i++) {
        bool alone = chars_is_punctuation(lower[i]);
        if (alone && run->word.n > 0) {
            flush_word(run);
        }
        push(run, lower[i], origin);
        if (alone) {
            flush_word(run);
        }
    }
}

static void flush_pending(struct run *run)
{
    struct pending *pending = &run->pending;
    size_t n = pending->n;
    pending->n = 0;
    for (size_t i = 1; i < n; i++) { /* at most a word's length: stable insertion */
        struct mark mark = pending->marks[i];
        size_t j = i;
        for (; j > 0 && pending->marks[j - 1].combining_class > mark.combining_class; j--) {
            pending->marks[j] = pending->marks[j - 1];
        }
        pending->marks[j] = mark;
    }
    for (size_t i = 0; i < n; i++) {
        finish_character(run, pending->marks[i].code_point, pending->marks[i].origin);
    }
}

static void add_pending(struct run *run, uint32_t c, uint8_t combining_class, uint32_t origin)
{
    struct pending *pending = &run->pending;
    if (pending->n == TOKENIZER_MAX_WORD + 1) {
        pending->marks[pending->n - 1].origin =
            origin; /* already too long: only its extent counts */
        return;
    }
    pending->marks[pending->n++] = (struct mark){c, origin, combining_class};
}

static void end_word(struct run *run)
{
    if (run->pending.n > 0) {
        flush_pending(run);
    }
    if (run->word.n > 0) {
        flush_word(run);
    }
}

static void strip_and_finish(struct run *run, uint32_t c, uint32_t origin)
{
    uint32_t parts[CHARS_MAX_DECOMPOSED];
    size_t n = chars_decompose(c, parts);
    for (size_t i = 0; i < n; i++) {
        uint8_t combining_class = chars_combining_class(parts[i]);
        if (combining_class == 0 && run->pending.n > 0) {
            flush_pending(run);
        }
        if (chars_is_mark(parts[i])) {
            continue;
        }
        if (combining_class != 0) {
            add_pending(run, parts[i], combining_class, origin);
        } else {
            finish_character(run, parts[i], origin);
        }
    }
}

static void take_long_way(struct run *run, uint32_t c, uint32_t origin)
{
    const struct tokenizer_options *options = &run->tokenizer->options;
    bool alone = options->split_cjk && chars_is_cjk(c);
    if (alone) {
        end_word(run);
    }
    if (options->strip_accents) {
        strip_and_finish(run, c, origin);
    } else {
        finish_character(run, c, origin);
    }
    if (alone) {
        end_word(run);
    }
}

/* ---- one code point ------------------------------------------------------------------------------------- */

static enum action classify(const struct tokenizer_options *options, uint32_t c)
{
    if (chars_is_dropped(c)) {
        return ACT_DROP;
    }
    if (chars_is_space(c)) {
        return ACT_SPACE;
    }
    uint32_t parts[CHARS_MAX_DECOMPOSED], lower[CHARS_MAX_LOWER];
    if (options->strip_accents && (chars_decompose(c, parts) != 1 || parts[0] != c ||
                                   chars_is_mark(c) || chars_combining_class(c) != 0)) {
        return ACT_FULL;
    }
    if (options->lower_case && (chars_lower(c, lower) != 1 || lower[0] != c)) {
        return ACT_FULL;
    }
    bool alone = (options->split_cjk && chars_is_cjk(c)) || chars_is_punctuation(c);
    return alone ? ACT_ALONE : ACT_WORD;
}

static void take(struct run *run, enum action action, uint32_t c, uint32_t origin)
{
    switch (action) {
    case ACT_DROP:
        break;
    case ACT_SPACE:
        end_word(run);
        break;
    case ACT_ALONE:
        end_word(run);
        if (c < PLANE) {
            emit(run, run->tokenizer->alone[c], origin, origin + 1);
        } else {
            push(run, c, origin);
            flush_word(run);
        }
        break;
    case ACT_WORD:
        if (run->pending.n > 0) {
            flush_pending(run);
        }
        push(run, c, origin);
        break;
    case ACT_FULL:
        take_long_way(run, c, origin);
        break;
    }
}

/* Stops, too, when the list holds `until` tokens. */
static eng_status run_text(struct run *run, eng_text text, size_t until, size_t *code_points,
                           eng_error *err)
{
    const unsigned char *s = (const unsigned char *)text.data;
    uint32_t origin = 0;
    for (size_t at = 0; at < text.len && !run->out_of_memory && run->list->n < until; origin++) {
        uint32_t c;
        size_t size = utf8_decode(s + at, text.len - at, &c);
        if (size == 0) {
            return fail(err, ENG_EFORMAT, "text", "not UTF-8 at byte %zu (0x%02x)", at, s[at]);
        }
        if (origin == CODE_POINTS_LIMIT) {
            return fail(err, ENG_ELIMIT, "text", "more than %u characters", CODE_POINTS_LIMIT);
        }
        at += size;
        enum action action = c < PLANE ? (enum action)run->tokenizer->action[c]
                                       : classify(&run->tokenizer->options, c);
        take(run, action, c, origin);
    }
    end_word(run);
    if (code_points != NULL) {
        *code_points = origin;
    }
    return run->out_of_memory ? fail_nomem(err, "text") : ENG_OK;
}

static eng_status run_until(const struct tokenizer *tokenizer, eng_text text, size_t until,
                            struct token_list *list, size_t *code_points, eng_error *err)
{
    struct run run = {.tokenizer = tokenizer, .list = list};
    size_t before = list->n;
    eng_status status = run_text(&run, text, until, code_points, err);
    if (status != ENG_OK) {
        list->n = before;
    }
    return status;
}

eng_status tokenizer_run(const struct tokenizer *tokenizer, eng_text text, struct token_list *list,
                         size_t *code_points, eng_error *err)
{
    return run_until(tokenizer, text, SIZE_MAX, list, code_points, err);
}

eng_status tokenizer_run_some(const struct tokenizer *tokenizer, eng_text text, size_t enough,
                              struct token_list *list, eng_error *err)
{
    size_t until;
    if (!size_add(list->n, enough, &until)) {
        until = SIZE_MAX;
    }
    return run_until(tokenizer, text, until, list, NULL, err);
}

/* ---- opening ---------------------------------------------------------------------------------------------- */

struct tokenizer_options tokenizer_defaults(void)
{
    return (struct tokenizer_options){true, true, true};
}

static void plan_basic_plane(struct tokenizer *tokenizer)
{
    for (uint32_t c = 0; c < PLANE; c++) {
        tokenizer->action[c] = (uint8_t)classify(&tokenizer->options, c);
        tokenizer->alone[c] = tokenizer->unk;
        if (tokenizer->action[c] == ACT_ALONE) {
            unsigned char spelling[4];
            size_t len = utf8_encode(c, spelling);
            int32_t id = vocab_find_string(&tokenizer->vocab, (const char *)spelling, len);
            tokenizer->alone[c] = id >= 0 ? id : tokenizer->unk;
        }
    }
}

static eng_status find_special(struct tokenizer *tokenizer, const char *token, int32_t *id,
                               eng_error *err)
{
    *id = tokenizer_id(tokenizer, token);
    if (*id < 0) {
        return fail(err, ENG_EFORMAT, "vocab.txt", "%s is not among its %zu tokens", token,
                    tokenizer->vocab.n);
    }
    return ENG_OK;
}

static eng_status prepare(struct tokenizer *tokenizer, eng_text vocab, eng_error *err)
{
    eng_status status = vocab_init(&tokenizer->vocab, vocab, err);
    if (status == ENG_OK) {
        status = find_special(tokenizer, "[UNK]", &tokenizer->unk, err);
    }
    if (status == ENG_OK) {
        status = find_special(tokenizer, "[CLS]", &tokenizer->cls, err);
    }
    if (status == ENG_OK) {
        status = find_special(tokenizer, "[SEP]", &tokenizer->sep, err);
    }
    if (status == ENG_OK) {
        plan_basic_plane(tokenizer);
    }
    return status;
}

eng_status tokenizer_from_vocab(eng_text vocab, const struct tokenizer_options *options,
                                struct tokenizer **out, eng_error *err)
{
    *out = NULL;
    struct tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    if (tokenizer == NULL) {
        return fail_nomem(err, "vocab.txt");
    }
    tokenizer->options = *options;
    eng_status status = prepare(tokenizer, vocab, err);
    if (status != ENG_OK) {
        tokenizer_free(tokenizer);
        return status;
    }
    *out = tokenizer;
    return ENG_OK;
}

void tokenizer_free(struct tokenizer *tokenizer)
{
    if (tokenizer != NULL) {
        vocab_fini(&tokenizer->vocab);
        free(tokenizer);
    }
}

/* ---- look-ups --------------------------------------------------------------------------------------------- */

size_t tokenizer_size(const struct tokenizer *tokenizer)
{
    return tokenizer->vocab.n;
}

int32_t tokenizer_id(const struct tokenizer *tokenizer, const char *token)
{
    return vocab_find_string(&tokenizer->vocab, token, strlen(token));
}

int32_t tokenizer_unk(const struct tokenizer *tokenizer)
{
    return tokenizer->unk;
}

int32_t tokenizer_cls(const struct tokenizer *tokenizer)
{
    return tokenizer->cls;
}

int32_t tokenizer_sep(const struct tokenizer *tokenizer)
{
    return tokenizer->sep;
}

const char *tokenizer_string(const struct tokenizer *tokenizer, int32_t id)
{
    if (id < 0 || (size_t)id >= tokenizer->vocab.n) {
        return NULL;
    }
    return tokenizer->vocab.strings + tokenizer->vocab.offsets[id];
}
