/* cmd_predict.c: mp2 predict: answers from the command line, with a learnt route or a router row. */
#include "server/commands/commands.h"
#include "server/commands/opened.h"
#include "server/commands/routefile.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: mp2 predict --route ROUTE.json TEXT…\n"
    "       mp2 predict --type T --labels A,B,… [--template T] [--row NAME|N|average] TEXT…\n"
    "       mp2 predict … --field NAME=TEXT [--field …] [--option TEXT …]\n"
    "       mp2 predict … --input ROWS.jsonl\n"
    "\n"
    "  --route FILE       what `mp2 adapt` wrote, or a version exported from a server\n"
    "  --type T           classification (default), pair, choice or extractive\n"
    "  --labels A,B,…     label words (classification, pair)\n"
    "  --template T       the question around the text, with {field} names\n"
    "  --row R            router row of the bank, by name or number; default average\n"
    "  TEXT…              one input each, for templates with one field\n"
    "  --field NAME=TEXT  a field of one input: text_a and text_b, question and context, …\n"
    "  --option TEXT      an option of that input (choice)\n"
    "  --input FILE       one JSON object a line: fields by name, options; - is standard input\n"
    "  --text-limit N     cut every text to N characters\n"
    "  --model DIR, --bank FILE, --tied, --threads N\n"
    "  --json             {\"predictions\":[…]} as POST /v1/predict answers\n";

struct settings {
    struct open_request open;
    const char *route, *type, *labels, *text_template, *row, *input;
    size_t text_limit;
    bool json;
    eng_field fields[ENG_MAX_FIELDS];
    eng_text options[ENG_MAX_LABELS];
    size_t n_fields, n_options;
    char **texts;
    size_t n_texts;
};

/* Model, task and mix, ready to answer. */
struct ready {
    struct opened opened;
    struct route_file file;
    eng_text labels[ENG_MAX_LABELS];
    eng_task *task;
    float *mix;
    eng_workspace *workspace;
    float *start, *end;
    json_t *predictions; /* --json */
};

/* ---- settings ---------------------------------------------------------------------------------------- */

static eng_text text_of(const char *string)
{
    return (eng_text){string, strlen(string)};
}

static bool add_field(struct settings *s, const char *value)
{
    const char *equals = strchr(value, '=');
    if (equals == NULL || equals == value || s->n_fields == ENG_MAX_FIELDS) {
        usage_error("--field wants NAME=TEXT, at most %d times, got \"%s\"", ENG_MAX_FIELDS, value);
        return false;
    }
    s->fields[s->n_fields++] = (eng_field){{value, (size_t)(equals - value)}, text_of(equals + 1)};
    return true;
}

static bool take_option(int option, const char *value, struct settings *s)
{
    switch (option) {
    case 'm':
        s->open.model = value;
        return true;
    case 'b':
        s->open.bank = value;
        return true;
    case 'R':
        s->route = value;
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
    case 'r':
        s->row = value;
        return true;
    case 'i':
        s->input = value;
        return true;
    case 'f':
        return add_field(s, value);
    case 'o':
        if (s->n_options == ENG_MAX_LABELS) {
            usage_error("at most %d options", ENG_MAX_LABELS);
            return false;
        }
        s->options[s->n_options++] = text_of(value);
        return true;
    case 'x':
        return arg_size("--text-limit", value, 1, 1000000, &s->text_limit);
    case 'T':
        s->open.tied = true;
        return true;
    case 'n':
        return arg_size("--threads", value, 1, 64, &s->open.threads);
    case 'j':
        s->json = true;
        return true;
    default:
        return false;
    }
}

static bool check(const struct settings *s)
{
    int sources = (s->n_texts > 0) + (s->n_fields > 0) + (s->input != NULL);
    if (sources != 1) {
        usage_error("predict wants texts, or --field, or --input FILE: one of them");
        return false;
    }
    if (s->route != NULL &&
        (s->type != NULL || s->labels != NULL || s->row != NULL || s->text_template != NULL)) {
        usage_error("--route brings its own type, labels, template and route");
        return false;
    }
    return true;
}

