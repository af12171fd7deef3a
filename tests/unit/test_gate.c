/* test_gate.c: what may enter: paths, queries, headers, percent codes, UTF-8. */
#include "server/gate.h"
#include "tests/unit/test.h"

static void good_paths(void)
{
    static const char *const good[] = {
        "/",         "/v1/tasks",  "/v1/tasks/acme%2Freviews", "/a.b/..c",
        "/a/",       "/%E7%94%B2", "/~!$&'()*+,;=:@-._",       "/...",
        "/%2e%2e%2e"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        CHECK(gate_path(good[i]) == NULL);
    }
}

static void bad_paths(void)
{
    static const char *const bad[] = {"",           "x",
                                      "*",          "/.",
                                      "/..",        "/a/../b",
                                      "/a/./b",     "/%2e",
                                      "/%2E%2e",    "/.%2e/x",
                                      "//",         "/a//b",
                                      "/%00",       "/a%00b",
                                      "/%",         "/%1",
                                      "/%g0",       "/%0g",
                                      "/a b",       "/a\tb",
                                      "/a\x7f",     "/%7f",
                                      "/%0a",       "/\xff",
                                      "/%ff",       "/%c0%af",
                                      "/%E7%94",    "/\xe7\x94",
                                      "/%ed%a0%80", "/%f4%90%80%80",
                                      "/%f5",       "/%E7\x94%B2x\xb2"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (gate_path(bad[i]) == NULL) {
            TEST_FAIL_("\"%s\" was let in", bad[i]);
        }
    }
}

/* A sequence may be partly encoded, and longer than the window that is looked at. */
static void mixed_encodings(void)
{
    CHECK(gate_path("/%E7\x94%B2") == NULL);
    CHECK(gate_path("/\xe7%94\xb2\xe4%B9%99abc\xf0\x9f%98\x80") == NULL);
    CHECK(gate_query("a=%E7%94%B2&b=+&c") == NULL);
    CHECK(gate_query("") == NULL);
    CHECK(gate_query("a=%0d%0a") != NULL);
    CHECK(gate_query("a=%80") != NULL);
}

struct line {
    const char *name, *value;
};

static const char *gate_lines(const char *version, const struct line *lines)
{
    struct gate_headers headers = {0};
    for (; lines->name != NULL; lines++) {
        gate_header(&headers, lines->name, strlen(lines->name), lines->value, strlen(lines->value));
    }
    return gate_finish(&headers, version);
}
#define LINES(...) ((const struct line[]){__VA_ARGS__, {NULL, NULL}})

static void good_headers(void)
{
    CHECK(gate_lines("HTTP/1.1", LINES({"Host", "x"})) == NULL);
    CHECK(gate_lines("HTTP/1.0", LINES({"X-A", "b\tc \xe9"})) == NULL);
    CHECK(gate_lines("HTTP/1.1", LINES({"host", "x"}, {"CONTENT-LENGTH", "25"})) == NULL);
    CHECK(gate_lines("HTTP/1.1", LINES({"Host", "x"}, {"Transfer-Encoding", "Chunked"})) == NULL);
    CHECK(gate_lines("HTTP/1.1", LINES({"Host", "x"}, {"!#$%&'*+-.^_`|~09azAZ", ""})) == NULL);
}

