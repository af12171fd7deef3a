/* test_peers.c: connections and requests counted by address, in bounded memory. */
#include "server/peers.h"
#include "tests/unit/test.h"

#include <sodium.h>

static struct address of(const char *text)
{
    struct address address = {{0}};
    CHECK(address_parse(text, strlen(text), &address));
    return address;
}

static void connections(void)
{
    struct peers *peers = peers_new();
    REQUIRE(peers != NULL);
    struct address a = of("10.0.0.1"), b = of("10.0.0.2");
    CHECK(peers_connected(peers, &a) && peers_connected(peers, &a) && peers_connected(peers, &b));
    CHECK_INT(peers_connections(peers, &a), 2);
    CHECK_INT(peers_connections(peers, &b), 1);
    peers_gone(peers, &a);
    peers_gone(peers, &b);
    CHECK_INT(peers_connections(peers, &a), 1);
    CHECK_INT(peers_connections(peers, &b), 0);
    CHECK_INT(peers_count(peers), 1); /* who is gone and never asked is forgotten */
    struct address c = of("2001:db8::1"), d = of("2001:db8::ffff"), e = of("2001:db8:0:1::1");
    CHECK(peers_connected(peers, &c) && peers_connected(peers, &d));
    CHECK_INT(peers_connections(peers, &c), 2); /* one /64 */
    CHECK_INT(peers_connections(peers, &e), 0);
    peers_free(peers);
}

static void requests(void)
{
    struct peers *peers = peers_new();
    REQUIRE(peers != NULL);
    struct address a = of("10.0.0.1"), b = of("10.0.0.2");
    int64_t now = 1000000;
    for (int i = 0; i < 6; i++) {
        CHECK_INT(peers_take(peers, &a, 6, now), 0);
    }
    CHECK_INT(peers_take(peers, &a, 6, now), 10000); /* one more in a sixth of a minute */
    CHECK_INT(peers_take(peers, &b, 6, now), 0);
    CHECK_INT(peers_take(peers, &a, 6, now + 4000), 6000);
    CHECK_INT(peers_take(peers, &a, 6, now + 10000), 0);
    CHECK(peers_take(peers, &a, 6, now + 10000) > 0);
    for (int i = 0; i < 6; i++) {
        CHECK_INT(peers_take(peers, &a, 6, now + 600000), 0); /* never more than a minute's worth */
    }
    CHECK(peers_take(peers, &a, 6, now + 600000) > 0);
    peers_free(peers);
}

static void bounded(void)
{
    struct peers *peers = peers_new();
    REQUIRE(peers != NULL);
    struct address held = of("10.0.0.1");
    CHECK(peers_connected(peers, &held));
    for (unsigned i = 0; i < 70000; i++) {
        struct address other = of("11.0.0.0");
        memcpy(other.bytes + 13, &i, 3);
        CHECK_INT(peers_take(peers, &other, 10, 1000 + i), 0);
    }
    CHECK(peers_count(peers) <= 65536);
    CHECK_INT(peers_connections(peers, &held), 1); /* an open connection is not forgotten */
    peers_free(peers);
}

int main(void)
{
    if (sodium_init() < 0) {
        return 1;
    }
    TESTS_BEGIN;
    RUN(connections);
    RUN(requests);
    RUN(bounded);
    TESTS_END;
}
