/* cmd_bench.c: `mp2 bench gemm|forward|train|serve|tasks`.
 *
 * Every figure is stated beside the floor of the same run: the rate of multiply-adds in registers
 * ("peak") and the best rate of plain matrix products of the model's own shapes ("best gemm"). Times
 * are best-of, and the median is printed beside it: on a busy machine the two drift apart, and that
 * is the sign to measure again.
 */
#include "engine/engine.h"
#include "server/cgroup.h"
#include "server/commands/bench_figures.h"
#include "server/commands/bench_serve.h"
#include "server/commands/bench_tasks.h"
#include "server/commands/commands.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define MAX_RUNS 1000
#define MAX_LENS 65536

struct bench {
    const char *what, *shape, *kernel, *lens_file, *db;
    size_t tokens, batch, threads, layers, batch_tokens;
    size_t tasks, tenants, inflight, rounds; /* serve, tasks */
    double seconds;
    bool half; /* float16 weights */
    eng_compute *compute;
    eng_model *model;
    eng_bank *bank;
    double peak, gemm; /* GFLOP/s */
    struct figures report;
};

static const char help[] =
    "usage: mp2 bench gemm|forward|train|serve|tasks [OPTIONS]\n\n"
    "  --shape large|base|small|DIR  model shape (random weights), or a model directory [base]\n"
    "  --tokens T      tokens of a sequence [178]\n"
    "  --batch B       sequences of a batch [1]\n"
    "  --threads N     compute threads [0: one a core]\n"
    "  --layers N      only the first N layers of a random shape [all]\n"
    "  --lens FILE     forward: sequences of these lengths, one a line, in place of B x T\n"
    "  --batch-tokens N  tokens of a packed batch of them, at most [2048]\n"
    "  --weights FORM  f32 or f16, as the server holds them [f32]\n"
    "  --kernel NAME   avx512-packed, avx2-packed or openblas [the best]\n"
    "  --seconds S     time for each measurement [3]\n"
    "  --json          one JSON object on stdout\n\n"
    "gemm: rates of matrix products of the shape's sizes, for both kernels, beside the peak.\n"
    "forward: one pass over B sequences of T tokens. train: one step of a route.\n"
    "serve: registry and batcher of a model directory (default: the embedded model) under load,\n"
    "rounds of one task and of random tasks in turn:\n\n"
    "  --tasks N       tasks in the registry [1000]\n"
    "  --tenants N     tenants that own them and ask [8]\n"
    "  --inflight N    predictions inside at a time [64]\n"
    "  --rounds N      rounds of each kind, of --seconds each [5]\n\n"
    "tasks: a database of --tasks tasks of --tenants tenants, opened and read --rounds times as at "
    "a\n"
    "start, then looked up:\n\n"
    "  --db FILE       made when missing, else used again, and kept [one that is removed]\n";

static int engine_error(const eng_error *err)
{
    fprintf(stderr, "mp2: %s%s%s\n", err->field, err->field[0] != '\0' ? ": " : "", err->text);
    return err->status == ENG_EIO || err->status == ENG_ENOTFOUND ? EXIT_NO_INPUT : EXIT_FAILED;
}

/* ---- models ---- */

static const struct {
    const char *name;
    eng_model_info info;
} shapes[] = {
    {"large",
     {.layers = 24,
      .hidden = 1024,
      .heads = 16,
      .ffn = 4096,
      .vocab = 21128,
      .positions = 512,
      .types = 2}},
    {"base",
     {.layers = 12,
      .hidden = 768,
      .heads = 12,
      .ffn = 3072,
      .vocab = 21128,
      .positions = 512,
      .types = 2}},
    {"small",
     {.layers = 3,
      .hidden = 128,
      .heads = 2,
      .ffn = 512,
      .vocab = 4096,
      .positions = 512,
      .types = 2}},
};

static eng_status open_model(struct bench *b, eng_error *err)
{
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        if (strcmp(b->shape, shapes[i].name) == 0) {
            eng_model_info info = shapes[i].info;
            info.layers = b->layers > 0 && b->layers < info.layers ? b->layers : info.layers;
            info.half_weights = b->half;
            return eng_model_random(&info, 1, &b->model, err);
        }
    }
    return (b->half ? eng_model_open_half : eng_model_open)(b->shape, &b->model, err);
}

