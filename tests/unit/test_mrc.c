/* test_mrc.c: tasks as sequences, truncation, targets and decoding, on a hand-made vocabulary whose
 * every character of the tests is one token. */
#include "engine/model.h"
#include "engine/mrc.h"
#include "engine/task.h"
#include "engine/utf8.h"
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
    strcpy(bank.option_separator, "，");
    if (tokenizer_from_vocab(text_of(vocab), &options, &model.tokenizer, &err) != ENG_OK) {
        fprintf(stderr, "%s: %s\n", err.field, err.text);
        return false;
    }
    return true;
}

/* The ids as token strings with a space between; the placeholders as P. */
static const char *spell(const eng_encoded *encoded)
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

static eng_task *new_task(eng_task_type type, const char *template, const char *const *labels,
                          size_t n_labels)
{
    eng_text texts[ENG_MAX_LABELS + 1];
    for (size_t i = 0; i < n_labels; i++) {
        texts[i] = text_of(labels[i]);
    }
    eng_task_spec spec = {type, text_of(template), texts, n_labels, false};
    eng_task *task = NULL;
    return eng_task_new(&model, &bank, &spec, &task, &err) == ENG_OK ? task : NULL;
}

static eng_status encode(const eng_task *task, const char *const (*fields)[2], size_t n,
                         const char *const *options, size_t n_options, size_t limit,
                         eng_encoded **out)
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

static const char *const good_bad[] = {"好", "坏"};

static void classification_sequence(void)
{
    eng_task *task = new_task(ENG_CLASSIFICATION, "", good_bad, 2);
    REQUIRE(task != NULL);
    CHECK_STR(eng_task_template(task), "主题识别：\"{text}\"的主题是？选项：");
    eng_encoded *encoded;
    static const char *const fields[][2] = {{"extra", "坏"}, {"text", "天 地"}};
    REQUIRE(encode(task, fields, 2, NULL, 0, 0, &encoded) == ENG_OK);
    CHECK_STR(spell(encoded),
              "[CLS] P P P P 主 题 识 别 ： \" 天 地 \" 的 主 题 是 ？ 选 项 ： 好 ， "
              "坏 ，");
    CHECK_INT(eng_encoded_options(encoded), 2);
    CHECK_INT(eng_encoded_truncated(encoded), 0);
    size_t start, end;
    eng_example row = {.label = 1};
    CHECK(mrc_targets(encoded, &row, &start, &end) && start == 24 && end == 24);
    row.label = 2;
    CHECK(!mrc_targets(encoded, &row, &start, &end));
    eng_encoded_free(encoded);
    eng_task_free(task);
}

static void pair_and_own_template(void)
{
    eng_task *task = new_task(ENG_PAIR, "{{{text_a}}}与{text_b}？", good_bad, 2);
    REQUIRE(task != NULL);
    const char *names[ENG_MAX_FIELDS];
    CHECK_INT(eng_task_fields(task, names), 2);
    CHECK_STR(names[0], "text_a");
    CHECK_STR(names[1], "text_b");
    CHECK_INT(eng_task_label_count(task), 2);
    CHECK_STR(eng_task_label(task, 1), "坏");
    CHECK(eng_task_get_type(task) == ENG_PAIR);
    eng_encoded *encoded;
    static const char *const fields[][2] = {{"text_a", "天"}, {"text_b", ""}};
    REQUIRE(encode(task, fields, 2, NULL, 0, 0, &encoded) == ENG_OK);
    CHECK_STR(spell(encoded), "[CLS] P P P P { 天 } 与 ？ 好 ， 坏 ，");
    eng_encoded_free(encoded);
    CHECK(encode(task, fields, 1, NULL, 0, 0, &encoded) == ENG_EINVAL);
    CHECK_STR(err.field, "text_b");
    CHECK(encoded == NULL);
    eng_task_free(task);
}

static void choice_sequence(void)
{
    eng_task *task = new_task(ENG_CHOICE, "", NULL, 0);
    REQUIRE(task != NULL);
    eng_encoded *encoded;
    static const char *const fields[][2] = {{"question", "天"}}; /* context is optional */
    static const char *const options[] = {"甲乙", "丙", "丙"};
    REQUIRE(encode(task, fields, 1, options, 3, 0, &encoded) == ENG_OK);
    CHECK_STR(spell(encoded),
              "[CLS] P P P P 阅 读 选 择 ： 文 档 \" \" ， 问 题 \" 天 \" ， 选 项 ： "
              "甲 乙 ， 丙 ， 丙 [SEP]");
    size_t start, end;
    eng_example row = {.label = 0};
    CHECK(mrc_targets(encoded, &row, &start, &end) && start == 24 && end == 25);
    eng_encoded_free(encoded);
    CHECK(encode(task, fields, 1, options, 1, 0, &encoded) == ENG_EINVAL);
    CHECK_STR(err.field, "options");
    static const char *const hollow[] = {"甲", " \t", "乙"};
    CHECK(encode(task, fields, 1, hollow, 3, 0, &encoded) == ENG_EINVAL);
    CHECK_STR(err.field, "options/1");
    eng_task_free(task);
}

static void option_probabilities(void)
{
    eng_task *task = new_task(ENG_CLASSIFICATION, "{text}", good_bad, 2);
    REQUIRE(task != NULL);
    eng_encoded *encoded;
    static const char *const fields[][2] = {{"text", "天"}};
    REQUIRE(encode(task, fields, 1, NULL, 0, 0, &encoded) == ENG_OK);
    float start[16] = {0}, end[16] = {0}, p[2];
    start[6] = -5000.0F; /* 好: far below zero, where exp alone would vanish */
    end[6] = -1.0F;
    start[8] = -5002.0F;
    eng_decode_options(encoded, start, end, p);
    CHECK_NEAR(p[0], 1 / (1 + exp(-1.0)), 1e-6);
    CHECK_NEAR(p[0] + p[1], 1, 1e-6);
    eng_encoded_free(encoded);
    eng_task_free(task);
}

int main(void)
{
    TESTS_BEGIN;
    if (!set_up()) {
        return 1;
    }
    RUN(classification_sequence);
    RUN(pair_and_own_template);
    RUN(choice_sequence);
    RUN(option_probabilities);
    tokenizer_free(model.tokenizer);
    TESTS_END;
}
