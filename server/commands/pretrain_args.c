/* pretrain_args.c: options and progress of `mp2 pretrain`. */
#include "server/commands/pretrain_args.h"
#include "server/commands/commands.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#define MAX_SHOWN_TASKS ((size_t)12)

/* ---- options ---- */

bool pretrain_list_add(struct pretrain_list *list, const char *item)
{
    if (list->n == PRETRAIN_MAX_LIST) {
        usage_error("at most %d of them, \"%s\" is one more", PRETRAIN_MAX_LIST, item);
        return false;
    }
    list->items[list->n++] = item;
    return true;
}

/* Cuts `names` at its commas. */
static bool add_names(struct pretrain_list *list, char *names)
{
    while (names != NULL) {
        char *comma = strchr(names, ',');
        if (comma != NULL) {
            *comma++ = '\0';
        }
        if (!pretrain_list_add(list, names)) {
            return false;
        }
        names = comma;
    }
    return true;
}

/* Cuts `text` at its commas and each piece at its last "=". */
static bool add_weights(const struct pretrain_option *option, const char *name, char *text)
{
    struct pretrain_weights *weights = option->out;
    char *task = NULL;
    while ((task = strsep(&text, ",")) != NULL) {
        char *sign = strrchr(task, '=');
        size_t weight = 0;
        if (sign == NULL || sign == task) {
            usage_error("%s wants TASK=N, got \"%s\"", name, task);
            return false;
        }
        if (!arg_size(name, sign + 1, (size_t)option->min, (size_t)option->max, &weight)) {
            return false;
        }
        if (weights->n == PRETRAIN_MAX_LIST) {
            usage_error("%s: at most %d of them", name, PRETRAIN_MAX_LIST);
            return false;
        }
        *sign = '\0';
        weights->items[weights->n++] = (eng_task_weight){task, weight};
    }
    return true;
}

static bool take_int(const struct pretrain_option *option, const char *name)
{
    double value = 0;
    if (!arg_double(name, optarg, option->min, option->max, &value)) {
        return false;
    }
    if (trunc(value) < value || trunc(value) > value) {
        usage_error("%s wants a whole number, got \"%s\"", name, optarg);
        return false;
    }
    *(int32_t *)option->out = (int32_t)value;
    return true;
}

static bool take(const struct pretrain_option *option)
{
    char name[64];
    snprintf(name, sizeof name, "--%s", option->name);
    switch (option->kind) {
    case OPTION_SIZE:
        return arg_size(name, optarg, (size_t)option->min, (size_t)option->max, option->out);
    case OPTION_INT:
        return take_int(option, name);
    case OPTION_REAL:
        return arg_double(name, optarg, option->min, option->max, option->out);
    case OPTION_SEED:
        return arg_u64(name, optarg, option->out);
    case OPTION_TEXT:
        *(const char **)option->out = optarg;
        return true;
    case OPTION_LIST:
        return pretrain_list_add(option->out, optarg);
    case OPTION_NAMES:
        return add_names(option->out, optarg);
    case OPTION_WEIGHTS:
        return add_weights(option, name, optarg);
    case OPTION_FLAG:
        *(bool *)option->out = true;
        return true;
    }
    return false;
}

int pretrain_parse(int argc, char **argv, const struct pretrain_option *options, size_t n,
                   const char *help, int *rest)
{
    struct option table[PRETRAIN_MAX_OPTIONS + 2] = {{"help", no_argument, NULL, 'h'}};
    for (size_t i = 0; i < n && i < PRETRAIN_MAX_OPTIONS; i++) {
        int has = options[i].kind == OPTION_FLAG ? no_argument : required_argument;
        table[i + 1] = (struct option){options[i].name, has, NULL, 256 + (int)i};
    }
    int found;
    while ((found = getopt_long(argc, argv, "h", table, NULL)) != -1) {
        if (found == 'h') {
            fputs(help, stdout);
            return EXIT_DONE;
        }
        if (found == '?') {
            return usage_error("pretrain");
        }
        if (!take(&options[found - 256])) {
            return EXIT_USAGE;
        }
    }
    *rest = optind;
    return -1;
}

size_t pretrain_run_options(eng_schedule *schedule, struct pretrain_show *show, size_t *threads,
                            struct pretrain_option *options)
{
    const struct pretrain_option all[] = {
        {"steps", OPTION_SIZE, 1, 1 << 30, &schedule->steps},
        {"warmup", OPTION_SIZE, 0, 1 << 30, &schedule->warmup},
        {"decay", OPTION_REAL, 0, 10, &schedule->weight_decay},
        {"clip", OPTION_REAL, 0, 1e9, &schedule->clip},
        {"dev-every", OPTION_SIZE, 0, 1 << 30, &schedule->dev_every},
        {"save-every", OPTION_SIZE, 0, 1 << 30, &schedule->save_every},
        {"seed", OPTION_SEED, 0, 0, &schedule->seed},
        {"resume", OPTION_FLAG, 0, 0, &schedule->resume},
        {"metrics", OPTION_TEXT, 0, 0, &show->metrics_path},
        {"threads", OPTION_SIZE, 0, 64, threads}};
    memcpy(options, all, sizeof all);
    return sizeof all / sizeof all[0];
}

/* ---- progress ---- */

static volatile sig_atomic_t interrupted;

static void on_signal(int signal)
{
    (void)signal;
    interrupted = 1;
}

int pretrain_error(const eng_error *err)
{
    fprintf(stderr, "mp2: %s%s%s\n", err->field, err->field[0] != '\0' ? ": " : "", err->text);
    return err->status == ENG_EIO || err->status == ENG_ENOTFOUND ? EXIT_NO_INPUT : EXIT_FAILED;
}

