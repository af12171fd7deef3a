/* test_text_faults.c: every allocation from vocabulary to sequence fails in its turn. The answer is
 * ENG_ENOMEM, the output NULL, and nothing stays behind. */
#include "tests/unit/failing_malloc.h"
#include "tests/unit/mrc_fixture.h"

/* Enough labels, options and text that every list has to grow. */
static eng_status use_task(eng_task_type type, const char *template)
{
    static const char *const labels[] = {"好", "坏", "甲乙丙丁"};
    static const char *const fields[][2] = {
        {"text", "天地天地天地天地天地天地天地天地天地天地天地天地天"},
        {"context", "天地甲乙"},
        {"question", "丙丁"}};
    eng_text texts[3];
    for (size_t i = 0; i < 3; i++) {
        texts[i] = text_of(labels[i]);
    }
    size_t n_labels = type == ENG_CLASSIFICATION ? 3 : 0;
    eng_task_spec spec = {type, text_of(template), texts, n_labels, type == ENG_EXTRACTIVE};
    eng_task *task = NULL;
    eng_encoded *encoded = NULL;
    eng_status status = eng_task_new(&model, &bank, &spec, &task, &err);
    CHECK((status == ENG_OK) == (task != NULL));
    if (status == ENG_OK) {
        status = encode(task, fields, 3, labels, 3, 0, &encoded);
        CHECK((status == ENG_OK) == (encoded != NULL));
    }
    eng_encoded_free(encoded);
    eng_task_free(task);
    return status;
}

static eng_status scenario(void)
{
    struct tokenizer *own = model.tokenizer;
    bool made = set_up();
    eng_status status = made ? ENG_OK : err.status;
    if (status == ENG_OK) {
        status = use_task(ENG_CLASSIFICATION, "");
    }
    if (status == ENG_OK) {
        status = use_task(ENG_CHOICE, "");
    }
    if (status == ENG_OK) {
        status = use_task(ENG_EXTRACTIVE, "");
    }
    tokenizer_free(model.tokenizer);
    model.tokenizer = own;
    return status;
}

static void every_allocation_fails_in_turn(void)
{
    if (!OWN_MALLOC) {
        SKIP("the sanitizer has its own malloc");
    }
    eng_status status = ENG_ENOMEM;
    long n = 0;
    while (status == ENG_ENOMEM && n < 1000) {
        long before = alive;
        until_failure = ++n;
        status = scenario();
        until_failure = 0;
        CHECK(status == ENG_OK || status == ENG_ENOMEM);
        CHECK_INT(alive, before);
    }
    CHECK_INT(status, ENG_OK);
    CHECK(n > 20); /* it did fail in many places */
    printf("%ld allocations failed in turn\n", n - 1);
}

int main(void)
{
    TESTS_BEGIN;
    RUN(every_allocation_fails_in_turn);
    TESTS_END;
}
