/* cmd_eval.c: mp2 eval: the few-shot protocol on task folders, method by method and seed by seed.
 *
 * For each seed: k rows a label of train.jsonl train, the next k choose the best step, test.jsonl (or
 * its first --limit rows) is scored. What comes out is the mean over the seeds and its deviation, beside
 * what a guess and a bag of characters reach on the same rows (eval_report.c).
 */
#include "server/commands/commands.h"
#include "server/commands/eval.h"
#include "server/commands/routefile.h"

#include <dirent.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "usage: mp2 eval --tasks DIR… [OPTIONS]\n"
    "\n"
    "Few-shot evaluation of task folders (task.json, train.jsonl, dev.jsonl, test.jsonl): for "
    "each\n"
    "seed, k rows a label train, the next k choose the best step, the test rows are scored.\n"
    "\n"
    "  --tasks DIR…        task folders, or folders of task folders; --task is the same\n"
    "  --methods M,…       average (all-zero route), retrieve (the bank's row with the least\n"
    "                      few-shot loss), route (learnt), blackbox-route (found with forward\n"
    "                      passes only), blackbox (then the prompt, by CMA-ES), route+prompt\n"
    "                      (then prompt and head, by gradient), prompt (one from scratch), full\n"
    "                      (every weight); default average,retrieve,route; --method is the same\n"
    "  --seeds N,…         default 8,13,21\n"
    "  --shots N,…         rows a label; more than one number: learning curves;\n"
    "                      default max(8, 32 / labels); --k-shot is the same\n"
    "  --report FILE       the table as Markdown, or all of it as JSON where FILE ends in .json;\n"
    "                      may be given more than once\n"
    "  --json              all of it as JSON on standard output\n"
    "  --limit N           only the first N test rows\n"
    "  --text-limit N      cut every text to N characters\n"
    "  --init I            start of what is learnt: retrieve, average or random; default retrieve\n"
    "  --steps N, --lr X   of route; default the bank's own\n"
    "  --full-steps N      steps of full alone; default --steps\n"
    "  --eval-every N      steps between looks at the rows that choose; default 20\n"
    "  --evaluations N     budget of a black-box method; default 100 for blackbox-route,\n"
    "                      500 a prompted layer more for blackbox\n"
    "  --prompt-lr X       step size where a prompt is tuned; default the method's own\n"
    "  --no-label-scaling  read labels as the model scores them: nothing is fitted to the rows\n"
    "  --model DIR         model directory; default $MP2_MODEL, else the embedded model\n"
    "  --bank FILE         prompt bank; default the model's first\n"
    "  --tied              one route for all layers of a deep bank\n"
    "  --threads N         compute threads; default one a core\n";

/* ---- tasks -------------------------------------------------------------------------------------------- */

static bool has_task(const char *dir)
{
    char path[4096];
    int len = snprintf(path, sizeof path, "%s/task.json", dir);
    return len > 0 && (size_t)len < sizeof path && access(path, R_OK) == 0;
}

static bool add_task(struct eval_settings *settings, const char *dir)
{
    if (settings->n_tasks == EVAL_MAX_TASKS) {
        usage_error("at most %d tasks", EVAL_MAX_TASKS);
        return false;
    }
    char *copy = strdup(dir);
    if (copy != NULL) {
        settings->tasks[settings->n_tasks++] = copy;
    }
    return copy != NULL;
}

static int not_hidden(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

/* A task folder, or the task folders in a folder, by name. */
static bool add_tasks(struct eval_settings *settings, const char *dir)
{
    struct dirent **entries = NULL;
    bool ok = true;
    size_t before = settings->n_tasks;
    int n = has_task(dir) ? -1 : scandir(dir, &entries, not_hidden, alphasort);
    for (int i = 0; i < n; i++) {
        char path[4096];
        int len = snprintf(path, sizeof path, "%s/%s", dir, entries[i]->d_name);
        if (ok && len > 0 && (size_t)len < sizeof path && has_task(path)) {
            ok = add_task(settings, path);
        }
        free(entries[i]);
    }
    free(entries);
    /* what is no folder of tasks is named when it is opened */
    return ok && settings->n_tasks == before ? add_task(settings, dir) : ok;
}

/* ---- settings ---------------------------------------------------------------------------------------- */

/* Splits `list` in place. */
static bool parse_methods(char *list, struct eval_settings *settings)
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
        if (!known || settings->n_methods == EVAL_MAX_METHODS) {
            usage_error("--methods has no \"%s\": see mp2 eval --help", name);
            return false;
        }
        settings->methods[settings->n_methods++] = name;
        name = comma != NULL ? comma + 1 : NULL;
    }
    return true;
}

