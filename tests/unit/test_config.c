/* test_config.c: settings: units, bounds, files with line numbers, environment, options. */
#include "server/config.h"
#include "tests/unit/test.h"

#include <unistd.h>

static char why[CONFIG_ERROR_SIZE];

static void units(void)
{
    struct config *c = config_new();
    REQUIRE(c != NULL);
    CHECK(config_set(c, "max_json", "2M", why) && c->max_json == 2097152);
    CHECK(config_set(c, "max_json", "2048K", why) && c->max_json == 2097152);
    CHECK(config_set(c, "headers_timeout", "2m", why) && c->headers_timeout == 120000);
    CHECK(config_set(c, "headers_timeout", "250ms", why) && c->headers_timeout == 250);
    CHECK(config_set(c, "drain_delay", "0", why) && c->drain_delay == 0);
    CHECK(config_set(c, "max_connections", "7", why) && c->max_connections == 7);
    CHECK(config_set(c, "sync", "normal", why));
    CHECK_STR(c->sync, "normal");
    config_free(c);
}

static void refused(void)
{
    static const struct {
        const char *name, *value, *says;
    } cases[] = {{"max_json", "2", "1K"},
                 {"max_json", "2X", "K, M or G"},
                 {"max_json", "", "whole number"},
                 {"max_json", "-1", "whole number"},
                 {"max_json", "1.5M", "whole number"},
                 {"max_json", "99999999999999999999", "whole number"},
                 {"max_json", "9999999999G", "64M"},
                 {"headers_timeout", "10", "ms, s, m"},
                 {"max_connections", "7K", "whole number"},
                 {"max_connections", "0", "from 1"},
                 {"sync", "maybe", "[full|normal]"},
                 {"sync", "ful", "[full|normal]"},
                 {"sync", "full|normal", "[full|normal]"},
                 {"max_jsonn", "1M", "max_json"},
                 {"", "1M", "no setting"}};
    struct config *c = config_new();
    REQUIRE(c != NULL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        why[0] = '\0';
        CHECK(!config_set(c, cases[i].name, cases[i].value, why));
        if (strstr(why, cases[i].says) == NULL) {
            TEST_FAIL_("%s = %s says \"%s\"", cases[i].name, cases[i].value, why);
        }
    }
    CHECK(c->max_json == 1048576);
    config_free(c);
}

static bool read_text(struct config *c, const char *text)
{
    char path[] = "/tmp/mp2-config-XXXXXX";
    int fd = mkstemp(path);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0) {
        close(fd);
    }
    ok = ok && config_read_file(c, path, why);
    unlink(path);
    return ok;
}

static void files(void)
{
    struct config *c = config_new();
    REQUIRE(c != NULL);
    CHECK(read_text(c, "# comment\n\n  max_json = 2M  \nlisten=0.0.0.0:80\r\n"));
    CHECK(c->max_json == 2097152);
    CHECK_STR(c->listen, "0.0.0.0:80");
    CHECK(!read_text(c, "max_json = 3M\n\nmax_jsn = 4M\n"));
    CHECK(strstr(why, ":3: ") != NULL && strstr(why, "max_json") != NULL);
    CHECK(!read_text(c, "max_json\n"));
    CHECK(strstr(why, ":1: ") != NULL);
    char longline[2000];
    memset(longline, 'x', sizeof longline - 1);
    longline[sizeof longline - 1] = '\0';
    CHECK(!read_text(c, longline));
    CHECK(!config_read_file(c, "/nonexistent/file", why));
    CHECK(strstr(why, "/nonexistent/file") != NULL);
    config_free(c);
}

static void environment(void)
{
    struct config *c = config_new();
    REQUIRE(c != NULL);
    setenv("MP2_MAX_JSON", "3M", 1);
    CHECK(config_read_env(c, why) && c->max_json == 3145728);
    setenv("MP2_MAX_JSON", "lots", 1);
    CHECK(!config_read_env(c, why));
    CHECK(strstr(why, "MP2_MAX_JSON") != NULL);
    unsetenv("MP2_MAX_JSON");
    config_free(c);
}

static void options(void)
{
    char *argv[] = {"serve", "--max-json", "3M", "--max-json=4M", "--listen", "--other", "x", NULL};
    struct config *c = config_new();
    int i = 1;
    REQUIRE(c != NULL);
    CHECK(config_read_flag(c, 7, argv, &i, why) && i == 3 && c->max_json == 3145728);
    CHECK(config_read_flag(c, 7, argv, &i, why) && i == 4 && c->max_json == 4194304);
    i = 5;
    CHECK(!config_read_flag(c, 7, argv, &i, why) && i == 5);
    i = 6;
    CHECK(!config_read_flag(c, 7, argv, &i, why));
    i = 4;
    CHECK(config_read_flag(c, 5, argv, &i, why) && why[0] != '\0'); /* nothing follows */
    config_free(c);
}

/* The annotated file in conf/ is the table's own print. */
static void annotated_file_is_current(void)
{
    char want[65536], have[65536];
    FILE *out = tmpfile();
    FILE *file = fopen(TEST_SOURCE_DIR "/conf/mp2.conf", "r");
    REQUIRE(out != NULL && file != NULL);
    config_print(out);
    rewind(out);
    size_t n = fread(want, 1, sizeof want - 1, out);
    size_t m = fread(have, 1, sizeof have - 1, file);
    want[n] = have[m] = '\0';
    if (strcmp(want, have) != 0) {
        TEST_FAIL_("run: mp2 serve --print-config > conf/mp2.conf");
    }
    fclose(out);
    fclose(file);
    struct config *c = config_new();
    CHECK(c != NULL && config_read_file(c, TEST_SOURCE_DIR "/conf/mp2.conf", why));
    config_free(c);
}

int main(void)
{
    TESTS_BEGIN;
    RUN(units);
    RUN(refused);
    RUN(files);
    RUN(environment);
    RUN(options);
    RUN(annotated_file_is_current);
    TESTS_END;
}
