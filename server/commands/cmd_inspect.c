/* cmd_inspect.c: mp2 inspect: what a model is, how a text is cut, what the network answers. */
#include "engine/engine.h"
#include "server/commands/commands.h"
#include "server/commands/inspect.h"

#include <dirent.h>
#include <getopt.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: mp2 inspect model  [--model DIR] [--tensors] [--json]\n"
    "       mp2 inspect tokens [--model DIR] --text TEXT [--json]\n"
    "       mp2 inspect logits [--model DIR] --bank FILE [--row N] [--tied] [--prompt-tokens P]\n"
    "                          --ids 101,1,2,... [--json]\n"
    "       mp2 inspect mlm    [--model DIR] --ids 101,1,2,... [--top N] [--json]\n"
    "\n"
    "model   sizes, fingerprint and banks of a model directory; with --tensors what is in its "
    "files\n"
    "tokens  WordPiece of a text: id, token, and the code points it came from\n"
    "logits  start and end logits of one sequence of token ids; needs no vocabulary\n"
    "mlm     what the masked-language head puts at each position, if the model has one (mp2 "
    "pretrain\n"
    "        backbone writes it); --json without --top: all logits\n"
    "\n"
    "  --model DIR          default: the embedded model\n"
    "  --bank FILE          .safetensors, or the authors' .th\n"
    "  --row N              router row whose route mixes the modules; without it no prompt is "
    "added\n"
    "  --tied               one route for all layers of a deep bank (the mean of the row's "
    "layers)\n"
    "  --prompt-tokens P    what the ids were made for; checked against the bank\n"
    "  --top N              tokens of a position, best first; default 5\n"
    "  --json               one JSON object on standard output\n";

int inspect_report(eng_status status, const eng_error *err)
{
    fprintf(stderr, "mp2 inspect: %s\n", err->text);
    return status == ENG_ENOTFOUND ? EXIT_NO_INPUT : EXIT_FAILED;
}

int inspect_print(json_t *root)
{
    if (root == NULL || json_dumpf(root, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) != 0) {
        fputs("mp2 inspect: out of memory\n", stderr);
        json_decref(root);
        return EXIT_FAILED;
    }
    putchar('\n');
    json_decref(root);
    return EXIT_DONE;
}

int inspect_ids(const eng_model *model, const char *text, int32_t **ids, size_t *len)
{
    size_t max = eng_model_get_info(model)->positions;
    uint64_t *list = calloc(max, sizeof *list);
    int code = EXIT_DONE;
    *ids = calloc(max, sizeof **ids);
    if (list == NULL || *ids == NULL) {
        fputs("mp2 inspect: out of memory\n", stderr);
        code = EXIT_FAILED;
    } else if (!arg_u64_list("--ids", text, list, max, len)) {
        code = EXIT_USAGE;
    }
    for (size_t i = 0; code == EXIT_DONE && i < *len; i++) {
        if (list[i] > INT32_MAX) {
            code = usage_error("--ids wants token ids, got %llu", (unsigned long long)list[i]);
        }
        (*ids)[i] = (int32_t)list[i];
    }
    free(list);
    return code;
}

/* ---- model ------------------------------------------------------------------------------------ */

static bool has_end(const char *name, const char *end)
{
    size_t len = strlen(name), tail = strlen(end);
    return len > tail && strcmp(name + len - tail, end) == 0;
}

static int is_bank_entry(const struct dirent *entry)
{
    const char *name = entry->d_name;
    return has_end(name, ".bank.safetensors") || has_end(name, ".th") ||
           (strncmp(name, "bank_", 5) == 0 && has_end(name, ".safetensors"));
}

