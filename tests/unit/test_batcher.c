/* test_batcher.c: predictions through the batcher: results, order, bounds, cancellation, threads. */
#include "server/batcher.h"
#include "server/loop.h"
#include "tests/unit/boot_model.h"
#include "tests/unit/test.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

static eng_model *model;
static eng_bank *bank;
static eng_compute *compute;
static struct registry *registry;

#define N_TASKS 6
static struct version *versions[N_TASKS]; /* the last one is extractive */

static const char *const texts[] = {
    "房间很干净，老板也热情，下次还来。",
    "电池用了一天就没电了，客服也不理人。",
    "今天下午两点开会，请大家准时参加。",
    "这本书的前半部分很好看，后面有点拖沓，不过结尾让人印象深刻，值得再读一遍。",
    "味道一般。",
    "快递三天才到，包装破了，里面的杯子碎了两个，要求退款到现在还没有回复，非常失望。"};
#define N_TEXTS (sizeof texts / sizeof texts[0])

static struct version *make_version(eng_task_type type, const char *a, const char *b, int seed)
{
    const eng_text labels[2] = {{a, a != NULL ? strlen(a) : 0}, {b, b != NULL ? strlen(b) : 0}};
    const eng_task_spec spec = {.type = type, .labels = labels, .n_labels = a != NULL ? 2 : 0};
    float route[8];
    for (int i = 0; i < 8; i++) {
        route[i] = (float)((seed * 7 + i * 5) % 9 - 4);
    }
    const reg_publication pub = {
        .spec = &spec, .number = seed, .route = route, .route_len = seed == 0 ? 0 : 8};
    struct version *version = NULL;
    eng_error err;
    if (registry_inline(registry, &pub, &version, &err) != ENG_OK) {
        TEST_FAIL_("version: %s: %s", err.field, err.text);
    }
    return version;
}

static void make_versions(void)
{
    versions[0] = make_version(ENG_CLASSIFICATION, "负面", "正面", 0);
    versions[1] = make_version(ENG_CLASSIFICATION, "负面", "正面", 1);
    versions[2] = make_version(ENG_CLASSIFICATION, "甲", "乙", 2);
    versions[3] = make_version(ENG_CLASSIFICATION, "好", "差", 3);
    versions[4] = make_version(ENG_PAIR, "矛盾", "相似", 4);
    versions[5] = make_version(ENG_EXTRACTIVE, NULL, NULL, 5);
}

/* ---- a prediction to wait for -------------------------------------------------------------- */

static pthread_mutex_t done_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t done_changed = PTHREAD_COND_INITIALIZER;
static size_t done_count;

struct ask {
    struct prediction p;
    eng_field fields[40][2];
    eng_input inputs[40];
    int times_done;
    size_t place; /* among all that were done */
};

static void on_done(struct prediction *p)
{
    struct ask *ask = p->arg;
    pthread_mutex_lock(&done_lock);
    ask->times_done++;
    ask->place = ++done_count;
    pthread_cond_broadcast(&done_changed);
    pthread_mutex_unlock(&done_lock);
}

static void wait_for(const struct ask *ask)
{
    pthread_mutex_lock(&done_lock);
    while (ask->times_done == 0) {
        pthread_cond_wait(&done_changed, &done_lock);
    }
    pthread_mutex_unlock(&done_lock);
}

static eng_text text_of(const char *string)
{
    return (eng_text){string, strlen(string)};
}

static void set_input(struct ask *ask, size_t i, size_t task, size_t text)
{
    static const char *const names[3][2] = {
        {"text", NULL}, {"text_a", "text_b"}, {"question", "context"}};
    size_t kind = task == 4 ? 1 : task == 5 ? 2 : 0;
    size_t n = kind == 0 ? 1 : 2;
    for (size_t f = 0; f < n; f++) {
        ask->fields[i][f].name = text_of(names[kind][f]);
        ask->fields[i][f].value = text_of(texts[(text + (kind == 1 ? f : 0)) % N_TEXTS]);
    }
    if (kind == 2) {
        ask->fields[i][0].value = text_of("什么坏了？");
    }
    ask->inputs[i] = (eng_input){.fields = ask->fields[i], .n_fields = n};
}

