/* bench_serve.c: the registry and the batcher under load, without HTTP.
 *
 * Tasks are published, looked up at random and asked: `inflight` predictions are always inside, each of
 * one text of mixed length, sent again for another tenant and task as soon as it is answered. Rounds
 * of one task and rounds of random tasks take turns, so that what many tasks cost shows as a ratio of
 * the same minute. This thread plays the server's loop: it alone touches the registry.
 */
#include "server/commands/bench_serve.h"

#include "server/batcher.h"
#include "server/commands/bench_figures.h"
#include "server/commands/commands.h"
#include "server/commands/opened.h"
#include "server/loop.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define LOOKUPS     200000
#define MAX_SAMPLES (1 << 20)
#define N_FORMS     4

static const char passage[] =
    "周末去了城北新开的那家小馆子，门口排了半个小时的队。汤很鲜，面也筋道，就是咸了一点。老板娘记得"
    "每个熟客的口味，给邻桌的孩子多加了一个蛋。隔壁桌在谈公司搬家的事，说地铁要修到河边，房租恐怕又"
    "要涨。吃完沿着河走回来，风很凉快，岸边有人钓鱼，也有人放风筝。手机快没电了，导航把我带进一条死"
    "胡同，绕了两圈才找到车站。总的来说值得再去一次，不过要早点去，也要带上充电宝和一件外套。";

struct slot {
    struct prediction prediction;
    eng_field field;
    eng_input input;
    struct load *load;
    int64_t began;
    struct slot *next;
};

struct load {
    const struct bench_serve_options *options;
    struct opened opened;
    struct registry *registry;
    struct batcher *batcher;
    struct slot *slots;
    uint64_t random;
    bool one_task;
    size_t inside; /* predictions not back yet */

    pthread_mutex_t lock; /* covers back */
    pthread_cond_t came;
    struct slot *back; /* answered, from the batcher's threads */

    uint64_t inputs, tokens, failures; /* of the round */
    double *seconds;                   /* (MAX_SAMPLES) latencies of the round */
    size_t n_seconds;
    struct figures report;
};

/* xorshift64: which task and text come next. */
static uint64_t draw(struct load *load, uint64_t below)
{
    load->random ^= load->random << 13;
    load->random ^= load->random >> 7;
    load->random ^= load->random << 17;
    return load->random % below;
}

static int failed(const eng_error *err)
{
    return engine_failed("bench", err->status, err);
}

/* ---- tasks ------------------------------------------------------------------------------------------- */

static int64_t tenant_of(const struct load *load, size_t task)
{
    return 1 + (int64_t)(task % load->options->tenants);
}

static void name_of(size_t task, char name[32])
{
    snprintf(name, 32, "task-%zu", task);
}

static eng_status publish(struct load *load, size_t task, eng_error *err)
{
    static const char *const words[N_FORMS][2] = {
        {"负面", "正面"}, {"甲", "乙"}, {"差", "好"}, {"否", "是"}};
    const char *const *pair = words[task % N_FORMS];
    const eng_text labels[2] = {{pair[0], strlen(pair[0])}, {pair[1], strlen(pair[1])}};
    const eng_task_spec spec = {.type = ENG_CLASSIFICATION, .labels = labels, .n_labels = 2};
    size_t route_len = eng_bank_get_info(load->opened.bank)->route_len;
    float route[1024];
    char name[32];
    if (route_len > sizeof route / sizeof route[0]) {
        route_len = 0;
    }
    for (size_t i = 0; i < route_len; i++) {
        route[i] = (float)draw(load, 1000) / 250 - 2;
    }
    name_of(task, name);
    const reg_publication pub = {.tenant = tenant_of(load, task),
                                 .task = (int64_t)task + 1,
                                 .name = name,
                                 .spec = &spec,
                                 .number = 1,
                                 .route = route,
                                 .route_len = route_len};
    return registry_publish(load->registry, &pub, err);
}

static eng_status publish_all(struct load *load, eng_error *err)
{
    double began = bench_now();
    eng_status status = ENG_OK;
    for (size_t i = 0; i < load->options->tasks && status == ENG_OK; i++) {
        status = publish(load, i, err);
    }
    double took = bench_now() - began, n = (double)load->options->tasks;
    figure(&load->report, "tasks", "%.0f", n);
    figure(&load->report, "publish_us", "%.2f us a task", 1e6 * took / n);
    figure(&load->report, "bytes_per_task", "%.0f bytes",
           (double)registry_bytes(load->registry) / n);
    return status;
}

