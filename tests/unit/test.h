/* test.h: the whole test harness. A test program is functions named in RUN() lines of its main:
 *
 *     static void adds(void) { CHECK(1 + 1 == 2); }
 *     int main(void) { TESTS_BEGIN; RUN(adds); TESTS_END; }
 *
 * A failed CHECK prints where and what and goes on; the test then counts as failed. Every program
 * ends with one line "NAME: N passed, N failed, N skipped". SKIP(why) ends a test early, counted.
 */
#ifndef TESTS_UNIT_TEST_H
#define TESTS_UNIT_TEST_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int test_failures_, test_passed_, test_failed_, test_skipped_, test_skip_;

#define TEST_FAIL_(...)                                                                            \
    (fprintf(stderr, "%s:%d: ", __FILE__, __LINE__), fprintf(stderr, __VA_ARGS__),                 \
     fputc('\n', stderr), (void)test_failures_++)

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            TEST_FAIL_("CHECK(%s) failed", #condition);                                            \
        }                                                                                          \
    } while (0)
/* Stops the test when false: for what the rest of it needs. */
#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            TEST_FAIL_("REQUIRE(%s) failed", #condition);                                          \
            return;                                                                                \
        }                                                                                          \
    } while (0)
#define CHECK_STR(got, want)                                                                       \
    do {                                                                                           \
        const char *got_ = (got), *want_ = (want);                                                 \
        if (got_ == NULL || strcmp(got_, want_) != 0) {                                            \
            TEST_FAIL_("%s is \"%s\", want \"%s\"", #got, got_ != NULL ? got_ : "(null)", want_);  \
        }                                                                                          \
    } while (0)
#define CHECK_INT(got, want)                                                                       \
    do {                                                                                           \
        long long got_ = (long long)(got), want_ = (long long)(want);                              \
        if (got_ != want_) {                                                                       \
            TEST_FAIL_("%s is %lld, want %lld", #got, got_, want_);                                \
        }                                                                                          \
    } while (0)
#define CHECK_NEAR(got, want, tolerance)                                                           \
    do {                                                                                           \
        double got_ = (double)(got), want_ = (double)(want);                                       \
        if (!(fabs(got_ - want_) <= (double)(tolerance))) {                                        \
            TEST_FAIL_("%s is %.9g, want %.9g within %g", #got, got_, want_, (double)(tolerance)); \
        }                                                                                          \
    } while (0)
#define SKIP(why)                                                                                  \
    do {                                                                                           \
        fprintf(stderr, "skipped: %s\n", why);                                                     \
        test_skip_ = 1;                                                                            \
        return;                                                                                    \
    } while (0)

#define TESTS_BEGIN setvbuf(stdout, NULL, _IOLBF, 0)
#define RUN(test)                                                                                  \
    do {                                                                                           \
        test_failures_ = 0;                                                                        \
        test_skip_ = 0;                                                                            \
        test();                                                                                    \
        if (test_failures_ != 0) {                                                                 \
            test_failed_++;                                                                        \
            printf("FAILED %s\n", #test);                                                          \
        } else if (test_skip_) {                                                                   \
            test_skipped_++;                                                                       \
            printf("skipped %s\n", #test);                                                         \
        } else {                                                                                   \
            test_passed_++;                                                                        \
        }                                                                                          \
    } while (0)
#define TESTS_END                                                                                  \
    do {                                                                                           \
        printf("%s: %d passed, %d failed, %d skipped\n", __FILE__, test_passed_, test_failed_,     \
               test_skipped_);                                                                     \
        return test_failed_ == 0 && test_passed_ + test_skipped_ > 0 ? 0 : 1;                      \
    } while (0)

#endif