/* The directory's own bank; else random modules, as many prompt tokens as short sequences allow. */
static eng_status open_bank(struct bench *b, eng_error *err)
{
    const eng_model_info *info = eng_model_get_info(b->model);
    size_t shortest = b->lens_file != NULL ? 17 : b->tokens;
    size_t prompt = shortest > 51 && info->positions > 51 ? 50 : shortest > 16 ? 16 : 1;
    eng_status status = eng_bank_open_default(b->model, false, &b->bank, err);
    if (status != ENG_ENOTFOUND) {
        return status;
    }
    return eng_bank_random(b->model, 1, 8, prompt, 300, 1, &b->bank, err);
}

/* ---- gemm ---- */

/* The four matrix shapes of a layer, and the best rate over them with the compute's own kernel. */
static int measure_gemm(struct bench *b, bool all_kernels)
{
    const eng_model_info *info = eng_model_get_info(b->model);
    size_t H = info->hidden, F = info->ffn, rows = b->tokens * b->batch;
    const size_t shape[3][2] = {{H, H}, {F, H}, {H, F}};
    const char *kernels[] = {NULL, "openblas"};
    eng_error err = {0};
    json_t *list = json_array();
    if (eng_bench_gemm(b->compute, "peak", 0, 0, 0, b->seconds / 4, &b->peak, &err) != ENG_OK) {
        json_decref(list);
        return engine_error(&err);
    }
    for (size_t k = 0; k < (all_kernels ? 2 : 1); k++) {
        const char *name =
            kernels[k] != NULL ? kernels[k] : eng_compute_get_info(b->compute)->kernel;
        for (size_t i = 0; i < 3; i++) {
            double rate = 0;
            if (eng_bench_gemm(b->compute, kernels[k], rows, shape[i][0], shape[i][1],
                               b->seconds / 3, &rate, &err) != ENG_OK) {
                json_decref(list);
                return engine_error(&err);
            }
            b->gemm = rate > b->gemm ? rate : b->gemm;
            json_array_append_new(list, json_pack("{s:s,s:I,s:I,s:I,s:f}", "kernel", name, "m",
                                                  (json_int_t)rows, "n", (json_int_t)shape[i][0],
                                                  "k", (json_int_t)shape[i][1], "gflops", rate));
            if (!b->report.json && all_kernels) {
                printf("  %-12s %5zu x %5zu x %5zu  %7.1f GFLOP/s  %5.1f %% of peak\n", name, rows,
                       shape[i][0], shape[i][1], rate, b->peak > 0 ? 100 * rate / b->peak : 0);
            }
        }
    }
    json_object_set_new(b->report.object, "gemm", list);
    figure(&b->report, "peak_gflops", "%.1f GFLOP/s", b->peak);
    figure(&b->report, "best_gemm_gflops", "%.1f GFLOP/s", b->gemm);
    return EXIT_DONE;
}

/* ---- forward and train ---- */

static void report_rates(struct bench *b, double flops, size_t tokens, double best)
{
    double rate = flops / best * 1e-9;
    figure(&b->report, "gflops", "%.1f GFLOP/s", rate);
    figure(&b->report, "tokens_per_second", "%.0f", (double)tokens / best);
    figure(&b->report, "percent_of_best_gemm", "%.1f %%", b->gemm > 0 ? 100 * rate / b->gemm : 0);
    figure(&b->report, "percent_of_peak", "%.1f %%", b->peak > 0 ? 100 * rate / b->peak : 0);
}

/* Sequences in the order they run; a batch is as many of the next ones as fit. */
struct pass {
    eng_workspace *workspace;
    size_t *lens; /* (n) */
    size_t n, total, longest;
    int32_t *ids; /* (longest): every sequence reads its first tokens */
    eng_sequence *sequences;
    float *mix, *logits;
};

static void pass_fini(struct pass *p)
{
    eng_workspace_free(p->workspace);
    free(p->lens);
    free(p->ids);
    free(p->sequences);
    free(p->mix);
    free(p->logits);
}

static eng_status pass_fails(eng_status status, eng_error *err, const char *text)
{
    *err = (eng_error){.status = status};
    snprintf(err->text, sizeof err->text, "%s", text);
    return status;
}

/* Lengths, one a line. */
static eng_status read_lens(struct pass *p, const char *path, size_t most, eng_error *err)
{
    FILE *file = fopen(path, "r");
    char line[64];
    if (file == NULL) {
        return pass_fails(ENG_EIO, err, "cannot read the file of --lens");
    }
    eng_status status = ENG_OK;
    while (status == ENG_OK && p->n < MAX_LENS && fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (!arg_size("--lens", line, 1, most, &p->lens[p->n++])) {
            status = pass_fails(ENG_EINVAL, err, "a length is not a number the model can take");
        }
    }
    fclose(file);
    return status == ENG_OK && p->n == 0
               ? pass_fails(ENG_EINVAL, err, "the file of --lens is empty")
               : status;
}