static void add_bank(json_t *banks, const eng_model *model, const char *dir, const char *file)
{
    char path[PATH_MAX];
    eng_bank *bank = NULL;
    eng_error err = {0};
    snprintf(path, sizeof path, "%s/%s", dir, file);
    if (eng_bank_open(model, path, false, &bank, &err) != ENG_OK) {
        json_array_append_new(banks, json_pack("{s:s, s:s}", "file", file, "error", err.text));
        return;
    }
    const eng_bank_info *info = eng_bank_get_info(bank);
    json_t *rows = json_array();
    for (size_t i = 0; i < info->rows; i++) {
        json_array_append_new(rows, json_string(eng_bank_row_name(bank, i)));
    }
    json_array_append_new(
        banks, json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:i, s:i, s:f, s:I, s:I, s:s, s:o}",
                         "name", info->name, "file", file, "layers", (json_int_t)info->layers,
                         "modules", (json_int_t)info->modules, "prompt_tokens",
                         (json_int_t)info->prompt_tokens, "intrinsic", (json_int_t)info->intrinsic,
                         "route_len", (json_int_t)info->route_len, "prompt_token_offset",
                         (int)info->prompt_token_offset, "token_type", (int)info->token_type,
                         "adapt_lr", info->adapt_lr, "adapt_steps", (json_int_t)info->adapt_steps,
                         "context_tokens", (json_int_t)info->context_tokens, "fingerprint",
                         info->fingerprint, "rows", rows));
    eng_bank_free(bank);
}

static json_t *list_banks(const eng_model *model, const char *dir)
{
    json_t *banks = json_array();
    struct dirent **names = NULL;
    int n = scandir(dir, &names, is_bank_entry, alphasort);
    for (int i = 0; i < n; i++) {
        add_bank(banks, model, dir, names[i]->d_name);
        free(names[i]);
    }
    free(names);
    return banks;
}

static void add_tensor(void *arg, const eng_tensor_info *info)
{
    json_t *shape = json_array();
    for (size_t i = 0; i < info->dims; i++) {
        json_array_append_new(shape, json_integer((json_int_t)info->shape[i]));
    }
    json_array_append_new(arg,
                          json_pack("{s:s, s:s, s:o, s:I}", "name", info->name, "dtype",
                                    info->dtype, "shape", shape, "bytes", (json_int_t)info->bytes));
}

static json_t *describe_model(const eng_model *model)
{
    const eng_model_info *info = eng_model_get_info(model);
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:b, s:s}", "name",
                     info->name, "layers", (json_int_t)info->layers, "hidden",
                     (json_int_t)info->hidden, "heads", (json_int_t)info->heads, "ffn",
                     (json_int_t)info->ffn, "vocab", (json_int_t)info->vocab, "positions",
                     (json_int_t)info->positions, "types", (json_int_t)info->types, "parameters",
                     (json_int_t)info->parameters, "bytes", (json_int_t)info->bytes, "dtype",
                     info->dtype, "has_vocab", info->has_vocab, "fingerprint", info->fingerprint);
}

/* "key  value" lines; of lists one line an item. */
static void print_plain(const json_t *object, const char *indent)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        if (json_is_string(value)) {
            printf("%s%-20s %s\n", indent, key, json_string_value(value));
        } else if (json_is_boolean(value)) {
            printf("%s%-20s %s\n", indent, key, json_is_true(value) ? "yes" : "no");
        } else if (json_is_integer(value)) {
            printf("%s%-20s %lld\n", indent, key, (long long)json_integer_value(value));
        } else if (json_is_real(value)) {
            printf("%s%-20s %g\n", indent, key, json_real_value(value));
        } else if (json_is_array(value) && json_is_object(json_array_get(value, 0))) {
            for (size_t i = 0; i < json_array_size(value); i++) {
                printf("%s%s %zu\n", indent, key, i);
                print_plain(json_array_get(value, i), "    ");
            }
        } else if (json_is_array(value)) {
            char *text = json_dumps(value, JSON_ENCODE_ANY);
            printf("%s%-20s %s\n", indent, key, text != NULL ? text : "");
            free(text);
        }
    }
}

static int inspect_model(const eng_model *model, const char *dir, const struct inspect_args *args)
{
    eng_error err = {0};
    json_t *root = describe_model(model);
    json_object_set_new(root, "banks", list_banks(model, dir));
    if (args->tensors) {
        json_t *tensors = json_array();
        eng_status status = eng_list_tensors(dir, add_tensor, tensors, &err);
        json_object_set_new(root, "tensors", tensors);
        if (status != ENG_OK) {
            json_decref(root);
            return inspect_report(status, &err);
        }
    }
    if (args->json) {
        return inspect_print(root);
    }
    print_plain(root, "");
    json_decref(root);
    return EXIT_DONE;
}

/* ---- tokens ----------------------------------------------------------------------------------- */