static void make_ask(struct ask *ask, int64_t tenant, size_t task, size_t text, size_t n)
{
    memset(ask, 0, sizeof *ask);
    for (size_t i = 0; i < n; i++) {
        set_input(ask, i, task, text + i);
    }
    ask->p = (struct prediction){.tenant = tenant,
                                 .weight = 1,
                                 .version = versions[task],
                                 .n = n,
                                 .bytes = 100 * n,
                                 .inputs = ask->inputs,
                                 .done = on_done,
                                 .arg = ask};
}

static struct batcher *start(double target, const struct fair_load *limit)
{
    const struct batcher_options options = {.model = model,
                                            .bank = bank,
                                            .compute = compute,
                                            .max_tokens = 2048,
                                            .max_sequences = 64,
                                            .target_seconds = target,
                                            .limit = *limit};
    struct batcher *batcher = NULL;
    eng_error err;
    if (batcher_start(&options, &batcher, &err) != ENG_OK) {
        TEST_FAIL_("batcher: %s: %s", err.field, err.text);
        exit(1);
    }
    return batcher;
}

static const struct fair_load no_limit;

static bool same_answer(const struct answer *a, const struct answer *b)
{
    return a->n_options == b->n_options && a->n_spans == b->n_spans && a->tokens == b->tokens &&
           (a->n_options == 0 || memcmp(a->probabilities, b->probabilities,
                                        a->n_options * sizeof *a->probabilities) == 0) &&
           (a->n_spans == 0 ||
            (a->spans[0].start == b->spans[0].start && a->spans[0].end == b->spans[0].end &&
             memcmp(&a->spans[0].score, &b->spans[0].score, sizeof a->spans[0].score) == 0));
}

/* Answers of every task to every text, each asked alone on an idle batcher. */
static struct ask reference[N_TASKS][N_TEXTS];

static void answer_alone(void)
{
    struct batcher *batcher = start(0.02, &no_limit);
    for (size_t task = 0; task < N_TASKS; task++) {
        for (size_t text = 0; text < N_TEXTS; text++) {
            struct ask *ask = &reference[task][text];
            make_ask(ask, 1, task, text, 1);
            REQUIRE(batcher_submit(batcher, &ask->p) == FAIR_ADMITTED);
            wait_for(ask);
            REQUIRE(ask->p.end == PREDICTION_DONE);
            const struct answer *answer = &ask->p.answers[0];
            CHECK(answer->tokens > 16 && ask->p.tokens == answer->tokens);
            if (task != 5) {
                REQUIRE(answer->n_options == 2);
                CHECK_NEAR(answer->probabilities[0] + answer->probabilities[1], 1, 1e-5);
            } else {
                CHECK_INT(answer->n_spans, 1);
            }
        }
    }
    struct batcher_stats stats;
    batcher_get_stats(batcher, &stats);
    CHECK_INT(stats.sequences, N_TASKS * N_TEXTS);
    CHECK_INT(stats.batches, N_TASKS * N_TEXTS);
    CHECK(stats.inside_requests == 0 && stats.inside_tokens == 0 && stats.waiting == 0);
    CHECK(stats.budget_tokens >= eng_model_get_info(model)->positions);
    printf("budget %zu tokens, %.0f tokens/s, workspace %zu KiB\n", stats.budget_tokens,
           stats.tokens_per_second, stats.workspace_bytes / 1024);
    batcher_stop(batcher);
}

/* ---- many at once -------------------------------------------------------------------------- */

#define ASKS_EACH 40
struct sender {
    pthread_t thread;
    struct batcher *batcher;
    unsigned seed;
    struct ask asks[ASKS_EACH];
    size_t cancelled, wrong, lost;
    bool cancels;
};

static void *send_many(void *arg)
{
    struct sender *s = arg;
    for (size_t i = 0; i < ASKS_EACH; i++) {
        size_t n = 1 + (size_t)rand_r(&s->seed) % 12;
        make_ask(&s->asks[i], rand_r(&s->seed) % 5, (size_t)rand_r(&s->seed) % N_TASKS,
                 (size_t)rand_r(&s->seed) % N_TEXTS, n);
        s->lost += batcher_submit(s->batcher, &s->asks[i].p) != FAIR_ADMITTED;
    }
    for (size_t i = 0; s->cancels && i < ASKS_EACH; i += 1 + (size_t)rand_r(&s->seed) % 3) {
        batcher_cancel(s->batcher, &s->asks[i].p);
    }
    for (size_t i = 0; i < ASKS_EACH; i++) {
        wait_for(&s->asks[i]);
    }
    return NULL;
}

