/* cmd_adapt.c: mp2 adapt: a route from a file of labelled rows, without a server. */
#include "server/commands/commands.h"
#include "server/commands/opened.h"
#include "server/commands/routefile.h"

#include <getopt.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: mp2 adapt --train FILE [--out ROUTE.json] [OPTIONS]\n"
    "\n"
    "Learns a route from labelled rows (JSONL, or CSV with a header) and writes it as JSON, which\n"
    "`mp2 predict --route` reads and the server imports as a task version. Without --out the JSON\n"
    "goes to standard output. Bad rows are listed and left out.\n"
    "\n"
    "  --train FILE        rows; - is standard input\n"
    "  --dev FILE          rows that choose the best step; default: half of each label's rows, or\n"
    "                      cross-validation where a label has fewer than 16\n"
    "  --folds N           cross-validation with N folds instead of --dev; 0: never\n"
    "  --type T            classification, pair, choice or extractive; default: what the rows are\n"
    "  --labels A,B,…      label words in their order; default: as they first appear\n"
    "  --template T        the question around the text, with {field} names\n"
    "  --method M          route (default), blackbox-route (forward passes only: GP-UCB),\n"
    "                      retrieve or average; or, with a tuned prompt: route+prompt, blackbox\n"
    "                      (blackbox-route, then CMA-ES), prompt (one from scratch); or full:\n"
    "                      every weight, --out is then a new model directory with route.json\n"
    "  --init I            start: retrieve, average or random; default retrieve\n"
    "  --steps N, --lr X   default: the bank's own\n"
    "  --evaluations N     budget of a black-box method; default 100 for blackbox-route,\n"
    "                      500 a prompted layer more for blackbox\n"
    "  --prompt-lr X       step size where a prompt is tuned; default the method's own\n"
    "  --no-label-scaling  read labels as the model scores them: nothing is fitted to the rows\n"
    "  --weight-decay X    default 0\n"
    "  --batch N           rows a step, default 32\n"
    "  --eval-every N      steps between looks at dev, default 20\n"
    "  --patience N        looks without a better one that end a stage; default: none do\n"
    "  --seconds X         stop after this long; default no limit\n"
    "  --seed N            default 8\n"
    "  --text-limit N      cut every text to N characters\n"
    "  --model DIR, --bank FILE, --tied, --threads N\n";

struct settings {
    struct open_request open;
    const char *train, *dev, *out, *type, *labels, *text_template, *method, *init;
    eng_adapt_config config; /* zeros: defaults */
};

static bool take_option(int option, const char *value, struct settings *s)
{
    switch (option) {
    case 'm':
        s->open.model = value;
        return true;
    case 'b':
        s->open.bank = value;
        return true;
    case 'f':
        s->train = value;
        return true;
    case 'd':
        s->dev = value;
        return true;
    case 'o':
        s->out = value;
        return true;
    case 't':
        s->type = value;
        return true;
    case 'l':
        s->labels = value;
        return true;
    case 'p':
        s->text_template = value;
        return true;
    case 'M':
        s->method = value;
        return true;
    case 'i':
        s->init = value;
        return parse_init(value, &s->config.init);
    case 'S':
        return arg_size("--steps", value, 1, 1000000, &s->config.steps);
    case 'r':
        return arg_double("--lr", value, 1e-12, 1e6, &s->config.lr);
    case 'E':
        return arg_size("--evaluations", value, 2, 1000000, &s->config.evaluations);
    case 'P':
        return arg_double("--prompt-lr", value, 1e-12, 1e6, &s->config.prompt_lr);
    case 'w':
        return arg_double("--weight-decay", value, 0, 100, &s->config.weight_decay);
    case 'B':
        return arg_size("--batch", value, 1, 4096, &s->config.batch);
    case 'e':
        return arg_size("--eval-every", value, 1, 1000000, &s->config.eval_every);
    case 'F':
        return arg_size("--folds", value, 0, ENG_MAX_FOLDS, &s->config.folds);
    case 'a':
        return arg_size("--patience", value, 1, 1000000, &s->config.patience);
    case 'c':
        return arg_double("--seconds", value, 0, 1e9, &s->config.seconds);
    case 's':
        return arg_u64("--seed", value, &s->config.seed);
    case 'x':
        return arg_size("--text-limit", value, 1, 1000000, &s->config.text_limit);
    case 'T':
        s->open.tied = true;
        return true;
    case 'N':
        s->config.no_label_scaling = true;
        return true;
    case 'n':
        return arg_size("--threads", value, 1, 64, &s->open.threads);
    default:
        return false;
    }
}

