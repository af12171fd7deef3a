/* test_model_bad.c: model directories and banks that are wrong, and the names checkpoints go by. */
#include "engine/safetensors.h"
#include "tests/unit/bytes.h"

#include "engine/engine.h"

#include <ftw.h>
#include <limits.h>

#define GOLDEN TEST_SOURCE_DIR "/tests/golden/"
#define BOOT   TEST_SOURCE_DIR "/tests/models/boot/"

static char dir[] = "/tmp/mp2-test-XXXXXX";

static const char *in_dir(const char *name)
{
    static char paths[4][512];
    static size_t turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)kind;
    return ftw->level > 0 ? remove(path) : 0;
}

static void empty_dir(void)
{
    CHECK(nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS) == 0);
}

static void copy(const char *from, const char *name)
{
    struct bytes b = read_whole(from);
    CHECK(b.n > 0 && write_whole(in_dir(name), b.data, b.n));
    bytes_fini(&b);
}

static void golden_dir(void)
{
    empty_dir();
    copy(GOLDEN "config.json", "config.json");
    copy(GOLDEN "model.safetensors", "model.safetensors");
}

static void write_text(const char *name, const char *text)
{
    CHECK(write_whole(in_dir(name), text, strlen(text)));
}

static void refuse_model(const char *what, eng_status want, const char *words)
{
    eng_model *model = NULL;
    eng_error err = {0};
    eng_status got = eng_model_open(dir, &model, &err);
    if (got != want || model != NULL || strstr(err.text, words) == NULL) {
        TEST_FAIL_("%s: %s \"%s\", want %s with \"%s\"", what, eng_status_name(got), err.text,
                   eng_status_name(want), words);
    }
    eng_model_free(model);
}

static eng_model *open_model(void)
{
    eng_model *model = NULL;
    eng_error err = {0};
    if (eng_model_open(dir, &model, &err) != ENG_OK) {
        TEST_FAIL_("refused: %s", err.text);
    }
    return model;
}

/* Fingerprint of what lies in `dir`, "" when it does not open. */
static const char *fingerprint(void)
{
    static char texts[2][65];
    static size_t turn;
    char *text = texts[turn++ % 2];
    eng_model *model = open_model();
    snprintf(text, 65, "%s", model != NULL ? eng_model_get_info(model)->fingerprint : "");
    eng_model_free(model);
    return text;
}

/* ---- one model, many forms ---------------------------------------------------------------------- */

static void forms_share_a_fingerprint(void)
{
    static const char *const others[] = {GOLDEN "pytorch_model.bin",
                                         GOLDEN "pytorch_model_legacy.bin"};
    golden_dir();
    char want[65];
    snprintf(want, sizeof want, "%s", fingerprint());
    CHECK_INT(strlen(want), 64);
    for (size_t i = 0; i < 2; i++) {
        empty_dir();
        copy(GOLDEN "config.json", "config.json");
        copy(others[i], "pytorch_model.bin");
        CHECK_STR(fingerprint(), want);
    }
    empty_dir();
    copy(GOLDEN "config.json", "config.json");
    copy(GOLDEN "pytorch_model_fp16.bin", "pytorch_model.bin");
    CHECK(strcmp(fingerprint(), want) != 0); /* other values, another backbone */
}

/* Rewrites the golden tensors [from, to) under other names; "bert." becomes `prefix`. */
static void rewrite(const char *file, size_t from, size_t to, const char *prefix, bool old_names)
{
    static char names[64][256];
    struct safetensors_entry entries[64];
    struct weights *weights = NULL;
    eng_error err = {0};
    size_t n = 0;
    REQUIRE(weights_open(GOLDEN "model.safetensors", &weights, &err) == ENG_OK);
    for (size_t i = from; i < to && i < weights_count(weights); i++, n++) {
        const struct tensor *tensor = weights_at(weights, i);
        const char *name = tensor->name;
        bool ours = strncmp(name, "bert.", 5) == 0;
        snprintf(names[n], sizeof names[n], "%s%s", ours ? prefix : "", ours ? name + 5 : name);
        char *norm = strstr(names[n], "LayerNorm.");
        if (old_names && norm != NULL) {
            bool weight = strcmp(norm, "LayerNorm.weight") == 0;
            memcpy(norm, weight ? "LayerNorm.gamma" : "LayerNorm.beta", weight ? 16 : 15);
        }
        entries[n] =
            (struct safetensors_entry){.name = names[n], .dtype = DTYPE_F32, .dims = tensor->dims};
        memcpy(entries[n].shape, tensor->shape, sizeof tensor->shape);
        CHECK(weights_f32(weights, tensor, &entries[n].values, &err) == ENG_OK);
    }
    CHECK(safetensors_write(in_dir(file), entries, n, NULL, 0, true, &err) == ENG_OK);
    weights_free(weights);
}