static int inspect_tokens(const eng_model *model, const struct inspect_args *args)
{
    eng_token *tokens = NULL;
    size_t n = 0;
    eng_error err = {0};
    if (args->text == NULL) {
        return usage_error("inspect tokens wants --text");
    }
    const eng_text text = {args->text, strlen(args->text)};
    eng_status status = eng_tokenize(model, text, &tokens, &n, &err);
    if (status != ENG_OK) {
        return inspect_report(status, &err);
    }
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        const char *token = eng_token_string(model, tokens[i].id);
        if (args->json) {
            json_array_append_new(list, json_pack("{s:i, s:s, s:I, s:I}", "id", (int)tokens[i].id,
                                                  "token", token != NULL ? token : "", "start",
                                                  (json_int_t)tokens[i].start, "end",
                                                  (json_int_t)tokens[i].end));
        } else {
            printf("%6d  %4u %4u  %s\n", (int)tokens[i].id, tokens[i].start, tokens[i].end,
                   token != NULL ? token : "");
        }
    }
    free(tokens);
    if (args->json) {
        return inspect_print(json_pack("{s:o}", "tokens", list));
    }
    json_decref(list);
    return EXIT_DONE;
}

/* ---- logits ----------------------------------------------------------------------------------- */

struct logits {
    int32_t *ids;
    size_t len;
    float *route, *mix, *start, *end;
    eng_bank *bank;
    eng_compute *compute;
    eng_workspace *workspace;
};

static void logits_fini(struct logits *run)
{
    eng_workspace_free(run->workspace);
    if (run->compute != NULL) {
        eng_compute_stop(run->compute);
    }
    eng_bank_free(run->bank);
    free(run->ids);
    free(run->route);
    free(run->mix);
    free(run->start);
    free(run->end);
}

static int parse_ids(const eng_model *model, const struct inspect_args *args, struct logits *run)
{
    size_t max = eng_model_get_info(model)->positions;
    run->start = calloc(max, sizeof *run->start);
    run->end = calloc(max, sizeof *run->end);
    if (run->start == NULL || run->end == NULL) {
        fputs("mp2 inspect: out of memory\n", stderr);
        return EXIT_FAILED;
    }
    return inspect_ids(model, args->ids, &run->ids, &run->len);
}

/* The mix of --row, or none. */
static int choose_route(const struct inspect_args *args, struct logits *run)
{
    const eng_bank_info *info = eng_bank_get_info(run->bank);
    size_t row = 0, prompt_tokens = 0;
    if (args->prompt_tokens != NULL &&
        !arg_size("--prompt-tokens", args->prompt_tokens, 0, INT32_MAX, &prompt_tokens)) {
        return EXIT_USAGE;
    }
    if (args->prompt_tokens != NULL && prompt_tokens != info->prompt_tokens) {
        return usage_error("--prompt-tokens is %zu, the bank has %zu", prompt_tokens,
                           info->prompt_tokens);
    }
    if (args->row == NULL) {
        return EXIT_DONE;
    }
    if (!arg_size("--row", args->row, 0, info->rows - 1, &row)) {
        return EXIT_USAGE;
    }
    run->route = calloc(info->route_len, sizeof *run->route);
    run->mix = calloc(info->layers * info->modules, sizeof *run->mix);
    if (run->route == NULL || run->mix == NULL) {
        fputs("mp2 inspect: out of memory\n", stderr);
        return EXIT_FAILED;
    }
    eng_bank_row(run->bank, row, run->route);
    eng_route_mix(run->bank, run->route, run->mix);
    return EXIT_DONE;
}

static eng_status forward(const eng_model *model, struct logits *run, eng_error *err)
{
    const eng_sequence sequence = {
        .ids = run->ids, .len = run->len, .bank = run->bank, .mix = run->mix};
    eng_status status = eng_compute_start(1, NULL, &run->compute, err);
    if (status == ENG_OK) {
        status = eng_workspace_new(model, run->len, 1, &run->workspace, err);
    }
    if (status == ENG_OK) {
        status = eng_forward(run->compute, run->workspace, ENG_SERVING, model, &sequence, 1,
                             run->start, run->end, err);
    }
    return status;
}

static void print_list(const char *name, const float *values, size_t n)
{
    printf("\"%s\":[", name);
    for (size_t i = 0; i < n; i++) {
        printf(i > 0 ? ",%.9g" : "%.9g", (double)values[i]);
    }
    putchar(']');
}