static bool parse(int argc, char **argv, struct settings *settings)
{
    static const struct option options[] = {{"model", required_argument, NULL, 'm'},
                                            {"bank", required_argument, NULL, 'b'},
                                            {"train", required_argument, NULL, 'f'},
                                            {"dev", required_argument, NULL, 'd'},
                                            {"out", required_argument, NULL, 'o'},
                                            {"type", required_argument, NULL, 't'},
                                            {"labels", required_argument, NULL, 'l'},
                                            {"template", required_argument, NULL, 'p'},
                                            {"method", required_argument, NULL, 'M'},
                                            {"init", required_argument, NULL, 'i'},
                                            {"steps", required_argument, NULL, 'S'},
                                            {"lr", required_argument, NULL, 'r'},
                                            {"evaluations", required_argument, NULL, 'E'},
                                            {"prompt-lr", required_argument, NULL, 'P'},
                                            {"weight-decay", required_argument, NULL, 'w'},
                                            {"batch", required_argument, NULL, 'B'},
                                            {"eval-every", required_argument, NULL, 'e'},
                                            {"seconds", required_argument, NULL, 'c'},
                                            {"folds", required_argument, NULL, 'F'},
                                            {"patience", required_argument, NULL, 'a'},
                                            {"seed", required_argument, NULL, 's'},
                                            {"text-limit", required_argument, NULL, 'x'},
                                            {"tied", no_argument, NULL, 'T'},
                                            {"no-label-scaling", no_argument, NULL, 'N'},
                                            {"threads", required_argument, NULL, 'n'},
                                            {0}};
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (!take_option(option, optarg, settings)) {
            return false;
        }
    }
    if (settings->train == NULL || optind < argc) {
        usage_error("adapt wants --train FILE and nothing without an option");
        return false;
    }
    if (settings->method != NULL && eng_adapt_gives_model(settings->method) &&
        (settings->out == NULL || strcmp(settings->out, "-") == 0)) {
        usage_error("--method %s writes a model directory: give --out DIR", settings->method);
        return false;
    }
    return true;
}

/* ---- the rows -------------------------------------------------------------------------------------- */

struct rows {
    eng_dataset *train_set, *dev_set; /* dev_set may be train_set */
    size_t *train, *dev;
    size_t n_train, n_dev;
};

static void all_rows(const eng_dataset *set, size_t *which, size_t *n)
{
    *n = eng_dataset_get_info(set)->rows;
    for (size_t i = 0; i < *n; i++) {
        which[i] = i;
    }
}

/* `folds`: as asked for, or SIZE_MAX; becomes what it is. */
static int choose_rows(struct rows *rows, uint64_t seed, size_t *folds)
{
    if (*folds == SIZE_MAX) {
        *folds = rows->dev_set != NULL ? 0 : eng_folds(rows->train_set);
    }
    size_t capacity = eng_dataset_get_info(rows->train_set)->rows;
    size_t dev_capacity =
        rows->dev_set != NULL ? eng_dataset_get_info(rows->dev_set)->rows : capacity;
    rows->train = calloc(capacity, sizeof *rows->train);
    rows->dev = calloc(dev_capacity, sizeof *rows->dev);
    if (rows->train == NULL || rows->dev == NULL) {
        fputs("mp2 adapt: out of memory\n", stderr);
        return EXIT_FAILED;
    }
    if (rows->dev_set != NULL) {
        all_rows(rows->train_set, rows->train, &rows->n_train);
        all_rows(rows->dev_set, rows->dev, &rows->n_dev);
        *folds = 0;
    } else if (*folds > 0) {
        rows->dev_set = rows->train_set;
        all_rows(rows->train_set, rows->train, &rows->n_train);
        fprintf(stderr, "%zu rows train; %zu folds choose the number of steps\n", rows->n_train,
                *folds);
        return EXIT_DONE;
    } else {
        rows->dev_set = rows->train_set;
        eng_half_split(rows->train_set, seed, rows->train, &rows->n_train, rows->dev, &rows->n_dev);
    }
    fprintf(stderr, "%zu rows train, %zu choose the best step%s\n", rows->n_train, rows->n_dev,
            rows->dev_set == rows->train_set ? " (half of each label's rows)" : "");
    return EXIT_DONE;
}