static void prefixes_and_old_names_are_known(void)
{
    static const char *const prefixes[] = {"", "bert.", "model.encoder.", "encoder.",
                                           "module.bert."};
    golden_dir();
    char want[65];
    snprintf(want, sizeof want, "%s", fingerprint());
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        rewrite("model.safetensors", 0, 64, prefixes[i], i % 2 == 0);
        CHECK_STR(fingerprint(), want);
    }
}

static void cpt_configurations_are_read(void)
{
    golden_dir();
    rewrite("model.safetensors", 0, 64, "model.encoder.", false);
    write_text("config.json",
               "{\"model_type\":\"bart\",\"d_model\":32,\"encoder_layers\":3,"
               "\"encoder_attention_heads\":4,\"encoder_ffn_dim\":64,\"vocab_size\":160,"
               "\"max_position_embeddings\":1024,\"activation_function\":\"gelu\"}");
    eng_model *model = open_model();
    REQUIRE(model != NULL);
    CHECK_INT(eng_model_get_info(model)->positions, 64); /* as the checkpoint has them */
    CHECK_INT(eng_model_get_info(model)->types, 2);
    eng_model_free(model);
}

/* ---- shards ------------------------------------------------------------------------------------- */

static const char *const index_head = "{\"metadata\":{},\"weight_map\":{";

/* An index of all golden tensors; those from `split` on are in the second file. */
static void write_index(size_t split, const char *first, const char *second)
{
    struct weights *weights = NULL;
    struct bytes b = {0};
    REQUIRE(weights_open(GOLDEN "model.safetensors", &weights, NULL) == ENG_OK);
    put_text(&b, index_head);
    for (size_t i = 0; i < weights_count(weights); i++) {
        put_text(&b, i > 0 ? ",\"" : "\"");
        put_text(&b, weights_at(weights, i)->name);
        put_text(&b, "\":\"");
        put_text(&b, i < split ? first : second);
        put_text(&b, "\"");
    }
    put_text(&b, "}}");
    CHECK(write_whole(in_dir("model.safetensors.index.json"), b.data, b.n));
    bytes_fini(&b);
    weights_free(weights);
}

static void shards_are_put_together(void)
{
    golden_dir();
    char want[65];
    snprintf(want, sizeof want, "%s", fingerprint());
    CHECK(unlink(in_dir("model.safetensors")) == 0);
    rewrite("one.safetensors", 0, 20, "bert.", false);
    rewrite("two.safetensors", 20, 64, "bert.", false);
    write_index(20, "one.safetensors", "two.safetensors");
    CHECK_STR(fingerprint(), want);
    write_index(21, "one.safetensors", "two.safetensors");
    refuse_model("wrong shard", ENG_EFORMAT, "is not in one.safetensors");
    write_index(20, "one.safetensors", "three.safetensors");
    refuse_model("missing shard", ENG_ENOTFOUND, "three.safetensors");
    copy(GOLDEN "model.safetensors", "three.safetensors");
    refuse_model("twice", ENG_EFORMAT, "there twice");
}

static void indexes_cannot_leave_the_directory(void)
{
    static const char *const names[] = {"../model.safetensors",
                                        "/etc/x.safetensors",
                                        "..",
                                        ".hidden.safetensors",
                                        "a/b.safetensors",
                                        "passwd",
                                        "",
                                        "a\\nb.safetensors"};
    golden_dir();
    CHECK(unlink(in_dir("model.safetensors")) == 0);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        write_index(0, "x.safetensors", names[i]);
        refuse_model(names[i], ENG_EFORMAT, "in the same directory");
    }
    write_text("model.safetensors.index.json", "{\"weight_map\":{\"a\":1}}");
    refuse_model("number", ENG_EFORMAT, "not a string");
    write_text("model.safetensors.index.json", "{\"weight_map\":{}}");
    refuse_model("empty", ENG_EFORMAT, "missing or empty");
    write_text("model.safetensors.index.json", "[]");
    refuse_model("list", ENG_EFORMAT, "missing or empty");
    write_text("model.safetensors.index.json", "{");
    refuse_model("cut", ENG_EFORMAT, "JSON");
}