static bool parse(int argc, char **argv, struct settings *settings)
{
    static const struct option options[] = {{"model", required_argument, NULL, 'm'},
                                            {"bank", required_argument, NULL, 'b'},
                                            {"route", required_argument, NULL, 'R'},
                                            {"type", required_argument, NULL, 't'},
                                            {"labels", required_argument, NULL, 'l'},
                                            {"template", required_argument, NULL, 'p'},
                                            {"row", required_argument, NULL, 'r'},
                                            {"input", required_argument, NULL, 'i'},
                                            {"field", required_argument, NULL, 'f'},
                                            {"option", required_argument, NULL, 'o'},
                                            {"text-limit", required_argument, NULL, 'x'},
                                            {"tied", no_argument, NULL, 'T'},
                                            {"threads", required_argument, NULL, 'n'},
                                            {"json", no_argument, NULL, 'j'},
                                            {0}};
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (!take_option(option, optarg, settings)) {
            return false;
        }
    }
    settings->texts = argv + optind;
    settings->n_texts = (size_t)(argc - optind);
    return check(settings);
}

/* ---- getting ready ------------------------------------------------------------------------------------ */

/* --row: "average", a name, or a number. */
static int read_row(const char *row, const eng_bank *bank, float *route)
{
    const eng_bank_info *info = eng_bank_get_info(bank);
    memset(route, 0, info->route_len * sizeof *route);
    if (row == NULL || strcmp(row, "average") == 0) {
        return EXIT_DONE;
    }
    for (size_t i = 0; i < info->rows; i++) {
        char number[24];
        snprintf(number, sizeof number, "%zu", i);
        if (strcmp(row, eng_bank_row_name(bank, i)) == 0 || strcmp(row, number) == 0) {
            eng_bank_row(bank, i, route);
            return EXIT_DONE;
        }
    }
    return usage_error("--row \"%s\" is not average, a row's name or a number under %zu", row,
                       info->rows);
}

static int take_route(const struct settings *settings, struct ready *ready, eng_task_spec *spec)
{
    const eng_bank_info *info = eng_bank_get_info(ready->opened.bank);
    if (settings->route != NULL) {
        int code = route_file_read("predict", settings->route, ready->opened.model,
                                   ready->opened.bank, &ready->file);
        *spec = ready->file.spec;
        return code;
    }
    ready->file.route = calloc(info->route_len, sizeof *ready->file.route);
    if (ready->file.route == NULL) {
        fputs("mp2 predict: out of memory\n", stderr);
        return EXIT_FAILED;
    }
    if (!parse_spec(settings->type, settings->labels, settings->text_template, ready->labels,
                    spec)) {
        return EXIT_USAGE;
    }
    return read_row(settings->row, ready->opened.bank, ready->file.route);
}

static int get_ready(const struct settings *settings, struct ready *ready)
{
    eng_task_spec spec = {0};
    eng_error err = {0};
    int code = opened_open(&settings->open, &ready->opened);
    if (code == EXIT_DONE) {
        code = take_route(settings, ready, &spec);
    }
    if (code != EXIT_DONE) {
        return code;
    }
    const eng_bank_info *bank = eng_bank_get_info(ready->opened.bank);
    size_t positions = eng_model_get_info(ready->opened.model)->positions;
    ready->mix = calloc(bank->layers * bank->modules, sizeof *ready->mix);
    ready->start = calloc(positions, sizeof *ready->start);
    ready->end = calloc(positions, sizeof *ready->end);
    ready->predictions = json_array();
    if (ready->mix == NULL || ready->start == NULL || ready->end == NULL ||
        ready->predictions == NULL) {
        fputs("mp2 predict: out of memory\n", stderr);
        return EXIT_FAILED;
    }
    eng_route_mix(ready->opened.bank, ready->file.route, ready->mix);
    eng_status status =
        eng_task_new(ready->opened.model, ready->opened.bank, &spec, &ready->task, &err);
    if (status == ENG_OK) {
        status = eng_workspace_new(ready->opened.model, positions, 1, &ready->workspace, &err);
    }
    return status == ENG_OK ? EXIT_DONE : engine_failed("predict", status, &err);
}

static void ready_fini(struct ready *ready)
{
    json_decref(ready->predictions);
    eng_workspace_free(ready->workspace);
    eng_task_free(ready->task);
    route_file_fini(&ready->file);
    free(ready->mix);
    free(ready->start);
    free(ready->end);
    opened_close(&ready->opened);
}

/* ---- answering ----------------------------------------------------------------------------------------- */