static bool parse_shots(const char *value, struct eval_settings *settings)
{
    if (!arg_u64_list("--shots", value, settings->shots, EVAL_MAX_SHOTS, &settings->n_shots)) {
        return false;
    }
    for (size_t i = 0; i < settings->n_shots; i++) {
        if (settings->shots[i] < 1 || settings->shots[i] > 10000) {
            usage_error("--shots wants 1 to 10000 rows a label");
            return false;
        }
    }
    return true;
}

static bool add_report(const char *path, struct eval_settings *settings)
{
    if (settings->n_reports == EVAL_MAX_REPORTS) {
        usage_error("at most %d reports", EVAL_MAX_REPORTS);
        return false;
    }
    settings->reports[settings->n_reports++] = path;
    return true;
}

static bool take_number(int option, const char *value, struct eval_settings *settings)
{
    switch (option) {
    case 'l':
        return arg_size("--limit", value, 1, SIZE_MAX, &settings->limit);
    case 'x':
        return arg_size("--text-limit", value, 1, 1000000, &settings->text_limit);
    case 'S':
        return arg_size("--steps", value, 1, 1000000, &settings->steps);
    case 'F':
        return arg_size("--full-steps", value, 1, 1000000, &settings->full_steps);
    case 'e':
        return arg_size("--eval-every", value, 1, 1000000, &settings->eval_every);
    case 'E':
        return arg_size("--evaluations", value, 2, 1000000, &settings->evaluations);
    case 'P':
        return arg_double("--prompt-lr", value, 1e-12, 1e6, &settings->prompt_lr);
    case 'r':
        return arg_double("--lr", value, 1e-12, 1e6, &settings->lr);
    case 'n':
        return arg_size("--threads", value, 1, 64, &settings->open.threads);
    default:
        return false;
    }
}

static bool take_option(int option, char *value, struct eval_settings *settings)
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
        return add_tasks(settings, value);
    case 'M':
        return parse_methods(value, settings);
    case 's':
        return arg_u64_list("--seeds", value, settings->seeds, EVAL_MAX_SEEDS, &settings->n_seeds);
    case 'k':
        return parse_shots(value, settings);
    case 'R':
        return add_report(value, settings);
    case 'i':
        settings->init = value;
        return parse_init(value, &init);
    case 'T':
        settings->open.tied = true;
        return true;
    case 'j':
        settings->json = true;
        return true;
    case 'B':
        settings->no_label_scaling = true;
        return true;
    default:
        return take_number(option, value, settings);
    }
}

static bool fill_defaults(struct eval_settings *settings)
{
    static char all[] = "average,retrieve,route";
    static const uint64_t usual[] = {8, 13, 21};
    if (settings->n_seeds == 0) {
        memcpy(settings->seeds, usual, sizeof usual);
        settings->n_seeds = sizeof usual / sizeof usual[0];
    }
    if (settings->n_shots == 0) {
        settings->shots[0] = 0;
        settings->n_shots = 1;
    }
    return settings->n_methods > 0 || parse_methods(all, settings);
}

