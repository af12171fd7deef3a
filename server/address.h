/* address.h: network addresses: listening, who is at the other end, whom a proxy speaks for.
 *
 * An address is 16 bytes; IPv4 is kept in its mapped form (::ffff:a.b.c.d), so that a client that comes
 * over either kind of socket is the same one. A client is known by its group: an IPv4 address or an
 * IPv6 /64, because whoever has one address of a /64 has all of them.
 *
 * Threads. Pure functions.
 */
#ifndef SERVER_ADDRESS_H
#define SERVER_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>

struct sockaddr;
struct sockaddr_storage;

struct address {
    unsigned char bytes[16];
};

#define ADDRESS_TEXT 64

/* "ADDRESS:PORT" or "[v6]:PORT" for bind(). False: `why` says what was wanted. */
bool address_listen(const char *text, struct sockaddr_storage *out, char *why, size_t size);
bool address_listen_ok(const char *text, char *why, size_t size);

/* False: neither IPv4 nor IPv6. */
bool address_of(const struct sockaddr *from, struct address *out);
/* Numbers only, also with a port ("1.2.3.4:80", "[::1]:80"). False: not an address. */
bool address_parse(const char *text, size_t len, struct address *out);
void address_print(const struct address *address, char text[ADDRESS_TEXT]);
/* The group it belongs to. */
struct address address_group(const struct address *address);

struct network {
    struct address base;
    unsigned bits; /* of the 128 */
};
#define ADDRESS_MAX_NETWORKS 64

/* "10.0.0.0/8, ::1" into at most ADDRESS_MAX_NETWORKS. False: `why`. */
bool address_networks(const char *text, struct network out[ADDRESS_MAX_NETWORKS], size_t *n,
                      char *why, size_t size);
bool address_networks_ok(const char *text, char *why, size_t size);
bool address_in(const struct address *address, const struct network *networks, size_t n);

/* Whom the nearest proxy speaks for. `peer` is the other end of the connection, `forwarded` the values
 * of X-Forwarded-For joined by commas (NULL: none). Walks from the right as long as the last one seen
 * is a trusted proxy; what does not parse ends the walk. */
struct address address_client(const struct address *peer, const char *forwarded,
                              const struct network *trusted, size_t n);

#endif
