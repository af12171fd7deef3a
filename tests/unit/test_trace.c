/* test_trace.c: which traceparents are taken, and what the answer's looks like. */
#include "server/trace.h"
#include "tests/unit/test.h"

#include <sodium.h>

#define TRACE "4bf92f3577b34da6a3ce929d0e0e4736"
#define SPAN  "00f067aa0ba902b7"

static void answers(void)
{
    char out[TRACE_CHARS + 1], again[TRACE_CHARS + 1];
    CHECK(trace_answer("00-" TRACE "-" SPAN "-01", out));
    CHECK_INT(strlen(out), TRACE_CHARS);
    CHECK(strncmp(out, "00-" TRACE "-", 36) == 0 && strcmp(out + 52, "-01") == 0);
    CHECK(strncmp(out + 36, SPAN, 16) != 0 && strspn(out + 36, "0123456789abcdef") == 16);
    CHECK(trace_answer("00-" TRACE "-" SPAN "-01", again) && strcmp(out, again) != 0);
    CHECK(trace_answer("cc-" TRACE "-" SPAN "-00-more", out) && strncmp(out, "00-", 3) == 0);
}

static void refusals(void)
{
    static const char *const wrong[] = {
        "",
        "00",
        "00-" TRACE "-" SPAN,
        "00-" TRACE "-" SPAN "-1",
        "00-" TRACE "-" SPAN "-01-more",
        "00-" TRACE "-" SPAN "-011",
        "cc-" TRACE "-" SPAN "-01more",
        "ff-" TRACE "-" SPAN "-01",
        "00-00000000000000000000000000000000-" SPAN "-01",
        "00-" TRACE "-0000000000000000-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-" SPAN "-01",
        "00_" TRACE "-" SPAN "-01",
        "00-" TRACE "-" SPAN "-0g",
        "0g-" TRACE "-" SPAN "-01",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char out[TRACE_CHARS + 1] = "x";
        CHECK(!trace_answer(wrong[i], out) && out[0] == '\0');
    }
    char out[TRACE_CHARS + 1];
    CHECK(!trace_answer(NULL, out));
}

int main(void)
{
    TESTS_BEGIN;
    if (sodium_init() < 0) {
        return 1;
    }
    RUN(answers);
    RUN(refusals);
    TESTS_END;
}