static bool parse(int argc, char **argv, struct eval_settings *settings)
{
    static const struct option options[] = {{"model", required_argument, NULL, 'm'},
                                            {"bank", required_argument, NULL, 'b'},
                                            {"task", required_argument, NULL, 't'},
                                            {"tasks", required_argument, NULL, 't'},
                                            {"method", required_argument, NULL, 'M'},
                                            {"methods", required_argument, NULL, 'M'},
                                            {"seeds", required_argument, NULL, 's'},
                                            {"shots", required_argument, NULL, 'k'},
                                            {"k-shot", required_argument, NULL, 'k'},
                                            {"limit", required_argument, NULL, 'l'},
                                            {"text-limit", required_argument, NULL, 'x'},
                                            {"steps", required_argument, NULL, 'S'},
                                            {"full-steps", required_argument, NULL, 'F'},
                                            {"evaluations", required_argument, NULL, 'E'},
                                            {"lr", required_argument, NULL, 'r'},
                                            {"prompt-lr", required_argument, NULL, 'P'},
                                            {"init", required_argument, NULL, 'i'},
                                            {"report", required_argument, NULL, 'R'},
                                            {"tied", no_argument, NULL, 'T'},
                                            {"threads", required_argument, NULL, 'n'},
                                            {"eval-every", required_argument, NULL, 'e'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"no-label-scaling", no_argument, NULL, 'B'},
                                            {0}};
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (!take_option(option, optarg, settings)) {
            return false;
        }
    }
    if (settings->n_tasks == 0) {
        usage_error("eval wants --tasks DIR…");
        return false;
    }
    while (optind < argc) { /* --tasks A B C */
        if (!add_tasks(settings, argv[optind++])) {
            return false;
        }
    }
    return fill_defaults(settings);
}

/* "mp2 eval --tasks …", to be written into reports. Before getopt moves the arguments. */
static char *join_arguments(int argc, char **argv)
{
    size_t room = sizeof "mp2";
    for (int i = 0; i < argc; i++) {
        room += strlen(argv[i]) + 1;
    }
    char *line = malloc(room);
    size_t used = 3;
    if (line == NULL) {
        return NULL;
    }
    memcpy(line, "mp2", 3);
    for (int i = 0; i < argc; i++) {
        size_t len = strlen(argv[i]);
        line[used++] = ' ';
        memcpy(line + used, argv[i], len);
        used += len;
    }
    line[used] = '\0';
    return line;
}

/* ---- one run -------------------------------------------------------------------------------------------- */

struct progress {
    const char *task, *method;
    uint64_t seed;
    eng_task_type type;
    size_t run, runs; /* of the whole command */
    bool terminal;
};

static eng_verdict show_progress(void *arg, const eng_progress *now)
{
    const struct progress *progress = arg;
    if (isnan(now->dev_accuracy)) {
        return ENG_GO_ON;
    }
    fprintf(stderr, "%s[%zu/%zu] %s %s seed %llu: step %zu of %zu, train loss %.4f, dev %.4f%s%s",
            progress->terminal ? "\r\033[K" : "", progress->run, progress->runs, progress->task,
            progress->method, (unsigned long long)progress->seed, now->step, now->steps,
            now->train_loss, eng_score_of(progress->type, now->dev_accuracy, now->dev_macro_f1),
            now->best ? " (best)" : "", progress->terminal ? "" : "\n");
    return ENG_GO_ON;
}

static void make_config(const struct eval_settings *settings, const struct opened *opened,
                        const char *method, uint64_t seed, eng_adapt_config *config)
{
    eng_adapt_defaults(opened->bank, config);
    config->method = method;
    config->seed = seed;
    config->text_limit = settings->text_limit;
    config->no_label_scaling = settings->no_label_scaling;
    config->steps = settings->steps > 0 ? settings->steps : config->steps;
    if (settings->full_steps > 0 && eng_adapt_gives_model(method)) {
        config->steps = settings->full_steps;
    }
    config->eval_every = settings->eval_every > 0 ? settings->eval_every : config->eval_every;
    config->prompt_lr = settings->prompt_lr;
    config->evaluations = settings->evaluations;
    config->lr = settings->lr > 0 ? settings->lr : config->lr;
    if (settings->init != NULL) {
        (void)parse_init(settings->init, &config->init);
    }
}

static json_t *confusion_json(const size_t *confusion, size_t labels)
{
    json_t *rows = json_array();
    for (size_t i = 0; i < labels; i++) {
        json_t *row = json_array();
        for (size_t j = 0; j < labels; j++) {
            json_array_append_new(row, json_integer((json_int_t)confusion[i * labels + j]));
        }
        json_array_append_new(rows, row);
    }
    return rows;
}

