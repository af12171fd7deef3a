/* test_evaluate.c: evaluation against predictions made one row at a time. */
#include "engine/engine.h"
#include "tests/unit/toy_task.h"

static struct toy toy;

static eng_status evaluate(const eng_dataset *set, const size_t *which, size_t n, const float *mix,
                           size_t *predicted, size_t *confusion, eng_scores *scores, eng_error *err)
{
    return eng_evaluate(toy.compute, ENG_SERVING, toy.model, toy.bank, toy.task, set, which, n, mix,
                        NULL, NULL, NULL, 0, NULL, NULL, predicted, confusion, scores, err);
}

/* The mix of router row `row`. */
static void row_mix(size_t row, float *mix)
{
    float route[64];
    eng_bank_row(toy.bank, row, route);
    eng_route_mix(toy.bank, route, mix);
}

static size_t predict_alone(size_t row, const float *mix)
{
    eng_example example;
    float start[512], end[512], scores[2] = {0};
    size_t len = 0;
    eng_dataset_row(toy.set, row, &example, NULL);
    eng_encoded *encoded = toy_forward(&toy, toy.task, &example.input, mix, start, end, &len);
    if (encoded != NULL) {
        eng_decode_options(encoded, start, end, NULL, scores);
    }
    eng_encoded_free(encoded);
    return scores[1] > scores[0];
}

static void counts_what_single_predictions_say(void)
{
    float mix[64];
    size_t predicted[TOY_ROWS], confusion[4], right = 0, want[4] = {0};
    eng_scores scores;
    row_mix(8, mix);
    REQUIRE(evaluate(toy.set, NULL, 0, mix, predicted, confusion, &scores, NULL) == ENG_OK);
    for (size_t i = 0; i < TOY_ROWS; i++) {
        size_t truth = i % 2 == 0, alone = predict_alone(i, mix);
        CHECK_INT(predicted[i], alone);
        right += alone == truth;
        want[truth * 2 + alone]++;
    }
    CHECK(memcmp(confusion, want, sizeof want) == 0);
    CHECK_INT(scores.rows, TOY_ROWS);
    CHECK_NEAR(scores.accuracy, (double)right / TOY_ROWS, 1e-12);
    CHECK(scores.loss > 0 && scores.loss < 3);
    CHECK(scores.tokens > TOY_ROWS * 20 && scores.truncated == 0);
}

static void chosen_rows_only_and_the_same_alone(void)
{
    float mix[64];
    size_t which[2] = {5, 2}, predicted[2];
    eng_scores both, one;
    double sum = 0;
    row_mix(0, mix);
    REQUIRE(evaluate(toy.set, which, 2, mix, predicted, NULL, &both, NULL) == ENG_OK);
    CHECK_INT(both.rows, 2);
    for (size_t i = 0; i < 2; i++) {
        size_t alone;
        REQUIRE(evaluate(toy.set, &which[i], 1, mix, &alone, NULL, &one, NULL) == ENG_OK);
        CHECK_INT(alone, predicted[i]);
        sum += one.loss;
    }
    CHECK(sum / 2 == both.loss); /* to the bit: neighbours change nothing */
}

static bool always(void *arg)
{
    (void)arg;
    return true;
}

static void mistakes_are_named(void)
{
    eng_scores scores;
    eng_error err = {.text = ""};
    float mix[64];
    row_mix(0, mix);
    eng_dataset *other = toy_rows("丙", "甲");
    REQUIRE(other != NULL);
    CHECK(evaluate(other, NULL, 0, mix, NULL, NULL, &scores, &err) == ENG_EINVAL);
    CHECK_STR(err.field, "label");
    CHECK(strstr(err.text, "丙") != NULL);
    eng_dataset_free(other);
    CHECK(eng_evaluate(toy.compute, ENG_SERVING, toy.model, toy.bank, toy.task, toy.set, NULL, 0,
                       mix, NULL, NULL, NULL, 0, always, NULL, NULL, NULL, &scores,
                       &err) == ENG_ECANCELLED);
    const char *pair = "{\"text_a\":\"甲\",\"text_b\":\"乙\",\"label\":\"甲\"}";
    REQUIRE(eng_dataset_parse((eng_text){pair, strlen(pair)}, ENG_ROWS_JSONL, NULL, &other, NULL,
                              NULL, NULL) == ENG_OK);
    CHECK(evaluate(other, NULL, 0, mix, NULL, NULL, &scores, &err) == ENG_EINVAL);
    CHECK_STR(err.field, "type");
    eng_dataset_free(other);
}

static void cut_texts_are_counted(void)
{
    eng_scores scores;
    float mix[64];
    row_mix(0, mix);
    REQUIRE(eng_evaluate(toy.compute, ENG_SERVING, toy.model, toy.bank, toy.task, toy.set, NULL, 0,
                         mix, NULL, NULL, NULL, 4, NULL, NULL, NULL, NULL, &scores,
                         NULL) == ENG_OK);
    CHECK_INT(scores.truncated, TOY_ROWS);
}

int main(void)
{
    TESTS_BEGIN;
    if (toy_open(&toy)) {
        RUN(counts_what_single_predictions_say);
        RUN(chosen_rows_only_and_the_same_alone);
        RUN(mistakes_are_named);
        RUN(cut_texts_are_counted);
    }
    toy_close(&toy);
    TESTS_END;
}