static eng_status pass_lens(struct pass *p, const struct bench *b, eng_error *err)
{
    eng_status status = ENG_OK;
    p->lens = calloc(b->lens_file != NULL ? MAX_LENS : b->batch, sizeof *p->lens);
    if (p->lens == NULL) {
        return pass_fails(ENG_ENOMEM, err, "out of memory");
    }
    if (b->lens_file != NULL) {
        status = read_lens(p, b->lens_file, eng_model_get_info(b->model)->positions, err);
    }
    for (; b->lens_file == NULL && p->n < b->batch; p->n++) {
        p->lens[p->n] = b->tokens;
    }
    for (size_t i = 0; i < p->n; i++) {
        p->total += p->lens[i];
        p->longest = p->lens[i] > p->longest ? p->lens[i] : p->longest;
    }
    return status;
}

static size_t pass_budget(const struct pass *p, const struct bench *b)
{
    size_t budget = b->lens_file != NULL ? b->batch_tokens : p->total;
    return budget > p->longest ? budget : p->longest;
}

static eng_status pass_fill(struct pass *p, const struct bench *b, eng_error *err)
{
    const eng_bank_info *bank = eng_bank_get_info(b->bank);
    size_t budget = pass_budget(p, b);
    eng_status status =
        eng_workspace_new(b->model, budget, p->n < budget ? p->n : budget, &p->workspace, err);
    if (status != ENG_OK) {
        return status;
    }
    p->ids = calloc(p->longest, sizeof *p->ids);
    p->sequences = calloc(p->n, sizeof *p->sequences);
    p->mix = calloc(bank->layers * bank->modules, sizeof *p->mix);
    p->logits = calloc(2 * budget, sizeof *p->logits);
    if (p->ids == NULL || p->sequences == NULL || p->mix == NULL || p->logits == NULL) {
        return pass_fails(ENG_ENOMEM, err, "out of memory");
    }
    for (size_t i = 0; i < p->longest; i++) {
        p->ids[i] = (int32_t)(i * 37 % eng_model_get_info(b->model)->vocab);
    }
    for (size_t i = 0; i < bank->layers * bank->modules; i++) {
        p->mix[i] = 1 / (float)bank->modules;
    }
    for (size_t s = 0; s < p->n; s++) {
        p->sequences[s] =
            (eng_sequence){.ids = p->ids, .len = p->lens[s], .bank = b->bank, .mix = p->mix};
    }
    return ENG_OK;
}

/* On failure too: pass_fini. */
static eng_status pass_init(struct pass *p, const struct bench *b, eng_error *err)
{
    *p = (struct pass){0};
    eng_status status = pass_lens(p, b, err);
    return status == ENG_OK ? pass_fill(p, b, err) : status;
}

/* Every sequence once, batch by batch. */
static eng_status pass_run(const struct bench *b, struct pass *p, eng_error *err)
{
    size_t budget = pass_budget(p, b);
    eng_status status = ENG_OK;
    for (size_t first = 0, n = 0; first < p->n && status == ENG_OK; first += n) {
        size_t tokens = 0;
        for (n = 0; first + n < p->n && tokens + p->lens[first + n] <= budget; n++) {
            tokens += p->lens[first + n];
        }
        status = eng_forward(b->compute, p->workspace, ENG_SERVING, b->model, p->sequences + first,
                             n, p->logits, p->logits + budget, err);
    }
    return status;
}

/* Runs passes for b->seconds (at least three); sorts their seconds. */
static eng_status time_passes(const struct bench *b, struct pass *p, double *seconds, size_t *n,
                              eng_error *err)
{
    double end = bench_now() + b->seconds;
    *n = 0;
    for (size_t i = 0; i < MAX_RUNS + 1 && (i < 4 || bench_now() < end); i++) {
        double from = bench_now();
        eng_status status = pass_run(b, p, err);
        if (status != ENG_OK) {
            return status;
        }
        if (i > 0) { /* the first touches the memory */
            seconds[(*n)++] = bench_now() - from;
        }
    }
    sort_values(seconds, *n);
    return ENG_OK;
}

