/* test_text_faults.c: every allocation from vocabulary to sequence fails in its turn. The answer is
 * ENG_ENOMEM, the output NULL, and nothing stays behind.
 *
 * This program's malloc, calloc, realloc and free stand before glibc's: they count what is alive and can
 * fail the n-th call. Sanitizers bring their own, so there the test is skipped. */
#include "tests/unit/mrc_fixture.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OWN_MALLOC 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define OWN_MALLOC 0
#endif
#endif
#ifndef OWN_MALLOC
#define OWN_MALLOC 1
#endif

static long until_failure; /* 0: never */
static long alive;

#if OWN_MALLOC
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);
void __libc_free(void *old);

static bool fails(void)
{
    return until_failure > 0 && --until_failure == 0;
}

static void *count(void *made)
{
    alive += made != NULL;
    return made;
}

void *malloc(size_t size)
{
    return fails() ? NULL : count(__libc_malloc(size));
}

void *calloc(size_t n, size_t size)
{
    return fails() ? NULL : count(__libc_calloc(n, size));
}

void *realloc(void *old, size_t size)
{
    if (fails()) {
        return NULL;
    }
    void *made = __libc_realloc(old, size);
    alive += made != NULL && old == NULL;
    return made;
}

void free(void *old)
{
    alive -= old != NULL;
    __libc_free(old);
}
#endif

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
