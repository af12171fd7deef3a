/* cmd_pretrain.c: `mp2 pretrain vocab|backbone|prompts`: from text files to a model directory, and from
 * task folders to a bank.
 *
 * A run goes on with --resume, to the bit, from its last checkpoint; ctrl-C saves one. Every step is one
 * line of JSON beside the result; the terminal shows one line that changes, a log one line every few
 * seconds. Options and progress: pretrain_args.h.
 */
#include "server/cgroup.h"
#include "server/commands/commands.h"
#include "server/commands/pretrain_args.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

static const char help[] =
    "usage: mp2 pretrain vocab --out FILE [OPTIONS] TEXT...\n"
    "       mp2 pretrain backbone --vocab FILE --out DIR [OPTIONS] TEXT...\n"
    "       mp2 pretrain prompts --model DIR --out NAME.bank.safetensors [OPTIONS] TASKS...\n\n"
    "TEXT is a UTF-8 file with a piece of text a line; shuffle the lines of one that is sorted.\n"
    "TASKS is a task folder (task.json beside train, dev and test.jsonl), or a folder of them.\n\n"
    "vocab\n"
    "  --size N          tokens at most [8000]\n"
    "  --min-count N     characters seen less often are left out [2]\n\n"
    "backbone\n"
    "  --dev FILE        text for dev perplexity [none]\n"
    "  --layers L --hidden H --heads A --ffn F --positions N   shape [4 256 4 1024 512]\n"
    "  --plain-start     BERT's random weights; else heads see neighbours and like tokens from the "
    "start\n"
    "  --lr X            [5e-4]\n"
    "  --dropout X       of embeddings, attention's and ffn's outputs [0.1]\n"
    "  --mask X          share of the tokens to predict [0.15]\n"
    "  --batch-tokens N  of a step, packed [4096]\n"
    "  --max-len N       tokens of a sequence [128]\n"
    "  --dev-tokens N    [65536]\n\n"
    "prompts\n"
    "  --tasks TASKS     more of them; may be given again\n"
    "  --deep            a prompt for every layer, not only the first\n"
    "  --tied            with --deep: one route across the layers\n"
    "  --modules K --prompt-tokens P --intrinsic D             sizes [8 50 300]\n"
    "  --prompt-encoder none|lstm|transformer   over each module's positions while it is trained "
    "[none]\n"
    "  --prompt-offset N --token-type N   ids of the prompt    [1000, or 1 in a small vocabulary; "
    "1]\n"
    "  --lr X            of modules, routes and head [1e-3]\n"
    "  --lr-prompt X --lr-route X --lr-head X   each alone; 0: it stays as it starts\n"
    "  --tau X --tau-end X   temperature of the routes' noise at start and end [1 1]\n"
    "  --dropout X       [0]\n"
    "  --batch N         rows of one task, a step [32]\n"
    "  --text-limit N    characters of a text field [0: what fits]\n"
    "  --dev-rows N      of each task, at most [256]\n"
    "  --keep-order      options in the task's order; else shuffled for every example\n"
    "  --first A,B,C --first-steps N   only these tasks and their copies for the first N steps\n"
    "  --weights A=3,B=2 these tasks (with their copies) so many times as often as the others\n"
    "  --neutral N       copies of each task of 2 to 142 labels, its words 甲 乙 丙 ... in another "
    "order [0]\n"
    "  --neutral-labels N   ... if it has at most N labels [142]\n"
    "  --rows-per-task N router rows of a task, its examples shared out by hash [1]\n"
    "  --bank FILE       modules, head and routes start from this bank, of the same sizes "
    "[random];\n"
    "                    a deep one may start from a shallow one, as its first layer\n"
    "  --train joint     the backbone learns too [prompts]; --out is a model directory, and "
    "instead of\n"
    "                    --model DIR there may be --vocab FILE and a shape, as for a backbone\n"
    "  --lr-backbone X   [5e-4]\n"
    "  --mlm-weight X --text FILE --mlm-tokens N   joint: masked text beside each step [0, none, "
    "1024]\n\n"
    "backbone and prompts\n"
    "  --steps N         [10000; prompts 20000]     --warmup N   steps [500]\n"
    "  --decay X         weight decay [0.01]        --clip X     norm of the gradient, 0: none "
    "[1]\n"
    "  --dev-every N     steps [500; 1000]          --save-every N   steps [500; 1000]\n"
    "  --metrics FILE    JSON Lines, appended [DIR/metrics.jsonl; NAME.metrics.jsonl]\n"
    "  --seed N          [42]                       --threads N  [0: one a core]\n"
    "  --resume          go on from the checkpoint, with the same settings\n";

