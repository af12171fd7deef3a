/* cmd_convert.c: mp2 convert: models and banks as safetensors. */
#include "engine/engine.h"
#include "server/commands/commands.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

static const char help[] =
    "usage: mp2 convert model FROM TO [--dtype F32|F16|BF16] [--positions N] [--context-tokens N]\n"
    "       mp2 convert bank  FROM TO [--dtype F32|F16|BF16] [--context-tokens N]\n"
    "\n"
    "model  Rewrites a model directory as safetensors under TO (made if missing): the weights "
    "from\n"
    "       model.safetensors, shards or pytorch_model.bin; config.json and the vocabulary as "
    "they\n"
    "       are; every bank (*.bank.safetensors, bank_*.safetensors, *.th) as "
    "NAME.bank.safetensors.\n"
    "bank   Rewrites one bank, also the authors' .th. Its metadata is kept and what is missing is\n"
    "       written out. Only A takes the dtype; router, z and head stay F32.\n"
    "\n"
    "  --dtype D       how values are stored; default F16\n"
    "  --positions N   only the first N: texts are cut where training ended; default all\n"
    "  --context-tokens N  of a longer context of extractive tasks the N tokens are read that "
    "share\n"
    "                  most with the question; kept in the bank; default what it says, or all\n"
    "\n"
    "Existing files are never overwritten. The result is opened once, to be sure.\n";

static int report(const char *what, eng_status status, const eng_error *err)
{
    fprintf(stderr, "mp2 convert %s: %s\n", what, err->text);
    return status == ENG_ENOTFOUND ? EXIT_NO_INPUT : EXIT_FAILED;
}

static int convert_model(const char *from, const char *to, const char *dtype, size_t positions,
                         size_t context_tokens)
{
    eng_error err = {0};
    eng_model *model = NULL;
    eng_status status = eng_convert_model(from, to, dtype, positions, context_tokens, &err);
    if (status == ENG_OK) {
        status = eng_model_open(to, &model, &err);
    }
    if (status != ENG_OK) {
        return report("model", status, &err);
    }
    const eng_model_info *info = eng_model_get_info(model);
    printf("%s: %llu parameters, %s, fingerprint %s\n", to, (unsigned long long)info->parameters,
           info->dtype, info->fingerprint);
    eng_model_free(model);
    return EXIT_DONE;
}

static void count_tensor(void *arg, const eng_tensor_info *info)
{
    uint64_t *bytes = arg;
    *bytes += info->bytes;
}

static int convert_bank(const char *from, const char *to, const char *dtype, size_t context_tokens)
{
    eng_error err = {0};
    uint64_t bytes = 0;
    eng_status status = eng_convert_bank(from, to, dtype, context_tokens, &err);
    if (status == ENG_OK) {
        status = eng_list_tensors(to, count_tensor, &bytes, &err);
    }
    if (status != ENG_OK) {
        return report("bank", status, &err);
    }
    printf("%s: %llu bytes of tensors\n", to, (unsigned long long)bytes);
    return EXIT_DONE;
}

int cmd_convert(int argc, char **argv)
{
    static const struct option options[] = {{"dtype", required_argument, NULL, 'd'},
                                            {"positions", required_argument, NULL, 'p'},
                                            {"context-tokens", required_argument, NULL, 'c'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    const char *dtype = "F16";
    size_t positions = 0, context_tokens = 0;
    for (int option; (option = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        switch (option) {
        case 'd':
            dtype = optarg;
            break;
        case 'p':
            if (!arg_size("--positions", optarg, 8, 1 << 20, &positions)) {
                return EXIT_USAGE;
            }
            break;
        case 'c':
            if (!arg_size("--context-tokens", optarg, 8, 1 << 20, &context_tokens)) {
                return EXIT_USAGE;
            }
            break;
        case 'h':
            fputs(help, stdout);
            return EXIT_DONE;
        default:
            return EXIT_USAGE;
        }
    }
    if (argc - optind != 3) {
        return usage_error("convert wants: model|bank FROM TO");
    }
    const char *what = argv[optind], *from = argv[optind + 1], *to = argv[optind + 2];
    if (strcmp(what, "model") == 0) {
        return convert_model(from, to, dtype, positions, context_tokens);
    }
    if (strcmp(what, "bank") == 0) {
        return positions == 0 ? convert_bank(from, to, dtype, context_tokens)
                              : usage_error("--positions is of models, a bank has none");
    }
    return usage_error("convert wants model or bank, got \"%s\"", what);
}
