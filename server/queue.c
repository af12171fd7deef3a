/* queue.c: virtual token counters over per-tenant lines, and bounded admission.
 *
 * A tenant's counter is the service it received divided by its weight. Tenants with waiting items sit
 * in a binary heap by counter. One that becomes busy is lifted to the least counter present (or to the
 * level served last): it owes what it took, but idle time is worth nothing. When the queue runs empty
 * all start level again. An idle tenant at or below the level carries no information any more and is
 * forgotten.
 *
 * After Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024); the admission rule is
 * the dynamic threshold of Choudhury and Hahne (1998) with factor 1.
 */
#include "server/queue.h"

#include <stdlib.h>
#include <string.h>

struct fair_tenant {
    uint64_t id;
    double weight, served;
    uint64_t last_turn; /* of queue->turns; 0: had none */
    struct fair_load held;
    struct fair_item *first, *last;
    size_t place; /* in the heap; SIZE_MAX: not there */
    struct fair_tenant *next_in_bucket;
    struct fair_tenant *next_aside;
    bool is_aside;
};

void fair_init(struct fair_queue *queue, const struct fair_load *limit)
{
    memset(queue, 0, sizeof *queue);
    queue->limit = *limit;
}

void fair_fini(struct fair_queue *queue)
{
    for (size_t i = 0; i < queue->n_buckets; i++) {
        struct fair_tenant *tenant = queue->buckets[i];
        while (tenant != NULL) {
            struct fair_tenant *next = tenant->next_in_bucket;
            free(tenant);
            tenant = next;
        }
    }
    free(queue->buckets);
    free(queue->heap);
    memset(queue, 0, sizeof *queue);
}

/* ---- tenants ------------------------------------------------------------------------------- */

static size_t bucket_of(uint64_t id, size_t n_buckets)
{
    uint64_t mixed = id * 0x9E3779B97F4A7C15u;
    return (size_t)(mixed >> 32) & (n_buckets - 1);
}

static struct fair_tenant *find_tenant(const struct fair_queue *queue, uint64_t id)
{
    if (queue->n_buckets == 0) {
        return NULL;
    }
    struct fair_tenant *tenant = queue->buckets[bucket_of(id, queue->n_buckets)];
    while (tenant != NULL && tenant->id != id) {
        tenant = tenant->next_in_bucket;
    }
    return tenant;
}

static bool is_forgettable(const struct fair_queue *queue, const struct fair_tenant *tenant)
{
    return tenant->first == NULL && tenant->held.requests == 0 && !tenant->is_aside &&
           tenant->served <= queue->level;
}

/* Drops forgettable tenants from the old table while moving the rest to `buckets`. */
static void move_tenants(struct fair_queue *queue, struct fair_tenant **buckets, size_t n_buckets)
{
    for (size_t i = 0; i < queue->n_buckets; i++) {
        struct fair_tenant *tenant = queue->buckets[i];
        while (tenant != NULL) {
            struct fair_tenant *next = tenant->next_in_bucket;
            if (is_forgettable(queue, tenant)) {
                queue->n_tenants--;
                free(tenant);
            } else {
                struct fair_tenant **bucket = &buckets[bucket_of(tenant->id, n_buckets)];
                tenant->next_in_bucket = *bucket;
                *bucket = tenant;
            }
            tenant = next;
        }
    }
    free(queue->buckets);
    queue->buckets = buckets;
    queue->n_buckets = n_buckets;
}

static size_t count_needed(const struct fair_queue *queue)
{
    size_t needed = 0;
    for (size_t i = 0; i < queue->n_buckets; i++) {
        for (const struct fair_tenant *t = queue->buckets[i]; t != NULL; t = t->next_in_bucket) {
            needed += !is_forgettable(queue, t);
        }
    }
    return needed;
}

/* Table and heap have room for one more tenant. */
static bool make_room(struct fair_queue *queue)
{
    if (queue->n_tenants >= queue->n_buckets) {
        size_t n =
            count_needed(queue) > queue->n_buckets / 2 ? queue->n_buckets * 2 : queue->n_buckets;
        n = n < 16 ? 16 : n;
        struct fair_tenant **buckets = calloc(n, sizeof *buckets);
        if (buckets == NULL) {
            return false;
        }
        move_tenants(queue, buckets, n);
    }
    if (queue->heap_room < queue->n_buckets) {
        struct fair_tenant **heap = realloc(queue->heap, queue->n_buckets * sizeof *heap);
        if (heap == NULL) {
            return false;
        }
        queue->heap = heap;
        queue->heap_room = queue->n_buckets;
    }
    return true;
}