/* ---- configurations ------------------------------------------------------------------------------- */

static void refuse_config(const char *text, eng_status want, const char *words)
{
    write_text("config.json", text);
    refuse_model(text, want, words);
}

static void configurations_are_checked(void)
{
    golden_dir();
    refuse_config("", ENG_EFORMAT, "JSON");
    refuse_config("[]", ENG_EFORMAT, "not a JSON object");
    refuse_config("{\"hidden_size\":32,\"hidden_size\":32}", ENG_EFORMAT, "duplicate");
    refuse_config("{}", ENG_EFORMAT, "\"hidden_size\" is missing");
    refuse_config("{\"hidden_size\":0}", ENG_EFORMAT, "integer of 1 or more");
    refuse_config("{\"hidden_size\":-32}", ENG_EFORMAT, "integer of 1 or more");
    refuse_config("{\"hidden_size\":32.5}", ENG_EFORMAT, "integer of 1 or more");
    refuse_config("{\"hidden_size\":\"32\"}", ENG_EFORMAT, "integer of 1 or more");
    refuse_config("{\"hidden_size\":16385}", ENG_ELIMIT, "16385, at most 16384");
    refuse_config("{\"hidden_size\":32,\"num_hidden_layers\":65}", ENG_ELIMIT, "at most 64");
    refuse_config("{\"model_type\":\"roberta\"}", ENG_EUNSUPPORTED, "roberta");
    refuse_config("{\"model_type\":7}", ENG_EUNSUPPORTED, "not a string");
    refuse_config("{\"hidden_act\":\"relu\"}", ENG_EUNSUPPORTED, "relu");
    refuse_config("{\"position_embedding_type\":\"relative_key\"}", ENG_EUNSUPPORTED,
                  "relative_key");
#define SIZES                                                                                      \
    "\"hidden_size\":32,\"num_hidden_layers\":3,\"intermediate_size\":64,\"vocab_size\":160,"      \
    "\"max_position_embeddings\":64,\"num_attention_heads\":"
    refuse_config("{" SIZES "5}", ENG_EFORMAT, "do not divide");
    refuse_config("{" SIZES "4,\"layer_norm_eps\":-1}", ENG_EFORMAT, "layer_norm_eps");
    refuse_config("{" SIZES "4,\"layer_norm_eps\":\"a\"}", ENG_EFORMAT, "layer_norm_eps");
    refuse_config("{" SIZES "4,\"type_vocab_size\":3}", ENG_EFORMAT, "has shape (2, 32)");
    struct bytes deep = {0};
    put_repeated(&deep, '[', 10000);
    put(&deep, "", 1);
    refuse_config((const char *)deep.data, ENG_ELIMIT, "deeper than 16");
    bytes_fini(&deep);
    write_text("config.json", "{" SIZES "4}");
    eng_model_free(open_model()); /* the sizes are all it needs */
}

static void sizes_must_match_the_weights(void)
{
    golden_dir();
    refuse_config("{\"hidden_size\":64,\"num_hidden_layers\":3,\"intermediate_size\":64,"
                  "\"vocab_size\":160,\"max_position_embeddings\":64,\"num_attention_heads\":4}",
                  ENG_EFORMAT, "config.json says (160, 64)");
    refuse_config("{\"hidden_size\":32,\"num_hidden_layers\":4,\"intermediate_size\":64,"
                  "\"vocab_size\":160,\"max_position_embeddings\":64,\"num_attention_heads\":4}",
                  ENG_EFORMAT, "\"bert.encoder.layer.3.attention.self.query.weight\" is missing");
}

/* ---- places ----------------------------------------------------------------------------------------- */

