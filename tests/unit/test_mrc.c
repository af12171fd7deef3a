/* test_mrc.c: tasks as sequences, truncation, option decoding. */
#include "tests/unit/mrc_fixture.h"

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
    eng_decode_options(encoded, start, end, NULL, p);
    CHECK_NEAR(p[0], 1 / (1 + exp(-1.0)), 1e-6);
    CHECK_NEAR(p[0] + p[1], 1, 1e-6);
    eng_encoded_free(encoded);
    eng_task_free(task);
}

/* ---- truncation ----------------------------------------------------------------------------------- */

/* n times 天. */
static const char *sky(size_t n)
{
    static char out[300100];
    for (size_t i = 0; i < n; i++) {
        memcpy(out + 3 * i, "天", 3);
    }
    out[3 * n] = '\0';
    return out;
}

static size_t count_token(const eng_encoded *encoded, const char *token)
{
    size_t len, n = 0;
    const int32_t *ids = eng_encoded_ids(encoded, &len);
    for (size_t i = 0; i < len; i++) {
        n += ids[i] == tokenizer_id(model.tokenizer, token);
    }
    return n;
}

static void long_text_is_cut_and_counted(void)
{
    eng_task *task = new_task(ENG_CLASSIFICATION, "\"{text}\"？", good_bad, 2);
    REQUIRE(task != NULL);
    size_t len, room = POSITIONS - (1 + PROMPT + 3 + 4);
    static const size_t lengths[] = {1, 51, 52, 53, 54, 1000, 100000};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        const char *const fields[][2] = {{"text", sky(lengths[i])}};
        size_t kept = lengths[i] < room ? lengths[i] : room;
        eng_encoded *encoded;
        REQUIRE(encode(task, fields, 1, NULL, 0, 0, &encoded) == ENG_OK);
        (void)eng_encoded_ids(encoded, &len);
        CHECK_INT(len, POSITIONS - room + kept);
        CHECK_INT(count_token(encoded, "天"), kept);
        CHECK_INT(eng_encoded_truncated(encoded), lengths[i] - kept);
        CHECK_INT(count_token(encoded, "坏"), 1);
        eng_encoded_free(encoded);
    }
    eng_task_free(task);
}

static void short_fields_survive_whole(void)
{
    eng_task *task = new_task(ENG_PAIR, "{text_a}与{text_b}？", good_bad, 2);
    REQUIRE(task != NULL);
    size_t room = POSITIONS - (1 + PROMPT + 2 + 4);
    const char *const one_long[][2] = {{"text_a", sky(500)}, {"text_b", "地地地"}};
    eng_encoded *encoded;
    REQUIRE(encode(task, one_long, 2, NULL, 0, 0, &encoded) == ENG_OK);
    CHECK_INT(count_token(encoded, "地"), 3);
    CHECK_INT(count_token(encoded, "天"), room - 3);
    CHECK_INT(eng_encoded_truncated(encoded), 500 - (room - 3));
    eng_encoded_free(encoded);
    char earth[3 * 40 + 1] = "";
    for (size_t i = 0; i < 40; i++) {
        memcpy(earth + 3 * i, "地", 4);
    }
    const char *const both_long[][2] = {{"text_a", earth}, {"text_b", sky(500)}};
    REQUIRE(encode(task, both_long, 2, NULL, 0, 0, &encoded) == ENG_OK);
    CHECK_INT(count_token(encoded, "地"), (room + 1) / 2);
    CHECK_INT(count_token(encoded, "天"), room / 2);
    eng_encoded_free(encoded);
    eng_task_free(task);
}

static void a_field_used_twice(void)
{
    eng_task *task = new_task(ENG_CLASSIFICATION, "{text}与{text}？", good_bad, 2);
    REQUIRE(task != NULL);
    const char *const fields[][2] = {{"text", sky(90)}};
    eng_encoded *encoded;
    size_t len;
    REQUIRE(encode(task, fields, 1, NULL, 0, 0, &encoded) == ENG_OK);
    (void)eng_encoded_ids(encoded, &len);
    CHECK_INT(count_token(encoded, "天"), 52); /* 53 are free */
    CHECK_INT(len, POSITIONS - 1);
    CHECK_INT(eng_encoded_truncated(encoded), 90 - 26);
    eng_encoded_free(encoded);
    eng_task_free(task);
}

