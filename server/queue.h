/* queue.h: who is let in, and who goes next.
 *
 * Work waits per tenant, in order of arrival. Next is always the tenant that has received least service
 * so far, divided by its weight (a virtual token counter). A tenant that was away starts at the level
 * of the least served tenant present: time spent idle earns no credit.
 *
 * Admission is bounded in requests, tokens and bytes. Any one tenant may hold at most as large a share
 * of a bound as is still free, so a flood always leaves room for others.
 *
 * Threads.  None inside: the owner's lock covers a queue.
 * Lifetime. Items are intrusive and the owner's; an item is in at most one queue at a time.
 */
#ifndef SERVER_QUEUE_H
#define SERVER_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fair_tenant; /* one tenant's line and counter */

/* Embed one in whatever waits; `tenant` is the queue's. */
struct fair_item {
    struct fair_item *next, *previous;
    struct fair_tenant *tenant; /* NULL while the item is in no queue */
};

/* What a request takes of the bounds while it is inside. */
struct fair_load {
    uint64_t requests, tokens, bytes;
};

enum fair_verdict {
    FAIR_ADMITTED,
    FAIR_FULL,  /* a bound of the whole queue is reached */
    FAIR_SHARE, /* this tenant already holds as much as is still free */
    FAIR_NOMEM
};

struct fair_queue {
    struct fair_load limit; /* zero: no bound of that kind */
    struct fair_load held;
    struct fair_tenant **buckets;
    size_t n_buckets, n_tenants;
    struct fair_tenant **heap; /* tenants with waiting items, least service first */
    size_t n_heap, heap_room;
    struct fair_tenant *aside; /* skipped until fair_resume */
    double level;              /* service of the tenant chosen last */
    double highest;            /* most service any tenant had */
    uint64_t turns;            /* fair_charge was called */
    size_t n_items;
};

void fair_init(struct fair_queue *queue, const struct fair_load *limit);
/* The queue must be empty of items. */
void fair_fini(struct fair_queue *queue);

/* Counts `load` against the bounds, or takes nothing. Pair with fair_release. */
enum fair_verdict fair_admit(struct fair_queue *queue, uint64_t tenant,
                             const struct fair_load *load);
void fair_release(struct fair_queue *queue, uint64_t tenant, const struct fair_load *load);
/* Tokens that are counted for the tenant now. */
uint64_t fair_tokens(const struct fair_queue *queue, uint64_t tenant);

/* Appends the item to its tenant's line; weight > 0. False when out of memory. */
bool fair_push(struct fair_queue *queue, uint64_t tenant, double weight, struct fair_item *item);
/* First item of the least served tenant that is not set aside, or NULL. It stays in the queue. Of equals,
 * the one whose last turn is longest ago. */
struct fair_item *fair_next(const struct fair_queue *queue);
/* Adds `cost` of service to the tenant of an item in the queue. */
void fair_charge(struct fair_queue *queue, const struct fair_item *item, double cost);
/* Sets the tenant of fair_next aside: its next piece does not fit now. */
void fair_skip(struct fair_queue *queue);
/* Brings back all tenants set aside. */
void fair_resume(struct fair_queue *queue);
/* Takes an item out; nothing happens when it is in no queue. */
void fair_remove(struct fair_queue *queue, struct fair_item *item);

#endif