/* ---- vocab ---- */

static int pretrain_vocab(int argc, char **argv)
{
    const char *to = NULL;
    size_t size = 8000, min_count = 2, written = 0;
    int rest = 0;
    eng_error err = {0};
    const struct pretrain_option options[] = {{"out", OPTION_TEXT, 0, 0, &to},
                                              {"size", OPTION_SIZE, ENG_MIN_VOCAB, 1 << 20, &size},
                                              {"min-count", OPTION_SIZE, 1, 1 << 30, &min_count}};
    int code = pretrain_parse(argc, argv, options, 3, help, &rest);
    if (code >= 0) {
        return code;
    }
    if (to == NULL || rest == argc) {
        return usage_error("pretrain vocab wants text files and --out");
    }
    if (eng_build_vocab((const char *const *)argv + rest, (size_t)(argc - rest), size, min_count,
                        to, &written, &err) != ENG_OK) {
        return pretrain_error(&err);
    }
    printf("%zu tokens in %s\n", written, to);
    return EXIT_DONE;
}

/* ---- backbone ---- */

static size_t shape_options(eng_model_info *shape, bool *plain_start,
                            struct pretrain_option *options)
{
    const struct pretrain_option all[] = {{"layers", OPTION_SIZE, 1, 64, &shape->layers},
                                          {"hidden", OPTION_SIZE, 1, 16384, &shape->hidden},
                                          {"heads", OPTION_SIZE, 1, 1024, &shape->heads},
                                          {"ffn", OPTION_SIZE, 1, 65536, &shape->ffn},
                                          {"positions", OPTION_SIZE, 8, 32768, &shape->positions},
                                          {"plain-start", OPTION_FLAG, 0, 0, plain_start}};
    memcpy(options, all, sizeof all);
    return sizeof all / sizeof all[0];
}

static size_t backbone_options(eng_pretrain_config *c, struct pretrain_option *options)
{
    const struct pretrain_option all[] = {
        {"out", OPTION_TEXT, 0, 0, &c->to},
        {"vocab", OPTION_TEXT, 0, 0, &c->vocab},
        {"dev", OPTION_TEXT, 0, 0, &c->dev},
        {"lr", OPTION_REAL, 1e-9, 10, &c->lr},
        {"dropout", OPTION_REAL, 0, 0.9, &c->dropout},
        {"mask", OPTION_REAL, 0.01, 0.4, &c->mask},
        {"batch-tokens", OPTION_SIZE, 8, 1 << 20, &c->batch_tokens},
        {"max-len", OPTION_SIZE, 8, 32768, &c->max_len},
        {"dev-tokens", OPTION_SIZE, 1, 1 << 30, &c->dev_tokens}};
    memcpy(options, all, sizeof all);
    return sizeof all / sizeof all[0];
}

static int pretrain_backbone(int argc, char **argv)
{
    struct pretrain_option options[PRETRAIN_MAX_OPTIONS];
    struct pretrain_show show = {0};
    eng_pretrain_config config;
    eng_compute *compute = NULL;
    eng_error err = {0};
    size_t threads = 0;
    int rest = 0;
    eng_pretrain_defaults(&config);
    size_t n = backbone_options(&config, options);
    n += shape_options(&config.shape, &config.plain_start, options + n);
    n += pretrain_run_options(&config.schedule, &show, &threads, options + n);
    int code = pretrain_parse(argc, argv, options, n, help, &rest);
    if (code >= 0) {
        return code;
    }
    config.files = (const char *const *)argv + rest;
    config.n_files = (size_t)(argc - rest);
    if (config.n_files == 0 || config.to == NULL || config.vocab == NULL) {
        return usage_error("pretrain backbone wants text files, --out and --vocab");
    }
    snprintf(show.metrics_default, sizeof show.metrics_default, "%s/metrics.jsonl", config.to);
    pretrain_show_begin(&show);
    eng_status status = eng_compute_start(cgroup_own_threads(threads), NULL, &compute, &err);
    if (status == ENG_OK) {
        status = eng_pretrain_backbone(compute, &config, pretrain_show_step, &show, &err);
        eng_compute_stop(compute);
    }
    code = pretrain_show_end(&show, status, &err);
    if (code == EXIT_DONE) {
        printf("model in %s\n", config.to);
    }
    return code;
}

