/* cmd_eval.c: mp2 eval: the few-shot protocol on task folders, method by method and seed by seed.
 *
 * For each seed: k rows a label of train.jsonl train, the next k choose the best step, test.jsonl (or
 * its first --limit rows) is scored. What comes out is the mean over the seeds and its deviation.
 */
#include "server/commands/commands.h"
#include "server/commands/opened.h"
#include "server/commands/routefile.h"

#include <getopt.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_SEEDS   64
#define MAX_TASKS   64
#define MAX_METHODS 16

static const char help[] =
    "usage: mp2 eval --task DIR [--task DIR…] [OPTIONS]\n"
    "\n"
    "Few-shot evaluation of task folders (task.json, train.jsonl, dev.jsonl, test.jsonl): for "
    "each\n"
    "seed, k rows a label train, the next k choose the best step, the test rows are scored.\n"
    "\n"
    "  --task DIR          a task folder; may be given more than once\n"
    "  --method M,…        average (all-zero route), retrieve (the bank's row with the least\n"
    "                      few-shot loss), route (learnt), blackbox-route (found with forward\n"
    "                      passes only), blackbox (then the prompt, by CMA-ES), route+prompt\n"
    "                      (then the prompt, by gradient), prompt (one from scratch);\n"
    "                      default average,retrieve,route\n"
    "  --model DIR         model directory; default $MP2_MODEL, else the embedded model\n"
    "  --bank FILE         prompt bank; default the model's first\n"
    "  --seeds N,…         default 8,13,21\n"
    "  --k-shot N          rows a label; default max(8, 32 / labels)\n"
    "  --limit N           only the first N test rows\n"
    "  --text-limit N      cut every text to N characters\n"
    "  --init I            start of route: retrieve, average or random; default retrieve\n"
    "  --steps N, --lr X   of route; default the bank's own\n"
    "  --evaluations N     budget of a black-box method; default 100 for blackbox-route,\n"
    "                      500 a prompted layer more for blackbox\n"
    "  --prompt-lr X       step size where a prompt is tuned; default the method's own\n"
    "  --tied              one route for all layers of a deep bank\n"
    "  --threads N         compute threads; default one a core\n"
    "  --json              machine output\n";

struct settings {
    struct open_request open;
    const char *tasks[MAX_TASKS];
    size_t n_tasks;
    const char *methods[MAX_METHODS];
    size_t n_methods;
    uint64_t seeds[MAX_SEEDS];
    size_t n_seeds;
    size_t k_shot, limit, text_limit, steps, evaluations;
    double lr, prompt_lr;
    const char *init;
    bool json;
};

/* One method with one seed. */
struct run {
    uint64_t seed;
    eng_scores test;
    eng_adapt_result adapt; /* route and prompt freed */
    double seconds;
};

struct summary {
    double mean, deviation, macro_f1, seconds;
    size_t tokens;
};

/* ---- settings ---------------------------------------------------------------------------------------- */

/* Splits `list` in place. */
static bool parse_methods(char *list, struct settings *settings)
{
    for (char *name = list; name != NULL;) {
        char *comma = strchr(name, ',');
        if (comma != NULL) {
            *comma = '\0';
        }
        bool known = false;
        for (size_t i = 0; eng_adapt_method(i) != NULL; i++) {
            known = known || strcmp(eng_adapt_method(i), name) == 0;
        }
        if (!known || settings->n_methods == MAX_METHODS) {
            usage_error("--method has no \"%s\": see mp2 eval --help", name);
            return false;
        }
        settings->methods[settings->n_methods++] = name;
        name = comma != NULL ? comma + 1 : NULL;
    }
    return true;
}

static bool add_task(struct settings *settings, const char *dir)
{
    if (settings->n_tasks == MAX_TASKS) {
        usage_error("at most %d tasks", MAX_TASKS);
        return false;
    }
    settings->tasks[settings->n_tasks++] = dir;
    return true;
}

