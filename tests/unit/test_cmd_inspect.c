/* test_cmd_inspect.c: mp2 inspect and mp2 convert as a user calls them; logits against the golden ones,
 * from every form of model and bank. */
#include "server/commands/commands.h"
#include "tests/unit/bytes.h"

#include <getopt.h>
#include <jansson.h>

#define GOLDEN    TEST_SOURCE_DIR "/tests/golden/"
#define BOOT      TEST_SOURCE_DIR "/tests/models/boot"
#define TOLERANCE 2e-4

static char dir[] = "/tmp/mp2-test-XXXXXX";

static const char *in_dir(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

/* Runs a command with standard output in a file; its text in *out. The last argument is NULL. */
static int run(int (*command)(int, char **), const char *const *words, struct bytes *out)
{
    char *argv[32];
    int argc = 0;
    for (; words[argc] != NULL; argc++) {
        argv[argc] = strdup(words[argc]);
    }
    argv[argc] = NULL;
    fflush(stdout);
    int saved = dup(STDOUT_FILENO);
    FILE *file = fopen(in_dir("stdout"), "w");
    if (saved < 0 || file == NULL || dup2(fileno(file), STDOUT_FILENO) < 0) {
        abort();
    }
    optind = 0; /* glibc: begin anew */
    int code = command(argc, argv);
    fflush(stdout);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    fclose(file);
    for (int i = 0; i < argc; i++) {
        free(argv[i]);
    }
    *out = read_whole(in_dir("stdout"));
    unlink(in_dir("stdout"));
    return code;
}

static json_t *run_json(const char *const *words)
{
    struct bytes out;
    json_error_t error;
    json_t *root = NULL;
    if (run(cmd_inspect, words, &out) == EXIT_DONE && out.n > 0) {
        root = json_loadb((const char *)out.data, out.n, 0, &error);
    }
    bytes_fini(&out);
    return root;
}

/* ---- logits ----------------------------------------------------------------------------------- */

static void ids_text(const struct weights *expected, const char *name, char *text, size_t size)
{
    const struct tensor *tensor = weights_find(expected, name);
    int64_t ids[64];
    size_t used = 0;
    text[0] = '\0';
    REQUIRE(tensor != NULL && tensor->count <= 64);
    REQUIRE(tensor_read_i64(tensor, ids, NULL) == ENG_OK);
    for (size_t i = 0; i < tensor->count; i++) {
        used +=
            (size_t)snprintf(text + used, size - used, i > 0 ? ",%lld" : "%lld", (long long)ids[i]);
    }
}

static void check_list(struct weights *expected, const char *name, const json_t *list,
                       double tolerance)
{
    const struct tensor *tensor = weights_find(expected, name);
    const float *values = NULL;
    REQUIRE(tensor != NULL && json_array_size(list) == tensor->count);
    REQUIRE(weights_f32(expected, tensor, &values, NULL) == ENG_OK);
    for (size_t i = 0; i < tensor->count; i++) {
        CHECK_NEAR(json_number_value(json_array_get(list, i)), values[i], tolerance);
    }
}

static void check_logits(const char *model, const char *bank, const char *expected_file,
                         double tolerance)
{
    struct weights *expected = NULL;
    char ids[512], row[16], name[32];
    int64_t task = 0;
    REQUIRE(weights_open(expected_file, &expected, NULL) == ENG_OK);
    REQUIRE(tensor_read_i64(weights_find(expected, "task"), &task, NULL) == ENG_OK);
    snprintf(row, sizeof row, "%lld", (long long)task);
    for (int b = 0; b < 3; b++) {
        snprintf(name, sizeof name, "ids.%d", b);
        ids_text(expected, name, ids, sizeof ids);
        json_t *root = run_json(
            (const char *const[]){"inspect", "logits", "--model", model, "--bank", bank, "--row",
                                  row, "--prompt-tokens", "5", "--ids", ids, "--json", NULL});
        CHECK(root != NULL);
        snprintf(name, sizeof name, "eval.start.%d", b);
        check_list(expected, name, json_object_get(root, "start"), tolerance);
        snprintf(name, sizeof name, "eval.end.%d", b);
        check_list(expected, name, json_object_get(root, "end"), tolerance);
        json_decref(root);
    }
    weights_free(expected);
}

/* A directory of the golden configuration and one file of weights. */
static void model_from(const char *weights_file)
{
    struct bytes config = read_whole(GOLDEN "config.json"), file = read_whole(weights_file);
    CHECK(mkdir(in_dir("model"), 0700) == 0);
    CHECK(write_whole(in_dir("model/config.json"), config.data, config.n));
    CHECK(write_whole(in_dir("model/pytorch_model.bin"), file.data, file.n));
    bytes_fini(&config);
    bytes_fini(&file);
}

static void forget_model(void)
{
    unlink(in_dir("model/config.json"));
    unlink(in_dir("model/pytorch_model.bin"));
    CHECK(rmdir(in_dir("model")) == 0);
}

static void logits_equal_the_golden_ones(void)
{
    check_logits(GOLDEN, GOLDEN "bank_shallow.safetensors", GOLDEN "expected_shallow.safetensors",
                 TOLERANCE);
    check_logits(GOLDEN, GOLDEN "bank_shallow.th", GOLDEN "expected_shallow.safetensors",
                 TOLERANCE);
    check_logits(GOLDEN, GOLDEN "bank_deep.safetensors", GOLDEN "expected_deep.safetensors",
                 TOLERANCE);
    check_logits(GOLDEN, GOLDEN "bank_deep.th", GOLDEN "expected_deep.safetensors", TOLERANCE);
}

static void logits_equal_from_pytorch_files(void)
{
    static const struct {
        const char *file;
        double tolerance;
    } forms[] = {{GOLDEN "pytorch_model.bin", TOLERANCE},
                 {GOLDEN "pytorch_model_legacy.bin", TOLERANCE},
                 {GOLDEN "pytorch_model_fp16.bin", 1e-2}};
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        char model[256];
        model_from(forms[i].file);
        snprintf(model, sizeof model, "%s", in_dir("model"));
        check_logits(model, GOLDEN "bank_deep.th", GOLDEN "expected_deep.safetensors",
                     forms[i].tolerance);
        forget_model();
    }
}

