/* test_metrics.c: macro F1, confusion and CMRC scores on cases worked out by hand. */
#include "engine/metrics.h"
#include "tests/unit/test.h"

static void macro_f1(void)
{
    const size_t perfect[4] = {3, 0, 0, 2};
    CHECK_NEAR(metrics_macro_f1(perfect, 2), 1.0, 1e-12);
    /* label 0: P 2/3, R 2/3 -> 2/3;  label 1: P 3/4, R 3/4 -> 3/4 */
    const size_t some[4] = {2, 1, 1, 3};
    CHECK_NEAR(metrics_macro_f1(some, 2), (2.0 / 3 + 3.0 / 4) / 2, 1e-12);
    /* everything called label 0; label 2 never occurs and does not count */
    const size_t lazy[9] = {4, 0, 0, 4, 0, 0, 0, 0, 0};
    CHECK_NEAR(metrics_macro_f1(lazy, 3), (2.0 * 4 / 12 + 0) / 2, 1e-12);
    const size_t none[4] = {0};
    CHECK_NEAR(metrics_macro_f1(none, 2), 0.0, 0);
}

static void answer(const char *truth, const char *guess, double exact, double f1)
{
    struct answer_score score;
    CHECK(metrics_answer((eng_text){truth, strlen(truth)}, (eng_text){guess, strlen(guess)}, &score,
                         NULL) == ENG_OK);
    if (fabs(score.exact - exact) > 1e-9 || fabs(score.f1 - f1) > 1e-9) {
        TEST_FAIL_("\"%s\" against \"%s\": %.4f %.4f, want %.4f %.4f", guess, truth, score.exact,
                   score.f1, exact, f1);
    }
}

static void answers(void)
{
    answer("北京", "北京", 1, 1);
    answer("北京。", "《北京》", 1, 1);
    answer("北京大学", "北京", 0, 2.0 * 2 / 6);
    answer("北京大学", "大学北京", 0, 0.5); /* the longest run counts, not the bag */
    answer("Windows 7", "windows7", 0, 0);
    answer("windows 7系统", "Windows 7 系统", 1, 1);
    answer("1998年", "1998", 0, 2.0 * 1 / 3);
    answer("甲", "乙", 0, 0);
    answer("", "", 1, 1);
    answer("", "北京", 0, 0);
    answer("北京", "", 0, 0);
    answer("……", "。", 1, 1); /* nothing but punctuation is nothing */
}

int main(void)
{
    TESTS_BEGIN;
    RUN(macro_f1);
    RUN(answers);
    TESTS_END;
}