/* ---- prompts ---- */

struct prompts_args {
    eng_prompts_config config;
    const char *train;   /* "prompts" or "joint" */
    const char *encoder; /* "none", "lstm" or "transformer" */
    struct pretrain_list tasks, first, text;
    struct pretrain_weights weights;
    double lr; /* of all groups that have none of their own; negative: not given */
};

static size_t prompts_options(struct prompts_args *args, struct pretrain_option *options)
{
    eng_prompts_config *c = &args->config;
    const struct pretrain_option all[] = {
        {"model", OPTION_TEXT, 0, 0, &c->model},
        {"bank", OPTION_TEXT, 0, 0, &c->bank},
        {"out", OPTION_TEXT, 0, 0, &c->to},
        {"tasks", OPTION_LIST, 0, 0, &args->tasks},
        {"deep", OPTION_FLAG, 0, 0, &c->deep},
        {"tied", OPTION_FLAG, 0, 0, &c->tied},
        {"prompt-encoder", OPTION_TEXT, 0, 0, &args->encoder},
        {"modules", OPTION_SIZE, 1, 256, &c->modules},
        {"prompt-tokens", OPTION_SIZE, 1, 4096, &c->prompt_tokens},
        {"intrinsic", OPTION_SIZE, 1, 8192, &c->intrinsic},
        {"prompt-offset", OPTION_INT, 0, 1e9, &c->prompt_token_offset},
        {"token-type", OPTION_INT, 0, 1e9, &c->token_type},
        {"lr", OPTION_REAL, 0, 10, &args->lr},
        {"lr-prompt", OPTION_REAL, 0, 10, &c->lr_prompt},
        {"lr-route", OPTION_REAL, 0, 10, &c->lr_route},
        {"lr-head", OPTION_REAL, 0, 10, &c->lr_head},
        {"tau", OPTION_REAL, 1e-3, 1e3, &c->tau},
        {"tau-end", OPTION_REAL, 1e-3, 1e3, &c->tau_end},
        {"dropout", OPTION_REAL, 0, 0.9, &c->dropout},
        {"batch", OPTION_SIZE, 1, 4096, &c->batch},
        {"text-limit", OPTION_SIZE, 0, 1 << 20, &c->text_limit},
        {"dev-rows", OPTION_SIZE, 1, 1000000, &c->dev_rows},
        {"keep-order", OPTION_FLAG, 0, 0, &c->keep_order},
        {"first", OPTION_NAMES, 0, 0, &args->first},
        {"first-steps", OPTION_SIZE, 0, 1 << 30, &c->first_steps},
        {"weights", OPTION_WEIGHTS, 1, 1000, &args->weights},
        {"neutral", OPTION_SIZE, 0, 100, &c->neutral},
        {"neutral-labels", OPTION_SIZE, 1, ENG_MAX_LABELS, &c->neutral_labels},
        {"rows-per-task", OPTION_SIZE, 1, 1000, &c->rows_per_task},
        {"train", OPTION_TEXT, 0, 0, &args->train},
        {"vocab", OPTION_TEXT, 0, 0, &c->vocab},
        {"lr-backbone", OPTION_REAL, 0, 10, &c->lr_backbone},
        {"mlm-weight", OPTION_REAL, 0, 100, &c->mlm_weight},
        {"text", OPTION_LIST, 0, 0, &args->text},
        {"mlm-tokens", OPTION_SIZE, 64, 1 << 20, &c->mlm_tokens}};
    memcpy(options, all, sizeof all);
    return sizeof all / sizeof all[0];
}

/* The groups' step sizes are negative until given; then --lr, then the default. */
static void settle_rates(struct prompts_args *args)
{
    eng_prompts_config defaults;
    eng_prompts_defaults(&defaults);
    double *const rates[] = {&args->config.lr_prompt, &args->config.lr_route,
                             &args->config.lr_head};
    const double usual[] = {defaults.lr_prompt, defaults.lr_route, defaults.lr_head};
    for (size_t i = 0; i < 3; i++) {
        if (*rates[i] < 0) {
            *rates[i] = args->lr >= 0 ? args->lr : usual[i];
        }
    }
}