static void text_limit(void)
{
    eng_task *task = new_task(ENG_PAIR, "{text_a}与{text_b}？", good_bad, 2);
    REQUIRE(task != NULL);
    static const char *const fields[][2] = {{"text_a", "天  天ab 天"}, {"text_b", "地地"}};
    eng_encoded *encoded;
    REQUIRE(encode(task, fields, 2, NULL, 0, 5, &encoded) == ENG_OK);
    CHECK_STR(spell(encoded), "[CLS] P P P P 天 天 a 与 地 地 ？ 好 ， 坏 ，");
    CHECK_INT(eng_encoded_truncated(encoded), 3);
    eng_encoded_free(encoded);
    REQUIRE(encode(task, fields, 2, NULL, 0, 8, &encoded) == ENG_OK);
    CHECK_INT(eng_encoded_truncated(encoded), 0);
    eng_encoded_free(encoded);
    eng_task_free(task);
}

static void broken_text_names_its_field(void)
{
    eng_task *task = new_task(ENG_PAIR, "{text_a}与{text_b}？", good_bad, 2);
    REQUIRE(task != NULL);
    static const char *const fields[][2] = {{"text_a", "天"}, {"text_b", "天\xFF"}};
    eng_encoded *encoded;
    CHECK(encode(task, fields, 2, NULL, 0, 0, &encoded) == ENG_EFORMAT);
    CHECK_STR(err.field, "text_b");
    CHECK(encoded == NULL);
    CHECK(encode(task, fields, 2, NULL, 0, 1, &encoded) == ENG_EFORMAT); /* behind the limit, too */
    eng_task_free(task);
}

static void only_spaces_is_empty(void)
{
    eng_task *task = new_task(ENG_CLASSIFICATION, "{text}？", good_bad, 2);
    REQUIRE(task != NULL);
    static const char *const fields[][2] = {{"text", " \n\t　"}};
    eng_encoded *encoded;
    REQUIRE(encode(task, fields, 1, NULL, 0, 0, &encoded) == ENG_OK);
    CHECK_STR(spell(encoded), "[CLS] P P P P ？ 好 ， 坏 ，");
    CHECK_INT(eng_encoded_truncated(encoded), 0);
    eng_encoded_free(encoded);
    eng_task_free(task);
}

/* ---- options ---------------------------------------------------------------------------------------- */

/* n labels of five tokens each: 甲-12-3. */
static const char *const *many_labels(size_t n)
{
    static char words[600][16];
    static const char *list[600];
    for (size_t i = 0; i < n; i++) {
        snprintf(words[i], sizeof words[i], "甲-%zu-%zu", i / 10, i % 10);
        list[i] = words[i];
    }
    return list;
}

static void two_hundred_labels(void)
{
    CHECK(new_task(ENG_CLASSIFICATION, "", many_labels(200), 200) == NULL);
    CHECK_INT(err.status, ENG_ELIMIT);
    CHECK_STR(err.field, "labels");
    CHECK(strstr(err.text, "64") != NULL);
    model.params.positions = 2048;
    eng_task *task = new_task(ENG_CLASSIFICATION, "", many_labels(200), 200);
    REQUIRE(task != NULL);
    const char *const fields[][2] = {{"text", sky(100000)}};
    eng_encoded *encoded;
    REQUIRE(encode(task, fields, 1, NULL, 0, 0, &encoded) == ENG_OK);
    CHECK_INT(eng_encoded_options(encoded), 200);
    CHECK_INT(count_token(encoded, "甲"), 200);
    size_t start, end, len;
    eng_example row = {.label = 199};
    const int32_t *ids = eng_encoded_ids(encoded, &len);
    REQUIRE(mrc_targets(encoded, &row, &start, &end));
    CHECK_INT(len, 2048);
    CHECK(ids[start] == tokenizer_id(model.tokenizer, "甲") && end == len - 2);
    static float logits[2048], p[200];
    double sum = 0;
    for (size_t i = 0; i < len; i++) {
        logits[i] = (float)((i * 7919) % 31) - 15;
    }
    eng_decode_options(encoded, logits, logits, NULL, p);
    for (size_t i = 0; i < 200; i++) {
        CHECK(p[i] >= 0 && p[i] <= 1);
        sum += (double)p[i];
    }
    CHECK_NEAR(sum, 1, 1e-5);
    static float read[2048], again[200];
    size_t n_read = 0;
    CHECK(eng_encoded_read(encoded, &n_read) != NULL && n_read >= 200 && n_read <= 400);
    blank_unread(encoded, logits, read);
    eng_decode_options(encoded, read, read, NULL, again);
    CHECK(memcmp(p, again, sizeof p) == 0);
    eng_encoded_free(encoded);
    eng_task_free(task);
    model.params.positions = POSITIONS;
}

