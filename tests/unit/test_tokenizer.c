/* test_tokenizer.c: the tokenizer against what Hugging Face's `tokenizers` made of the same texts
 * (tests/fixtures/record_tokenizer.py), and its errors. */
#include "engine/tokenizer.h"
#include "engine/utf8.h"
#include "tests/unit/test.h"

#define FIXTURES TEST_SOURCE_DIR "/tests/fixtures/"
#define BOOT     TEST_SOURCE_DIR "/tests/models/boot"
#define CORPUS   TEST_SHARED_DIR "/data/corpus/"

static struct tokenizer *boot; /* of tests/models/boot */
static struct token_list list;
static eng_error err;

static eng_text text_of(const char *string)
{
    return (eng_text){string, strlen(string)};
}

static eng_status make(const char *vocab, struct tokenizer **out)
{
    struct tokenizer_options options = tokenizer_defaults();
    return tokenizer_from_vocab(text_of(vocab), &options, out, &err);
}

static void print_tokens(const struct tokenizer *tokenizer)
{
    for (size_t i = 0; i < list.n; i++) {
        fprintf(stderr, " %d:%u:%u(%s)", list.tokens[i].id, list.tokens[i].start,
                list.tokens[i].end, tokenizer_string(tokenizer, list.tokens[i].id));
    }
    fputc('\n', stderr);
}

/* ---- against the reference ------------------------------------------------------------------------ */

static size_t from_hex(const char *hex, char *out, size_t size)
{
    size_t n = 0;
    unsigned byte;
    for (; n < size && hex[2 * n] != '\t' && sscanf(hex + 2 * n, "%2x", &byte) == 1; n++) {
        out[n] = (char)byte;
    }
    return n;
}

static bool same_tokens(char *wanted)
{
    size_t n = 0;
    char *save = NULL;
    for (char *at = strtok_r(wanted, " \n", &save); at != NULL; at = strtok_r(NULL, " \n", &save)) {
        eng_token token;
        if (n >= list.n || sscanf(at, "%d:%u:%u", &token.id, &token.start, &token.end) != 3 ||
            memcmp(&token, &list.tokens[n], sizeof token) != 0) {
            return false;
        }
        n++;
    }
    return n == list.n;
}

/* That vocabulary with other options than its own. */
static struct tokenizer *open_mode(bool lower_case, bool strip_accents)
{
    static char vocab[1 << 17];
    struct tokenizer_options options = {lower_case, strip_accents, true};
    struct tokenizer *tokenizer = NULL;
    FILE *file = fopen(BOOT "/vocab.txt", "rb");
    size_t n = file != NULL ? fread(vocab, 1, sizeof vocab, file) : 0;
    if (file != NULL) {
        fclose(file);
    }
    return tokenizer_from_vocab((eng_text){vocab, n}, &options, &tokenizer, &err) == ENG_OK
               ? tokenizer
               : NULL;
}

/* "name, hex, tokens" of one line. */
static void check_nasty(const struct tokenizer *tokenizer, const char *mode, char *line)
{
    static char bytes[1 << 16];
    char *save = NULL;
    char *name = strtok_r(line, "\t", &save);
    char *hex = name + strlen(name) + 1;
    char *wanted = strchr(hex, '\t');
    REQUIRE(wanted != NULL);
    size_t n = from_hex(hex, bytes, sizeof bytes);
    list.n = 0;
    CHECK(tokenizer_run(tokenizer, (eng_text){bytes, n}, &list, NULL, &err) == ENG_OK);
    if (!same_tokens(wanted + 1)) {
        TEST_FAIL_("%s, %s: other tokens than the reference:", mode, name);
        print_tokens(tokenizer);
    }
}

static void check_mode(struct tokenizer *tokenizer, const char *mode, size_t at_least)
{
    FILE *file = fopen(FIXTURES "tokenizer_nasty.tsv", "r");
    REQUIRE(file != NULL && tokenizer != NULL);
    char *line = NULL;
    size_t size = 0, lines = 0, len = strlen(mode);
    while (getline(&line, &size, file) > 0) {
        if (strncmp(line, mode, len) == 0 && line[len] == '\t') {
            check_nasty(tokenizer, mode, line + len + 1);
            lines++;
        }
    }
    CHECK(lines >= at_least);
    free(line);
    fclose(file);
}