static bool take_option(int option, char *value, struct settings *settings)
{
    eng_init init;
    switch (option) {
    case 'm':
        settings->open.model = value;
        return true;
    case 'b':
        settings->open.bank = value;
        return true;
    case 't':
        return add_task(settings, value);
    case 'M':
        return parse_methods(value, settings);
    case 's':
        return arg_u64_list("--seeds", value, settings->seeds, MAX_SEEDS, &settings->n_seeds);
    case 'k':
        return arg_size("--k-shot", value, 1, 10000, &settings->k_shot);
    case 'l':
        return arg_size("--limit", value, 1, SIZE_MAX, &settings->limit);
    case 'x':
        return arg_size("--text-limit", value, 1, 1000000, &settings->text_limit);
    case 'S':
        return arg_size("--steps", value, 1, 1000000, &settings->steps);
    case 'E':
        return arg_size("--evaluations", value, 2, 1000000, &settings->evaluations);
    case 'P':
        return arg_double("--prompt-lr", value, 1e-12, 1e6, &settings->prompt_lr);
    case 'r':
        return arg_double("--lr", value, 1e-12, 1e6, &settings->lr);
    case 'i':
        settings->init = value;
        return parse_init(value, &init);
    case 'T':
        settings->open.tied = true;
        return true;
    case 'n':
        return arg_size("--threads", value, 1, 64, &settings->open.threads);
    case 'j':
        settings->json = true;
        return true;
    default:
        return false;
    }
}

static bool parse(int argc, char **argv, struct settings *settings)
{
    static const struct option options[] = {
        {"model", required_argument, NULL, 'm'}, {"bank", required_argument, NULL, 'b'},
        {"task", required_argument, NULL, 't'},  {"method", required_argument, NULL, 'M'},
        {"seeds", required_argument, NULL, 's'}, {"k-shot", required_argument, NULL, 'k'},
        {"limit", required_argument, NULL, 'l'}, {"text-limit", required_argument, NULL, 'x'},
        {"steps", required_argument, NULL, 'S'}, {"evaluations", required_argument, NULL, 'E'},
        {"lr", required_argument, NULL, 'r'},    {"init", required_argument, NULL, 'i'},
        {"tied", no_argument, NULL, 'T'},        {"threads", required_argument, NULL, 'n'},
        {"json", no_argument, NULL, 'j'},        {0}};
    static char all[] = "average,retrieve,route";
    static const uint64_t usual[] = {8, 13, 21};
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (!take_option(option, optarg, settings)) {
            return false;
        }
    }
    if (optind < argc) {
        usage_error("eval takes no argument \"%s\": tasks go behind --task", argv[optind]);
        return false;
    }
    if (settings->n_tasks == 0) {
        usage_error("eval wants --task DIR");
        return false;
    }
    if (settings->n_seeds == 0) {
        memcpy(settings->seeds, usual, sizeof usual);
        settings->n_seeds = sizeof usual / sizeof usual[0];
    }
    return settings->n_methods > 0 || parse_methods(all, settings);
}

/* ---- one run -------------------------------------------------------------------------------------------- */

struct progress {
    const char *task, *method;
    uint64_t seed;
    bool terminal;
};

static eng_verdict show_progress(void *arg, const eng_progress *now)
{
    const struct progress *progress = arg;
    if (isnan(now->dev_accuracy)) {
        return ENG_GO_ON;
    }
    fprintf(stderr, "%s%s %s seed %llu: step %zu of %zu, train loss %.4f, dev %.4f%s%s",
            progress->terminal ? "\r\033[K" : "", progress->task, progress->method,
            (unsigned long long)progress->seed, now->step, now->steps, now->train_loss,
            now->dev_accuracy, now->best ? " (best)" : "", progress->terminal ? "" : "\n");
    return ENG_GO_ON;
}

static void make_config(const struct settings *settings, const struct opened *opened,
                        const char *method, uint64_t seed, eng_adapt_config *config)
{
    eng_adapt_defaults(opened->bank, config);
    config->method = method;
    config->seed = seed;
    config->text_limit = settings->text_limit;
    config->steps = settings->steps > 0 ? settings->steps : config->steps;
    config->prompt_lr = settings->prompt_lr;
    config->evaluations = settings->evaluations;
    config->lr = settings->lr > 0 ? settings->lr : config->lr;
    if (settings->init != NULL) {
        (void)parse_init(settings->init, &config->init);
    }
}

static eng_status score(const struct settings *settings, const struct opened *opened,
                        const eng_task_folder *folder, const eng_adapt_result *learnt,
                        const size_t *which, eng_scores *scores, eng_error *err)
{
    const eng_bank_info *bank = eng_bank_get_info(opened->bank);
    size_t n = eng_dataset_get_info(folder->test)->rows;
    float *mix = calloc(bank->layers * bank->modules + 1, sizeof *mix);
    if (mix == NULL) {
        err->status = ENG_ENOMEM;
        return ENG_ENOMEM;
    }
    if (settings->limit > 0 && settings->limit < n) {
        n = settings->limit;
    }
    eng_route_mix(opened->bank, learnt->route, mix);
    eng_status status =
        eng_evaluate(opened->compute, ENG_TRAINING, opened->model, opened->bank, folder->task,
                     folder->test, which, n, mix, learnt->prompt, learnt->head,
                     settings->text_limit, NULL, NULL, NULL, NULL, scores, err);
    free(mix);
    return status;
}

