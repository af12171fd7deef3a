/* test_mrc_spans.c: extractive tasks: sequences, targets, windows, span decoding. */
#include "engine/utf8.h"
#include "tests/unit/mrc_fixture.h"

static const char *const qa_fields[2][2] = {{"context", "天地 甲乙ab丙丁"}, {"question", "好？"}};

static eng_task *new_qa(const char *template, bool may_have_no_answer)
{
    eng_task_spec spec = {ENG_EXTRACTIVE, text_of(template), NULL, 0, may_have_no_answer};
    eng_task *task = NULL;
    return eng_task_new(&model, &bank, &spec, &task, &err) == ENG_OK ? task : NULL;
}

static void sequences(void)
{
    eng_encoded *encoded;
    eng_task *task = new_qa("", false);
    REQUIRE(task != NULL);
    REQUIRE(encode(task, qa_fields, 2, NULL, 0, 0, &encoded) == ENG_OK);
    CHECK_STR(spell(encoded),
              "[CLS] P P P P 抽 取 式 问 答 ： 文 本 \" 天 地 甲 乙 ab 丙 丁 问 题 \" 好 ？ "
              "[SEP]");
    CHECK_INT(eng_encoded_options(encoded), 0);
    eng_encoded_free(encoded);
    eng_task_free(task);
    task = new_qa("", true);
    REQUIRE(task != NULL);
    REQUIRE(encode(task, qa_fields, 2, NULL, 0, 0, &encoded) == ENG_OK);
    CHECK_STR(spell(encoded),
              "[CLS] P P P P 抽 取 式 问 答 （ 可 能 没 有 答 案 ） ： 文 本 \" 天 地 甲 乙 ab "
              "丙 丁 问 题 \" 好 ？ [SEP]");
    size_t start, end;
    eng_example row = {.answer = {"", 0}};
    CHECK(mrc_targets(encoded, &row, &start, &end) && start == 13 && end == 16);
    eng_encoded_free(encoded);
    eng_task_free(task);
}

static void templates_refused(void)
{
    CHECK(new_qa("{question}？", false) == NULL);
    CHECK_STR(err.field, "template");
    CHECK(new_qa("{context}{context}{question}", false) == NULL);
    CHECK(new_qa("{context}{question}", true) == NULL);
    CHECK(strstr(err.text, "没有答案") != NULL);
    eng_task_spec spec = {ENG_CHOICE, text_of(""), NULL, 0, true};
    eng_task *task;
    CHECK_INT(eng_task_new(&model, &bank, &spec, &task, &err), ENG_EINVAL);
    CHECK(task == NULL);
}

static eng_example row_of(eng_field fields[2], const char *context, const char *answer,
                          size_t answer_start)
{
    fields[0] = (eng_field){text_of("context"), text_of(context)};
    fields[1] = (eng_field){text_of("question"), text_of("好？")};
    return (eng_example){{fields, 2, NULL, 0}, 0, text_of(answer), answer_start};
}

static void targets(void)
{
    static const struct {
        const char *answer;
        size_t at;
        bool there;
        size_t start, end; /* context tokens */
    } cases[] = {
        {"天", 0, true, 0, 0},         {"甲乙", 3, true, 2, 3}, {"b", 6, true, 4, 4},
        {"乙ab丙", 4, true, 3, 5},     {"丁", 8, true, 6, 6},   {" ", 2, false, 0, 0},
        {"甲", 4, false, 0, 0},        {"丁", 9, false, 0, 0},  {"丁丁", 8, false, 0, 0},
        {"甲", SIZE_MAX, false, 0, 0}, {"", 0, false, 0, 0},    {"地 甲", 1, true, 1, 2},
    };
    eng_task *task = new_qa("{context}？{question}", false);
    REQUIRE(task != NULL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        eng_field fields[2];
        eng_example row = row_of(fields, qa_fields[0][1], cases[i].answer, cases[i].at);
        eng_encoded *encoded;
        size_t start = 0, end = 0;
        REQUIRE(mrc_encode_for_training(task, &row, 0, &encoded, &err) == ENG_OK);
        bool there = mrc_targets(encoded, &row, &start, &end);
        if (there != cases[i].there ||
            (there && (start != 1 + PROMPT + cases[i].start || end != 1 + PROMPT + cases[i].end))) {
            TEST_FAIL_("answer \"%s\" at %zu: %d, tokens %zu to %zu", cases[i].answer, cases[i].at,
                       there, start, end);
        }
        eng_encoded_free(encoded);
    }
    eng_task_free(task);
}