static void nasty_strings(void)
{
    check_mode(boot, "lower", 360);
}

static void nasty_strings_cased(void)
{
    struct tokenizer *tokenizer = open_mode(false, false);
    check_mode(tokenizer, "cased", 90);
    tokenizer_free(tokenizer);
}

static void nasty_strings_with_accents(void)
{
    struct tokenizer *tokenizer = open_mode(true, false);
    check_mode(tokenizer, "accents", 90);
    tokenizer_free(tokenizer);
}

static unsigned hash_tokens(void)
{
    uint64_t hash = 0xCBF29CE484222325u;
    const unsigned char *bytes = (const unsigned char *)list.tokens;
    for (size_t i = 0; i < list.n * sizeof *list.tokens; i++) {
        hash = (hash ^ bytes[i]) * 0x100000001B3u;
    }
    return (unsigned)(hash >> 32);
}

/* A corpus file being read beside the fixture. */
struct source {
    FILE *file;
    char name[64];
    char *line;
    size_t size;
    long at;
};

static bool open_source(struct source *source, const char *name, long bytes)
{
    char path[1024];
    if (source->file != NULL) {
        fclose(source->file);
    }
    snprintf(path, sizeof path, CORPUS "%s", name);
    snprintf(source->name, sizeof source->name, "%s", name);
    source->file = fopen(path, "rb");
    source->at = 0;
    bool same = source->file != NULL && fseek(source->file, 0, SEEK_END) == 0 &&
                ftell(source->file) == bytes;
    if (same) {
        rewind(source->file);
    }
    return same;
}

static void check_line(struct source *source, long wanted, unsigned hash)
{
    ssize_t len = 0;
    while (source->at < wanted && len >= 0) {
        len = getline(&source->line, &source->size, source->file);
        source->at++;
    }
    size_t n = len > 0 ? (size_t)len : 0;
    n -= n > 0 && source->line[n - 1] == '\n';
    list.n = 0;
    CHECK(tokenizer_run(boot, (eng_text){source->line, n}, &list, NULL, &err) == ENG_OK);
    if (hash_tokens() != hash) {
        TEST_FAIL_("%s:%ld: other tokens than the reference", source->name, wanted);
    }
}

static void corpus_lines(void)
{
    FILE *file = fopen(FIXTURES "tokenizer_corpus.tsv", "r");
    REQUIRE(file != NULL);
    struct source source = {0};
    char line[256];
    size_t lines = 0;
    bool present = true;
    while (present && fgets(line, sizeof line, file) != NULL) {
        char name[64];
        long number;
        unsigned hash;
        if (line[0] == '#') {
            continue;
        }
        if (sscanf(line, "%ld\t%x", &number, &hash) == 2) {
            check_line(&source, number, hash);
            lines++;
        } else if (sscanf(line, "%63[^\t]\t%ld", name, &number) == 2) {
            present = open_source(&source, name, number);
        }
    }
    if (source.file != NULL) {
        fclose(source.file);
    }
    free(source.line);
    fclose(file);
    if (!present) {
        SKIP("no ../shared, or its corpus is not the one recorded");
    }
    CHECK(lines >= 5000);
}

/* What becomes of one code point between two letters. */
static const char *class_of(const struct tokenizer *tokenizer, uint32_t c)
{
    unsigned char text[6] = {'a'};
    size_t n = 1 + utf8_encode(c, text + 1);
    text[n] = 'a';
    list.n = 0;
    if (tokenizer_run(tokenizer, (eng_text){(char *)text, n + 1}, &list, NULL, &err) != ENG_OK) {
        return "error";
    }
    static const char *const names[] = {"", "word", "", "alone"};
    if (list.n == 2) {
        bool joined = strcmp(tokenizer_string(tokenizer, list.tokens[1].id), "##a") == 0;
        return joined ? "dropped" : "space";
    }
    bool unknown = list.n == 1 || (list.n == 3 && list.tokens[1].id == 0 && list.tokens[2].id == 3);
    return unknown ? names[list.n] : "letter";
}

