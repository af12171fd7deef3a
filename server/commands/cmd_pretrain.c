/* cmd_pretrain.c: `mp2 pretrain vocab|backbone`: from text files to a model directory.
 *
 * A run goes on with --resume, to the bit, from its last checkpoint; ctrl-C saves one. Every step is one
 * line of metrics.jsonl beside the model; the terminal shows one line that changes, a log one line
 * every few seconds.
 */
#include "engine/engine.h"
#include "server/commands/commands.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct pretrain {
    eng_pretrain_config config;
    const char *metrics_path;
    FILE *metrics;
    size_t threads, size, min_count;
    bool terminal;
    double shown, perplexity;
};

static const char help[] =
    "usage: mp2 pretrain vocab --out FILE [OPTIONS] TEXT...\n"
    "       mp2 pretrain backbone --vocab FILE --out DIR [OPTIONS] TEXT...\n\n"
    "TEXT is a UTF-8 file with a piece of text a line; shuffle the lines of one that is sorted.\n\n"
    "vocab\n"
    "  --size N          tokens at most [8000]\n"
    "  --min-count N     characters seen less often are left out [2]\n\n"
    "backbone\n"
    "  --dev FILE        text for dev perplexity [none]\n"
    "  --layers L --hidden H --heads A --ffn F --positions N   shape [4 256 4 1024 512]\n"
    "  --steps N         [10000]      --warmup N        steps [500]\n"
    "  --lr X            [5e-4]       --decay X         weight decay [0.01]\n"
    "  --clip X          norm of the gradient, 0: none [1]\n"
    "  --dropout X       of embeddings, attention's and ffn's outputs [0.1]\n"
    "  --mask X          share of the tokens to predict [0.15]\n"
    "  --batch-tokens N  of a step, packed [4096]\n"
    "  --max-len N       tokens of a sequence [128]\n"
    "  --dev-every N     steps [500]  --dev-tokens N    [65536]\n"
    "  --save-every N    steps between checkpoints [500]\n"
    "  --metrics FILE    JSON Lines, appended [DIR/metrics.jsonl]\n"
    "  --seed N          [42]         --threads N       [0: one a core]\n"
    "  --resume          go on from DIR's checkpoint, with the same settings\n";

static volatile sig_atomic_t interrupted;

static void on_signal(int signal)
{
    (void)signal;
    interrupted = 1;
}

static int engine_error(const eng_error *err)
{
    fprintf(stderr, "mp2: %s%s%s\n", err->field, err->field[0] != '\0' ? ": " : "", err->text);
    return err->status == ENG_EIO || err->status == ENG_ENOTFOUND ? EXIT_NO_INPUT : EXIT_FAILED;
}

/* ---- progress ---- */

static bool write_metrics(struct pretrain *run, const eng_pretrain_progress *progress)
{
    if (run->metrics == NULL) {
        run->metrics = fopen(run->metrics_path, "ae");
    }
    if (run->metrics == NULL) {
        fprintf(stderr, "mp2: cannot write %s: %s\n", run->metrics_path, strerror(errno));
        return false;
    }
    fprintf(run->metrics,
            "{\"step\":%zu,\"loss\":%.6g,\"lr\":%.6g,\"gradient_norm\":%.6g,\"tokens\":%llu,"
            "\"tokens_per_second\":%.0f",
            progress->step, progress->loss, progress->lr, progress->gradient_norm,
            (unsigned long long)progress->tokens, progress->tokens_per_second);
    if (isfinite(progress->dev_perplexity)) {
        fprintf(run->metrics, ",\"dev_perplexity\":%.6g", progress->dev_perplexity);
    }
    fputs("}\n", run->metrics);
    fflush(run->metrics);
    return true;
}

static void show(struct pretrain *run, const eng_pretrain_progress *progress)
{
    double every = run->terminal ? 0.2 : 10;
    bool dev = isfinite(progress->dev_perplexity);
    run->perplexity = dev ? progress->dev_perplexity : run->perplexity;
    if (!dev && progress->step < progress->steps && progress->seconds - run->shown < every) {
        return;
    }
    run->shown = progress->seconds;
    fprintf(stderr, "%sstep %zu/%zu  loss %.4f", run->terminal ? "\r\033[K" : "", progress->step,
            progress->steps, progress->loss);
    if (isfinite(run->perplexity)) {
        fprintf(stderr, "  dev perplexity %.2f", run->perplexity);
    }
    fprintf(stderr, "  %.0f tokens/s  %.0f s left%s", progress->tokens_per_second,
            progress->seconds_left, run->terminal ? "" : "\n");
}