/* 天 × n with 甲乙 at `at`. */
static const char *haystack(size_t n, size_t at)
{
    static char out[4096];
    char *to = out;
    for (size_t i = 0; i < n; i++) {
        memcpy(to, "天", 3);
        to += 3;
        if (i + 1 == at) {
            memcpy(to, "甲乙", 6);
            to += 6;
        }
    }
    *to = '\0';
    return out;
}

/* For training, the answer survives wherever it stands; for prediction the beginning does. */
static void windows(void)
{
    eng_task *task = new_qa("{context}？{question}", false);
    REQUIRE(task != NULL);
    static const size_t places[] = {1, 9, 20, 49, 50, 54, 51, 100, 250, 299, 300};
    static const size_t limits[] = {0, 10, 60};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        for (size_t l = 0; l < sizeof limits / sizeof limits[0]; l++) {
            eng_field fields[2];
            eng_example row = row_of(fields, haystack(300, places[i]), "甲乙", places[i]);
            eng_encoded *encoded;
            size_t start, end, len;
            REQUIRE(mrc_encode_for_training(task, &row, limits[l], &encoded, &err) == ENG_OK);
            const int32_t *ids = eng_encoded_ids(encoded, &len);
            REQUIRE(mrc_targets(encoded, &row, &start, &end));
            CHECK(end == start + 1 && ids[start] == tokenizer_id(model.tokenizer, "甲"));
            size_t kept = limits[l] == 10 ? 10 : POSITIONS - PROMPT - 5;
            CHECK_INT(eng_encoded_truncated(encoded), 302 - kept);
            CHECK(limits[l] > 0 || places[i] != 100 ||
                  start - encoded->context.first == (kept - 2) / 2);
            float starts[POSITIONS] = {0}, ends[POSITIONS] = {0};
            eng_span span;
            starts[start] = 30;
            ends[end] = 30;
            CHECK_INT(eng_decode_spans(encoded, starts, ends, NULL, 0, &span, 1), 1);
            CHECK(span.start == places[i] && span.end == places[i] + 2); /* in the whole text */
            eng_encoded_free(encoded);
            REQUIRE(eng_encode(task, &row.input, limits[l], &encoded, &err) == ENG_OK);
            CHECK_INT(mrc_targets(encoded, &row, &start, &end), places[i] + 2 <= kept);
            eng_encoded_free(encoded);
        }
    }
    eng_task_free(task);
}

/* Asked about what stands far behind, the part around it is read, by a text limit and by what fits; a bank
 * that reads less at once reads less of it. */
static void the_question_says_which_part(void)
{
    static const size_t limits[] = {0, 0, 30}, narrow[] = {0, 8, 0};
    eng_task *task = new_qa("{context}？{question}", false);
    REQUIRE(task != NULL);
    for (size_t i = 0; i < 3; i++) {
        eng_field fields[2];
        eng_example row = row_of(fields, haystack(300, 200), "甲乙", 200);
        eng_encoded *encoded = NULL;
        size_t start, end;
        fields[1].value = text_of("甲乙");
        bank.info.context_tokens = narrow[i];
        REQUIRE(eng_encode(task, &row.input, limits[i], &encoded, &err) == ENG_OK);
        CHECK(mrc_targets(encoded, &row, &start, &end) && end == start + 1);
        size_t kept = encoded->context.n;
        CHECK_INT(eng_encoded_truncated(encoded), 302 - kept);
        CHECK(i == 1 ? kept == 8 : i == 2 ? kept == 30 : kept > 30);
        float starts[POSITIONS] = {0}, ends[POSITIONS] = {0};
        eng_span span;
        starts[start] = ends[end] = 30;
        CHECK_INT(eng_decode_spans(encoded, starts, ends, NULL, 0, &span, 1), 1);
        CHECK(span.start == 200 && span.end == 202);
        eng_encoded_free(encoded);
    }
    bank.info.context_tokens = 0;
    eng_task_free(task);
}