static void every_code_point(void)
{
    struct tokenizer *tokenizer;
    REQUIRE(make("[UNK]\n[CLS]\n[SEP]\na\n##a\n", &tokenizer) == ENG_OK);
    FILE *file = fopen(FIXTURES "tokenizer_classes.tsv", "r");
    REQUIRE(file != NULL);
    char line[256], name[16];
    size_t checked = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        unsigned first, last;
        if (sscanf(line, "%x\t%x\t%15s", &first, &last, name) != 3) {
            continue;
        }
        for (uint32_t c = first; c <= last; c++, checked++) {
            const char *got = class_of(tokenizer, c);
            if (strcmp(got, name) != 0) {
                TEST_FAIL_("U+%04X is %s, the reference says %s", c, got, name);
            }
        }
    }
    CHECK_INT(checked, 0x110000 - 0x800);
    fclose(file);
    tokenizer_free(tokenizer);
}

/* ---- by hand ----------------------------------------------------------------------------------------- */

static void offsets_lead_back(void)
{
    struct tokenizer *tokenizer;
    REQUIRE(make("[UNK]\n[CLS]\n[SEP]\n好\ncafe\n##s\n", &tokenizer) == ENG_OK);
    size_t n = 0;
    list.n = 0;
    REQUIRE(tokenizer_run(tokenizer, text_of("好\u200b  Cafe\u0301s😀"), &list, &n, &err) == ENG_OK);
    CHECK_INT(n, 11);
    REQUIRE(list.n == 2);
    CHECK_INT(list.tokens[0].end, 1);
    CHECK_INT(list.tokens[1].id, tokenizer_unk(tokenizer)); /* the emoji joins the word */
    CHECK_INT(list.tokens[1].start, 4);
    CHECK_INT(list.tokens[1].end, 11);
    REQUIRE(tokenizer_run(tokenizer, text_of("CAFÉS"), &list, NULL, &err) == ENG_OK);
    REQUIRE(list.n == 4); /* appended */
    CHECK_INT(list.tokens[2].end, 4);
    CHECK_INT(list.tokens[3].id, tokenizer_id(tokenizer, "##s"));
    CHECK_INT(list.tokens[3].start, 4);
    tokenizer_free(tokenizer);
}

/* Combining characters that are not stripped: U+1D165 (class 216) goes before U+1D16D (226). */
static void canonical_order(void)
{
    struct tokenizer *tokenizer;
    REQUIRE(make("[UNK]\n[CLS]\n[SEP]\na\n##\U0001D165\n##\U0001D16D\n", &tokenizer) == ENG_OK);
    list.n = 0;
    REQUIRE(tokenizer_run(tokenizer, text_of("a\U0001D16D\u0301\U0001D165"), &list, NULL, &err) ==
            ENG_OK);
    REQUIRE(list.n == 3);
    CHECK_INT(list.tokens[1].id, 4);
    CHECK_INT(list.tokens[1].start, 3);
    CHECK_INT(list.tokens[2].id, 5);
    CHECK_INT(list.tokens[2].start, 1);
    tokenizer_free(tokenizer);
}

static void special_tokens_are_text(void)
{
    struct tokenizer *tokenizer;
    REQUIRE(make("[UNK]\n[CLS]\n[SEP]\n[MASK]\n[\n]\nsep\nmask\n", &tokenizer) == ENG_OK);
    list.n = 0;
    REQUIRE(tokenizer_run(tokenizer, text_of("[SEP][MASK] [CLS]"), &list, NULL, &err) == ENG_OK);
    CHECK_INT(list.n, 9);
    for (size_t i = 0; i < list.n; i++) {
        const char *token = tokenizer_string(tokenizer, list.tokens[i].id);
        CHECK(strlen(token) < 5 || strcmp(token, "[UNK]") == 0);
    }
    tokenizer_free(tokenizer);
}

