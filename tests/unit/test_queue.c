/* test_queue.c: order of service and bounds of server/queue.h. */
#include "server/queue.h"
#include "tests/unit/test.h"

struct piece {
    struct fair_item item; /* first: fair_next's pointer is the piece's */
    uint64_t tenant;
    double cost;
};

static const struct fair_load no_limit;

static void push(struct fair_queue *queue, struct piece *piece, uint64_t tenant, double weight,
                 double cost)
{
    memset(piece, 0, sizeof *piece);
    piece->tenant = tenant;
    piece->cost = cost;
    CHECK(fair_push(queue, tenant, weight, &piece->item));
}

static struct piece *serve(struct fair_queue *queue)
{
    struct piece *piece = (struct piece *)(void *)fair_next(queue);
    if (piece != NULL) {
        fair_charge(queue, &piece->item, piece->cost);
        fair_remove(queue, &piece->item);
    }
    return piece;
}

static void one_tenant_is_first_in_first_out(void)
{
    struct fair_queue queue;
    struct piece pieces[5];
    fair_init(&queue, &no_limit);
    for (size_t i = 0; i < 5; i++) {
        push(&queue, &pieces[i], 7, 1, 10);
    }
    for (size_t i = 0; i < 5; i++) {
        CHECK(serve(&queue) == &pieces[i]);
    }
    CHECK(serve(&queue) == NULL && queue.n_items == 0);
    fair_fini(&queue);
}

/* 1,000 pieces of one tenant wait; another's single piece goes next or next but one. */
static void a_flood_does_not_delay_a_small_tenant(void)
{
    static struct piece flood[1000];
    struct fair_queue queue;
    fair_init(&queue, &no_limit);
    for (size_t i = 0; i < 1000; i++) {
        push(&queue, &flood[i], 1, 1, 100);
    }
    for (size_t round = 0; round < 50; round++) {
        struct piece small;
        for (size_t i = 0; i < 10; i++) {
            serve(&queue);
        }
        push(&queue, &small, 2, 1, 100);
        bool soon = serve(&queue) == &small || serve(&queue) == &small;
        CHECK(soon);
    }
    while (serve(&queue) != NULL) {
    }
    fair_fini(&queue);
}

/* Equal counters: the flood that was served last waits, also when it comes back after the small one. */
static void of_equals_the_one_served_longest_ago_goes_first(void)
{
    struct fair_queue queue;
    struct piece flood[2], small[2];
    fair_init(&queue, &no_limit);
    push(&queue, &small[0], 2, 1, 10);
    CHECK(serve(&queue) == &small[0]);
    push(&queue, &flood[0], 1, 1, 100);
    CHECK(serve(&queue) == &flood[0]); /* runs empty: all are level */
    push(&queue, &small[1], 2, 1, 10);
    push(&queue, &flood[1], 1, 1, 100);
    CHECK(fair_next(&queue) == &small[1].item);
    fair_remove(&queue, &small[1].item);
    push(&queue, &small[1], 2, 1, 10);
    CHECK(fair_next(&queue) == &small[1].item);
    CHECK(serve(&queue) == &small[1] && serve(&queue) == &flood[1]);
    fair_fini(&queue);
}

static void shares_follow_weights(void)
{
    static struct piece pieces[2][600];
    struct fair_queue queue;
    size_t got[2] = {0, 0};
    fair_init(&queue, &no_limit);
    for (size_t i = 0; i < 600; i++) {
        push(&queue, &pieces[0][i], 10, 1, 30);
        push(&queue, &pieces[1][i], 11, 3, 30);
    }
    for (size_t i = 0; i < 400; i++) {
        got[serve(&queue)->tenant - 10]++;
    }
    CHECK(got[0] >= 98 && got[0] <= 102);
    CHECK(got[1] >= 298 && got[1] <= 302);
    while (serve(&queue) != NULL) {
    }
    fair_fini(&queue);
}

/* A tenant that slept through the other's 100 turns may not now take 100 turns in a row. */
static void idle_time_earns_no_credit(void)
{
    static struct piece busy[200], late[100];
    struct fair_queue queue;
    struct piece first;
    fair_init(&queue, &no_limit);
    push(&queue, &first, 2, 1, 10);
    CHECK(serve(&queue) == &first);
    for (size_t i = 0; i < 200; i++) {
        push(&queue, &busy[i], 1, 1, 10);
    }
    for (size_t i = 0; i < 100; i++) {
        serve(&queue);
    }
    for (size_t i = 0; i < 100; i++) {
        push(&queue, &late[i], 2, 1, 10);
    }
    size_t of_late = 0;
    for (size_t i = 0; i < 20; i++) {
        of_late += serve(&queue)->tenant == 2;
    }
    CHECK(of_late >= 9 && of_late <= 11);
    while (serve(&queue) != NULL) {
    }
    fair_fini(&queue);
}