static void judge(struct sender *s)
{
    for (size_t i = 0; i < ASKS_EACH; i++) {
        struct ask *ask = &s->asks[i];
        size_t task = 0;
        while (versions[task] != ask->p.version) {
            task++;
        }
        s->lost += ask->times_done != 1;
        s->cancelled += ask->p.end == PREDICTION_CANCELLED;
        s->wrong += ask->p.end != PREDICTION_DONE && ask->p.end != PREDICTION_CANCELLED;
        for (size_t k = 0; ask->p.end == PREDICTION_DONE && k < ask->p.n; k++) {
            size_t text = 0;
            size_t last = task == 4 || task == 5 ? 1 : 0;
            const char *value = ask->fields[k][task == 4 ? 0 : last].value.data;
            while (texts[text] != value) {
                text++;
            }
            s->wrong += !same_answer(&ask->p.answers[k], &reference[task][text].p.answers[0]);
        }
        prediction_fini(&ask->p);
    }
}

static void crowd(bool cancels)
{
    enum { SENDERS = 6 };
    static struct sender senders[SENDERS];
    struct batcher *batcher = start(0.005, &no_limit);
    struct batcher_stats stats;
    size_t cancelled = 0;
    memset(senders, 0, sizeof senders);
    for (unsigned i = 0; i < SENDERS; i++) {
        senders[i].batcher = batcher;
        senders[i].seed = i + 1;
        senders[i].cancels = cancels;
        REQUIRE(pthread_create(&senders[i].thread, NULL, send_many, &senders[i]) == 0);
    }
    for (unsigned i = 0; i < SENDERS; i++) {
        pthread_join(senders[i].thread, NULL);
        judge(&senders[i]);
        CHECK_INT(senders[i].wrong, 0);
        CHECK_INT(senders[i].lost, 0);
        cancelled += senders[i].cancelled;
    }
    CHECK(cancels ? cancelled > 0 : cancelled == 0);
    batcher_get_stats(batcher, &stats);
    CHECK(stats.batches < stats.sequences);
    CHECK(atomic_load(&batcher_get_histograms(batcher)->batch_tasks.counts[0]) <
          stats.batches); /* some batch mixed tasks */
    CHECK(stats.inside_requests == 0 && stats.inside_tokens == 0 && stats.waiting == 0);
    CHECK(batcher_is_idle(batcher));
    batcher_stop(batcher);
}

/* Bitwise: each of 240 mixed predictions of up to 12 inputs answers as it did alone. */
static void answers_do_not_depend_on_neighbours(void)
{
    crowd(false);
}

static void cancelling_loses_nothing_else(void)
{
    crowd(true);
}

/* ---- order and endings --------------------------------------------------------------------- */

/* 150 requests of one tenant wait. Another's 12 of the same size, sent later, get in at once; with
 * weight 4 they leave the flood every fifth turn. */
static void a_flood_leaves_others_their_turn(void)
{
    enum { FLOOD = 150, LATER = 12 };
    static struct ask flood[FLOOD], later[LATER];
    struct batcher *batcher = start(1e-9, &no_limit); /* batches of about 512 tokens */
    for (size_t i = 0; i < FLOOD; i++) {
        make_ask(&flood[i], 1, i % 4, i, 8);
        REQUIRE(batcher_submit(batcher, &flood[i].p) == FAIR_ADMITTED);
    }
    wait_for(&flood[5]);
    for (size_t i = 0; i < LATER; i++) {
        make_ask(&later[i], 2, 0, i, 8);
        later[i].p.weight = 4;
        REQUIRE(batcher_submit(batcher, &later[i].p) == FAIR_ADMITTED);
    }
    size_t first = SIZE_MAX, last = 0;
    for (size_t i = 0; i < LATER; i++) {
        wait_for(&later[i]);
        first = later[i].place < first ? later[i].place : first;
        last = later[i].place > last ? later[i].place : last;
    }
    printf("%zu of the flood among %d later ones\n", last - first + 1 - LATER, LATER);
    CHECK(last - first + 1 - LATER <= 6);
    size_t after = 0;
    for (size_t i = 0; i < FLOOD; i++) {
        wait_for(&flood[i]);
        after += flood[i].place > last;
        prediction_fini(&flood[i].p);
    }
    CHECK(after > FLOOD / 2);
    for (size_t i = 0; i < LATER; i++) {
        prediction_fini(&later[i].p);
    }
    batcher_stop(batcher);
}