static int measure_forward(struct bench *b)
{
    static double seconds[MAX_RUNS + 1];
    struct pass pass;
    eng_error err = {0};
    size_t n = 0;
    eng_status status = pass_init(&pass, b, &err);
    if (status == ENG_OK) {
        status = time_passes(b, &pass, seconds, &n, &err);
    }
    if (status != ENG_OK) {
        pass_fini(&pass);
        return engine_error(&err);
    }
    figure(&b->report, "workspace_bytes", "%.0f", (double)eng_workspace_bytes(pass.workspace));
    figure(&b->report, "passes", "%.0f", (double)n);
    figure(&b->report, "best_ms", "%.3f ms", 1e3 * seconds[0]);
    figure(&b->report, "median_ms", "%.3f ms", 1e3 * seconds[n / 2]);
    report_rates(b, eng_forward_flops(b->model, pass.lens, pass.n), pass.total, seconds[0]);
    pass_fini(&pass);
    return EXIT_DONE;
}

/* A step is a forward and a backward that computes no weight gradients: twice a forward's products. */
static int measure_train(struct bench *b)
{
    eng_error err = {0};
    double seconds = 0;
    eng_status status =
        eng_bench_train_step(b->compute, b->model, b->bank, b->tokens, b->batch, &seconds, &err);
    if (status != ENG_OK) {
        return engine_error(&err);
    }
    figure(&b->report, "best_ms", "%.3f ms", 1e3 * seconds);
    double flops = 2 * (double)b->batch * eng_forward_flops(b->model, &b->tokens, 1);
    report_rates(b, flops, b->tokens * b->batch, seconds);
    return EXIT_DONE;
}

/* ---- the command ---- */

static int measure(struct bench *b)
{
    eng_error err = {0};
    if (eng_compute_start(cgroup_own_threads(b->threads), b->kernel, &b->compute, &err) != ENG_OK ||
        open_model(b, &err) != ENG_OK || open_bank(b, &err) != ENG_OK) {
        return engine_error(&err);
    }
    const eng_compute_info *info = eng_compute_get_info(b->compute);
    json_object_set_new(b->report.object, "bench", json_string(b->what));
    json_object_set_new(b->report.object, "kernel", json_string(info->kernel));
    json_object_set_new(b->report.object, "blas", json_string(info->blas));
    if (!b->report.json) {
        printf("mp2 bench %s: %s, %zu x %zu tokens, %s, %s\n", b->what, b->shape, b->batch,
               b->tokens, info->kernel, info->blas);
    }
    figure(&b->report, "threads", "%.0f", (double)info->threads);
    bool gemm_only = strcmp(b->what, "gemm") == 0;
    int code = measure_gemm(b, gemm_only);
    if (code == EXIT_DONE && strcmp(b->what, "forward") == 0) {
        code = measure_forward(b);
    } else if (code == EXIT_DONE && strcmp(b->what, "train") == 0) {
        code = measure_train(b);
    }
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) == 0) {
        double peak = (double)usage.ru_maxrss * 1024;
        double weights = (double)eng_model_get_info(b->model)->bytes;
        figure(&b->report, "peak_memory_mib", "%.0f MiB", (double)usage.ru_maxrss / 1024);
        figure(&b->report, "weights_bytes", "%.0f", weights);
        figure(&b->report, "peak_bytes_beyond_weights", "%.0f",
               peak > weights ? peak - weights : 0);
    }
    return code;
}

enum {
    OPT_SHAPE = 256,
    OPT_TOKENS,
    OPT_BATCH,
    OPT_THREADS,
    OPT_LAYERS,
    OPT_LENS,
    OPT_BATCH_TOKENS,
    OPT_KERNEL,
    OPT_WEIGHTS,
    OPT_SECONDS,
    OPT_TASKS,
    OPT_TENANTS,
    OPT_INFLIGHT,
    OPT_ROUNDS,
    OPT_DB,
    OPT_JSON
};

static const struct option options[] = {{"shape", required_argument, NULL, OPT_SHAPE},
                                        {"tokens", required_argument, NULL, OPT_TOKENS},
                                        {"batch", required_argument, NULL, OPT_BATCH},
                                        {"threads", required_argument, NULL, OPT_THREADS},
                                        {"layers", required_argument, NULL, OPT_LAYERS},
                                        {"lens", required_argument, NULL, OPT_LENS},
                                        {"batch-tokens", required_argument, NULL, OPT_BATCH_TOKENS},
                                        {"kernel", required_argument, NULL, OPT_KERNEL},
                                        {"weights", required_argument, NULL, OPT_WEIGHTS},
                                        {"seconds", required_argument, NULL, OPT_SECONDS},
                                        {"tasks", required_argument, NULL, OPT_TASKS},
                                        {"tenants", required_argument, NULL, OPT_TENANTS},
                                        {"inflight", required_argument, NULL, OPT_INFLIGHT},
                                        {"rounds", required_argument, NULL, OPT_ROUNDS},
                                        {"db", required_argument, NULL, OPT_DB},
                                        {"json", no_argument, NULL, OPT_JSON},
                                        {"help", no_argument, NULL, 'h'},
                                        {0}};