static eng_text option_text(const struct ready *ready, const eng_input *input, size_t i)
{
    return input->n_options > 0 ? input->options[i] : text_of(eng_task_label(ready->task, i));
}

static json_t *score_json(eng_text label, double score)
{
    return json_pack("{s:s%, s:f}", "label", label.data, label.len, "score", score);
}

static void answer_option(struct ready *ready, const eng_input *input, const eng_encoded *encoded,
                          bool json)
{
    static float scores[ENG_MAX_LABELS];
    size_t n = eng_encoded_options(encoded), best = 0;
    eng_decode_options(encoded, ready->start, ready->end, &ready->file.label_scaling, scores);
    for (size_t i = 1; i < n; i++) {
        best = scores[i] > scores[best] ? i : best;
    }
    eng_text label = option_text(ready, input, best);
    size_t cut = eng_encoded_truncated(encoded);
    if (!json) {
        printf("%.*s\t%.4f%s\n", (int)label.len, label.data, (double)scores[best],
               cut > 0 ? "\t(text was cut)" : "");
        return;
    }
    json_t *prediction = score_json(label, (double)scores[best]), *all = json_array();
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(all, score_json(option_text(ready, input, i), (double)scores[i]));
    }
    json_object_set_new(prediction, "scores", all);
    if (cut > 0) {
        json_object_set_new(prediction, "truncated", json_integer((json_int_t)cut));
    }
    json_array_append_new(ready->predictions, prediction);
}

/* Bytes of the first n code points. */
static size_t bytes_of(eng_text text, size_t n)
{
    size_t i = 0;
    for (; i < text.len; i++) {
        if (((unsigned char)text.data[i] & 0xC0) != 0x80 && n-- == 0) {
            break;
        }
    }
    return i;
}

static void answer_span(struct ready *ready, const eng_input *input, const eng_encoded *encoded,
                        bool json)
{
    eng_span span = {.no_answer = true};
    eng_text context = {"", 0};
    for (size_t i = 0; i < input->n_fields; i++) {
        if (input->fields[i].name.len == 7 &&
            memcmp(input->fields[i].name.data, "context", 7) == 0) {
            context = input->fields[i].value;
        }
    }
    (void)eng_decode_spans(encoded, ready->start, ready->end, &ready->file.answer_length, 0, &span,
                           1);
    size_t from = bytes_of(context, span.start), to = bytes_of(context, span.end);
    if (!json) {
        printf("%.*s\t%.4f\t%zu\t%zu\n", (int)(to - from), context.data + from, span.score,
               span.start, span.end);
        return;
    }
    json_array_append_new(ready->predictions,
                          json_pack("{s:s%, s:f, s:I, s:I}", "answer", context.data + from,
                                    to - from, "score", span.score, "start", (json_int_t)span.start,
                                    "end", (json_int_t)span.end));
}

static int answer(struct ready *ready, const struct settings *settings, const eng_input *input,
                  size_t number)
{
    eng_encoded *encoded = NULL;
    eng_error err = {0};
    size_t len = 0;
    eng_status status = eng_encode(ready->task, input, settings->text_limit, &encoded, &err);
    if (status == ENG_OK) {
        const int32_t *ids = eng_encoded_ids(encoded, &len);
        size_t n_read = 0;
        const uint32_t *read = eng_encoded_read(encoded, &n_read);
        eng_sequence sequence = {.ids = ids,
                                 .len = len,
                                 .bank = ready->opened.bank,
                                 .mix = ready->mix,
                                 .prompt = ready->file.prompt,
                                 .head = ready->file.head,
                                 .read = read,
                                 .n_read = n_read};
        status = eng_forward(ready->opened.compute, ready->workspace, ENG_SERVING,
                             ready->opened.model, &sequence, 1, ready->start, ready->end, &err);
    }
    if (status != ENG_OK) {
        fprintf(stderr, "mp2 predict: input %zu: ", number);
        eng_encoded_free(encoded);
        return engine_failed("predict", status, &err);
    }
    if (eng_encoded_options(encoded) > 0) {
        answer_option(ready, input, encoded, settings->json);
    } else {
        answer_span(ready, input, encoded, settings->json);
    }
    eng_encoded_free(encoded);
    return EXIT_DONE;
}

/* ---- inputs ---------------------------------------------------------------------------------------------- */