static struct fair_tenant *get_tenant(struct fair_queue *queue, uint64_t id)
{
    struct fair_tenant *tenant = find_tenant(queue, id);
    if (tenant != NULL) {
        return tenant;
    }
    if (!make_room(queue)) {
        return NULL;
    }
    tenant = calloc(1, sizeof *tenant);
    if (tenant == NULL) {
        return NULL;
    }
    tenant->id = id;
    tenant->weight = 1;
    tenant->served = queue->level;
    tenant->place = SIZE_MAX;
    struct fair_tenant **bucket = &queue->buckets[bucket_of(id, queue->n_buckets)];
    tenant->next_in_bucket = *bucket;
    *bucket = tenant;
    queue->n_tenants++;
    return tenant;
}

/* ---- the heap ------------------------------------------------------------------------------ */

static bool goes_before(const struct fair_tenant *a, const struct fair_tenant *b)
{
    return a->served < b->served || (a->served == b->served && a->last_turn < b->last_turn);
}

static void heap_set(struct fair_queue *queue, size_t place, struct fair_tenant *tenant)
{
    queue->heap[place] = tenant;
    tenant->place = place;
}

static void heap_up(struct fair_queue *queue, size_t place)
{
    struct fair_tenant *tenant = queue->heap[place];
    while (place > 0 && goes_before(tenant, queue->heap[(place - 1) / 2])) {
        heap_set(queue, place, queue->heap[(place - 1) / 2]);
        place = (place - 1) / 2;
    }
    heap_set(queue, place, tenant);
}

static void heap_down(struct fair_queue *queue, size_t place)
{
    struct fair_tenant *tenant = queue->heap[place];
    while (true) {
        size_t child = 2 * place + 1;
        if (child >= queue->n_heap) {
            break;
        }
        if (child + 1 < queue->n_heap && goes_before(queue->heap[child + 1], queue->heap[child])) {
            child++;
        }
        if (!goes_before(queue->heap[child], tenant)) {
            break;
        }
        heap_set(queue, place, queue->heap[child]);
        place = child;
    }
    heap_set(queue, place, tenant);
}

static void heap_add(struct fair_queue *queue, struct fair_tenant *tenant)
{
    queue->n_heap++;
    heap_set(queue, queue->n_heap - 1, tenant);
    heap_up(queue, queue->n_heap - 1);
}

static void heap_take(struct fair_queue *queue, struct fair_tenant *tenant)
{
    size_t place = tenant->place;
    struct fair_tenant *last = queue->heap[--queue->n_heap];
    tenant->place = SIZE_MAX;
    if (last != tenant) {
        heap_set(queue, place, last);
        heap_up(queue, place);
        heap_down(queue, last->place);
    }
}

/* ---- admission ----------------------------------------------------------------------------- */

static bool fits_bound(uint64_t held, uint64_t load, uint64_t limit)
{
    return limit == 0 || (held <= limit && load <= limit - held);
}

/* Held by the tenant with this load, against what the others and this tenant leave free. */
static bool fits_share(uint64_t mine, uint64_t all, uint64_t load, uint64_t limit)
{
    return limit == 0 || mine == 0 || mine + load <= limit - all;
}

static void add_load(struct fair_load *to, const struct fair_load *load)
{
    to->requests += load->requests;
    to->tokens += load->tokens;
    to->bytes += load->bytes;
}

static void take_load(struct fair_load *from, const struct fair_load *load)
{
    from->requests -= load->requests;
    from->tokens -= load->tokens;
    from->bytes -= load->bytes;
}