static void print_logits(const struct logits *run, bool json)
{
    if (json) {
        putchar('{');
        print_list("start", run->start, run->len);
        putchar(',');
        print_list("end", run->end, run->len);
        puts("}");
        return;
    }
    printf("%8s %8s %16s %16s\n", "position", "id", "start", "end");
    for (size_t i = 0; i < run->len; i++) {
        printf("%8zu %8d %16.9g %16.9g\n", i, (int)run->ids[i], (double)run->start[i],
               (double)run->end[i]);
    }
}

static int inspect_logits(const eng_model *model, const struct inspect_args *args)
{
    struct logits run = {0};
    eng_error err = {0};
    if (args->bank == NULL || args->ids == NULL) {
        return usage_error("inspect logits wants --bank and --ids");
    }
    int code = parse_ids(model, args, &run);
    if (code == EXIT_DONE) {
        eng_status status = eng_bank_open(model, args->bank, args->tied, &run.bank, &err);
        code = status == ENG_OK ? choose_route(args, &run) : inspect_report(status, &err);
    }
    if (code == EXIT_DONE) {
        eng_status status = forward(model, &run, &err);
        code = status == ENG_OK ? EXIT_DONE : inspect_report(status, &err);
    }
    if (code == EXIT_DONE) {
        print_logits(&run, args->json);
    }
    logits_fini(&run);
    return code;
}

/* ---- arguments -------------------------------------------------------------------------------- */

static bool parse(int argc, char **argv, struct inspect_args *args, bool *wants_help)
{
    static const struct option options[] = {{"model", required_argument, NULL, 'm'},
                                            {"bank", required_argument, NULL, 'b'},
                                            {"text", required_argument, NULL, 't'},
                                            {"ids", required_argument, NULL, 'i'},
                                            {"row", required_argument, NULL, 'r'},
                                            {"top", required_argument, NULL, 'n'},
                                            {"prompt-tokens", required_argument, NULL, 'p'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"tensors", no_argument, NULL, 'T'},
                                            {"tied", no_argument, NULL, 'd'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    for (int option; (option = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        switch (option) {
        case 'm':
            args->model = optarg;
            break;
        case 'b':
            args->bank = optarg;
            break;
        case 't':
            args->text = optarg;
            break;
        case 'i':
            args->ids = optarg;
            break;
        case 'n':
            args->top = optarg;
            break;
        case 'r':
            args->row = optarg;
            break;
        case 'p':
            args->prompt_tokens = optarg;
            break;
        case 'j':
            args->json = true;
            break;
        case 'T':
            args->tensors = true;
            break;
        case 'd':
            args->tied = true;
            break;
        case 'h':
            *wants_help = true;
            return true;
        default:
            return false;
        }
    }
    return true;
}

static int run_on(const char *what, const eng_model *model, const char *dir,
                  const struct inspect_args *args)
{
    if (strcmp(what, "model") == 0) {
        return inspect_model(model, dir, args);
    }
    if (strcmp(what, "tokens") == 0) {
        return inspect_tokens(model, args);
    }
    if (strcmp(what, "logits") == 0) {
        return inspect_logits(model, args);
    }
    if (strcmp(what, "mlm") == 0) {
        return inspect_mlm(model, args);
    }
    return usage_error("inspect wants model, tokens, logits or mlm, got \"%s\"", what);
}

int cmd_inspect(int argc, char **argv)
{
    struct inspect_args args = {0};
    bool wants_help = false;
    if (!parse(argc, argv, &args, &wants_help)) {
        return EXIT_USAGE;
    }
    if (wants_help) {
        fputs(help, stdout);
        return EXIT_DONE;
    }
    if (argc - optind != 1) {
        return usage_error("inspect wants one of: model, tokens, logits, mlm");
    }
    const char *dir = default_model_dir(args.model);
    if (dir == NULL) {
        return EXIT_NO_INPUT;
    }
    eng_model *model = NULL;
    eng_error err = {0};
    eng_status status = eng_model_open(dir, &model, &err);
    if (status != ENG_OK) {
        return inspect_report(status, &err);
    }
    int code = run_on(argv[optind], model, dir, &args);
    eng_model_free(model);
    return code;
}