static void cased_vocabulary(void)
{
    struct tokenizer *tokenizer;
    struct tokenizer_options options = {false, false, true};
    REQUIRE(tokenizer_from_vocab(text_of("[UNK]\n[CLS]\n[SEP]\nÉa\nea\n"), &options, &tokenizer,
                                 &err) == ENG_OK);
    list.n = 0;
    REQUIRE(tokenizer_run(tokenizer, text_of("Éa éa"), &list, NULL, &err) == ENG_OK);
    REQUIRE(list.n == 2);
    CHECK_INT(list.tokens[0].id, 3);
    CHECK_INT(list.tokens[1].id, 0);
    tokenizer_free(tokenizer);
    options.lower_case = true; /* lower case without stripping: İ becomes two characters */
    REQUIRE(tokenizer_from_vocab(text_of("[UNK]\n[CLS]\n[SEP]\ni\n##\u0307\n"), &options,
                                 &tokenizer, &err) == ENG_OK);
    list.n = 0;
    REQUIRE(tokenizer_run(tokenizer, text_of("İ"), &list, NULL, &err) == ENG_OK);
    CHECK(list.n == 2 && list.tokens[0].id == 3 && list.tokens[1].id == 4);
    tokenizer_free(tokenizer);
}

static void broken_text(void)
{
    static const char *const broken[] = {
        "好\xFF",             /* no such byte */
        "好\xE4\xBD",         /* cut in the middle */
        "好\xC0\x80",         /* overlong NUL */
        "好\xE0\x80\x80",     /* overlong */
        "好\xED\xA0\x80",     /* a surrogate */
        "好\xF4\x90\x80\x80", /* beyond U+10FFFF */
        "好\x80",             /* a tail without a lead */
    };
    struct tokenizer *tokenizer;
    REQUIRE(make("[UNK]\n[CLS]\n[SEP]\n好\n", &tokenizer) == ENG_OK);
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        list.n = 0;
        CHECK(tokenizer_run(tokenizer, text_of(broken[i]), &list, NULL, &err) == ENG_EFORMAT);
        CHECK(strstr(err.text, "byte 3") != NULL);
        CHECK_INT(list.n, 0);
    }
    tokenizer_free(tokenizer);
}

static void hostile_texts_stay_fast(void)
{
    /* 100,000 characters each: quadratic work would run into the test's deadline. */
    static const char *const units[] = {"\u302f\u302e", "é", "각", "q", "\u0301", "[", "İ"};
    static char text[400008];
    struct tokenizer *tokenizer;
    REQUIRE(make("[UNK]\n[CLS]\n[SEP]\nq\n##q\n", &tokenizer) == ENG_OK);
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        size_t len = strlen(units[i]), n = 0;
        while (n + len <= 400000) {
            memcpy(text + n, units[i], len);
            n += len;
        }
        list.n = 0;
        CHECK(tokenizer_run(tokenizer, (eng_text){text, n}, &list, NULL, &err) == ENG_OK);
    }
    tokenizer_free(tokenizer);
}

static void some_of_a_text(void)
{
    static const char text[] = "今天天气很好，我们去hello公园散步wonderful吧！";
    struct token_list some = {0};
    list.n = 0;
    REQUIRE(tokenizer_run(boot, text_of(text), &list, NULL, &err) == ENG_OK);
    for (size_t enough = 0; enough <= list.n + 1; enough++) {
        some.n = 0;
        REQUIRE(tokenizer_run_some(boot, text_of(text), enough, &some, &err) == ENG_OK);
        size_t final = enough < list.n ? enough : list.n;
        CHECK(some.n >= final && some.n <= final + 10);
        CHECK(final == 0 || memcmp(some.tokens, list.tokens, final * sizeof *list.tokens) == 0);
    }
    token_list_fini(&some);
}

/* ---- vocabularies -------------------------------------------------------------------------------------- */