/* `rows`: two arrays of the train rows, and one of the test rows. */
static eng_status run_one(const struct settings *settings, const struct opened *opened,
                          const eng_task_folder *folder, const char *method, size_t *rows,
                          struct run *run, eng_error *err)
{
    size_t capacity = eng_dataset_get_info(folder->train)->rows, n_train = 0, n_dev = 0;
    size_t *train = rows, *dev = rows + capacity, *test = rows + 2 * capacity;
    eng_adapt_config config;
    struct progress progress = {folder->name, method, run->seed, isatty(STDERR_FILENO) == 1};
    make_config(settings, opened, method, run->seed, &config);
    eng_few_shot_split(folder->train, run->seed, settings->k_shot, train, &n_train, dev, &n_dev);
    eng_status status = eng_adapt(opened->compute, opened->model, opened->bank, folder->task,
                                  folder->train, train, n_train, folder->train, dev, n_dev, &config,
                                  show_progress, &progress, &run->adapt, err);
    if (status == ENG_OK) {
        status = score(settings, opened, folder, &run->adapt, test, &run->test, err);
    }
    if (progress.terminal) {
        fputs("\r\033[K", stderr);
    }
    run->seconds = run->adapt.seconds + run->test.seconds;
    eng_adapt_result result = run->adapt;
    eng_adapt_result_fini(&result);
    run->adapt.route = run->adapt.prompt = run->adapt.head = NULL;
    return status;
}

static struct summary summarise(const struct run *runs, size_t n)
{
    struct summary sum = {0};
    for (size_t i = 0; i < n; i++) {
        sum.mean += runs[i].test.accuracy / (double)n;
        sum.macro_f1 += runs[i].test.macro_f1 / (double)n;
        sum.seconds += runs[i].seconds;
        sum.tokens += runs[i].test.tokens + runs[i].adapt.tokens;
    }
    for (size_t i = 0; i < n && n > 1; i++) {
        double off = runs[i].test.accuracy - sum.mean;
        sum.deviation += off * off / (double)(n - 1);
    }
    sum.deviation = sqrt(sum.deviation);
    return sum;
}

/* ---- printing ---------------------------------------------------------------------------------------------- */

static void print_head(const struct settings *settings, const struct opened *opened,
                       const eng_task_folder *folder)
{
    const eng_bank_info *bank = eng_bank_get_info(opened->bank);
    printf("%s: %s, %zu labels, %zu rows a label train and %zu choose; model %s, bank %s "
           "(%zu layer%s, route of %zu)\n",
           folder->name, eng_task_type_name(eng_task_get_type(folder->task)),
           eng_task_label_count(folder->task), eng_few_shot_k(folder->train, settings->k_shot),
           eng_few_shot_k(folder->train, settings->k_shot), eng_model_get_info(opened->model)->name,
           bank->name, bank->layers, bank->layers == 1 ? "" : "s", bank->route_len);
    printf("%-14s %6s %9s %9s %8s %8s %5s %8s %10s  %s\n", "method", "seed", "accuracy", "macro F1",
           "loss", "dev", "step", "seconds", "tokens", "start");
}

static void print_method(const char *method, const struct run *runs, size_t n)
{
    struct summary sum = summarise(runs, n);
    for (size_t i = 0; i < n; i++) {
        const struct run *run = &runs[i];
        printf("%-14s %6llu %9.4f %9.4f %8.4f %8.4f %5zu %8.2f %10zu  %s\n", method,
               (unsigned long long)run->seed, run->test.accuracy, run->test.macro_f1,
               run->test.loss, run->adapt.dev_accuracy, run->adapt.best_step, run->seconds,
               run->test.tokens + run->adapt.tokens, run->adapt.started_from);
    }
    printf("%-14s %6s %9.4f %9.4f %8s %8s %5s %8.2f %10zu  ± %.4f over %zu seed%s\n", method,
           "mean", sum.mean, sum.macro_f1, "", "", "", sum.seconds, sum.tokens, sum.deviation, n,
           n == 1 ? "" : "s");
    fflush(stdout); /* long work: what is known is shown, also into a pipe */
}

