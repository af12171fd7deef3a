/* test_template.c: template syntax. */
#include "engine/template.h"
#include "tests/unit/test.h"

static struct template template;
static eng_error err;

static eng_status parse(const char *text)
{
    return template_parse((eng_text){text, strlen(text)}, &template, &err);
}

/* Literals as they are, fields as <name>. */
static const char *shown(void)
{
    static char out[8192];
    size_t n = 0;
    for (size_t i = 0; i < template.n_pieces; i++) {
        const struct template_piece *piece = &template.pieces[i];
        if (piece->field == TEMPLATE_LITERAL) {
            n += (size_t)snprintf(out + n, sizeof out - n, "%.*s", (int)piece->len,
                                  template.literals + piece->start);
        } else {
            n += (size_t)snprintf(out + n, sizeof out - n, "<%s>", template.names[piece->field]);
        }
    }
    return out;
}

static void good(void)
{
    static const char *const cases[][2] = {
        {"情感分析：\"{text}\"的情感是？", "情感分析：\"<text>\"的情感是？"},
        {"{a}", "<a>"},
        {"{a}{b}{a}", "<a><b><a>"},
        {"{{{a}}}", "{<a>}"},
        {"{{x}}{_1}}}", "{x}<_1>}"},
        {"{a}}}", "<a>}"},
        {"$%s\\n{a}", "$%s\\n<a>"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        REQUIRE(parse(cases[i][0]) == ENG_OK);
        CHECK_STR(shown(), cases[i][1]);
        CHECK_STR(template.source, cases[i][0]);
    }
    REQUIRE(parse("{b}与{a}与{b}") == ENG_OK);
    CHECK_INT(template.n_fields, 2);
    CHECK_STR(template.names[0], "b");
    CHECK_INT(template_uses(&template, 0), 2);
    CHECK_INT(template_field(&template, "a", 1), 1);
    CHECK_INT(template_field(&template, "ab", 2), 2);
}

static void defaults(void)
{
    for (int type = ENG_CLASSIFICATION; type <= ENG_EXTRACTIVE; type++) {
        CHECK(parse(template_default((eng_task_type)type, false)) == ENG_OK);
    }
    CHECK(parse(template_default(ENG_EXTRACTIVE, true)) == ENG_OK);
    CHECK(strstr(template.source, "没有答案") != NULL);
}

static void bad(void)
{
    static const struct {
        const char *text;
        const char *says;
    } cases[] = {
        {"", "no field"},     {"没有字段", "no field"}, {"{{a}}", "no field"}, {"好{", "byte 3"},
        {"{a", "byte 0"},     {"{}", "byte 0"},         {"{1a}", "byte 0"},    {"{a b}", "byte 0"},
        {"{名字}", "byte 0"}, {"{a!r}", "byte 0"},      {"{a.b}{", "byte 0"},  {"{a}}", "byte 3"},
        {"}{a}", "byte 0"},   {"{{{a}}", "byte 5"},     {"{a}\xFF", "byte 3"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK_INT(parse(cases[i].text), ENG_EINVAL);
        CHECK_STR(err.field, "template");
        if (strstr(err.text, cases[i].says) == NULL) {
            TEST_FAIL_("\"%s\": %s", cases[i].text, err.text);
        }
    }
    CHECK_INT(template_parse((eng_text){"{a}\0", 4}, &template, &err), ENG_EINVAL);
    CHECK_INT(template_parse((eng_text){NULL, 0}, &template, &err), ENG_EINVAL);
}

static void limits(void)
{
    char text[ENG_MAX_TEMPLATE_BYTES + 2];
    memset(text, 'x', sizeof text);
    memcpy(text, "{a}", 3);
    CHECK_INT(template_parse((eng_text){text, ENG_MAX_TEMPLATE_BYTES}, &template, &err), ENG_OK);
    CHECK_INT(template_parse((eng_text){text, ENG_MAX_TEMPLATE_BYTES + 1}, &template, &err),
              ENG_ELIMIT);
    size_t n = 0;
    for (int i = 0; i <= ENG_MAX_FIELDS; i++) {
        n += (size_t)snprintf(text + n, sizeof text - n, "{f%d}", i);
    }
    CHECK_INT(parse(text), ENG_ELIMIT);
    for (n = 0; n < TEMPLATE_MAX_PIECES + 1; n++) {
        memcpy(text + 3 * n, "{a}", 4);
    }
    CHECK_INT(parse(text), ENG_ELIMIT);
    CHECK_INT(template_parse((eng_text){text, (size_t)3 * TEMPLATE_MAX_PIECES}, &template, &err),
              ENG_OK);
    memset(text, 'n', 80);
    text[0] = '{';
    memcpy(text + 1 + TEMPLATE_MAX_NAME, "}", 2);
    CHECK_INT(parse(text), ENG_OK);
    memcpy(text + 1 + TEMPLATE_MAX_NAME, "n}", 3);
    CHECK_INT(parse(text), ENG_ELIMIT);
}

static void type_names(void)
{
    for (int i = ENG_CLASSIFICATION; i <= ENG_EXTRACTIVE; i++) {
        eng_task_type type;
        CHECK(eng_task_type_parse(eng_task_type_name((eng_task_type)i), &type) && (int)type == i);
    }
    eng_task_type type = ENG_PAIR;
    CHECK(!eng_task_type_parse("Pair", &type) && type == ENG_PAIR);
}

int main(void)
{
    TESTS_BEGIN;
    RUN(good);
    RUN(defaults);
    RUN(bad);
    RUN(limits);
    RUN(type_names);
    TESTS_END;
}