static bool parse_encoder(const char *name, eng_prompt_encoder *out)
{
    static const char *const names[] = {"none", "lstm", "transformer"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (eng_prompt_encoder)i;
            return true;
        }
    }
    return false;
}

static int parse_prompts(int argc, char **argv, struct prompts_args *args,
                         struct pretrain_show *show, size_t *threads)
{
    struct pretrain_option options[PRETRAIN_MAX_OPTIONS];
    eng_prompts_config *c = &args->config;
    int rest = 0;
    eng_prompts_defaults(c);
    args->lr = c->lr_prompt = c->lr_route = c->lr_head = -1;
    c->tau_end = -1;
    size_t n = prompts_options(args, options);
    n += shape_options(&c->shape, &c->plain_start, options + n);
    n += pretrain_run_options(&c->schedule, show, threads, options + n);
    int code = pretrain_parse(argc, argv, options, n, help, &rest);
    if (code >= 0) {
        return code;
    }
    for (; rest < argc; rest++) {
        if (!pretrain_list_add(&args->tasks, argv[rest])) {
            return EXIT_USAGE;
        }
    }
    c->joint = strcmp(args->train, "joint") == 0;
    if (!c->joint && strcmp(args->train, "prompts") != 0) {
        return usage_error("--train wants prompts or joint, got \"%s\"", args->train);
    }
    if (!parse_encoder(args->encoder, &c->encoder)) {
        return usage_error("--prompt-encoder wants none, lstm or transformer, got \"%s\"",
                           args->encoder);
    }
    if (args->tasks.n == 0 || c->to == NULL || (c->model == NULL && c->vocab == NULL)) {
        return usage_error("pretrain prompts wants --model, --out and task folders");
    }
    settle_rates(args);
    c->tau_end = c->tau_end < 0 ? c->tau : c->tau_end;
    c->tasks = args->tasks.items;
    c->n_tasks = args->tasks.n;
    c->first = args->first.items;
    c->n_first = args->first.n;
    c->weights = args->weights.items;
    c->n_weights = args->weights.n;
    c->text = args->text.items;
    c->n_text = args->text.n;
    return -1;
}

static int pretrain_prompts(int argc, char **argv)
{
    struct prompts_args args = {.train = "prompts", .encoder = "none"};
    struct pretrain_show show = {0};
    eng_compute *compute = NULL;
    eng_error err = {0};
    size_t threads = 0;
    int code = parse_prompts(argc, argv, &args, &show, &threads);
    if (code >= 0) {
        return code;
    }
    const char *to = args.config.to, *end = strstr(to, ".bank.safetensors");
    if (args.config.joint) {
        snprintf(show.metrics_default, sizeof show.metrics_default, "%s/metrics.jsonl", to);
    } else {
        snprintf(show.metrics_default, sizeof show.metrics_default, "%.*s.metrics.jsonl",
                 (int)(end != NULL ? (size_t)(end - to) : strlen(to)), to);
    }
    pretrain_show_begin(&show);
    eng_status status = eng_compute_start(cgroup_own_threads(threads), NULL, &compute, &err);
    if (status == ENG_OK) {
        status = eng_pretrain_prompts(compute, &args.config, pretrain_show_step, &show, &err);
        eng_compute_stop(compute);
    }
    code = pretrain_show_end(&show, status, &err);
    if (code == EXIT_DONE) {
        printf("%s in %s\n", args.config.joint ? "model and bank" : "bank", to);
    }
    return code;
}

int cmd_pretrain(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
    } kinds[] = {
        {"vocab", pretrain_vocab}, {"backbone", pretrain_backbone}, {"prompts", pretrain_prompts}};
    const char *what = argc > 1 ? argv[1] : "";
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(what, kinds[i].name) == 0) {
            return kinds[i].run(argc - 1, argv + 1);
        }
    }
    if (strcmp(what, "--help") == 0 || strcmp(what, "-h") == 0) {
        fputs(help, stdout);
        return EXIT_DONE;
    }
    return usage_error("pretrain wants vocab, backbone or prompts first, got \"%s\"", what);
}
