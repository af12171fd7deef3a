/* test_json.c: limits before parsing, strictness, and getters that point at what is wrong. */
#include "server/json.h"
#include "tests/unit/test.h"

static const struct json_limits limits = {4096, JSON_MAX_DEPTH, 200};

static json_t *parse(const char *text)
{
    char why[200] = "";
    json_t *value = json_parse(text, strlen(text), &limits, why, sizeof why);
    if (value == NULL) {
        CHECK(why[0] != '\0');
    }
    return value;
}

static void good_texts(void)
{
    static const char *const good[] = {"{}", "[]", "{\"a\":[1,2.5,-3e2,true,null,\"\\u7532\"]}",
                                       "[\"[[[[[[{{{{{{,,,,::::\"]", "[\"\\\\\",\"\\\"[\"]"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        json_t *value = parse(good[i]);
        CHECK(value != NULL);
        json_decref(value);
    }
}

static void bad_texts(void)
{
    static const char *const bad[] = {"",
                                      "{",
                                      "[1,]",
                                      "{\"a\":1,\"a\":2}",
                                      "[1] x",
                                      "nul",
                                      "[NaN]",
                                      "[01]",
                                      "[1e999]",
                                      "[99999999999999999999]",
                                      "[\"\xff\"]",
                                      "[\"\xed\xa0\x80\"]",
                                      "[\"\\ud800\"]",
                                      "[\"\\u0000\"]",
                                      "[\"",
                                      "[\"\\",
                                      "{\"a\\u0000\":1}",
                                      "\"text\"",
                                      "1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK(parse(bad[i]) == NULL);
    }
    char why[200];
    CHECK(json_parse("[\"a\0b\"]", 7, &limits, why, sizeof why) == NULL);
}

static void nested(char *text, size_t depth)
{
    memset(text, '[', depth);
    memset(text + depth, ']', depth);
    text[2 * depth] = '\0';
}

static void depth_is_bounded(void)
{
    char text[256], why[200] = "";
    nested(text, JSON_MAX_DEPTH);
    json_t *value = parse(text);
    CHECK(value != NULL);
    json_decref(value);
    nested(text, JSON_MAX_DEPTH + 1);
    CHECK(parse(text) == NULL);
    CHECK(!json_scan(text, strlen(text), &limits, why, sizeof why));
    CHECK(strstr(why, "32") != NULL);
}

static void tokens_and_bytes_are_bounded(void)
{
    char text[5000], why[200] = "";
    text[0] = '[';
    for (size_t i = 0; i < 198; i++) {
        memcpy(text + 1 + 2 * i, "1,", 2);
    }
    memcpy(text + 1 + 2 * 198, "1]", 3);
    CHECK(json_scan(text, strlen(text), &limits, why, sizeof why)); /* 200 tokens */
    memcpy(text + 1 + 2 * 198, "1,1]", 5);
    CHECK(!json_scan(text, strlen(text), &limits, why, sizeof why));
    CHECK(strstr(why, "max_json_tokens") != NULL);
    memset(text, ' ', sizeof text);
    CHECK(!json_scan(text, 4097, &limits, why, sizeof why));
    CHECK(strstr(why, "4096") != NULL && strstr(why, "4097") != NULL);
    CHECK(json_scan(text, 4096, &limits, why, sizeof why));
}

/* Unbalanced closing brackets must not wrap the depth around. */
static void closing_brackets_do_not_wrap(void)
{
    char why[200];
    CHECK(json_scan("]]]]]]", 6, &limits, why, sizeof why));
    CHECK(parse("]]]][") == NULL);
}

static void pointers(void)
{
    struct problems problems = {0};
    problem_add(&problems, "#/inputs/3", "a/b~c", "x");
    CHECK_STR(problems.items[0].pointer, "#/inputs/3/a~1b~0c");
    problem_add(&problems, "#", "\xe7\x94\xb2 \"%", "x");
    CHECK_STR(problems.items[1].pointer, "#/%E7%94%B2%20%22%25");
    problem_add(&problems, "#/x", NULL, "x");
    CHECK_STR(problems.items[2].pointer, "#/x");
    char key[400];
    memset(key, '/', sizeof key);
    key[399] = '\0';
    problem_add(&problems, "#", key, "x");
    CHECK(strlen(problems.items[3].pointer) < sizeof problems.items[3].pointer);
    for (size_t i = 0; i < 40; i++) {
        problem_add(&problems, "#", "k", "x");
    }
    CHECK(problems.count == 44);
}