static void missing_and_strange_files_are_errors(void)
{
    eng_model *model = NULL;
    eng_error err = {0};
    CHECK(eng_model_open("/nowhere/at/all", &model, &err) == ENG_ENOTFOUND);
    CHECK(eng_model_open("/dev/null", &model, &err) == ENG_EFORMAT);
    CHECK(strstr(err.text, "not a directory") != NULL);
    golden_dir();
    CHECK(unlink(in_dir("model.safetensors")) == 0);
    refuse_model("no weights", ENG_ENOTFOUND, "holds no weights");
    CHECK(mkdir(in_dir("model.safetensors"), 0700) == 0);
    refuse_model("directory", ENG_EFORMAT, "is a directory");
    CHECK(rmdir(in_dir("model.safetensors")) == 0);
    CHECK(mkfifo(in_dir("model.safetensors"), 0600) == 0);
    refuse_model("pipe", ENG_EFORMAT, "pipe");
    CHECK(unlink(in_dir("model.safetensors")) == 0);
    CHECK(symlink("model.safetensors", in_dir("model.safetensors")) == 0);
    refuse_model("loop", ENG_EIO, "model.safetensors");
    CHECK(unlink(in_dir("model.safetensors")) == 0);
    CHECK(symlink("gone", in_dir("model.safetensors")) == 0);
    refuse_model("dangling", ENG_ENOTFOUND, "model.safetensors");
    CHECK(unlink(in_dir("model.safetensors")) == 0);
    write_text("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n");
    refuse_model("lfs", ENG_EFORMAT, "git lfs pull");
    write_text("model.safetensors", "<html>not found</html>");
    refuse_model("html", ENG_EFORMAT, "neither safetensors nor");
    CHECK(unlink(in_dir("config.json")) == 0);
    refuse_model("no config", ENG_ENOTFOUND, "config.json");
}

static void vocabularies_are_optional_but_not_broken(void)
{
    golden_dir();
    eng_model *model = open_model();
    REQUIRE(model != NULL);
    CHECK(!eng_model_get_info(model)->has_vocab);
    eng_model_free(model);
    CHECK(symlink("vocab.txt", in_dir("vocab.txt")) == 0);
    refuse_model("loop", ENG_EIO, "vocab.txt");
    CHECK(unlink(in_dir("vocab.txt")) == 0);
    copy(BOOT "vocab.txt", "vocab.txt");
    refuse_model("larger than the embedding", ENG_EMISMATCH, "160");
}

static void not_finite_is_refused(void)
{
    golden_dir();
    struct bytes b = read_whole(in_dir("model.safetensors"));
    memset(b.data + b.n - 4 - 8 - 256, 0xFF, 4); /* behind it: qa_outputs and one LayerNorm bias */
    memset(b.data + b.n - 8 - 256 - 128, 0xFF, 128);
    CHECK(write_whole(in_dir("model.safetensors"), b.data, b.n));
    refuse_model("NaN", ENG_EFORMAT, "must be finite");
    bytes_fini(&b);
}

/* ---- banks -------------------------------------------------------------------------------------------- */

static void refuse_bank(const eng_model *model, const char *path, eng_status want,
                        const char *words)
{
    eng_bank *bank = NULL;
    eng_error err = {0};
    eng_status got = eng_bank_open(model, path, false, &bank, &err);
    if (got != want || bank != NULL || strstr(err.text, words) == NULL) {
        TEST_FAIL_("%s: %s \"%s\", want %s with \"%s\"", path, eng_status_name(got), err.text,
                   eng_status_name(want), words);
    }
    eng_bank_free(bank);
}

static void banks_belong_to_their_model(void)
{
    eng_model *boot = NULL;
    eng_error err = {0};
    REQUIRE(eng_model_open(BOOT, &boot, &err) == ENG_OK);
    refuse_bank(boot, GOLDEN "bank_shallow.th", ENG_EMISMATCH, "hidden size 32, this one has 128");
    refuse_bank(boot, GOLDEN "model.safetensors", ENG_EFORMAT, "not a prompt bank");
    refuse_bank(boot, GOLDEN "config.json", ENG_EFORMAT, "neither");
    refuse_bank(boot, GOLDEN, ENG_EFORMAT, "directory");
    refuse_bank(boot, "/nowhere.th", ENG_ENOTFOUND, "/nowhere.th");
    eng_model_free(boot);
}