static bool is_done(const struct ask *ask)
{
    pthread_mutex_lock(&done_lock);
    bool done = ask->times_done > 0;
    pthread_mutex_unlock(&done_lock);
    return done;
}

static size_t sequences_at_work(struct batcher *batcher)
{
    struct batcher_stats stats;
    batcher_get_stats(batcher, &stats);
    return stats.inflight;
}

/* All eight sequences of one tenant, more than is light, are in the batch that computes when another sends a
 * single one: that is answered first, between two pieces, and answers what it answers alone. Rounds in which
 * the batch ends too soon do not count; without the express lane none would. */
static void a_light_tenant_goes_between_two_pieces(void)
{
    static struct ask heavy, light;
    struct batcher *batcher = start(0, &no_limit);
    size_t first = 0;
    struct answer alone = {0};
    for (int round = 0; round < 200 && first < 3; round++) {
        make_ask(&heavy, 1, 0, 0, 8);
        make_ask(&light, 2, 1, 1, 1);
        REQUIRE(batcher_submit(batcher, &heavy.p) == FAIR_ADMITTED);
        while (sequences_at_work(batcher) < 8 && !is_done(&heavy)) {
            sched_yield();
        }
        REQUIRE(batcher_submit(batcher, &light.p) == FAIR_ADMITTED);
        wait_for(&light);
        wait_for(&heavy);
        first += light.place < heavy.place;
        CHECK(light.p.end == PREDICTION_DONE && heavy.p.end == PREDICTION_DONE);
        CHECK(round == 0 || same_answer(&alone, &light.p.answers[0]));
        if (round == 0) {
            alone = light.p.answers[0];
            light.p.answers[0] = (struct answer){0};
        }
        prediction_fini(&light.p);
        prediction_fini(&heavy.p);
    }
    CHECK(first >= 3);
    free(alone.probabilities);
    batcher_stop(batcher);
}

static void late_ones_are_not_computed(void)
{
    struct batcher *batcher = start(0.02, &no_limit);
    struct batcher_stats stats;
    struct ask late, timely;
    make_ask(&late, 1, 0, 0, 3);
    make_ask(&timely, 1, 0, 0, 3);
    late.p.deadline_us = clock_us() - 1;
    timely.p.deadline_us = clock_us() + 60 * 1000000LL;
    CHECK(batcher_submit(batcher, &late.p) == FAIR_ADMITTED);
    CHECK(batcher_submit(batcher, &timely.p) == FAIR_ADMITTED);
    wait_for(&late);
    wait_for(&timely);
    CHECK(late.p.end == PREDICTION_LATE && late.p.answers == NULL);
    CHECK(timely.p.end == PREDICTION_DONE);
    batcher_get_stats(batcher, &stats);
    CHECK_INT(stats.sequences, 3);
    CHECK_INT(stats.dropped, 3);
    prediction_fini(&timely.p);
    batcher_stop(batcher);
}

static void a_bad_input_is_named(void)
{
    struct batcher *batcher = start(0.02, &no_limit);
    struct ask bad, good;
    make_ask(&bad, 1, 0, 0, 30);
    make_ask(&good, 1, 0, 0, 30);
    bad.inputs[21].n_fields = 0;
    CHECK(batcher_submit(batcher, &bad.p) == FAIR_ADMITTED);
    CHECK(batcher_submit(batcher, &good.p) == FAIR_ADMITTED);
    wait_for(&bad);
    wait_for(&good);
    CHECK(bad.p.end == PREDICTION_FAILED && bad.p.err.status == ENG_EINVAL);
    CHECK_INT(bad.p.failed_input, 21);
    CHECK_STR(bad.p.err.field, "text");
    CHECK(good.p.end == PREDICTION_DONE);
    prediction_fini(&good.p);
    batcher_stop(batcher);
}

static void bounds_refuse_a_request_whole(void)
{
    const struct fair_load limit = {.requests = 4, .tokens = 3000};
    struct batcher *batcher = start(0.02, &limit);
    struct batcher_stats stats;
    struct ask big, one;
    make_ask(&big, 1, 0, 0, 40);
    big.p.bytes = 40 * 400;
    CHECK(batcher_submit(batcher, &big.p) == FAIR_FULL); /* 40 × (400 / 3 + 48) tokens */
    CHECK(big.times_done == 0 && big.p.answers == NULL);
    make_ask(&one, 1, 0, 0, 1);
    CHECK(batcher_submit(batcher, &one.p) == FAIR_ADMITTED);
    wait_for(&one);
    batcher_get_stats(batcher, &stats);
    CHECK(stats.inside_requests == 0 && stats.inside_tokens == 0);
    prediction_fini(&one.p);
    batcher_stop(batcher);
}