enum fair_verdict fair_admit(struct fair_queue *queue, uint64_t id, const struct fair_load *load)
{
    const struct fair_load *all = &queue->held, *limit = &queue->limit;
    if (!fits_bound(all->requests, load->requests, limit->requests) ||
        !fits_bound(all->tokens, load->tokens, limit->tokens) ||
        !fits_bound(all->bytes, load->bytes, limit->bytes)) {
        return FAIR_FULL;
    }
    struct fair_tenant *tenant = get_tenant(queue, id);
    if (tenant == NULL) {
        return FAIR_NOMEM;
    }
    const struct fair_load *mine = &tenant->held;
    if (!fits_share(mine->requests, all->requests, load->requests, limit->requests) ||
        !fits_share(mine->tokens, all->tokens, load->tokens, limit->tokens) ||
        !fits_share(mine->bytes, all->bytes, load->bytes, limit->bytes)) {
        return FAIR_SHARE;
    }
    add_load(&queue->held, load);
    add_load(&tenant->held, load);
    return FAIR_ADMITTED;
}

void fair_release(struct fair_queue *queue, uint64_t id, const struct fair_load *load)
{
    struct fair_tenant *tenant = find_tenant(queue, id);
    if (tenant != NULL) {
        take_load(&queue->held, load);
        take_load(&tenant->held, load);
    }
}

uint64_t fair_tokens(const struct fair_queue *queue, uint64_t id)
{
    const struct fair_tenant *tenant = find_tenant(queue, id);
    return tenant != NULL ? tenant->held.tokens : 0;
}

/* ---- lines --------------------------------------------------------------------------------- */

static double least_present(const struct fair_queue *queue)
{
    double least = queue->n_heap > 0 ? queue->heap[0]->served : queue->level;
    for (const struct fair_tenant *t = queue->aside; t != NULL; t = t->next_aside) {
        least = t->served < least ? t->served : least;
    }
    return least;
}

bool fair_push(struct fair_queue *queue, uint64_t id, double weight, struct fair_item *item)
{
    struct fair_tenant *tenant = get_tenant(queue, id);
    if (tenant == NULL) {
        return false;
    }
    tenant->weight = weight;
    item->tenant = tenant;
    item->next = NULL;
    item->previous = tenant->last;
    if (tenant->last != NULL) {
        tenant->last->next = item;
    } else {
        tenant->first = item;
    }
    tenant->last = item;
    queue->n_items++;
    if (tenant->place == SIZE_MAX && !tenant->is_aside) {
        double least = least_present(queue);
        tenant->served = tenant->served > least ? tenant->served : least;
        heap_add(queue, tenant);
    }
    return true;
}

struct fair_item *fair_next(const struct fair_queue *queue)
{
    return queue->n_heap > 0 ? queue->heap[0]->first : NULL;
}

void fair_charge(struct fair_queue *queue, const struct fair_item *item, double cost)
{
    struct fair_tenant *tenant = item->tenant;
    if (tenant->served > queue->level) {
        queue->level = tenant->served;
    }
    tenant->served += cost / tenant->weight;
    tenant->last_turn = ++queue->turns;
    if (tenant->served > queue->highest) {
        queue->highest = tenant->served;
    }
    if (tenant->place != SIZE_MAX) {
        heap_down(queue, tenant->place);
    }
}

void fair_skip(struct fair_queue *queue)
{
    if (queue->n_heap == 0) {
        return;
    }
    struct fair_tenant *tenant = queue->heap[0];
    heap_take(queue, tenant);
    tenant->is_aside = true;
    tenant->next_aside = queue->aside;
    queue->aside = tenant;
}

void fair_resume(struct fair_queue *queue)
{
    while (queue->aside != NULL) {
        struct fair_tenant *tenant = queue->aside;
        queue->aside = tenant->next_aside;
        tenant->is_aside = false;
        tenant->next_aside = NULL;
        if (tenant->first != NULL) {
            heap_add(queue, tenant);
        }
    }
}

void fair_remove(struct fair_queue *queue, struct fair_item *item)
{
    struct fair_tenant *tenant = item->tenant;
    if (tenant == NULL) {
        return;
    }
    if (item->previous != NULL) {
        item->previous->next = item->next;
    } else {
        tenant->first = item->next;
    }
    if (item->next != NULL) {
        item->next->previous = item->previous;
    } else {
        tenant->last = item->previous;
    }
    memset(item, 0, sizeof *item);
    queue->n_items--;
    if (queue->n_items == 0) {
        queue->level = queue->highest;
    }
    if (tenant->first == NULL && tenant->place != SIZE_MAX) {
        heap_take(queue, tenant);
    }
}