static void longest_answer(void)
{
    eng_task *task = new_qa("{context}？{question}", false);
    REQUIRE(task != NULL);
    model.params.positions = 256;
    eng_field fields[2];
    eng_example row = row_of(fields, haystack(100, 100), "", 0);
    eng_encoded *encoded = NULL;
    CHECK(eng_encode(task, &row.input, 0, &encoded, &err) == ENG_OK);
    model.params.positions = POSITIONS;
    REQUIRE(encoded != NULL);
    static const size_t most[] = {0, 64, 65, 70, 71, 1000};
    static const size_t wanted[] = {64, 64, 65, 70, 70, 70};
    float start[256] = {0}, end[256];
    start[1 + PROMPT + 10] = 20;
    for (size_t i = 0; i < 256; i++) { /* the longer the better, up to 70 tokens */
        size_t last = 1 + PROMPT + 79;
        end[i] = i <= last ? (float)i / 10 : 0;
    }
    for (size_t i = 0; i < sizeof most / sizeof most[0]; i++) {
        eng_span span;
        CHECK_INT(eng_decode_spans(encoded, start, end, NULL, most[i], &span, 1), 1);
        CHECK_INT(span.start, 10);
        CHECK_INT(span.end - span.start, wanted[i]);
    }
    eng_encoded_free(encoded);
    eng_task_free(task);
}

static void longer_answer_than_room(void)
{
    eng_task *task = new_qa("{context}？{question}", false);
    REQUIRE(task != NULL);
    eng_field fields[2];
    static char context[4096], answer[4096];
    snprintf(context, sizeof context, "%s", haystack(300, 300));
    snprintf(answer, sizeof answer, "%.*s", 3 * 200, context + 3 * 50);
    eng_example row = row_of(fields, context, answer, 50);
    eng_encoded *encoded;
    size_t start, end;
    REQUIRE(mrc_encode_for_training(task, &row, 0, &encoded, &err) == ENG_OK);
    CHECK(!mrc_targets(encoded, &row, &start, &end));
    eng_encoded_free(encoded);
    eng_task_free(task);
}

/* ---- decoding ---------------------------------------------------------------------------------------- */

static uint64_t seed = 20230701;

static float random_logit(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (float)(seed >> 40) / (float)(1 << 20) - 8;
}

/* ln of how likely an answer of n tokens is, less that of the likeliest, by the definition. */
static double log_prior(const eng_answer_length *length, double n)
{
    double mu = (double)length->mu, sigma = (double)length->sigma, mode = mu - sigma * sigma;
    double here = (log(n) - mu) / sigma, there = (mode - mu) / sigma;
    return (-here * here / 2 - log(n)) - (-there * there / 2 - mode);
}

/* All spans, by their definition. */
static size_t naive(const eng_encoded *encoded, const float *start, const float *end,
                    const eng_answer_length *length, size_t most, eng_span *spans)
{
    size_t n = 0;
    double sum = 0;
    for (size_t i = 0; i < encoded->context.n; i++) {
        for (size_t j = i; j < encoded->context.n && j < i + most; j++) {
            double score = exp((double)start[encoded->context.first + i] +
                               (double)end[encoded->context.first + j] +
                               (length != NULL ? log_prior(length, (double)(j - i + 1)) : 0));
            spans[n++] = (eng_span){encoded->context_tokens[i].start,
                                    encoded->context_tokens[j].end, score, false};
            sum += score;
        }
    }
    if (encoded->no_answer.n > 0) {
        double score = exp((double)start[encoded->no_answer.first] +
                           (double)end[encoded->no_answer.first + encoded->no_answer.n - 1]);
        spans[n++] = (eng_span){0, 0, score, true};
        sum += score;
    }
    for (size_t i = 0; i < n; i++) {
        spans[i].score /= sum;
    }
    return n;
}

static bool overlaps(const eng_span *a, const eng_span *b)
{
    return !a->no_answer && !b->no_answer && a->start < b->end && b->start < a->end;
}

static void check_against_naive(const eng_encoded *encoded, const float *all_start,
                                const float *all_end, const eng_answer_length *length, size_t most,
                                size_t wanted)
{
    float start[POSITIONS], end[POSITIONS];
    blank_unread(encoded, all_start, start);
    blank_unread(encoded, all_end, end);
    static eng_span all[4096];
    eng_span spans[8], expected = {0};
    size_t n_all = naive(encoded, start, end, length, most, all);
    size_t n = eng_decode_spans(encoded, start, end, length, most, spans, wanted);
    CHECK(n >= 1 && n <= wanted);
    for (size_t k = 0; k < n; k++) {
        expected.score = -1;
        for (size_t i = 0; i < n_all; i++) {
            bool free_place = true;
            for (size_t m = 0; m < k; m++) {
                bool both_none = spans[m].no_answer && all[i].no_answer;
                free_place = free_place && !both_none && !overlaps(&spans[m], &all[i]);
            }
            if (free_place && all[i].score > expected.score) {
                expected = all[i];
            }
        }
        CHECK_NEAR(spans[k].score, expected.score, 1e-9);
        CHECK(spans[k].start == expected.start && spans[k].end == expected.end);
        CHECK(k == 0 || spans[k].score <= spans[k - 1].score);
        CHECK(spans[k].no_answer || (spans[k].start < spans[k].end && spans[k].end <= 9));
    }
}

