/* peers.c: a hash table with chains, and a list in order of last use.
 *
 * Whoever chooses addresses could aim at one chain, so the hash is keyed with random bytes.
 */
#include "server/peers.h"

#include <math.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define CHAINS    4096
#define MAX_PEERS 65536 /* without a connection */

struct peer {
    struct address group;
    uint64_t connections;
    double allowance; /* requests it may make now */
    int64_t seen_ms;  /* when the allowance was reckoned; 0: never */
    struct peer *chain;
    struct peer *older, *newer;
};

struct peers {
    unsigned char key[crypto_shorthash_KEYBYTES];
    struct peer *chains[CHAINS];
    struct peer *oldest, *newest;
    size_t count;
};

struct peers *peers_new(void)
{
    struct peers *peers = calloc(1, sizeof *peers);
    if (peers != NULL) {
        randombytes_buf(peers->key, sizeof peers->key);
    }
    return peers;
}

void peers_free(struct peers *peers)
{
    struct peer *newer = NULL;
    for (struct peer *peer = peers != NULL ? peers->oldest : NULL; peer != NULL; peer = newer) {
        newer = peer->newer;
        free(peer);
    }
    free(peers);
}

size_t peers_count(const struct peers *peers)
{
    return peers->count;
}

static size_t chain_of(const struct peers *peers, const struct address *group)
{
    unsigned char hash[crypto_shorthash_BYTES];
    size_t number = 0;
    crypto_shorthash(hash, group->bytes, sizeof group->bytes, peers->key);
    memcpy(&number, hash, sizeof number < sizeof hash ? sizeof number : sizeof hash);
    return number % CHAINS;
}

static struct peer *find(const struct peers *peers, const struct address *group)
{
    struct peer *peer = peers->chains[chain_of(peers, group)];
    while (peer != NULL && memcmp(&peer->group, group, sizeof *group) != 0) {
        peer = peer->chain;
    }
    return peer;
}

static void unlist(struct peers *peers, struct peer *peer)
{
    *(peer->older != NULL ? &peer->older->newer : &peers->oldest) = peer->newer;
    *(peer->newer != NULL ? &peer->newer->older : &peers->newest) = peer->older;
}

static void list_newest(struct peers *peers, struct peer *peer)
{
    peer->older = peers->newest;
    peer->newer = NULL;
    *(peers->newest != NULL ? &peers->newest->newer : &peers->oldest) = peer;
    peers->newest = peer;
}

static void forget(struct peers *peers, struct peer *peer)
{
    struct peer **at = &peers->chains[chain_of(peers, &peer->group)];
    while (*at != peer) {
        at = &(*at)->chain;
    }
    *at = peer->chain;
    unlist(peers, peer);
    free(peer);
    peers->count--;
}

/* At most a few of the oldest are looked at: those with connections stay, and are few. */
static void make_room(struct peers *peers)
{
    struct peer *peer = peers->oldest;
    for (int i = 0; i < 8 && peer != NULL && peers->count >= MAX_PEERS; i++) {
        struct peer *newer = peer->newer;
        if (peer->connections == 0) {
            forget(peers, peer);
        } else {
            unlist(peers, peer);
            list_newest(peers, peer);
        }
        peer = newer;
    }
}

/* Found or made, and the newest. NULL: out of memory. */
static struct peer *take_peer(struct peers *peers, const struct address *group)
{
    struct peer *peer = find(peers, group);
    if (peer != NULL) {
        unlist(peers, peer);
    } else {
        make_room(peers);
        peer = calloc(1, sizeof *peer);
        if (peer == NULL) {
            return NULL;
        }
        peer->group = *group;
        struct peer **chain = &peers->chains[chain_of(peers, group)];
        peer->chain = *chain;
        *chain = peer;
        peers->count++;
    }
    list_newest(peers, peer);
    return peer;
}

uint64_t peers_connections(const struct peers *peers, const struct address *address)
{
    struct address group = address_group(address);
    const struct peer *peer = find(peers, &group);
    return peer != NULL ? peer->connections : 0;
}

bool peers_connected(struct peers *peers, const struct address *address)
{
    struct address group = address_group(address);
    struct peer *peer = take_peer(peers, &group);
    if (peer != NULL) {
        peer->connections++;
    }
    return peer != NULL;
}

void peers_gone(struct peers *peers, const struct address *address)
{
    struct address group = address_group(address);
    struct peer *peer = find(peers, &group);
    if (peer == NULL) {
        return;
    }
    peer->connections -= peer->connections > 0;
    if (peer->connections == 0 && peer->seen_ms == 0) {
        forget(peers, peer);
    }
}

int64_t peers_take(struct peers *peers, const struct address *address, uint64_t per_minute,
                   int64_t now)
{
    struct address group = address_group(address);
    struct peer *peer = take_peer(peers, &group);
    if (peer == NULL) {
        return 0; /* out of memory: other limits hold */
    }
    double most = (double)per_minute, rate = most / 60000;
    if (peer->seen_ms == 0) {
        peer->allowance = most;
    } else {
        peer->allowance = fmin(most, peer->allowance + (double)(now - peer->seen_ms) * rate);
    }
    peer->seen_ms = now > 0 ? now : 1;
    if (peer->allowance < 1) {
        return (int64_t)ceil((1 - peer->allowance) / rate);
    }
    peer->allowance -= 1;
    return 0;
}