static bool parse_option(struct bench *b, int option)
{
    switch (option) {
    case OPT_SHAPE:
        b->shape = optarg;
        return true;
    case OPT_TOKENS:
        return arg_size("--tokens", optarg, 1, 32768, &b->tokens);
    case OPT_BATCH:
        return arg_size("--batch", optarg, 1, 4096, &b->batch);
    case OPT_THREADS:
        return arg_size("--threads", optarg, 0, 64, &b->threads);
    case OPT_LAYERS:
        return arg_size("--layers", optarg, 0, 64, &b->layers);
    case OPT_LENS:
        b->lens_file = optarg;
        return true;
    case OPT_BATCH_TOKENS:
        return arg_size("--batch-tokens", optarg, 1, 1 << 20, &b->batch_tokens);
    case OPT_WEIGHTS:
        b->half = strcmp(optarg, "f16") == 0;
        if (!b->half && strcmp(optarg, "f32") != 0) {
            usage_error("--weights is f32 or f16");
            return false;
        }
        return true;
    case OPT_KERNEL:
        b->kernel = optarg;
        return true;
    case OPT_SECONDS:
        return arg_double("--seconds", optarg, 0.01, 600, &b->seconds);
    case OPT_TASKS:
        return arg_size("--tasks", optarg, 1, 10000000, &b->tasks);
    case OPT_TENANTS:
        return arg_size("--tenants", optarg, 1, 10000, &b->tenants);
    case OPT_INFLIGHT:
        return arg_size("--inflight", optarg, 1, 4096, &b->inflight);
    case OPT_ROUNDS:
        return arg_size("--rounds", optarg, 1, 64, &b->rounds);
    case OPT_DB:
        b->db = optarg;
        return true;
    default:
        b->report.json = true;
        return true;
    }
}

static bool known(const char *what)
{
    return strcmp(what, "gemm") == 0 || strcmp(what, "forward") == 0 ||
           strcmp(what, "train") == 0 || strcmp(what, "serve") == 0 || strcmp(what, "tasks") == 0;
}

static int serve(const struct bench *b)
{
    const struct bench_serve_options asked = {.model = b->shape,
                                              .threads = b->threads,
                                              .tasks = b->tasks,
                                              .tenants = b->tenants,
                                              .inflight = b->inflight,
                                              .rounds = b->rounds,
                                              .seconds = b->seconds,
                                              .json = b->report.json};
    return bench_serve(&asked);
}

static int many_tasks(const struct bench *b)
{
    const struct bench_tasks_options asked = {.model = b->shape,
                                              .db = b->db,
                                              .tasks = b->tasks,
                                              .tenants = b->tenants,
                                              .rounds = b->rounds,
                                              .json = b->report.json};
    return bench_tasks(&asked);
}

static int run(struct bench *b)
{
    if (strcmp(b->what, "tasks") == 0) {
        return many_tasks(b);
    }
    if (strcmp(b->what, "serve") == 0) {
        return serve(b);
    }
    b->shape = b->shape != NULL ? b->shape : "base";
    b->report.object = json_object();
    int code = measure(b);
    if (code == EXIT_DONE) {
        figures_print(&b->report);
    }
    json_decref(b->report.object);
    eng_bank_free(b->bank);
    eng_model_free(b->model);
    eng_compute_stop(b->compute);
    return code;
}

int cmd_bench(int argc, char **argv)
{
    struct bench b = {.tokens = 178,
                      .batch = 1,
                      .batch_tokens = 2048,
                      .tasks = 1000,
                      .tenants = 8,
                      .inflight = 64,
                      .rounds = 5,
                      .seconds = 3};
    int option = 0;
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (option == 'h') {
            fputs(help, stdout);
            return EXIT_DONE;
        }
        if (option == '?' || !parse_option(&b, option)) {
            return EXIT_USAGE;
        }
    }
    if (optind + 1 != argc || !known(argv[optind])) {
        return usage_error("bench wants one of gemm, forward, train, serve, tasks");
    }
    b.what = argv[optind];
    return run(&b);
}