static void good_vocabularies(void)
{
    struct tokenizer *tokenizer;
    REQUIRE(make("\xEF\xBB\xBF[PAD]\r\n[UNK]\r\n\r\n[CLS]\r\n[SEP]\r\n字", &tokenizer) == ENG_OK);
    CHECK_INT(tokenizer_size(tokenizer), 6);
    CHECK_INT(tokenizer_id(tokenizer, "[PAD]"), 0);
    CHECK_INT(tokenizer_cls(tokenizer), 3);
    CHECK_INT(tokenizer_sep(tokenizer), 4);
    CHECK_INT(tokenizer_id(tokenizer, "字"), 5);
    CHECK_INT(tokenizer_id(tokenizer, "无"), -1);
    CHECK_STR(tokenizer_string(tokenizer, 5), "字");
    CHECK(tokenizer_string(tokenizer, 6) == NULL && tokenizer_string(tokenizer, -1) == NULL);
    tokenizer_free(tokenizer);
}

static void bad_vocabularies(void)
{
    static const struct {
        const char *vocab;
        eng_status status;
        const char *says;
    } bad[] = {
        {"", ENG_EFORMAT, "[UNK]"},
        {"[UNK]\n[CLS]\n", ENG_EFORMAT, "[SEP]"},
        {"[UNK]\n[SEP]\n", ENG_EFORMAT, "[CLS]"},
        {"[UNK]\n[CLS]\n[SEP]\n字\n甲\n字\n", ENG_EFORMAT, "lines 4 and 6"},
        {"[UNK]\n[CLS]\n[SEP]\n##a\n##a\n", ENG_EFORMAT, "lines 4 and 5"},
        {"[UNK]\n[CLS]\n[SEP]\n\xE5\xAD\n", ENG_EFORMAT, "line 4"},
        {"[UNK]\n[CLS]\n[SEP]\na\rb\n", ENG_EFORMAT, "line 4"},
    };
    struct tokenizer *tokenizer;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_INT(make(bad[i].vocab, &tokenizer), bad[i].status);
        CHECK(tokenizer == NULL && strstr(err.text, bad[i].says) != NULL);
    }
    static char big[TOKENIZER_MAX_TOKEN_BYTES + 64];
    memset(big, 'a', sizeof big - 1);
    CHECK_INT(make(big, &tokenizer), ENG_ELIMIT);
    struct tokenizer_options options = tokenizer_defaults();
    CHECK_INT(tokenizer_from_vocab((eng_text){"a\0b\n", 4}, &options, &tokenizer, &err),
              ENG_EFORMAT);
}

static void write_file(const char *dir, const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "w");
    if (file != NULL) {
        fputs(text, file);
        fclose(file);
    }
}

static void directories(void)
{
    char dir[] = "/tmp/mp2-tokenizer-XXXXXX", command[64];
    struct tokenizer *tokenizer;
    REQUIRE(mkdtemp(dir) != NULL);
    CHECK_INT(tokenizer_open(dir, 10, &tokenizer, &err), ENG_ENOTFOUND);
    write_file(dir, "vocab.txt", "[UNK]\n[CLS]\n[SEP]\nA\na\n");
    CHECK_INT(tokenizer_open(dir, 4, &tokenizer, &err), ENG_EMISMATCH);
    CHECK(strstr(err.text, "5 tokens") != NULL && tokenizer == NULL);
    write_file(dir, "tokenizer_config.json", "{\"do_lower_case\": false, \"strip_accents\": null}");
    REQUIRE(tokenizer_open(dir, 5, &tokenizer, &err) == ENG_OK);
    list.n = 0;
    CHECK(tokenizer_run(tokenizer, text_of("A"), &list, NULL, &err) == ENG_OK);
    CHECK(list.n == 1 && list.tokens[0].id == 3);
    tokenizer_free(tokenizer);
    write_file(dir, "tokenizer_config.json", "{\"do_lower_case\": 1}");
    CHECK_INT(tokenizer_open(dir, 5, &tokenizer, &err), ENG_EFORMAT);
    write_file(dir, "tokenizer_config.json", "[");
    CHECK_INT(tokenizer_open(dir, 5, &tokenizer, &err), ENG_EFORMAT);
    snprintf(command, sizeof command, "rm -r %s", dir);
    CHECK(system(command) == 0);
}