/* Values of a bank of one layer for the golden model: K 2, d 1, P 2, N 2. */
struct small_bank {
    size_t A[3], z[3], router[3], head[2];
    const char *key, *value;
    float first;
};

static const struct small_bank sound = {
    .A = {1, 1, 64}, .z = {1, 2, 1}, .router = {2, 1, 2}, .head = {2, 32}};

static void write_bank(const struct small_bank *bank)
{
    static float values[8192];
    values[0] = bank->first;
    const struct safetensors_entry entries[] = {
        {"A", DTYPE_F32, 3, {bank->A[0], bank->A[1], bank->A[2]}, values},
        {"z", DTYPE_F32, 3, {bank->z[0], bank->z[1], bank->z[2]}, values},
        {"router", DTYPE_F32, 3, {bank->router[0], bank->router[1], bank->router[2]}, values},
        {"lmhead", DTYPE_F32, 2, {bank->head[0], bank->head[1]}, values},
    };
    const struct safetensors_meta meta[] = {{bank->key, bank->value}};
    eng_error err = {0};
    CHECK(safetensors_write(in_dir("x.safetensors"), entries, 4, meta, bank->key != NULL, true,
                            &err) == ENG_OK);
}

static void refuse_small(const eng_model *model, struct small_bank bank, eng_status want,
                         const char *words)
{
    write_bank(&bank);
    refuse_bank(model, in_dir("x.safetensors"), want, words);
}

static void refuse_setting(const eng_model *model, const char *key, const char *value,
                           eng_status want, const char *words)
{
    struct small_bank bank = sound;
    bank.key = key;
    bank.value = value;
    refuse_small(model, bank, want, words);
}

static void bank_shapes_are_checked(void)
{
    golden_dir();
    eng_model *model = open_model();
    REQUIRE(model != NULL);
    struct small_bank bank = sound;
    bank.z[2] = 2;
    refuse_small(model, bank, ENG_EFORMAT, "do not fit together");
    bank = sound;
    bank.router[2] = 3;
    refuse_small(model, bank, ENG_EFORMAT, "do not fit together");
    bank = sound;
    bank.A[2] = 65;
    refuse_small(model, bank, ENG_EFORMAT, "do not fit together");
    bank = sound;
    bank.head[0] = 3;
    refuse_small(model, bank, ENG_EFORMAT, "lmhead");
    bank = sound;
    bank.head[1] = 0;
    refuse_small(model, bank, ENG_EFORMAT, "lmhead");
    bank = sound;
    bank.z[1] = bank.router[2] = 0;
    refuse_small(model, bank, ENG_ELIMIT, "0 modules");
    bank = sound;
    bank.router[0] = 0;
    refuse_small(model, bank, ENG_ELIMIT, "router rows");
    bank = sound;
    bank.A[0] = bank.z[0] = bank.router[1] = 2;
    refuse_small(model, bank, ENG_EMISMATCH, "prompts 2 layers, the backbone has 3");
    bank = sound;
    bank.A[2] = (size_t)63 * 32;
    refuse_small(model, bank, ENG_EMISMATCH, "63 prompt tokens");
    bank = sound;
    bank.first = INFINITY;
    refuse_small(model, bank, ENG_EFORMAT, "must be finite");
    eng_model_free(model);
}

static void bank_settings_are_checked(void)
{
    golden_dir();
    eng_model *model = open_model();
    REQUIRE(model != NULL);
    refuse_setting(model, "prompt_tokens", "3", ENG_EFORMAT, "A has columns for 2");
    refuse_setting(model, "prompt_token_offset", "159", ENG_EMISMATCH, "ids 159 to 160");
    refuse_setting(model, "prompt_token_offset", "-1", ENG_EFORMAT, "whole number");
    refuse_setting(model, "prompt_token_offset", "1x", ENG_EFORMAT, "whole number");
    refuse_setting(model, "prompt_token_offset", "", ENG_EFORMAT, "whole number");
    refuse_setting(model, "prompt_token_offset", "99999999999999999999", ENG_EFORMAT, "whole");
    refuse_setting(model, "token_type", "2", ENG_EMISMATCH, "types 0 to 1");
    refuse_setting(model, "adapt_lr", "0", ENG_EFORMAT, "above 0");
    refuse_setting(model, "adapt_lr", "nan", ENG_EFORMAT, "above 0");
    refuse_setting(model, "adapt_lr", "1e999", ENG_EFORMAT, "above 0");
    refuse_setting(model, "adapt_steps", "x", ENG_EFORMAT, "whole number");
    refuse_setting(model, "option_separator", "", ENG_ELIMIT, "0 bytes");
    refuse_setting(model, "option_separator", "0123456789abcdef", ENG_ELIMIT, "16 bytes");
    refuse_setting(model, "tasks", "[\"a\"]", ENG_EFORMAT, "a list of 2 names");
    refuse_setting(model, "tasks", "[\"a\",1]", ENG_EFORMAT, "not a name at row 1");
    refuse_setting(model, "tasks", "{", ENG_EFORMAT, "JSON");
    eng_model_free(model);
}