static void labels_refused(void)
{
    static const struct {
        const char *labels[3];
        size_t n;
        eng_status status;
        const char *field;
    } bad[] = {
        {{"好"}, 1, ENG_EINVAL, "labels"},
        {{"好"}, 0, ENG_EINVAL, "labels"},
        {{"好", "坏", "好"}, 3, ENG_EINVAL, "labels/2"},
        {{"好", "", "坏"}, 3, ENG_EINVAL, "labels/1"},
        {{"好", "  ", "坏"}, 3, ENG_EINVAL, "labels/1"},
        {{"好", "\xE5\xA5", "坏"}, 3, ENG_EFORMAT, "labels/1"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK(new_task(ENG_CLASSIFICATION, "", bad[i].labels, bad[i].n) == NULL);
        CHECK_INT(err.status, bad[i].status);
        CHECK_STR(err.field, bad[i].field);
    }
    CHECK(new_task(ENG_CLASSIFICATION, "", many_labels(513), 513) == NULL);
    CHECK_INT(err.status, ENG_ELIMIT);
    CHECK(new_task(ENG_CHOICE, "", good_bad, 2) == NULL);
    CHECK_STR(err.field, "labels");
    char longest[ENG_MAX_LABEL_BYTES + 2];
    memset(longest, 'a', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    const char *const too_long[] = {"好", longest};
    CHECK(new_task(ENG_PAIR, "", too_long, 2) == NULL);
    CHECK_INT(err.status, ENG_ELIMIT);
    CHECK_STR(err.field, "labels/1");
}

/* Words the vocabulary does not know are [UNK]: the place in the sequence still tells them apart. */
static void unknown_labels(void)
{
    static const char *const labels[] = {"龘", "鱻鱻"};
    eng_task *task = new_task(ENG_CLASSIFICATION, "{text}？", labels, 2);
    REQUIRE(task != NULL);
    static const char *const fields[][2] = {{"text", "天"}};
    eng_encoded *encoded;
    REQUIRE(encode(task, fields, 1, NULL, 0, 0, &encoded) == ENG_OK);
    CHECK_STR(spell(encoded), "[CLS] P P P P 天 ？ [UNK] ， [UNK] [UNK] ，");
    eng_encoded_free(encoded);
    eng_task_free(task);
}

static void options_alone_do_not_fit(void)
{
    eng_task *task = new_task(ENG_CHOICE, "{question}？", NULL, 0);
    REQUIRE(task != NULL);
    const char *const fields[][2] = {{"question", sky(90)}};
    eng_encoded *encoded;
    /* fixed 7; options of 5 tokens and separators: 9 take 53, 10 take 59 */
    REQUIRE(encode(task, fields, 1, many_labels(9), 9, 0, &encoded) == ENG_OK);
    CHECK_INT(count_token(encoded, "天"), 4);
    CHECK_INT(eng_encoded_truncated(encoded), 86);
    eng_encoded_free(encoded);
    CHECK(encode(task, fields, 1, many_labels(10), 10, 0, &encoded) == ENG_ELIMIT);
    CHECK_STR(err.field, "options");
    CHECK(strstr(err.text, "10 options") != NULL && strstr(err.text, "64") != NULL);
    CHECK(encoded == NULL);
    eng_task_free(task);
}

/* Exactly one token left for the text. */
static void one_token_left(void)
{
    eng_task *task = new_task(ENG_CHOICE, "{question}？", NULL, 0);
    REQUIRE(task != NULL);
    const char *options[] = {"甲", sky(54)};
    char long_option[3 * 54 + 1];
    memcpy(long_option, options[1], sizeof long_option);
    options[1] = long_option;
    const char *const fields[][2] = {{"question", "地地"}};
    eng_encoded *encoded;
    REQUIRE(encode(task, fields, 1, options, 2, 0, &encoded) == ENG_OK);
    CHECK_INT(count_token(encoded, "地"), 1);
    CHECK_INT(eng_encoded_truncated(encoded), 1);
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
    RUN(long_text_is_cut_and_counted);
    RUN(short_fields_survive_whole);
    RUN(a_field_used_twice);
    RUN(text_limit);
    RUN(broken_text_names_its_field);
    RUN(only_spaces_is_empty);
    RUN(two_hundred_labels);
    RUN(labels_refused);
    RUN(unknown_labels);
    RUN(options_alone_do_not_fit);
    RUN(one_token_left);
    tokenizer_free(model.tokenizer);
    TESTS_END;
}