static void look_up(struct load *load)
{
    struct reg_task_view view;
    size_t missed = 0;
    for (size_t i = 0; i < LOOKUPS; i++) {
        size_t task = draw(load, load->options->tasks);
        char name[32];
        name_of(task, name);
        double began = bench_now();
        missed +=
            registry_find(load->registry, tenant_of(load, task), name, strlen(name), &view) ? 0 : 1;
        load->seconds[i] = bench_now() - began;
    }
    sort_values(load->seconds, LOOKUPS);
    figure(&load->report, "lookup_p50_us", "%.2f us", 1e6 * quantile(load->seconds, LOOKUPS, 0.5));
    figure(&load->report, "lookup_p99_us", "%.2f us", 1e6 * quantile(load->seconds, LOOKUPS, 0.99));
    figure(&load->report, "lookups_missed", "%.0f", (double)missed);
}

/* ---- load -------------------------------------------------------------------------------------------- */

/* On a batcher's thread. */
static void on_done(struct prediction *prediction)
{
    struct slot *slot = prediction->arg;
    struct load *load = slot->load;
    pthread_mutex_lock(&load->lock);
    slot->next = load->back;
    load->back = slot;
    pthread_cond_signal(&load->came);
    pthread_mutex_unlock(&load->lock);
}

/* The passage's first 8 to 150 characters, of three bytes each, short ones more often. */
static eng_text some_text(struct load *load)
{
    size_t longest = (sizeof passage - 1) / 3,
           limit = 8 + draw(load, longest < 142 ? longest : 142);
    return (eng_text){passage, 3 * (8 + draw(load, limit))};
}

static bool send(struct load *load, struct slot *slot)
{
    size_t task = load->one_task ? 0 : draw(load, load->options->tasks);
    struct reg_task_view view;
    struct version *version = NULL;
    char name[32];
    name_of(task, name);
    if (!registry_find(load->registry, tenant_of(load, task), name, strlen(name), &view) ||
        registry_bind(load->registry, view.current, &version, NULL) != ENG_OK) {
        return false;
    }
    slot->field = (eng_field){{"text", 4}, some_text(load)};
    slot->input = (eng_input){.fields = &slot->field, .n_fields = 1};
    slot->prediction = (struct prediction){.tenant = tenant_of(load, task),
                                           .weight = 1,
                                           .version = version,
                                           .n = 1,
                                           .bytes = slot->field.value.len + 64,
                                           .inputs = &slot->input,
                                           .done = on_done,
                                           .arg = slot};
    slot->began = clock_us();
    if (batcher_submit(load->batcher, &slot->prediction) != FAIR_ADMITTED) {
        version_release(load->registry, version);
        return false;
    }
    load->inside++;
    return true;
}

static void take_back(struct load *load, struct slot *slot)
{
    struct prediction *prediction = &slot->prediction;
    load->inside--;
    if (prediction->end == PREDICTION_DONE) {
        load->inputs++;
        load->tokens += prediction->tokens;
        if (load->n_seconds < MAX_SAMPLES) {
            load->seconds[load->n_seconds++] = 1e-6 * (double)(clock_us() - slot->began);
        }
    } else {
        load->failures++;
    }
    prediction_fini(prediction);
    version_release(load->registry, prediction->version);
}

/* Waits for what comes back; sends again until `end`. */
static void exchange(struct load *load, double end)
{
    pthread_mutex_lock(&load->lock);
    while (load->back == NULL) {
        pthread_cond_wait(&load->came, &load->lock);
    }
    struct slot *back = load->back;
    load->back = NULL;
    pthread_mutex_unlock(&load->lock);
    while (back != NULL) {
        struct slot *slot = back;
        back = slot->next;
        take_back(load, slot);
        if (bench_now() < end && !send(load, slot)) {
            load->failures++;
        }
    }
}

/* Inputs a second of one round. */
static double run_round(struct load *load, bool one_task, double seconds)
{
    double began = bench_now();
    load->one_task = one_task;
    load->inputs = load->tokens = 0;
    load->n_seconds = 0;
    for (size_t i = 0; i < load->options->inflight; i++) {
        if (!send(load, &load->slots[i])) {
            load->failures++;
        }
    }
    while (load->inside > 0) {
        exchange(load, began + seconds);
    }
    return (double)load->inputs / (bench_now() - began);
}

static double mean(const struct histogram *histogram)
{
    double n = 0;
    for (size_t i = 0; i <= histogram->n; i++) {
        n += (double)histogram->counts[i];
    }
    return n > 0 ? 1e-6 * (double)histogram->sum_millionths / n : 0;
}