static bool on_progress(void *arg, const eng_pretrain_progress *progress)
{
    struct pretrain *run = arg;
    show(run, progress);
    return write_metrics(run, progress) && interrupted == 0;
}

/* ---- the two commands ---- */

static int build_vocab(const struct pretrain *run)
{
    eng_error err = {0};
    size_t written = 0;
    const eng_pretrain_config *c = &run->config;
    if (eng_build_vocab(c->files, c->n_files, run->size, run->min_count, c->to, &written, &err) !=
        ENG_OK) {
        return engine_error(&err);
    }
    printf("%zu tokens in %s\n", written, c->to);
    return EXIT_DONE;
}

static int train(struct pretrain *run)
{
    eng_error err = {0};
    eng_compute *compute = NULL;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/metrics.jsonl", run->config.to);
    run->metrics_path = run->metrics_path != NULL ? run->metrics_path : path;
    run->terminal = isatty(STDERR_FILENO) != 0;
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    eng_status status = eng_compute_start(run->threads, NULL, &compute, &err);
    if (status == ENG_OK) {
        status = eng_pretrain_backbone(compute, &run->config, on_progress, run, &err);
        eng_compute_stop(compute);
    }
    if (run->terminal) {
        fputc('\n', stderr);
    }
    if (run->metrics != NULL) {
        fclose(run->metrics);
    }
    if (status == ENG_ECANCELLED) {
        fprintf(stderr, "mp2: %s; go on with --resume\n", err.text);
        return EXIT_FAILED;
    }
    if (status != ENG_OK) {
        return engine_error(&err);
    }
    printf("model in %s\n", run->config.to);
    return EXIT_DONE;
}

/* ---- options ---- */

enum {
    OPT_OUT = 256,
    OPT_SIZE,
    OPT_MIN_COUNT,
    OPT_VOCAB,
    OPT_DEV,
    OPT_LAYERS,
    OPT_HIDDEN,
    OPT_HEADS,
    OPT_FFN,
    OPT_POSITIONS,
    OPT_STEPS,
    OPT_WARMUP,
    OPT_LR,
    OPT_DECAY,
    OPT_CLIP,
    OPT_DROPOUT,
    OPT_MASK,
    OPT_BATCH_TOKENS,
    OPT_MAX_LEN,
    OPT_DEV_EVERY,
    OPT_DEV_TOKENS,
    OPT_SAVE_EVERY,
    OPT_METRICS,
    OPT_SEED,
    OPT_THREADS,
    OPT_RESUME
};

static const struct option options[] = {{"out", required_argument, NULL, OPT_OUT},
                                        {"size", required_argument, NULL, OPT_SIZE},
                                        {"min-count", required_argument, NULL, OPT_MIN_COUNT},
                                        {"vocab", required_argument, NULL, OPT_VOCAB},
                                        {"dev", required_argument, NULL, OPT_DEV},
                                        {"layers", required_argument, NULL, OPT_LAYERS},
                                        {"hidden", required_argument, NULL, OPT_HIDDEN},
                                        {"heads", required_argument, NULL, OPT_HEADS},
                                        {"ffn", required_argument, NULL, OPT_FFN},
                                        {"positions", required_argument, NULL, OPT_POSITIONS},
                                        {"steps", required_argument, NULL, OPT_STEPS},
                                        {"warmup", required_argument, NULL, OPT_WARMUP},
                                        {"lr", required_argument, NULL, OPT_LR},
                                        {"decay", required_argument, NULL, OPT_DECAY},
                                        {"clip", required_argument, NULL, OPT_CLIP},
                                        {"dropout", required_argument, NULL, OPT_DROPOUT},
                                        {"mask", required_argument, NULL, OPT_MASK},
                                        {"batch-tokens", required_argument, NULL, OPT_BATCH_TOKENS},
                                        {"max-len", required_argument, NULL, OPT_MAX_LEN},
                                        {"dev-every", required_argument, NULL, OPT_DEV_EVERY},
                                        {"dev-tokens", required_argument, NULL, OPT_DEV_TOKENS},
                                        {"save-every", required_argument, NULL, OPT_SAVE_EVERY},
                                        {"metrics", required_argument, NULL, OPT_METRICS},
                                        {"seed", required_argument, NULL, OPT_SEED},
                                        {"threads", required_argument, NULL, OPT_THREADS},
                                        {"resume", no_argument, NULL, OPT_RESUME},
                                        {"help", no_argument, NULL, 'h'},
                                        {0}};

