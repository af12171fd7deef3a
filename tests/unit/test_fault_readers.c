/* test_fault_readers.c: every allocation of opening and converting fails in turn: an error, no crash,
 * nothing lost.
 *
 * The test brings its own malloc family in front of glibc's; a sanitizer does the same, so there the
 * test is skipped.
 */
#include "engine/engine.h"
#include "engine/weights.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <unistd.h>

#define GOLDEN TEST_SOURCE_DIR "/tests/golden/"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

#ifdef SANITIZED

static void every_allocation_may_fail(void)
{
    SKIP("a sanitizer owns malloc");
}

int main(void)
{
    TESTS_BEGIN;
    RUN(every_allocation_may_fail);
    TESTS_END;
}

#else

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t align, size_t size);
void __libc_free(void *block);

static long countdown = -1; /* allocations until the one that fails; below 0: none does */
static long outstanding;    /* blocks that are not freed */

static bool fails(void)
{
    return countdown >= 0 && countdown-- == 0;
}

static void *counted(void *block)
{
    outstanding += block != NULL;
    return block;
}

static void *refuse(void)
{
    errno = ENOMEM;
    return NULL;
}

void *malloc(size_t size)
{
    return fails() ? refuse() : counted(__libc_malloc(size));
}

void *calloc(size_t n, size_t size)
{
    return fails() ? refuse() : counted(__libc_calloc(n, size));
}

void *realloc(void *old, size_t size)
{
    if (fails()) {
        return refuse();
    }
    void *block = __libc_realloc(old, size);
    outstanding += old == NULL && block != NULL;
    return block;
}

void *aligned_alloc(size_t align, size_t size)
{
    return fails() ? refuse() : counted(__libc_memalign(align, size));
}

int posix_memalign(void **out, size_t align, size_t size)
{
    void *block = fails() ? NULL : counted(__libc_memalign(align, size));
    *out = block != NULL ? block : *out;
    return block != NULL ? 0 : ENOMEM;
}

void free(void *block)
{
    outstanding -= block != NULL;
    __libc_free(block);
}

/* ---- the loop ----------------------------------------------------------------------------------- */

typedef eng_status (*work)(eng_error *err);

/* Runs `body` with allocation 0, 1, 2, … failing until it passes. Where JSON is parsed, jansson may
 * call what it lacks memory for malformed (jsonload.c): then any error will do. */
static void exhaust(const char *name, work body, bool parses_json)
{
    eng_error err;
    CHECK(body(&err) == ENG_OK); /* once whole: caches and tables of libraries are made here */
    long before = outstanding;
    size_t silent = 0, misnamed = 0, tries = 0;
    for (; tries < 20000; tries++) {
        err = (eng_error){0};
        countdown = (long)tries;
        eng_status status = body(&err);
        bool reached = countdown < 0;
        countdown = -1;
        silent += status != ENG_OK && (err.status != status || err.text[0] == '\0');
        misnamed += status != ENG_OK && status != ENG_ENOMEM;
        if (outstanding != before) {
            TEST_FAIL_("%s: allocation %zu fails: %ld blocks are lost", name, tries,
                       outstanding - before);
            return;
        }
        if (!reached) {
            CHECK(status == ENG_OK);
            break;
        }
    }
    CHECK(tries > 3);
    CHECK_INT(silent, 0);
    CHECK(parses_json || misnamed == 0);
}

static eng_status list_file(const char *path, eng_error *err)
{
    struct weights *weights = NULL;
    eng_status status = weights_open(path, &weights, err);
    weights_free(weights);
    return status;
}

static eng_status open_safetensors(eng_error *err)
{
    return list_file(GOLDEN "bank_shallow.safetensors", err);
}

static eng_status open_zip(eng_error *err)
{
    return list_file(GOLDEN "bank_deep.th", err);
}

static eng_status open_legacy(eng_error *err)
{
    return list_file(GOLDEN "pytorch_model_legacy.bin", err);
}

static eng_status open_model(eng_error *err)
{
    eng_model *model = NULL;
    eng_status status = eng_model_open(GOLDEN, &model, err);
    eng_model_free(model);
    return status;
}

static eng_model *golden;

static eng_status open_bank(eng_error *err)
{
    eng_bank *bank = NULL;
    eng_status status = eng_bank_open(golden, GOLDEN "bank_deep.th", false, &bank, err);
    eng_bank_free(bank);
    return status;
}

static eng_status convert(eng_error *err)
{
    char path[64];
    snprintf(path, sizeof path, "/tmp/mp2-test-fault-%ld.safetensors", (long)getpid());
    eng_status status = eng_convert_bank(GOLDEN "bank_shallow.th", path, "F16", 0, err);
    unlink(path);
    return status;
}

static void readers_survive(void)
{
    exhaust("safetensors", open_safetensors, true);
    exhaust("zip", open_zip, false);
    exhaust("legacy", open_legacy, false);
}

static void models_survive(void)
{
    exhaust("model", open_model, true);
}

static void banks_survive(void)
{
    REQUIRE(eng_model_open(GOLDEN, &golden, NULL) == ENG_OK);
    exhaust("bank", open_bank, false);
    eng_model_free(golden);
}

static void conversions_survive(void)
{
    exhaust("convert", convert, false);
}

int main(void)
{
    TESTS_BEGIN;
    RUN(readers_survive);
    RUN(models_survive);
    RUN(banks_survive);
    RUN(conversions_survive);
    TESTS_END;
}

#endif
