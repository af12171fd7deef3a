/* test_endpoints.c: finding the row of the table for a method and a raw path. */
#include "server/endpoints.h"
#include "tests/unit/test.h"

static struct endpoint_match match;

static const char *label_of(const char *method, const char *path)
{
    endpoint_find(method, path, &match);
    return match.endpoint != NULL ? match.endpoint->label : match.path_known ? "405" : "404";
}

static void found(void)
{
    CHECK_STR(label_of("GET", "/"), "root");
    CHECK_STR(label_of("GET", "/healthz"), "healthz");
    CHECK_STR(label_of("POST", "/v1/admin/tenants"), "tenants");
    CHECK_STR(label_of("DELETE", "/v1/admin/tenants/a%2Fb/keys/key_1"), "keys");
    REQUIRE(match.n_params == 2);
    CHECK(match.params[0].raw_len == 5 && memcmp(match.params[0].raw, "a%2Fb", 5) == 0);
    CHECK(match.params[0].name_len == 6 && memcmp(match.params[0].name, "tenant", 6) == 0);
    CHECK(match.params[1].raw_len == 5 && memcmp(match.params[1].raw, "key_1", 5) == 0);
}

static void not_found(void)
{
    static const char *const paths[] = {"/x",
                                        "/healthz/",
                                        "/healthz/x",
                                        "/v1",
                                        "/v1/admin/tenants/",
                                        "/v1/admin/tenants/a/keys/",
                                        "/v1/admin/tenants/a/keys/b/c",
                                        "/Healthz",
                                        "/%68ealthz",
                                        "/v1/admin/tenants%2Fa"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        if (strcmp(label_of("GET", paths[i]), "404") != 0) {
            TEST_FAIL_("%s was found", paths[i]);
        }
    }
}

static void other_methods(void)
{
    CHECK_STR(label_of("POST", "/healthz"), "405");
    CHECK_STR(match.allow, "GET, HEAD, OPTIONS");
    CHECK_STR(label_of("BREW", "/v1/admin/tenants/x"), "405");
    CHECK_STR(match.allow, "GET, HEAD, PATCH, OPTIONS");
}

static void error_shapes(void)
{
    label_of("GET", "/v1/files/x/y/z");
    CHECK(match.api == API_OPENAI);
    label_of("GET", "/v1/filesystem");
    CHECK(match.api == API_NATIVE);
    label_of("GET", "/v2");
    CHECK(match.api == API_OIP);
    label_of("GET", "/hf/a/b/c/d/e");
    CHECK(match.api == API_HF);
}

/* Every row can be reached, names are not empty, and JSON bodies have a limit. */
static void the_table_is_sound(void)
{
    for (size_t i = 0; i < endpoints_count; i++) {
        const struct endpoint *row = &endpoints[i];
        char path[256];
        size_t n = 0;
        for (const char *c = row->pattern; *c != '\0' && n + 1 < sizeof path; c++) {
            if (*c == '{') {
                c = strchr(c, '}');
                path[n++] = '~'; /* no fixed segment is that */
            } else {
                path[n++] = *c;
            }
        }
        path[n] = '\0';
        endpoint_find(row->method, path, &match);
        if (match.endpoint != row) {
            TEST_FAIL_("%s %s is hidden by another row", row->method, row->pattern);
        }
        bool json = row->body == BODY_JSON || row->body == BODY_JSON_OPTIONAL;
        CHECK(!json || row->limit != LIMIT_NONE);
        CHECK(row->body != BODY_STREAM || row->sink != NULL);
        CHECK(row->handle != NULL && row->label != NULL);
        CHECK(strncmp(row->pattern, "/v1/admin", 9) != 0 || row->scopes == STORE_SCOPE_ADMIN);
    }
}

int main(void)
{
    TESTS_BEGIN;
    RUN(found);
    RUN(not_found);
    RUN(other_methods);
    RUN(error_shapes);
    RUN(the_table_is_sound);
    TESTS_END;
}