static void best_spans(void)
{
    static const eng_answer_length names = {0.7F, 0.5F}, sentences = {3, 0.4F};
    static const eng_answer_length *const lengths[] = {NULL, &names, &sentences};
    for (size_t none = 0; none < 2; none++) {
        eng_task *task = new_qa("", none == 1);
        REQUIRE(task != NULL);
        eng_encoded *encoded;
        REQUIRE(encode(task, qa_fields, 2, NULL, 0, 0, &encoded) == ENG_OK);
        for (size_t round = 0; round < 500; round++) {
            float start[POSITIONS], end[POSITIONS];
            for (size_t i = 0; i < POSITIONS; i++) {
                start[i] = random_logit();
                end[i] = random_logit();
            }
            check_against_naive(encoded, start, end, lengths[round % 3], 1 + round % 8,
                                1 + round % 8);
        }
        eng_encoded_free(encoded);
        eng_task_free(task);
    }
}

static void probabilities_of_all_spans_sum_to_one(void)
{
    eng_task *task = new_qa("{context}？{question}", false);
    REQUIRE(task != NULL);
    eng_encoded *encoded;
    REQUIRE(encode(task, qa_fields, 2, NULL, 0, 0, &encoded) == ENG_OK);
    float logits[POSITIONS] = {0};
    eng_span spans[16];
    double sum = 0;
    size_t n = eng_decode_spans(encoded, logits, logits, NULL, 1, spans, 16);
    CHECK_INT(n, 7);
    for (size_t i = 0; i < n; i++) {
        sum += spans[i].score;
    }
    CHECK_NEAR(sum, 1, 1e-9);
    eng_encoded_free(encoded);
    eng_task_free(task);
}

static void empty_context(void)
{
    static const char *const fields[][2] = {{"context", " "}, {"question", "好"}};
    float logits[POSITIONS] = {0};
    eng_span spans[2];
    eng_encoded *encoded;
    eng_task *task = new_qa("{context}？{question}", false);
    REQUIRE(task != NULL);
    REQUIRE(encode(task, fields, 2, NULL, 0, 0, &encoded) == ENG_OK);
    CHECK_INT(eng_decode_spans(encoded, logits, logits, NULL, 0, spans, 2), 0);
    eng_encoded_free(encoded);
    eng_task_free(task);
    task = new_qa("", true);
    REQUIRE(task != NULL);
    REQUIRE(encode(task, fields, 2, NULL, 0, 0, &encoded) == ENG_OK);
    REQUIRE(eng_decode_spans(encoded, logits, logits, NULL, 0, spans, 2) == 1);
    CHECK(spans[0].no_answer && spans[0].start == 0 && spans[0].end == 0);
    CHECK_NEAR(spans[0].score, 1, 1e-12);
    eng_encoded_free(encoded);
    eng_task_free(task);
}

static void extreme_logits(void)
{
    eng_task *task = new_qa("", true);
    REQUIRE(task != NULL);
    eng_encoded *encoded;
    REQUIRE(encode(task, qa_fields, 2, NULL, 0, 0, &encoded) == ENG_OK);
    static const eng_answer_length names = {1, 0.01F};
    static const float values[] = {1e30F, -1e30F, NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        float start[POSITIONS], end[POSITIONS];
        eng_span spans[4];
        for (size_t t = 0; t < POSITIONS; t++) {
            start[t] = t % 3 == 0 ? values[i] : random_logit();
            end[t] = t % 2 == 0 ? values[i] : random_logit();
        }
        size_t n = eng_decode_spans(encoded, start, end, i % 2 > 0 ? &names : NULL, 0, spans, 4);
        CHECK(n >= 1 && n <= 4);
        for (size_t k = 0; k < n; k++) {
            CHECK(spans[k].end <= 9 && (spans[k].no_answer || spans[k].start < spans[k].end));
        }
    }
    eng_encoded_free(encoded);
    eng_task_free(task);
}

int main(void)
{
    TESTS_BEGIN;
    if (!set_up()) {
        return 1;
    }
    RUN(sequences);
    RUN(templates_refused);
    RUN(targets);
    RUN(windows);
    RUN(the_question_says_which_part);
    RUN(longest_answer);
    RUN(longer_answer_than_room);
    RUN(best_spans);
    RUN(probabilities_of_all_spans_sum_to_one);
    RUN(empty_context);
    RUN(extreme_logits);
    tokenizer_free(model.tokenizer);
    TESTS_END;
}