static bool slow_prepare(struct prediction *p)
{
    (void)p;
    usleep(50000);
    return true;
}

static bool failing_prepare(struct prediction *p)
{
    p->err = (eng_error){.status = ENG_EINVAL, .field = "labels", .text = "as planned"};
    p->failed_input = 2;
    return false;
}

static void what_prepare_reports_arrives(void)
{
    struct batcher *batcher = start(0.02, &no_limit);
    struct ask ask;
    make_ask(&ask, 1, 0, 0, 3);
    ask.p.prepare = failing_prepare;
    CHECK(batcher_submit(batcher, &ask.p) == FAIR_ADMITTED);
    wait_for(&ask);
    CHECK(ask.p.end == PREDICTION_FAILED && ask.p.failed_input == 2);
    CHECK_STR(ask.p.err.text, "as planned");
    batcher_stop(batcher);
}

static void cancelled_while_it_waits(void)
{
    struct batcher *batcher = start(0.02, &no_limit);
    struct batcher_stats stats;
    struct ask first, second;
    make_ask(&first, 1, 0, 0, 1);
    first.p.prepare = slow_prepare;
    make_ask(&second, 1, 0, 0, 1);
    CHECK(batcher_submit(batcher, &first.p) == FAIR_ADMITTED);
    CHECK(batcher_submit(batcher, &second.p) == FAIR_ADMITTED);
    batcher_cancel(batcher, &second.p);
    CHECK(second.times_done == 1 && second.p.end == PREDICTION_CANCELLED);
    batcher_cancel(batcher, &first.p); /* being prepared: ends afterwards */
    wait_for(&first);
    CHECK(first.p.end == PREDICTION_CANCELLED);
    batcher_get_stats(batcher, &stats);
    CHECK_INT(stats.sequences, 0);
    batcher_stop(batcher);
}

static void stopping_ends_what_waits(void)
{
    enum { ASKS = 20 };
    static struct ask asks[ASKS];
    struct batcher *batcher = start(0.02, &no_limit);
    for (size_t i = 0; i < ASKS; i++) {
        make_ask(&asks[i], 1, 0, 0, 40);
        asks[i].p.prepare = slow_prepare;
        CHECK(batcher_submit(batcher, &asks[i].p) == FAIR_ADMITTED);
    }
    batcher_stop(batcher);
    for (size_t i = 0; i < ASKS; i++) {
        CHECK_INT(asks[i].times_done, 1);
        CHECK(asks[i].p.end == PREDICTION_DONE || asks[i].p.end == PREDICTION_STOPPED);
        prediction_fini(&asks[i].p);
    }
    CHECK(asks[ASKS - 1].p.end == PREDICTION_STOPPED);
}

int main(void)
{
    TESTS_BEGIN;
    eng_error err;
    if (!boot_model_open(&model, &bank) || eng_compute_start(2, NULL, &compute, &err) != ENG_OK ||
        registry_new(model, &bank, 1, &registry, &err) != ENG_OK) {
        return 1;
    }
    make_versions();
    RUN(answer_alone);
    RUN(answers_do_not_depend_on_neighbours);
    RUN(cancelling_loses_nothing_else);
    RUN(a_flood_leaves_others_their_turn);
    RUN(a_light_tenant_goes_between_two_pieces);
    RUN(late_ones_are_not_computed);
    RUN(a_bad_input_is_named);
    RUN(bounds_refuse_a_request_whole);
    RUN(what_prepare_reports_arrives);
    RUN(cancelled_while_it_waits);
    RUN(stopping_ends_what_waits);
    for (size_t i = 0; i < N_TASKS; i++) {
        for (size_t text = 0; text < N_TEXTS; text++) {
            prediction_fini(&reference[i][text].p);
        }
        version_release(registry, versions[i]);
    }
    registry_free(registry);
    eng_compute_stop(compute);
    eng_bank_free(bank);
    eng_model_free(model);
    TESTS_END;
}
