/* test_status.c: status names and error texts. */
#include "engine/status.h"
#include "tests/unit/test.h"

static void names(void)
{
    CHECK_STR(eng_status_name(ENG_EFORMAT), "ENG_EFORMAT");
    CHECK_STR(eng_status_text(ENG_OK), "ok");
    CHECK_STR(eng_status_name((eng_status)999), "ENG_UNKNOWN");
}

static void long_text_is_cut_at_a_character(void)
{
    eng_error err;
    char text[1024];
    for (size_t i = 0; i + 3 < sizeof text; i += 3) {
        memcpy(text + i, "字", 4);
    }
    CHECK(fail(&err, ENG_ELIMIT, "f", "%s", text) == ENG_ELIMIT);
    CHECK(strlen(err.text) % 3 == 0 && strlen(err.text) < sizeof err.text);
}

static void control_characters_do_not_get_out(void)
{
    eng_error err;
    CHECK(fail(&err, ENG_EFORMAT, "a\nb", "x\x1b[31m 字") == ENG_EFORMAT);
    CHECK_STR(err.field, "a?b");
    CHECK_STR(err.text, "x?[31m 字");
}

static void sizes_do_not_wrap(void)
{
    size_t out = 1;
    CHECK(!size_mul(SIZE_MAX, 2, &out) && out == 0);
    CHECK(size_mul(6, 7, &out) && out == 42);
    CHECK(!size_add(SIZE_MAX, 1, &out));
}

int main(void)
{
    TESTS_BEGIN;
    RUN(names);
    RUN(long_text_is_cut_at_a_character);
    RUN(control_characters_do_not_get_out);
    RUN(sizes_do_not_wrap);
    TESTS_END;
}