static void bad_headers(void)
{
    const struct line *bad[] = {
        LINES({"X", "no host"}),
        LINES({"Host", "x"}, {"hOST", "y"}),
        LINES({"Host", "x"}, {"Content-Length", "2"}, {"Content-length", "2"}),
        LINES({"Host", "x"}, {"Content-Length", "2"}, {"Transfer-Encoding", "chunked"}),
        LINES({"Host", "x"}, {"Transfer-Encoding", "gzip, chunked"}),
        LINES({"Host", "x"}, {"Transfer-Encoding", "chunked"}, {"Transfer-Encoding", "chunked"}),
        LINES({"Host", "x"}, {"Transfer-Encoding", ""}),
        LINES({"Host", "x"}, {"Content-Length", ""}),
        LINES({"Host", "x"}, {"Content-Length", "-1"}),
        LINES({"Host", "x"}, {"Content-Length", "1 "}),
        LINES({"Host", "x"}, {"Content-Length", "18446744073709551616"}),
        LINES({"Host", "x"}, {"Content-Length ", "2"}),
        LINES({"Host", "x"}, {"", "2"}),
        LINES({"Host", "x"}, {"A(B", "2"}),
        LINES({"Host", "x"}, {"A\xc3", "2"}),
        LINES({"Host", "x"}, {"A", "2\x01"}),
        LINES({"Host", "x"}, {"A", "2\r"}),
        LINES({"Host", "x"}, {"A", "2\x7f"}),
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (gate_lines("HTTP/1.1", bad[i]) == NULL) {
            TEST_FAIL_("headers %zu were let in", i);
        }
    }
    CHECK(gate_lines("HTTP/1.0", LINES({"Transfer-Encoding", "chunked"})) != NULL);
}

static void lengths(void)
{
    struct gate_headers headers = {0};
    gate_header(&headers, "Content-Length", 14, "18446744073709551615", 20);
    CHECK(headers.wrong == NULL && headers.length == UINT64_MAX && headers.lengths == 1);
}

static void decoding(void)
{
    char out[32];
    size_t len = 0;
    CHECK(percent_decode("a%2Fb+%e7", 9, false, out, &len) && len == 5);
    CHECK(memcmp(out, "a/b+\xe7", 6) == 0);
    CHECK(percent_decode("a+b", 3, true, out, NULL));
    CHECK_STR(out, "a b");
    CHECK(percent_decode("", 0, true, out, &len) && len == 0 && out[0] == '\0');
    CHECK(!percent_decode("%2", 2, false, out, &len) && len == 0);
    CHECK(!percent_decode("%", 1, false, out, NULL));
    CHECK(!percent_decode("%2xx", 4, false, out, NULL));
    /* The code must lie inside the length, not only inside the string. */
    CHECK(!percent_decode("%41", 2, false, out, NULL));
    CHECK(percent_decode("%41", 3, false, out, NULL) && out[0] == 'A');
}

static void utf8(void)
{
    CHECK(utf8_valid("", 0));
    CHECK(utf8_valid("a\xc2\x80\xe7\x94\xb2\xf0\x9f\x98\x80", 10));
    CHECK(utf8_valid("\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf", 10));
    static const char *const bad[] = {"\x80",
                                      "\xc0\x80",
                                      "\xc1\xbf",
                                      "\xc2",
                                      "\xe0\x80\x80",
                                      "\xe7\x94",
                                      "\xed\xa0\x80",
                                      "\xf0\x80\x80\x80",
                                      "\xf4\x90\x80\x80",
                                      "\xf5",
                                      "\xff",
                                      "a\xe7\x94z"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK(!utf8_valid(bad[i], strlen(bad[i])));
    }
}

static void request_ids(void)
{
    char text[70];
    CHECK(gate_request_id("a") && gate_request_id("A-z_0.9"));
    CHECK(!gate_request_id("") && !gate_request_id("a b") && !gate_request_id("a\n"));
    memset(text, 'x', sizeof text);
    text[64] = '\0';
    CHECK(gate_request_id(text));
    text[64] = 'x';
    text[65] = '\0';
    CHECK(!gate_request_id(text));
}

static void methods(void)
{
    CHECK(gate_method("GET") && gate_method("M-SEARCH"));
    CHECK(!gate_method("") && !gate_method("G T") && !gate_method("G\xff") &&
          !gate_method("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG"));
}

int main(void)
{
    TESTS_BEGIN;
    RUN(good_paths);
    RUN(bad_paths);
    RUN(mixed_encodings);
    RUN(good_headers);
    RUN(bad_headers);
    RUN(lengths);
    RUN(decoding);
    RUN(utf8);
    RUN(request_ids);
    RUN(methods);
    TESTS_END;
}
