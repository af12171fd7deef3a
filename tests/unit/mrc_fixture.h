/* mrc_fixture.h: a model without weights and a bank without modules, enough to write sequences: a
 * small vocabulary in which every character of the tests is one token. */
#ifndef TESTS_UNIT_MRC_FIXTURE_H
#define TESTS_UNIT_MRC_FIXTURE_H

#include "engine/model.h"
#include "engine/mrc.h"
#include "engine/task.h"
#include "tests/unit/test.h"

#define POSITIONS 64
#define PROMPT    4

static eng_model model;
static eng_bank bank;
static eng_error err;

static eng_text text_of(const char *string)
{
    return (eng_text){string, strlen(string)};
}

/* [PAD] [UNK] [CLS] [SEP], 20 placeholders, ASCII, then the ideographs U+4E00 … and what templates
 * need. */
static void build_vocab(char *vocab, size_t size)
{
    static const char *const words[] = {"，", "：", "？", "（", "）", "“", "”"};
    static const char characters[] = "主题识别的是选项意思判与关系阅读择文档问抽取式答本可能没有案";
    size_t n = (size_t)snprintf(vocab, size, "[PAD]\n[UNK]\n[CLS]\n[SEP]\n");
    for (int i = 0; i < 20; i++) {
        n += (size_t)snprintf(vocab + n, size - n, "[unused%d]\n", i);
    }
    for (int c = '!'; c <= '~'; c++) {
        if (!(c >= 'A' && c <= 'Z')) {
            n += (size_t)snprintf(vocab + n, size - n, "%c\n", c);
        }
    }
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        n += (size_t)snprintf(vocab + n, size - n, "%s\n", words[i]);
    }
    for (const char *at = characters; *at != '\0'; at += 3) {
        if (at == characters || memmem(characters, (size_t)(at - characters), at, 3) == NULL) {
            n += (size_t)snprintf(vocab + n, size - n, "%.3s\n", at);
        }
    }
    snprintf(vocab + n, size - n, "甲\n乙\n丙\n丁\n好\n坏\n天\n地\nab\n##c\n");
}

static bool set_up(void)
{
    static char vocab[1 << 14];
    build_vocab(vocab, sizeof vocab);
    struct tokenizer_options options = tokenizer_defaults();
    model.params.positions = POSITIONS;
    bank.model = &model;
    bank.info.prompt_tokens = PROMPT;
    bank.info.prompt_token_offset = 5;
    snprintf(bank.option_separator, sizeof bank.option_separator, "，");
    if (tokenizer_from_vocab(text_of(vocab), &options, &model.tokenizer, &err) != ENG_OK) {
        if (err.status != ENG_ENOMEM) { /* the fault tests mean that one */
            fprintf(stderr, "%s: %s\n", err.field, err.text);
        }
        return false;
    }
    return true;
}

/* The ids as token strings with a space between; the placeholders as P. */
__attribute__((unused)) static const char *spell(const eng_encoded *encoded)
{
    static char out[8192];
    size_t len, n = 0;
    const int32_t *ids = eng_encoded_ids(encoded, &len);
    for (size_t i = 0; i < len; i++) {
        bool placeholder = i >= 1 && i <= PROMPT && ids[i] == 5 + (int32_t)i - 1;
        n += (size_t)snprintf(out + n, sizeof out - n, "%s%s", i > 0 ? " " : "",
                              placeholder ? "P" : tokenizer_string(model.tokenizer, ids[i]));
    }
    return out;
}

__attribute__((unused)) static eng_task *new_task(eng_task_type type, const char *template,
                                                  const char *const *labels, size_t n_labels)
{
    eng_text texts[ENG_MAX_LABELS + 1];
    for (size_t i = 0; i < n_labels; i++) {
        texts[i] = text_of(labels[i]);
    }
    eng_task_spec spec = {type, text_of(template), texts, n_labels, false};
    eng_task *task = NULL;
    return eng_task_new(&model, &bank, &spec, &task, &err) == ENG_OK ? task : NULL;
}

/* logits (len) with NaN wherever decoding says it does not read. */
__attribute__((unused)) static void blank_unread(const eng_encoded *encoded, const float *logits,
                                                 float *out)
{
    size_t len = 0, n = 0;
    (void)eng_encoded_ids(encoded, &len);
    const uint32_t *read = eng_encoded_read(encoded, &n);
    for (size_t t = 0; t < len; t++) {
        out[t] = NAN;
    }
    for (size_t i = 0; i < n; i++) {
        out[read[i]] = logits[read[i]];
    }
}

__attribute__((unused)) static eng_status encode(const eng_task *task,
                                                 const char *const (*fields)[2], size_t n,
                                                 const char *const *options, size_t n_options,
                                                 size_t limit, eng_encoded **out)
{
    eng_field list[8];
    eng_text texts[ENG_MAX_LABELS + 1];
    for (size_t i = 0; i < n; i++) {
        list[i] = (eng_field){text_of(fields[i][0]), text_of(fields[i][1])};
    }
    for (size_t i = 0; i < n_options; i++) {
        texts[i] = text_of(options[i]);
    }
    eng_input input = {list, n, texts, n_options};
    return eng_encode(task, &input, limit, out, &err);
}

#endif