static void getters_read(void)
{
    json_t *o = parse("{\"s\":\"text\",\"n\":20,\"f\":20.0,\"r\":0.5,\"b\":true,\"a\":[1],\"o\":{},"
                      "\"w\":\"two\",\"z\":null}");
    struct problems p = {0};
    static const char *const words[] = {"one", "two", NULL};
    const char *s = NULL;
    uint64_t n = 0, f = 0, absent = 7;
    double r = 0;
    bool b = false;
    json_t *a = NULL, *inner = NULL;
    size_t w = 9;
    REQUIRE(o != NULL);
    CHECK(json_get_string(o, "#", "s", JSON_REQUIRED_FIELD, 4, 4, &s, &p));
    CHECK_STR(s, "text");
    CHECK(json_get_u64(o, "#", "n", JSON_REQUIRED_FIELD, 20, 20, &n, &p) && n == 20);
    CHECK(json_get_u64(o, "#", "f", JSON_REQUIRED_FIELD, 0, 20, &f, &p) && f == 20);
    CHECK(json_get_double(o, "#", "r", JSON_REQUIRED_FIELD, 0.5, 1, &r, &p) && r == 0.5);
    CHECK(json_get_double(o, "#", "n", JSON_REQUIRED_FIELD, 0, 100, &r, &p) && r == 20);
    CHECK(json_get_bool(o, "#", "b", JSON_REQUIRED_FIELD, &b, &p) && b);
    CHECK(json_get_array(o, "#", "a", JSON_REQUIRED_FIELD, 1, 1, &a, &p) && a != NULL);
    CHECK(json_get_object(o, "#", "o", JSON_REQUIRED_FIELD, &inner, &p) && inner != NULL);
    CHECK(json_get_choice(o, "#", "w", JSON_REQUIRED_FIELD, words, &w, &p) && w == 1);
    CHECK(!json_get_u64(o, "#", "none", JSON_OPTIONAL_FIELD, 0, 9, &absent, &p) && absent == 7);
    CHECK(!json_get_u64(o, "#", "z", JSON_OPTIONAL_FIELD, 0, 9, &absent, &p) && absent == 7);
    CHECK_INT(p.count, 0);
    json_decref(o);
}

static void getters_complain(void)
{
    json_t *o = parse("{\"s\":\"text\",\"n\":-1,\"f\":20.5,\"x\":{},\"big\":1e300,\"a\":[]}");
    struct problems p = {0};
    static const char *const words[] = {"one", "two", NULL};
    const char *s = NULL;
    uint64_t n = 7;
    double r = 7;
    bool b = false;
    json_t *a = NULL;
    size_t w = 7;
    REQUIRE(o != NULL);
    CHECK(!json_get_string(o, "#", "none", JSON_REQUIRED_FIELD, 0, 9, &s, &p));
    CHECK(!json_get_string(o, "#", "n", JSON_OPTIONAL_FIELD, 0, 9, &s, &p));
    CHECK(!json_get_string(o, "#", "s", JSON_OPTIONAL_FIELD, 0, 3, &s, &p));
    CHECK(!json_get_u64(o, "#", "n", JSON_OPTIONAL_FIELD, 0, UINT64_MAX, &n, &p));
    CHECK(!json_get_u64(o, "#", "f", JSON_OPTIONAL_FIELD, 0, 100, &n, &p));
    CHECK(!json_get_u64(o, "#", "big", JSON_OPTIONAL_FIELD, 0, UINT64_MAX, &n, &p));
    CHECK(!json_get_u64(o, "#", "s", JSON_OPTIONAL_FIELD, 0, 9, &n, &p));
    CHECK(!json_get_double(o, "#", "big", JSON_OPTIONAL_FIELD, 0, 9, &r, &p));
    CHECK(!json_get_bool(o, "#", "s", JSON_OPTIONAL_FIELD, &b, &p));
    CHECK(!json_get_array(o, "#", "a", JSON_OPTIONAL_FIELD, 1, 2, &a, &p));
    CHECK(!json_get_object(o, "#", "a", JSON_OPTIONAL_FIELD, &a, &p));
    CHECK(!json_get_choice(o, "#", "s", JSON_OPTIONAL_FIELD, words, &w, &p));
    CHECK_INT(p.count, 12);
    CHECK(n == 7 && r == 7 && w == 7 && s == NULL && a == NULL);
    CHECK_STR(p.items[0].pointer, "#/none");
    CHECK(strstr(p.items[11].detail, "one, two") != NULL);
    json_decref(o);
}

static void unknown_members(void)
{
    static const char *const known[] = {"a", "b", NULL};
    struct problems p = {0};
    json_t *o = parse("{\"a\":1,\"c\":2}");
    json_only(o, "#", known, &p);
    CHECK_INT(p.count, 1);
    CHECK_STR(p.items[0].pointer, "#/c");
    CHECK(strstr(p.items[0].detail, "a, b") != NULL);
    json_decref(o);
}

static void floats_have_nine_digits(void)
{
    size_t len = 0;
    json_t *o = json_pack("{s:f}", "p", 0.1);
    char *text = json_text(o, &len);
    CHECK_STR(text, "{\"p\":0.1}");
    CHECK(len == strlen("{\"p\":0.1}"));
    free(text);
    json_decref(o);
}

static void put_takes_its_value(void)
{
    json_t *o = json_object();
    CHECK(json_put(o, "a", json_integer(1)) && json_put(o, "b", json_text_or_null(NULL)));
    CHECK(!json_put(o, "c", NULL));
    CHECK(!json_put(NULL, "c", json_integer(1))); /* freed: the leak checker would tell */
    CHECK(json_is_null(json_object_get(o, "b")));
    CHECK(json_is_null(json_seconds(0)) == 1);
    json_decref(o);
}

int main(void)
{
    TESTS_BEGIN;
    RUN(good_texts);
    RUN(bad_texts);
    RUN(depth_is_bounded);
    RUN(tokens_and_bytes_are_bounded);
    RUN(closing_brackets_do_not_wrap);
    RUN(pointers);
    RUN(getters_read);
    RUN(getters_complain);
    RUN(unknown_members);
    RUN(floats_have_nine_digits);
    RUN(put_takes_its_value);
    TESTS_END;
}