/* Whole numbers, by option. */
static bool parse_size(struct pretrain *run, int option, const char *name)
{
    eng_pretrain_config *c = &run->config;
    const struct {
        int option;
        size_t min, max;
        size_t *out;
    } sizes[] = {{OPT_SIZE, ENG_MIN_VOCAB, 1 << 20, &run->size},
                 {OPT_MIN_COUNT, 1, 1 << 30, &run->min_count},
                 {OPT_LAYERS, 1, 64, &c->shape.layers},
                 {OPT_HIDDEN, 1, 16384, &c->shape.hidden},
                 {OPT_HEADS, 1, 1024, &c->shape.heads},
                 {OPT_FFN, 1, 65536, &c->shape.ffn},
                 {OPT_POSITIONS, 8, 32768, &c->shape.positions},
                 {OPT_STEPS, 1, 1 << 30, &c->steps},
                 {OPT_WARMUP, 0, 1 << 30, &c->warmup},
                 {OPT_BATCH_TOKENS, 8, 1 << 20, &c->batch_tokens},
                 {OPT_MAX_LEN, 8, 32768, &c->max_len},
                 {OPT_DEV_EVERY, 0, 1 << 30, &c->dev_every},
                 {OPT_DEV_TOKENS, 1, 1 << 30, &c->dev_tokens},
                 {OPT_SAVE_EVERY, 0, 1 << 30, &c->save_every},
                 {OPT_THREADS, 0, 64, &run->threads}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        if (sizes[i].option == option) {
            return arg_size(name, optarg, sizes[i].min, sizes[i].max, sizes[i].out);
        }
    }
    return false;
}

static bool parse_option(struct pretrain *run, int option, const char *name)
{
    eng_pretrain_config *c = &run->config;
    switch (option) {
    case OPT_OUT:
        c->to = optarg;
        return true;
    case OPT_VOCAB:
        c->vocab = optarg;
        return true;
    case OPT_DEV:
        c->dev = optarg;
        return true;
    case OPT_METRICS:
        run->metrics_path = optarg;
        return true;
    case OPT_RESUME:
        c->resume = true;
        return true;
    case OPT_SEED:
        return arg_u64(name, optarg, &c->seed);
    case OPT_LR:
        return arg_double(name, optarg, 1e-9, 10, &c->lr);
    case OPT_DECAY:
        return arg_double(name, optarg, 0, 10, &c->weight_decay);
    case OPT_CLIP:
        return arg_double(name, optarg, 0, 1e9, &c->clip);
    case OPT_DROPOUT:
        return arg_double(name, optarg, 0, 0.9, &c->dropout);
    case OPT_MASK:
        return arg_double(name, optarg, 0.01, 0.4, &c->mask);
    default:
        return parse_size(run, option, name);
    }
}

int cmd_pretrain(int argc, char **argv)
{
    struct pretrain run = {.size = 8000, .min_count = 2, .perplexity = NAN};
    eng_pretrain_defaults(&run.config);
    int option, index = 0;
    while ((option = getopt_long(argc, argv, "h", options, &index)) != -1) {
        if (option == 'h') {
            fputs(help, stdout);
            return EXIT_DONE;
        }
        if (option == '?') {
            return usage_error("pretrain");
        }
        char name[32];
        snprintf(name, sizeof name, "--%s", options[index].name);
        if (!parse_option(&run, option, name)) {
            return EXIT_USAGE;
        }
    }
    const char *what = optind < argc ? argv[optind] : "";
    bool vocab = strcmp(what, "vocab") == 0;
    if (!vocab && strcmp(what, "backbone") != 0) {
        return usage_error("pretrain wants vocab or backbone, got \"%s\"", what);
    }
    run.config.files = (const char *const *)argv + optind + 1;
    run.config.n_files = (size_t)(argc - optind - 1);
    if (run.config.n_files == 0 || run.config.to == NULL || (!vocab && run.config.vocab == NULL)) {
        return usage_error("pretrain %s wants text files, --out%s", what,
                           vocab ? "" : " and --vocab");
    }
    return vocab ? build_vocab(&run) : train(&run);
}