static void bank_defaults_are_the_papers(void)
{
    golden_dir();
    eng_model *model = open_model();
    eng_bank *bank = NULL;
    eng_error err = {0};
    REQUIRE(model != NULL);
    write_bank(&sound);
    REQUIRE(eng_bank_open(model, in_dir("x.safetensors"), false, &bank, &err) == ENG_OK);
    const eng_bank_info *info = eng_bank_get_info(bank);
    CHECK_STR(info->name, "x");
    CHECK_INT(info->token_type, 1);
    CHECK_INT(info->prompt_token_offset, 1); /* 1000 does not fit 160 words */
    CHECK_INT(info->prompt_tokens, 2);
    CHECK_INT(info->route_len, 2);
    CHECK_NEAR(info->adapt_lr, 0.1, 0);
    CHECK_INT(info->adapt_steps, 100);
    CHECK_STR(eng_bank_row_name(bank, 1), "row 1");
    eng_bank_free(bank);
    REQUIRE(eng_bank_open(model, GOLDEN "bank_deep.th", false, &bank, &err) == ENG_OK);
    CHECK_INT(eng_bank_get_info(bank)->route_len, 24);
    float row[24], tied[8];
    eng_bank_row(bank, 1, row);
    eng_bank_free(bank);
    REQUIRE(eng_bank_open(model, GOLDEN "bank_deep.th", true, &bank, &err) == ENG_OK);
    CHECK_INT(eng_bank_get_info(bank)->route_len, 8);
    eng_bank_row(bank, 1, tied);
    CHECK_NEAR(tied[3], (row[3] + row[11] + row[19]) / 3, 1e-6);
    eng_bank_free(bank);
    CHECK(eng_bank_open_default(model, false, &bank, &err) == ENG_ENOTFOUND && bank == NULL);
    eng_model_free(model);
}

/* ---- conversion --------------------------------------------------------------------------------------- */

static void conversions_keep_what_matters(void)
{
    eng_error err = {0};
    eng_model *model = NULL, *again = NULL;
    eng_bank *bank = NULL;
    empty_dir();
    REQUIRE(eng_model_open(GOLDEN, &model, &err) == ENG_OK);
    REQUIRE(eng_convert_model(GOLDEN, in_dir("out"), "F32", 0, 0, &err) == ENG_OK);
    REQUIRE(eng_model_open(in_dir("out"), &again, &err) == ENG_OK);
    CHECK_STR(eng_model_get_info(again)->fingerprint, eng_model_get_info(model)->fingerprint);
    eng_model_free(again);
    eng_model_free(model);
    CHECK(eng_convert_model(GOLDEN, in_dir("out"), "F32", 0, 0, &err) == ENG_EINVAL);
    CHECK(eng_convert_model(GOLDEN, in_dir("out2"), "F8", 0, 0, &err) == ENG_EINVAL);
    REQUIRE(eng_convert_model(BOOT, in_dir("boot"), "BF16", 0, 0, &err) == ENG_OK);
    REQUIRE(eng_model_open(in_dir("boot"), &model, &err) == ENG_OK);
    CHECK_STR(eng_model_get_info(model)->dtype, "BF16");
    CHECK(eng_model_get_info(model)->has_vocab);
    REQUIRE(eng_bank_open_default(model, false, &bank, &err) == ENG_OK);
    CHECK_STR(eng_bank_get_info(bank)->name, "shallow");
    CHECK_STR(eng_bank_row_name(bank, 26), "thu5_2");
    eng_bank_free(bank);
    eng_model_free(model);
}

