/* peers.h: how many connections and requests each client address has (address.h: groups).
 *
 * A table of bounded size. An address is forgotten when it has no connection and its allowance of
 * requests is full again; when the table is full, the one unseen for longest goes first.
 *
 * Threads. Loop thread.
 */
#ifndef SERVER_PEERS_H
#define SERVER_PEERS_H

#include "server/address.h"

#include <stdint.h>

struct peers;

struct peers *peers_new(void); /* NULL: out of memory */
void peers_free(struct peers *peers);

/* Connections of the address's group. */
uint64_t peers_connections(const struct peers *peers, const struct address *address);
/* A connection came or went. False: out of memory, not counted. */
bool peers_connected(struct peers *peers, const struct address *address);
void peers_gone(struct peers *peers, const struct address *address);
/* Takes one request of `per_minute`, which may come all at once and then trickle in again. 0: taken.
 * Else the milliseconds until there is one. now: clock_ms. */
int64_t peers_take(struct peers *peers, const struct address *address, uint64_t per_minute,
                   int64_t now);
size_t peers_count(const struct peers *peers);

#endif