/* As Hugging Face writes it (recorded), and changed so that it is no longer BERT's. */
static void tokenizer_json(void)
{
    static const struct {
        const char *from, *to;
        eng_status status;
    } changes[] = {
        {"BertNormalizer", "NFKC", ENG_EUNSUPPORTED},
        {"BertPreTokenizer", "Whitespace", ENG_EUNSUPPORTED},
        {"WordPiece", "BPE", ENG_EUNSUPPORTED},
        {"\"##\"", "\"@@\"", ENG_EUNSUPPORTED},
        {": 100,", ": 200,", ENG_EUNSUPPORTED},
        {"\"clean_text\": true", "\"clean_text\": false", ENG_EUNSUPPORTED},
        {"\"lowercase\": false", "\"lowercase\": 0", ENG_EFORMAT},
        {"\"a\": 5", "\"a\": 4", ENG_EFORMAT},
        {"\"a\": 5", "\"a\": -5", ENG_EFORMAT},
        {"\"a\": 5", "\"a\": 10", ENG_EFORMAT},
        {"\"a\": 5", "\"a\": \"5\"", ENG_EFORMAT},
        {"\"a\": 5", "\"a\\n\": 5", ENG_EFORMAT},
        {"\"a\": 5", "\"A\": 5", ENG_EFORMAT},
        {"[SEP]", "[END]", ENG_EFORMAT},
        {"\"vocab\": {", "\"vocab\": 3, \"words\": {", ENG_EFORMAT},
        {"}", "", ENG_EFORMAT},
    };
    static char json[8192], changed[8192];
    char dir[] = "/tmp/mp2-tokenizer-XXXXXX", command[64];
    struct tokenizer *tokenizer;
    FILE *file = fopen(FIXTURES "tokenizer_small.json", "rb");
    REQUIRE(file != NULL && mkdtemp(dir) != NULL);
    json[fread(json, 1, sizeof json - 1, file)] = '\0';
    fclose(file);
    write_file(dir, "tokenizer.json", json);
    REQUIRE(tokenizer_open(dir, 10, &tokenizer, &err) == ENG_OK);
    CHECK_INT(tokenizer_size(tokenizer), 10);
    list.n = 0;
    CHECK(tokenizer_run(tokenizer, text_of("A ab É"), &list, NULL, &err) == ENG_OK);
    REQUIRE(list.n == 4);
    CHECK(list.tokens[0].id == 8 && list.tokens[2].id == 6 && list.tokens[3].id == 9);
    tokenizer_free(tokenizer);
    CHECK_INT(tokenizer_open(dir, 9, &tokenizer, &err), ENG_EMISMATCH);
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        const char *at = strstr(json, changes[i].from);
        REQUIRE(at != NULL);
        snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - json), json, changes[i].to,
                 at + strlen(changes[i].from));
        write_file(dir, "tokenizer.json", changed);
        if (tokenizer_open(dir, 10, &tokenizer, &err) != changes[i].status || tokenizer != NULL) {
            TEST_FAIL_("%s for %s: %s: %s", changes[i].to, changes[i].from, err.field, err.text);
        }
    }
    snprintf(command, sizeof command, "rm -r %s", dir);
    CHECK(system(command) == 0);
}

int main(void)
{
    TESTS_BEGIN;
    if (tokenizer_open(BOOT, 5784, &boot, &err) != ENG_OK) {
        fprintf(stderr, "%s: %s\n", err.field, err.text);
        return 1;
    }
    RUN(nasty_strings);
    RUN(nasty_strings_cased);
    RUN(nasty_strings_with_accents);
    RUN(corpus_lines);
    RUN(every_code_point);
    RUN(offsets_lead_back);
    RUN(canonical_order);
    RUN(special_tokens_are_text);
    RUN(cased_vocabulary);
    RUN(broken_text);
    RUN(hostile_texts_stay_fast);
    RUN(some_of_a_text);
    RUN(good_vocabularies);
    RUN(bad_vocabularies);
    RUN(directories);
    RUN(tokenizer_json);
    tokenizer_free(boot);
    token_list_fini(&list);
    TESTS_END;
}