static void wrong_calls_say_so(void)
{
    struct bytes out;
#define CODE(...) run(cmd_inspect, (const char *const[]){"inspect", __VA_ARGS__, NULL}, &out)
    CHECK_INT(CODE("--help"), EXIT_DONE);
    CHECK(out.n > 200);
    bytes_fini(&out);
    CHECK_INT(CODE("--nonsense"), EXIT_USAGE);
    CHECK_INT(CODE("model", "--model", "/nowhere"), EXIT_NO_INPUT);
    CHECK_INT(CODE("nothing", "--model", GOLDEN), EXIT_USAGE);
    CHECK_INT(CODE("tokens", "--model", BOOT), EXIT_USAGE);
    CHECK_INT(CODE("tokens", "--model", GOLDEN, "--text", "a"), EXIT_FAILED);
    CHECK_INT(CODE("logits", "--model", GOLDEN, "--ids", "1"), EXIT_USAGE);
#define LOGITS(...)                                                                                \
    CODE("logits", "--model", GOLDEN, "--bank", GOLDEN "bank_shallow.th", __VA_ARGS__)
    CHECK_INT(LOGITS("--ids", "1,2,x"), EXIT_USAGE);
    CHECK_INT(LOGITS("--ids", "1,2,,3"), EXIT_USAGE);
    CHECK_INT(LOGITS("--ids", "-1"), EXIT_USAGE);
    CHECK_INT(LOGITS("--ids", "99999999999"), EXIT_USAGE);
    CHECK_INT(LOGITS("--ids", "1", "--row", "3"), EXIT_USAGE);
    CHECK_INT(LOGITS("--ids", "1", "--prompt-tokens", "6"), EXIT_USAGE);
    CHECK_INT(LOGITS("--ids", "160"), EXIT_FAILED); /* behind the vocabulary */
    CHECK_INT(CODE("mlm", "--model", GOLDEN), EXIT_USAGE);
    CHECK_INT(CODE("mlm", "--model", GOLDEN, "--ids", "x"), EXIT_USAGE);
    CHECK_INT(CODE("mlm", "--model", GOLDEN, "--ids", "1", "--top", "161"), EXIT_USAGE);
    CHECK_INT(CODE("mlm", "--model", GOLDEN, "--ids", "1", "--json"), EXIT_FAILED); /* no head */
}

/* ---- models and tokens ------------------------------------------------------------------------ */

static void models_are_described(void)
{
    json_t *root = run_json(
        (const char *const[]){"inspect", "model", "--model", BOOT, "--tensors", "--json", NULL});
    REQUIRE(root != NULL);
    CHECK_INT(json_integer_value(json_object_get(root, "hidden")), 128);
    CHECK_INT(json_array_size(json_object_get(root, "tensors")), 55);
    const json_t *bank = json_array_get(json_object_get(root, "banks"), 0);
    CHECK_STR(json_string_value(json_object_get(bank, "name")), "shallow");
    CHECK_INT(json_array_size(json_object_get(bank, "rows")), 27);
    json_decref(root);
}

static void tokens_carry_code_points(void)
{
    json_t *root = run_json((const char *const[]){"inspect", "tokens", "--model", BOOT, "--text",
                                                  "好\u3000a吃", "--json", NULL});
    const json_t *tokens = json_object_get(root, "tokens"), *last = json_array_get(tokens, 2);
    CHECK_INT(json_array_size(tokens), 3);
    CHECK_STR(json_string_value(json_object_get(last, "token")), "吃");
    CHECK_INT(json_integer_value(json_object_get(last, "start")), 3);
    CHECK_INT(json_integer_value(json_object_get(last, "end")), 4);
    json_decref(root);
}

static void banks_are_converted(void)
{
    struct bytes out;
    char to[256];
    snprintf(to, sizeof to, "%s", in_dir("x.bank.safetensors"));
    const char *const words[] = {"convert", "bank", GOLDEN "bank_deep.th", to, "--dtype",
                                 "F32",     NULL};
    CHECK_INT(run(cmd_convert, words, &out), EXIT_DONE);
    bytes_fini(&out);
    check_logits(GOLDEN, to, GOLDEN "expected_deep.safetensors", TOLERANCE);
    CHECK_INT(run(cmd_convert, words, &out), EXIT_FAILED); /* exists */
    unlink(to);
    CHECK_INT(
        run(cmd_convert, (const char *const[]){"convert", "bank", "/nowhere.th", to, NULL}, &out),
        EXIT_NO_INPUT);
    CHECK_INT(run(cmd_convert, (const char *const[]){"convert", "cake", "a", "b", NULL}, &out),
              EXIT_USAGE);
}

int main(void)
{
    TESTS_BEGIN;
    if (mkdtemp(dir) == NULL) {
        return 1;
    }
    RUN(logits_equal_the_golden_ones);
    RUN(logits_equal_from_pytorch_files);
    RUN(wrong_calls_say_so);
    RUN(models_are_described);
    RUN(tokens_carry_code_points);
    RUN(banks_are_converted);
    rmdir(dir);
    TESTS_END;
}