static int open_sets(struct settings *settings, struct rows *rows)
{
    eng_task_type type;
    if (settings->type != NULL && !eng_task_type_parse(settings->type, &type)) {
        return usage_error("--type wants classification, pair, choice or extractive, got \"%s\"",
                           settings->type);
    }
    int code = open_rows("adapt", settings->train, settings->type != NULL ? &type : NULL,
                         &rows->train_set);
    if (code == EXIT_DONE && settings->dev != NULL) {
        type = eng_dataset_get_info(rows->train_set)->type;
        code = open_rows("adapt", settings->dev, &type, &rows->dev_set);
    }
    return code == EXIT_DONE ? choose_rows(rows, settings->config.seed, &settings->config.folds)
                             : code;
}

static void rows_fini(struct rows *rows)
{
    if (rows->dev_set != rows->train_set) {
        eng_dataset_free(rows->dev_set);
    }
    eng_dataset_free(rows->train_set);
    free(rows->train);
    free(rows->dev);
}

/* ---- the task ---------------------------------------------------------------------------------------- */

static bool has_empty_answer(const eng_dataset *set)
{
    for (size_t i = 0; i < eng_dataset_get_info(set)->rows; i++) {
        eng_example row;
        eng_dataset_row(set, i, &row, NULL);
        if (row.answer.len == 0) {
            return true;
        }
    }
    return false;
}

/* The spec of the options, with type and labels of the rows where they say nothing. */
static bool make_spec(const struct settings *settings, const struct rows *rows, eng_text *labels,
                      eng_task_spec *spec)
{
    const eng_dataset *set = rows->train_set;
    if (!parse_spec(NULL, settings->labels, settings->text_template, labels, spec)) {
        return false;
    }
    spec->type = eng_dataset_get_info(set)->type;
    for (size_t i = 0; settings->labels == NULL && i < eng_dataset_get_info(set)->labels; i++) {
        const char *word = eng_dataset_label(set, i);
        labels[spec->n_labels++] = (eng_text){word, strlen(word)};
    }
    spec->may_have_no_answer = spec->type == ENG_EXTRACTIVE && has_empty_answer(set);
    return true;
}

/* ---- learning ------------------------------------------------------------------------------------------ */

/* A line at every look at dev; without one, twenty or so a run. */
static eng_verdict show_progress(void *arg, const eng_progress *now)
{
    size_t *shown = arg;
    if (isnan(now->dev_loss) && now->step <= *shown + now->steps / (now->folds + 1) / 20) {
        return ENG_GO_ON;
    }
    *shown = now->step;
    fprintf(stderr, "step %zu of %zu: train loss %.4f, ", now->step, now->steps, now->train_loss);
    if (!isnan(now->dev_loss)) {
        fprintf(stderr, "dev accuracy %.4f, dev F1 %.4f, dev loss %.4f, ", now->dev_accuracy,
                now->dev_macro_f1, now->dev_loss);
    }
    fprintf(stderr, "%zu tokens, %.1f s%s\n", now->tokens, now->seconds,
            now->best ? " (best)" : "");
    return ENG_GO_ON;
}

static json_t *metrics_json(const eng_adapt_result *result, const struct rows *rows)
{
    return json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "train_loss",
        json_number_or_null(result->train_loss), "dev_loss", json_number_or_null(result->dev_loss),
        "dev_accuracy", json_number_or_null(result->dev_accuracy), "dev_macro_f1",
        json_number_or_null(result->dev_macro_f1), "dev_accuracy_before",
        json_number_or_null(result->dev_accuracy_before), "best_step",
        (json_int_t)result->best_step, "steps", (json_int_t)result->steps, "tokens",
        (json_int_t)result->tokens, "forward_passes", (json_int_t)result->forward_passes,
        "train_rows", (json_int_t)rows->n_train, "dev_rows", (json_int_t)rows->n_dev, "folds",
        (json_int_t)result->folds, "seconds", json_number_or_null(result->seconds));
}