/* Draining one's line and coming back at once does not wipe what one has taken. */
static void coming_back_does_not_reset_the_counter(void)
{
    static struct piece steady[200];
    struct fair_queue queue;
    struct piece big;
    fair_init(&queue, &no_limit);
    for (size_t i = 0; i < 200; i++) {
        push(&queue, &steady[i], 2, 1, 10);
    }
    push(&queue, &big, 1, 1, 1000);
    while (serve(&queue) != &big) {
    }
    push(&queue, &big, 1, 1, 1000);
    size_t waited = 0;
    while (serve(&queue) != &big) {
        waited++;
    }
    CHECK(waited >= 95 && waited <= 105);
    while (serve(&queue) != NULL) {
    }
    fair_fini(&queue);
}

static void a_skipped_tenant_comes_back_first(void)
{
    struct fair_queue queue;
    struct piece big, small[2];
    fair_init(&queue, &no_limit);
    push(&queue, &big, 1, 1, 500);
    push(&queue, &small[0], 2, 1, 5);
    push(&queue, &small[1], 3, 1, 5);
    CHECK(fair_next(&queue) == &big.item);
    fair_skip(&queue);
    CHECK(serve(&queue)->cost == 5);
    CHECK(serve(&queue)->cost == 5);
    CHECK(fair_next(&queue) == NULL);
    fair_resume(&queue);
    CHECK(serve(&queue) == &big);
    fair_fini(&queue);
}

static void any_item_can_be_taken_out(void)
{
    struct fair_queue queue;
    struct piece pieces[3];
    fair_init(&queue, &no_limit);
    for (size_t i = 0; i < 3; i++) {
        push(&queue, &pieces[i], 5, 1, 1);
    }
    fair_remove(&queue, &pieces[1].item);
    fair_remove(&queue, &pieces[1].item);
    CHECK(serve(&queue) == &pieces[0]);
    fair_skip(&queue);
    fair_remove(&queue, &pieces[2].item);
    fair_resume(&queue);
    CHECK(fair_next(&queue) == NULL && queue.n_items == 0);
    fair_fini(&queue);
}

static void bounds_hold_and_leave_room(void)
{
    struct fair_queue queue;
    const struct fair_load limit = {.requests = 100, .tokens = 1000, .bytes = 0};
    const struct fair_load one = {.requests = 1, .tokens = 10, .bytes = 1 << 20};
    const struct fair_load huge = {.requests = 1, .tokens = 1001};
    fair_init(&queue, &limit);
    CHECK(fair_admit(&queue, 1, &huge) == FAIR_FULL);
    size_t flood = 0;
    while (fair_admit(&queue, 1, &one) == FAIR_ADMITTED) {
        flood++;
    }
    CHECK_INT(flood, 50); /* half: what it holds never exceeds what is free */
    CHECK(fair_admit(&queue, 1, &one) == FAIR_SHARE);
    size_t others = 0;
    while (fair_admit(&queue, 1000 + others, &one) == FAIR_ADMITTED) {
        others++;
    }
    CHECK_INT(others, 50);
    CHECK(fair_admit(&queue, 2, &one) == FAIR_FULL);
    for (size_t i = 0; i < flood; i++) {
        fair_release(&queue, 1, &one);
    }
    for (size_t i = 0; i < others; i++) {
        fair_release(&queue, 1000 + i, &one);
    }
    CHECK(queue.held.requests == 0 && queue.held.tokens == 0 && queue.held.bytes == 0);
    fair_fini(&queue);
}

/* Tenants come and go by the hundred thousand; those who left are forgotten. */
static void idle_tenants_are_forgotten(void)
{
    struct fair_queue queue;
    struct piece piece;
    fair_init(&queue, &no_limit);
    for (uint64_t i = 0; i < 200000; i++) {
        push(&queue, &piece, i, 1, 10);
        serve(&queue);
    }
    CHECK(queue.n_buckets <= 64);
    fair_fini(&queue);
}

int main(void)
{
    TESTS_BEGIN;
    RUN(one_tenant_is_first_in_first_out);
    RUN(a_flood_does_not_delay_a_small_tenant);
    RUN(of_equals_the_one_served_longest_ago_goes_first);
    RUN(shares_follow_weights);
    RUN(idle_time_earns_no_credit);
    RUN(coming_back_does_not_reset_the_counter);
    RUN(a_skipped_tenant_comes_back_first);
    RUN(any_item_can_be_taken_out);
    RUN(bounds_hold_and_leave_room);
    RUN(idle_tenants_are_forgotten);
    TESTS_END;
}