static void positions_are_cut(void)
{
    eng_model *model = NULL, *cut = NULL;
    eng_error err = {0};
    empty_dir();
    REQUIRE(eng_model_open(BOOT, &model, &err) == ENG_OK);
    size_t all = eng_model_get_info(model)->positions, hidden = eng_model_get_info(model)->hidden;
    CHECK(eng_convert_model(BOOT, in_dir("more"), "F32", all + 1, 0, &err) == ENG_EINVAL);
    CHECK_STR(err.field, "positions");
    REQUIRE(eng_convert_model(BOOT, in_dir("cut"), "F32", 48, 0, &err) == ENG_OK);
    REQUIRE(eng_model_open(in_dir("cut"), &cut, &err) == ENG_OK);
    CHECK_INT(eng_model_get_info(cut)->positions, 48);
    CHECK_INT(eng_model_get_info(model)->parameters - eng_model_get_info(cut)->parameters,
              (all - 48) * hidden);
    eng_model_free(cut);
    eng_model_free(model);
}

static void converted_banks_are_complete(void)
{
    eng_error err = {0};
    struct weights *weights = NULL;
    empty_dir();
    REQUIRE(eng_convert_bank(GOLDEN "bank_shallow.th", in_dir("s.bank.safetensors"), "F16", 0,
                             &err) == ENG_OK);
    REQUIRE(weights_open(in_dir("s.bank.safetensors"), &weights, &err) == ENG_OK);
    CHECK_INT(weights_count(weights), 4);
    CHECK_INT(weights_find(weights, "A")->dims, 3);
    CHECK(weights_find(weights, "A")->dtype == DTYPE_F16);
    CHECK(weights_find(weights, "router")->dtype == DTYPE_F32);
    CHECK_INT(weights_find(weights, "router")->shape[1], 1);
    CHECK_STR(weights_metadata(weights, "prompt_tokens"), "5");
    CHECK_STR(weights_metadata(weights, "token_type"), "1");
    CHECK_STR(weights_metadata(weights, "adapt_lr"), "0.1");
    CHECK(weights_metadata(weights, "context_tokens") == NULL);
    weights_free(weights);
    /* told what it reads well, and told anew */
    for (size_t i = 0; i < 2; i++) {
        const char *to = i == 0 ? "told.bank.safetensors" : "anew.bank.safetensors";
        char from[PATH_MAX];
        snprintf(from, sizeof from, "%s",
                 in_dir(i == 0 ? "s.bank.safetensors" : "told.bank.safetensors"));
        REQUIRE(eng_convert_bank(from, in_dir(to), "F16", i == 0 ? 120 : 90, &err) == ENG_OK);
        REQUIRE(weights_open(in_dir(to), &weights, &err) == ENG_OK);
        CHECK_STR(weights_metadata(weights, "context_tokens"), i == 0 ? "120" : "90");
        CHECK_STR(weights_metadata(weights, "adapt_lr"), "0.1");
        weights_free(weights);
    }
    CHECK(eng_convert_bank(GOLDEN "model.safetensors", in_dir("t"), "F16", 0, &err) == ENG_EFORMAT);
    CHECK(access(in_dir("t"), F_OK) != 0);
}

static void clean_up(void)
{
    empty_dir();
    CHECK(rmdir(dir) == 0);
}

int main(void)
{
    TESTS_BEGIN;
    if (mkdtemp(dir) == NULL) {
        return 1;
    }
    RUN(forms_share_a_fingerprint);
    RUN(prefixes_and_old_names_are_known);
    RUN(cpt_configurations_are_read);
    RUN(shards_are_put_together);
    RUN(indexes_cannot_leave_the_directory);
    RUN(configurations_are_checked);
    RUN(sizes_must_match_the_weights);
    RUN(missing_and_strange_files_are_errors);
    RUN(vocabularies_are_optional_but_not_broken);
    RUN(not_finite_is_refused);
    RUN(banks_belong_to_their_model);
    RUN(bank_shapes_are_checked);
    RUN(bank_settings_are_checked);
    RUN(bank_defaults_are_the_papers);
    RUN(conversions_keep_what_matters);
    RUN(positions_are_cut);
    RUN(converted_banks_are_complete);
    RUN(clean_up);
    TESTS_END;
}