static int answer_texts(struct ready *ready, const struct settings *settings)
{
    const char *names[ENG_MAX_FIELDS];
    size_t fields = eng_task_fields(ready->task, names);
    if (fields != 1) {
        return usage_error("the template reads %zu fields: give --field NAME=TEXT for each, or "
                           "--input",
                           fields);
    }
    int code = EXIT_DONE;
    for (size_t i = 0; i < settings->n_texts && code == EXIT_DONE; i++) {
        eng_field field = {text_of(names[0]), text_of(settings->texts[i])};
        eng_input input = {&field, 1, settings->options, settings->n_options};
        code = answer(ready, settings, &input, i + 1);
    }
    return code;
}

/* The strings of one object; false when there are too many or an option is not a string. */
static bool object_input(json_t *object, eng_field *fields, eng_text *options, eng_input *input)
{
    const char *name;
    json_t *value;
    *input = (eng_input){.fields = fields, .options = options};
    json_object_foreach(object, name, value)
    {
        if (json_is_string(value)) {
            if (input->n_fields == ENG_MAX_FIELDS) {
                return false;
            }
            fields[input->n_fields++] =
                (eng_field){text_of(name), {json_string_value(value), json_string_length(value)}};
        }
    }
    const json_t *list = json_object_get(object, "options");
    input->n_options = json_array_size(list);
    for (size_t i = 0; i < input->n_options && i < ENG_MAX_LABELS; i++) {
        const json_t *option = json_array_get(list, i);
        if (!json_is_string(option)) {
            return false;
        }
        options[i] = (eng_text){json_string_value(option), json_string_length(option)};
    }
    return json_is_object(object) && input->n_options <= ENG_MAX_LABELS;
}

static int answer_line(struct ready *ready, const struct settings *settings, eng_text line,
                       size_t number)
{
    static eng_field fields[ENG_MAX_FIELDS];
    static eng_text options[ENG_MAX_LABELS];
    eng_input input;
    json_error_t error;
    json_t *object = json_loadb(line.data, line.len, JSON_REJECT_DUPLICATES, &error);
    if (object == NULL || !object_input(object, fields, options, &input)) {
        fprintf(stderr,
                "mp2 predict: %s:%zu: want an object of at most %d strings, and options an array "
                "of at most %d strings\n",
                settings->input, number, ENG_MAX_FIELDS, ENG_MAX_LABELS);
        json_decref(object);
        return EXIT_FAILED;
    }
    int code = answer(ready, settings, &input, number);
    json_decref(object);
    return code;
}

static int answer_file(struct ready *ready, const struct settings *settings)
{
    size_t len = 0, number = 0;
    char *text = read_text_file("predict", settings->input, (size_t)256 << 20, &len);
    int code = text != NULL ? EXIT_DONE : EXIT_NO_INPUT;
    for (size_t at = 0; text != NULL && at < len && code == EXIT_DONE;) {
        const char *newline = memchr(text + at, '\n', len - at);
        size_t end = newline != NULL ? (size_t)(newline - text) : len;
        number++;
        if (strspn(text + at, " \t\r") < end - at) {
            code = answer_line(ready, settings, (eng_text){text + at, end - at}, number);
        }
        at = end + 1;
    }
    free(text);
    return code;
}

static int answer_all(struct ready *ready, const struct settings *settings)
{
    int code = EXIT_DONE;
    if (settings->input != NULL) {
        code = answer_file(ready, settings);
    } else if (settings->n_fields > 0) {
        eng_input input = {settings->fields, settings->n_fields, settings->options,
                           settings->n_options};
        code = answer(ready, settings, &input, 1);
    } else {
        code = answer_texts(ready, settings);
    }
    if (code == EXIT_DONE && settings->json) {
        json_t *root = json_pack("{s:O}", "predictions", ready->predictions);
        code =
            root != NULL && json_dumpf(root, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) == 0
                ? EXIT_DONE
                : EXIT_FAILED;
        putchar('\n');
        json_decref(root);
    }
    return code;
}

int cmd_predict(int argc, char **argv)
{
    static struct settings settings = {.open = {.command = "predict"}};
    static struct ready ready;
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        fputs(help, stdout);
        return EXIT_DONE;
    }
    if (!parse(argc, argv, &settings)) {
        return EXIT_USAGE;
    }
    int code = get_ready(&settings, &ready);
    if (code == EXIT_DONE) {
        code = answer_all(&ready, &settings);
    }
    ready_fini(&ready);
    return code;
}