/* What the command works on. */
struct eval {
    struct eval_settings settings;
    struct eval_results results;
    struct opened opened;
    eng_task_folder folder;     /* of the task that is on */
    size_t *train, *dev, *test; /* row numbers of it */
    size_t n_train, n_dev, n_test;
    size_t run; /* for progress */
    /* What is retrieved for each seed of the shot that is on: every method starts from it. */
    float *starts; /* (seeds, route_len) */
    char names[EVAL_MAX_SEEDS][96];
    size_t passes[EVAL_MAX_SEEDS]; /* what that took; 0: not known yet */
    double took[EVAL_MAX_SEEDS];   /* seconds */
};

static eng_status score(const struct eval *e, struct eval_run *run, eng_error *err)
{
    const eng_adapt_result *learnt = &run->adapt;
    const eng_model *model = learnt->model != NULL ? learnt->model : e->opened.model;
    const eng_bank *bank = learnt->bank != NULL ? learnt->bank : e->opened.bank;
    const eng_bank_info *info = eng_bank_get_info(bank);
    const eng_reading reading = {learnt->answer_length,
                                 {learnt->label_scaling, learnt->label_scaling_len}};
    size_t labels = eng_task_label_count(e->folder.task);
    float *mix = calloc(info->layers * info->modules + 1, sizeof *mix);
    size_t *confusion = calloc(labels * labels + 1, sizeof *confusion);
    eng_status status = ENG_ENOMEM;
    err->status = ENG_ENOMEM;
    if (mix != NULL && confusion != NULL) {
        eng_route_mix(bank, learnt->route, mix);
        status = eng_evaluate(e->opened.compute, ENG_TRAINING, model, bank, e->folder.task,
                              e->folder.test, e->test, e->n_test, mix, learnt->prompt, learnt->head,
                              &reading, e->settings.text_limit, NULL, NULL, NULL,
                              labels > 0 ? confusion : NULL, &run->test, err);
    }
    run->confusion = status == ENG_OK && labels > 0 ? confusion_json(confusion, labels) : NULL;
    free(mix);
    free(confusion);
    return status;
}

/* Method `name` under `config`, on the rows of the seed. */
static eng_status adapt(const struct eval *e, const eng_adapt_config *config,
                        eng_on_progress on_progress, void *arg, eng_adapt_result *result,
                        eng_error *err)
{
    return eng_adapt(e->opened.compute, e->opened.model, e->opened.bank, e->folder.task,
                     e->folder.train, e->train, e->n_train, e->folder.train, e->dev, e->n_dev,
                     config, on_progress, arg, result, err);
}

/* Retrieves once what all methods of seed i start from. */
static eng_status retrieve(struct eval *e, size_t i, const eng_adapt_config *config, eng_error *err)
{
    eng_adapt_config only = *config;
    eng_adapt_result result;
    size_t n = e->results.bank->route_len;
    if (e->passes[i] > 0) {
        return ENG_OK;
    }
    only.method = "retrieve";
    only.no_label_scaling = true; /* the method fits its own */
    eng_status status = adapt(e, &only, NULL, NULL, &result, err);
    if (status == ENG_OK) {
        memcpy(e->starts + i * n, result.route, n * sizeof *e->starts);
        memcpy(e->names[i], result.started_from, sizeof e->names[i]);
        /* it has looked at dev once, as the method will itself */
        e->took[i] = result.seconds;
        e->passes[i] = result.forward_passes > e->n_dev ? result.forward_passes - e->n_dev : 1;
    }
    eng_adapt_result_fini(&result);
    return status;
}