static json_t *run_json(const struct run *run)
{
    return json_pack(
        "{s:I,s:o,s:o,s:o,s:o,s:I,s:I,s:I,s:I,s:I,s:I,s:o,s:s}", "seed", (json_int_t)run->seed,
        "accuracy", json_number_or_null(run->test.accuracy), "macro_f1",
        json_number_or_null(run->test.macro_f1), "loss", json_number_or_null(run->test.loss),
        "dev_accuracy", json_number_or_null(run->adapt.dev_accuracy), "best_step",
        (json_int_t)run->adapt.best_step, "steps", (json_int_t)run->adapt.steps, "test_rows",
        (json_int_t)run->test.rows, "truncated", (json_int_t)run->test.truncated, "forward_passes",
        (json_int_t)run->adapt.forward_passes, "tokens",
        (json_int_t)(run->test.tokens + run->adapt.tokens), "seconds",
        json_number_or_null(run->seconds), "started_from", run->adapt.started_from);
}

static json_t *method_json(const char *task, const char *method, const struct run *runs, size_t n)
{
    struct summary sum = summarise(runs, n);
    json_t *all = json_array();
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(all, run_json(&runs[i]));
    }
    return json_pack("{s:s,s:s,s:o,s:o,s:o,s:o,s:I,s:o}", "task", task, "method", method,
                     "accuracy_mean", json_number_or_null(sum.mean), "accuracy_deviation",
                     json_number_or_null(sum.deviation), "macro_f1_mean",
                     json_number_or_null(sum.macro_f1), "seconds", json_number_or_null(sum.seconds),
                     "tokens", (json_int_t)sum.tokens, "runs", all);
}

/* ---- a task -------------------------------------------------------------------------------------------------- */

static eng_status eval_methods(const struct settings *settings, const struct opened *opened,
                               const eng_task_folder *folder, size_t *rows, json_t *results,
                               eng_error *err)
{
    struct run runs[MAX_SEEDS];
    if (!settings->json) {
        print_head(settings, opened, folder);
    }
    for (size_t m = 0; m < settings->n_methods; m++) {
        const char *method = settings->methods[m];
        for (size_t s = 0; s < settings->n_seeds; s++) {
            runs[s] = (struct run){.seed = settings->seeds[s]};
            eng_status status = run_one(settings, opened, folder, method, rows, &runs[s], err);
            if (status != ENG_OK) {
                return status;
            }
        }
        if (settings->json) {
            json_array_append_new(results,
                                  method_json(folder->name, method, runs, settings->n_seeds));
        } else {
            print_method(method, runs, settings->n_seeds);
        }
    }
    return ENG_OK;
}

static int eval_task(const struct settings *settings, const struct opened *opened, const char *dir,
                     json_t *results)
{
    eng_task_folder folder;
    eng_error err = {0};
    eng_status status = eng_task_folder_open(opened->model, opened->bank, dir, &folder, &err);
    if (status != ENG_OK) {
        return engine_failed("eval", status, &err);
    }
    size_t train_rows = eng_dataset_get_info(folder.train)->rows;
    size_t test_rows = eng_dataset_get_info(folder.test)->rows;
    size_t *rows = calloc(2 * train_rows + test_rows, sizeof *rows);
    if (rows == NULL) {
        fputs("mp2 eval: out of memory\n", stderr);
        eng_task_folder_close(&folder);
        return EXIT_FAILED;
    }
    for (size_t i = 0; i < test_rows; i++) {
        rows[2 * train_rows + i] = i;
    }
    status = eval_methods(settings, opened, &folder, rows, results, &err);
    free(rows);
    eng_task_folder_close(&folder);
    return status == ENG_OK ? EXIT_DONE : engine_failed("eval", status, &err);
}

static int print_json(const struct opened *opened, json_t *results)
{
    const eng_model_info *model = eng_model_get_info(opened->model);
    const eng_bank_info *bank = eng_bank_get_info(opened->bank);
    json_t *all =
        json_pack("{s:s,s:s,s:s,s:s,s:I,s:O}", "model", model->name, "model_fingerprint",
                  model->fingerprint, "bank", bank->name, "bank_fingerprint", bank->fingerprint,
                  "route_len", (json_int_t)bank->route_len, "results", results);
    int failed = all == NULL || json_dumpf(all, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(all);
    return failed ? EXIT_FAILED : EXIT_DONE;
}

int cmd_eval(int argc, char **argv)
{
    struct settings settings = {.open = {.command = "eval"}};
    struct opened opened;
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        fputs(help, stdout);
        return EXIT_DONE;
    }
    if (!parse(argc, argv, &settings)) {
        return EXIT_USAGE;
    }
    json_t *results = json_array();
    int code = opened_open(&settings.open, &opened);
    for (size_t i = 0; i < settings.n_tasks && code == EXIT_DONE; i++) {
        code = eval_task(&settings, &opened, settings.tasks[i], results);
    }
    if (code == EXIT_DONE && settings.json) {
        code = print_json(&opened, results);
    }
    json_decref(results);
    opened_close(&opened);
    return code;
}