static eng_adapt_config make_config(const struct settings *settings, const eng_bank *bank)
{
    eng_adapt_config config = settings->config, defaults;
    eng_adapt_defaults(bank, &defaults);
    config.method = settings->method != NULL ? settings->method : defaults.method;
    config.init = settings->init != NULL ? config.init : defaults.init;
    return config;
}

static int write_route(const struct settings *settings, const json_t *root)
{
    return route_file_write("adapt", settings->out != NULL ? settings->out : "-", root);
}

/* The tuned backbone as a directory, with its route and head in it. */
static int write_tuned(const struct settings *settings, const struct opened *opened,
                       const eng_adapt_result *result, const json_t *root)
{
    char path[PATH_MAX];
    eng_error err = {0};
    int len = snprintf(path, sizeof path, "%s/route.json", settings->out);
    if (len < 0 || (size_t)len >= sizeof path) {
        return usage_error("--out %s is too long", settings->out);
    }
    eng_status status = eng_adapt_write_model(opened->model, result, settings->out, &err);
    if (status != ENG_OK) {
        return engine_failed("adapt", status, &err);
    }
    return route_file_write("adapt", path, root);
}

static int learn(const struct settings *settings, const struct opened *opened,
                 const struct rows *rows, const eng_task *task, bool may_have_no_answer)
{
    eng_adapt_config config = make_config(settings, opened->bank);
    eng_adapt_result result;
    eng_error err = {0};
    size_t shown = 0;
    eng_status status =
        eng_adapt(opened->compute, opened->model, opened->bank, task, rows->train_set, rows->train,
                  rows->n_train, rows->dev_set, rows->dev, rows->n_dev, &config, show_progress,
                  &shown, &result, &err);
    if (status != ENG_OK) {
        eng_adapt_result_fini(&result);
        return engine_failed("adapt", status, &err);
    }
    fprintf(stderr,
            "started from %s (dev accuracy %.4f); best at step %zu: dev accuracy %.4f; %.1f s\n",
            result.started_from, result.dev_accuracy_before, result.best_step, result.dev_accuracy,
            result.seconds);
    if (eng_adapt_gives_prompt(config.method) && result.prompt == NULL) {
        fputs("no tuned prompt did better on the rows that choose: the route is the result\n",
              stderr);
    }
    const eng_model *model = result.model != NULL ? result.model : opened->model;
    json_t *root = route_json_make(model, opened->bank, task, may_have_no_answer, config.method,
                                   &result, metrics_json(&result, rows));
    int code = eng_adapt_gives_model(config.method) ? write_tuned(settings, opened, &result, root)
                                                    : write_route(settings, root);
    json_decref(root);
    eng_adapt_result_fini(&result);
    return code;
}

static int adapt(const struct settings *settings, const struct opened *opened,
                 const struct rows *rows)
{
    static eng_text labels[ENG_MAX_LABELS];
    eng_task_spec spec = {0};
    eng_task *task = NULL;
    eng_error err = {0};
    if (!make_spec(settings, rows, labels, &spec)) {
        return EXIT_USAGE;
    }
    eng_status status = eng_task_new(opened->model, opened->bank, &spec, &task, &err);
    if (status != ENG_OK) {
        return engine_failed("adapt", status, &err);
    }
    int code = learn(settings, opened, rows, task, spec.may_have_no_answer);
    eng_task_free(task);
    return code;
}

int cmd_adapt(int argc, char **argv)
{
    struct settings settings = {.open = {.command = "adapt"},
                                .config = {.seed = 8, .folds = SIZE_MAX}};
    struct opened opened = {0};
    struct rows rows = {0};
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        fputs(help, stdout);
        return EXIT_DONE;
    }
    if (!parse(argc, argv, &settings)) {
        return EXIT_USAGE;
    }
    int code = open_sets(&settings, &rows);
    if (code == EXIT_DONE) {
        code = opened_open(&settings.open, &opened);
    }
    if (code == EXIT_DONE) {
        code = adapt(&settings, &opened, &rows);
    }
    rows_fini(&rows);
    opened_close(&opened);
    return code;
}