static eng_status learn(struct eval *e, size_t i, eng_adapt_config *config,
                        struct progress *progress, struct eval_run *run, eng_error *err)
{
    eng_candidate start = {e->names[i], e->starts + i * e->results.bank->route_len};
    eng_status status = ENG_OK;
    bool retrieved = config->init == ENG_INIT_RETRIEVE && strcmp(config->method, "retrieve") != 0 &&
                     strcmp(config->method, "average") != 0 &&
                     strcmp(config->method, "prompt") != 0;
    if (retrieved) {
        status = retrieve(e, i, config, err);
        config->start = &start;
    }
    if (status == ENG_OK) {
        status = adapt(e, config, show_progress, progress, &run->adapt, err);
    }
    run->adapt.forward_passes += retrieved ? e->passes[i] : 0;
    run->adapt.seconds += retrieved ? e->took[i] : 0;
    return status;
}

static eng_status run_one(struct eval *e, const char *method, size_t i, struct eval_run *run,
                          eng_error *err)
{
    eng_adapt_config config;
    const struct eval_settings *s = &e->settings;
    struct progress progress = {e->folder.name,
                                method,
                                run->seed,
                                eng_task_get_type(e->folder.task),
                                ++e->run,
                                s->n_tasks * s->n_shots * s->n_methods * s->n_seeds,
                                isatty(STDERR_FILENO) == 1};
    make_config(s, &e->opened, method, run->seed, &config);
    eng_status status = learn(e, i, &config, &progress, run, err);
    run->diverged = status == ENG_EDIVERGED;
    if (status == ENG_OK || run->diverged) {
        status = score(e, run, err);
    }
    if (progress.terminal) {
        fputs("\r\033[K", stderr);
    }
    run->done = status == ENG_OK;
    run->seconds = run->adapt.seconds + run->test.seconds;
    eng_adapt_result result = run->adapt;
    eng_adapt_result_fini(&result);
    run->adapt.route = run->adapt.prompt = run->adapt.head = NULL;
    run->adapt.model = NULL;
    run->adapt.bank = NULL;
    return status;
}

/* ---- a task -------------------------------------------------------------------------------------------------- */

static void split(struct eval *e, size_t shot, uint64_t seed)
{
    eng_few_shot_split(e->folder.train, seed, (size_t)e->settings.shots[shot], e->train,
                       &e->n_train, e->dev, &e->n_dev);
}

static eng_status add_baselines(struct eval *e, struct eval_task *task, size_t shot, eng_error *err)
{
    const struct eval_settings *s = &e->settings;
    task->bag[shot] = 0;
    for (size_t i = 0; i < s->n_seeds; i++) {
        eng_baselines base;
        split(e, shot, s->seeds[i]);
        eng_status status = eng_baselines_of(e->folder.task, e->folder.train, e->train, e->n_train,
                                             e->folder.test, e->test, e->n_test, &base, err);
        if (status != ENG_OK) {
            return status;
        }
        task->majority = base.majority;
        task->bag[shot] += base.bag / (double)s->n_seeds;
        task->bag_name = base.bag_name;
    }
    return ENG_OK;
}

static eng_status eval_shot(struct eval *e, size_t t, size_t shot, eng_error *err)
{
    const struct eval_settings *s = &e->settings;
    struct eval_task *task = &e->results.tasks[t];
    task->k[shot] = eng_few_shot_k(e->folder.train, (size_t)s->shots[shot]);
    memset(e->passes, 0, sizeof e->passes);
    eng_status status = add_baselines(e, task, shot, err);
    if (status == ENG_OK && !s->json) {
        eval_print_head(&e->results, t, shot);
    }
    for (size_t m = 0; m < s->n_methods && status == ENG_OK; m++) {
        for (size_t i = 0; i < s->n_seeds && status == ENG_OK; i++) {
            struct eval_run *run = eval_run_at(&e->results, t, shot, m, i);
            run->seed = s->seeds[i];
            split(e, shot, run->seed);
            status = run_one(e, s->methods[m], i, run, err);
        }
        if (status == ENG_OK && !s->json) {
            eval_print_method(&e->results, t, shot, m);
        }
    }
    return status;
}

static void describe_task(struct eval *e, struct eval_task *task)
{
    memcpy(task->name, e->folder.name, sizeof task->name);
    task->type = eng_task_get_type(e->folder.task);
    task->labels = eng_task_label_count(e->folder.task);
    task->test_rows = e->n_test;
}