static void run_rounds(struct load *load)
{
    double one[64], many[64], ratio[64], tokens = 0, p50 = 0, p99 = 0;
    size_t rounds = load->options->rounds;
    run_round(load, true, load->options->seconds / 4); /* touches the memory */
    for (size_t i = 0; i < rounds; i++) {
        one[i] = run_round(load, true, load->options->seconds);
        many[i] = run_round(load, false, load->options->seconds);
        ratio[i] = one[i] > 0 ? many[i] / one[i] : 0;
        sort_values(load->seconds, load->n_seconds);
        p50 += quantile(load->seconds, load->n_seconds, 0.5) / (double)rounds;
        p99 += quantile(load->seconds, load->n_seconds, 0.99) / (double)rounds;
        tokens += load->inputs > 0 ? many[i] * (double)load->tokens / (double)load->inputs : 0;
    }
    sort_values(one, rounds);
    sort_values(many, rounds);
    sort_values(ratio, rounds);
    figure(&load->report, "one_task_inputs_per_second", "%.0f", one[rounds / 2]);
    figure(&load->report, "random_tasks_inputs_per_second", "%.0f", many[rounds / 2]);
    figure(&load->report, "random_over_one", "%.3f (median of the rounds' ratios)",
           ratio[rounds / 2]);
    figure(&load->report, "tokens_per_second", "%.0f", tokens / (double)rounds);
    figure(&load->report, "p50_ms", "%.2f ms", 1e3 * p50);
    figure(&load->report, "p99_ms", "%.2f ms", 1e3 * p99);
}

static void report_batches(struct load *load)
{
    const struct batcher_histograms *seen = batcher_get_histograms(load->batcher);
    struct batcher_stats stats;
    struct rusage usage;
    batcher_get_stats(load->batcher, &stats);
    figure(&load->report, "batch_sequences", "%.1f mean", mean(&seen->batch_sequences));
    figure(&load->report, "batch_tokens", "%.0f mean", mean(&seen->batch_tokens));
    figure(&load->report, "batch_tasks", "%.1f distinct, mean of all rounds",
           mean(&seen->batch_tasks));
    figure(&load->report, "budget_tokens", "%.0f", (double)stats.budget_tokens);
    figure(&load->report, "failures", "%.0f", (double)load->failures);
    if (getrusage(RUSAGE_SELF, &usage) == 0) {
        figure(&load->report, "peak_memory_mib", "%.0f MiB", (double)usage.ru_maxrss / 1024);
    }
}

/* ---- the command --------------------------------------------------------------------------------------- */

static int load_init(struct load *load)
{
    const struct bench_serve_options *o = load->options;
    const struct open_request request = {
        .command = "bench", .model = o->model, .threads = o->threads};
    eng_error err = {0};
    int code = opened_open(&request, &load->opened);
    if (code != EXIT_DONE) {
        return code;
    }
    load->slots = calloc(o->inflight, sizeof *load->slots);
    load->seconds = calloc(MAX_SAMPLES, sizeof *load->seconds);
    load->report = (struct figures){json_object(), o->json};
    if (load->slots == NULL || load->seconds == NULL || load->report.object == NULL) {
        fputs("mp2 bench: out of memory\n", stderr);
        return EXIT_FAILED;
    }
    for (size_t i = 0; i < o->inflight; i++) {
        load->slots[i].load = load;
    }
    const struct batcher_options options = {.model = load->opened.model,
                                            .bank = load->opened.bank,
                                            .compute = load->opened.compute,
                                            .max_tokens = 8192,
                                            .max_sequences = 256,
                                            .target_seconds = 0.02};
    if (registry_new(load->opened.model, &load->opened.bank, 1, &load->registry, &err) != ENG_OK ||
        batcher_start(&options, &load->batcher, &err) != ENG_OK) {
        return failed(&err);
    }
    return EXIT_DONE;
}

static void load_fini(struct load *load)
{
    if (load->batcher != NULL) {
        batcher_stop(load->batcher);
    }
    registry_free(load->registry);
    free(load->slots);
    free(load->seconds);
    json_decref(load->report.object);
    opened_close(&load->opened);
}

int bench_serve(const struct bench_serve_options *options)
{
    struct load load = {.options = options,
                        .random = 0x9E3779B97F4A7C15u,
                        .lock = PTHREAD_MUTEX_INITIALIZER,
                        .came = PTHREAD_COND_INITIALIZER};
    eng_error err = {0};
    int code = load_init(&load);
    if (code == EXIT_DONE && publish_all(&load, &err) != ENG_OK) {
        code = failed(&err);
    }
    if (code == EXIT_DONE) {
        look_up(&load);
        run_rounds(&load);
        report_batches(&load);
        code = load.failures == 0 ? EXIT_DONE : EXIT_FAILED;
    }
    if (load.report.object != NULL) {
        figures_print(&load.report);
    }
    load_fini(&load);
    return code;
}