static void set(json_t *line, const char *key, json_t *value)
{
    (void)json_object_set_new(line, key, value); /* out of memory: the line is shorter */
}

static json_t *metrics_line(const eng_pretrain_progress *progress)
{
    json_t *line = json_object(), *scores = json_object();
    set(line, "step", json_integer((json_int_t)progress->step));
    if (progress->step > 0) {
        set(line, "loss", json_real(progress->loss));
        set(line, "lr", json_real(progress->lr));
        set(line, "gradient_norm", json_real(progress->gradient_norm));
        set(line, "tokens", json_integer((json_int_t)progress->tokens));
        set(line, "tokens_per_second", json_integer((json_int_t)progress->tokens_per_second));
    }
    if (progress->task != NULL) {
        set(line, "task", json_string(progress->task));
    }
    if (isfinite(progress->mlm_loss)) {
        set(line, "mlm_loss", json_real(progress->mlm_loss));
    }
    if (isfinite(progress->dev_perplexity)) {
        set(line, "dev_perplexity", json_real(progress->dev_perplexity));
    }
    for (size_t i = 0; i < progress->n_tasks; i++) {
        set(scores, progress->task_names[i], json_real(progress->task_scores[i]));
    }
    if (isfinite(progress->dev_score)) {
        set(line, "dev_score", json_real(progress->dev_score));
        set(line, "dev_scores", json_incref(scores));
        set(line, "best", json_boolean(progress->best));
    }
    json_decref(scores);
    return line;
}

static bool write_metrics(struct pretrain_show *show, const eng_pretrain_progress *progress)
{
    const char *path = show->metrics_path != NULL ? show->metrics_path : show->metrics_default;
    if (show->metrics == NULL) {
        show->metrics = fopen(path, "ae");
    }
    json_t *line = show->metrics != NULL ? metrics_line(progress) : NULL;
    bool written = line != NULL &&
                   json_dumpf(line, show->metrics, JSON_COMPACT | JSON_REAL_PRECISION(6)) == 0 &&
                   fputc('\n', show->metrics) != EOF && fflush(show->metrics) == 0;
    json_decref(line);
    if (!written) {
        fprintf(stderr, "mp2: cannot write %s: %s\n", path, strerror(errno));
    }
    return written;
}

/* Begins a line: on a terminal over the one that is there. */
static void begin_line(const struct pretrain_show *show)
{
    fputs(show->terminal ? "\r\033[K" : "", stderr);
}

/* A look at dev stays on the screen. */
static void print_scores(const struct pretrain_show *show, const eng_pretrain_progress *progress)
{
    begin_line(show);
    fprintf(stderr, "step %zu  dev score %.4f%s%s", progress->step, progress->dev_score,
            progress->best ? " (best)" : "", progress->step == 0 ? " (no prompt)" : "");
    for (size_t i = 0; progress->n_tasks <= MAX_SHOWN_TASKS && i < progress->n_tasks; i++) {
        fprintf(stderr, "  %s %.3f", progress->task_names[i], progress->task_scores[i]);
    }
    fputc('\n', stderr);
}

#define BAR 20

static void print_step(const struct pretrain_show *show, const eng_pretrain_progress *progress)
{
    begin_line(show);
    if (show->terminal) {
        size_t done = progress->step * BAR / progress->steps;
        fprintf(stderr, "[%.*s%.*s] ", (int)done, "####################", (int)(BAR - done),
                "....................");
    }
    fprintf(stderr, "step %zu/%zu  loss %.4f", progress->step, progress->steps, progress->loss);
    if (isfinite(show->perplexity)) {
        fprintf(stderr, "  dev perplexity %.2f", show->perplexity);
    }
    if (isfinite(show->score)) {
        fprintf(stderr, "  dev score %.4f", show->score);
    }
    fprintf(stderr, "  %.0f tokens/s  %.0f s left%s", progress->tokens_per_second,
            progress->seconds_left, show->terminal ? "" : "\n");
}

static void show_progress(struct pretrain_show *show, const eng_pretrain_progress *progress)
{
    double every = show->terminal ? 0.2 : 10;
    bool perplexity = isfinite(progress->dev_perplexity), score = isfinite(progress->dev_score);
    show->perplexity = perplexity ? progress->dev_perplexity : show->perplexity;
    if (score) {
        show->score = progress->dev_score;
        print_scores(show, progress);
    }
    bool due =
        perplexity || progress->step == progress->steps || progress->seconds - show->shown >= every;
    if (due && progress->step > 0) {
        show->shown = progress->seconds;
        print_step(show, progress);
    }
}

void pretrain_show_begin(struct pretrain_show *show)
{
    struct sigaction action = {.sa_handler = on_signal};
    show->terminal = isatty(STDERR_FILENO) != 0;
    show->perplexity = show->score = (double)NAN;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool pretrain_show_step(void *arg, const eng_pretrain_progress *progress)
{
    struct pretrain_show *show = arg;
    show_progress(show, progress);
    return write_metrics(show, progress) && interrupted == 0;
}

int pretrain_show_end(struct pretrain_show *show, eng_status status, const eng_error *err)
{
    if (show->terminal) {
        fputc('\n', stderr);
    }
    if (show->metrics != NULL) {
        fclose(show->metrics);
    }
    if (status == ENG_ECANCELLED) {
        fprintf(stderr, "mp2: %s; go on with --resume\n", err->text);
        return EXIT_FAILED;
    }
    return status == ENG_OK ? EXIT_DONE : pretrain_error(err);
}