static int eval_task(struct eval *e, size_t t)
{
    eng_error err = {0};
    eng_status status = eng_task_folder_open(e->opened.model, e->opened.bank, e->settings.tasks[t],
                                             &e->folder, &err);
    if (status != ENG_OK) {
        return engine_failed("eval", status, &err);
    }
    size_t rows = eng_dataset_get_info(e->folder.train)->rows;
    e->n_test = eng_dataset_get_info(e->folder.test)->rows;
    if (e->settings.limit > 0 && e->settings.limit < e->n_test) {
        e->n_test = e->settings.limit;
    }
    e->train = calloc(rows + 1, sizeof *e->train);
    e->dev = calloc(rows + 1, sizeof *e->dev);
    e->test = calloc(e->n_test + 1, sizeof *e->test);
    bool ok = e->train != NULL && e->dev != NULL && e->test != NULL;
    for (size_t i = 0; ok && i < e->n_test; i++) {
        e->test[i] = i;
    }
    describe_task(e, &e->results.tasks[t]);
    err.status = status = ok ? ENG_OK : ENG_ENOMEM;
    for (size_t shot = 0; shot < e->settings.n_shots && status == ENG_OK; shot++) {
        status = eval_shot(e, t, shot, &err);
    }
    free(e->train);
    free(e->dev);
    free(e->test);
    eng_task_folder_close(&e->folder);
    return status == ENG_OK ? EXIT_DONE : engine_failed("eval", status, &err);
}

/* ---- all of them -------------------------------------------------------------------------------------------- */

static int make_results(struct eval *e)
{
    const struct eval_settings *s = &e->settings;
    struct eval_results *r = &e->results;
    r->settings = s;
    r->model = eng_model_get_info(e->opened.model);
    r->bank = eng_bank_get_info(e->opened.bank);
    r->threads = eng_compute_get_info(e->opened.compute)->threads;
    r->runs = calloc(s->n_tasks * s->n_shots * s->n_methods * s->n_seeds, sizeof *r->runs);
    e->starts = calloc(s->n_seeds * r->bank->route_len + 1, sizeof *e->starts);
    if (r->runs == NULL || e->starts == NULL) {
        fputs("mp2 eval: out of memory\n", stderr);
        return EXIT_FAILED;
    }
    return EXIT_DONE;
}

static int print_json(const struct eval_results *results)
{
    json_t *all = eval_json(results);
    int failed = all == NULL || json_dumpf(all, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(all);
    return failed ? EXIT_FAILED : EXIT_DONE;
}

static void fini(struct eval *e)
{
    const struct eval_settings *s = &e->settings;
    for (size_t i = 0;
         e->results.runs != NULL && i < s->n_tasks * s->n_shots * s->n_methods * s->n_seeds; i++) {
        json_decref(e->results.runs[i].confusion);
    }
    for (size_t i = 0; i < s->n_tasks; i++) {
        free(s->tasks[i]);
    }
    free(e->results.runs);
    free(e->starts);
    opened_close(&e->opened);
}

static int run_all(struct eval *e)
{
    int code = opened_open(&e->settings.open, &e->opened);
    if (code == EXIT_DONE) {
        code = make_results(e);
    }
    for (size_t t = 0; t < e->settings.n_tasks && code == EXIT_DONE; t++) {
        code = eval_task(e, t);
    }
    if (code == EXIT_DONE && e->settings.json) {
        code = print_json(&e->results);
    }
    for (size_t i = 0; i < e->settings.n_reports && code == EXIT_DONE; i++) {
        code = eval_write_report(&e->results, e->settings.reports[i]);
    }
    return code;
}

int cmd_eval(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        fputs(help, stdout);
        return EXIT_DONE;
    }
    struct eval *e = calloc(1, sizeof *e);
    char *line = join_arguments(argc, argv);
    int code = EXIT_FAILED;
    if (e != NULL && line != NULL) {
        e->settings.open.command = "eval";
        e->settings.command_line = line;
        code = parse(argc, argv, &e->settings) ? run_all(e) : EXIT_USAGE;
        fini(e);
    }
    free(line);
    free(e);
    return code;
}
