/* test_torchckpt.c: PyTorch files: views, wrappers, and everything the reader refuses. */
#include "tests/unit/torchfile.h"

#define GOLDEN TEST_SOURCE_DIR "/tests/golden/"

static const float ramp[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};

/* Opens an archive of this pickle; the bytes must outlive the result. */
static struct weights *open_zip(const struct bytes *pickle, struct bytes *archive)
{
    struct weights *weights = NULL;
    eng_error err = {0};
    *archive = zip_of_pickle(pickle, ramp, sizeof ramp);
    if (weights_open_memory(archive->data, archive->n, "test file", &weights, &err) != ENG_OK) {
        TEST_FAIL_("refused: %s", err.text);
    }
    return weights;
}

static void expect(struct weights *weights, const char *name, const float *want, size_t n)
{
    const struct tensor *tensor = weights_find(weights, name);
    const float *values = NULL;
    REQUIRE(tensor != NULL && tensor->count == n);
    REQUIRE(weights_f32(weights, tensor, &values, NULL) == ENG_OK);
    CHECK(memcmp(values, want, n * sizeof *want) == 0);
}

static void views_are_gathered(void)
{
    static const char *const names[] = {"whole",  "turned", "slice",
                                        "scalar", "empty",  "every other"};
    const struct view views[] = {
        {"FloatStorage", "0", 12, 0, 2, {3, 4}, {4, 1}},
        {"FloatStorage", "0", 12, 0, 2, {4, 3}, {1, 4}},
        {"FloatStorage", "0", 12, 5, 1, {3}, {1}},
        {"FloatStorage", "0", 12, 11, 0, {0}, {0}},
        {"FloatStorage", "0", 12, 0, 2, {0, 3}, {3, 1}},
        {"FloatStorage", "0", 12, 1, 2, {2, 2}, {6, 2}},
    };
    static const float turned[] = {0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11};
    static const float every_other[] = {1, 3, 7, 9};
    struct bytes pickle = pk_state(names, views, 6), archive;
    struct weights *weights = open_zip(&pickle, &archive);
    REQUIRE(weights != NULL);
    expect(weights, "whole", ramp, 12);
    expect(weights, "turned", turned, 12);
    expect(weights, "slice", ramp + 5, 3);
    expect(weights, "scalar", ramp + 11, 1);
    expect(weights, "empty", ramp, 0);
    expect(weights, "every other", every_other, 4);
    weights_free(weights);
    bytes_fini(&archive);
    bytes_fini(&pickle);
}

static void wrapped_dictionaries_are_found(void)
{
    const struct view view = {"FloatStorage", "0", 12, 0, 1, {12}, {1}};
    struct bytes b = {0}, archive;
    put(&b, "\x80\x02}(", 4);
    pk_text(&b, "epoch");
    put_text(&b, "K\x03");
    pk_text(&b, "optimizer");
    put_text(&b, "}");
    pk_text(&b, "momentum");
    pk_tensor(&b, &view);
    put_text(&b, "s");
    pk_text(&b, "state_dict");
    put_text(&b, "}");
    pk_text(&b, "w");
    put_text(&b, "ctorch._utils\n_rebuild_parameter\n(");
    pk_tensor(&b, &view);
    put_text(&b, "\x88NtR");
    put_text(&b, "su.");
    struct weights *weights = open_zip(&b, &archive);
    REQUIRE(weights != NULL);
    CHECK_INT(weights_count(weights), 1);
    expect(weights, "w", ramp, 12);
    weights_free(weights);
    bytes_fini(&archive);
    bytes_fini(&b);
}

/* ---- pickles ---------------------------------------------------------------------------------- */

static void refuse_pickle(const char *what, const struct bytes *pickle, eng_status want,
                          const char *words)
{
    struct bytes archive = zip_of_pickle(pickle, ramp, sizeof ramp);
    refused(what, &archive, want, words);
    bytes_fini(&archive);
}

static void refuse_text(const char *text, size_t n, eng_status want, const char *words)
{
    struct bytes b = {0};
    put(&b, "\x80\x02", 2);
    put(&b, text, n);
    refuse_pickle(words, &b, want, words);
    bytes_fini(&b);
}

#define REFUSE(text, want, words) refuse_text(text, sizeof(text) - 1, want, words)

static void nothing_is_executed(void)
{
    REFUSE("cos\nsystem\n(X\x04\0\0\0echotR.", ENG_EUNSUPPORTED, "os.system");
    REFUSE("cposix\nsystem\n(X\x04\0\0\0echotR.", ENG_EUNSUPPORTED, "posix.system");
    REFUSE("c__builtin__\neval\n(X\x01\0\0\0"
           "1tR.",
           ENG_EUNSUPPORTED, "__builtin__.eval");
    REFUSE("\x8c\x08"
           "builtins\x8c\x04"
           "exec\x93.",
           ENG_EUNSUPPORTED, "builtins.exec");
    REFUSE("(ios\nsystem\n.", ENG_EUNSUPPORTED, "0x69");
    REFUSE("(cos\nsystem\no.", ENG_EUNSUPPORTED, "os.system");
    REFUSE("}o.", ENG_EUNSUPPORTED, "0x6f");
    REFUSE("\x82\x01.", ENG_EUNSUPPORTED, "0x82");
    REFUSE("Pabc\n.", ENG_EUNSUPPORTED, "0x50");
    REFUSE("ctorch\nload\n.", ENG_EUNSUPPORTED, "torch.load");
    REFUSE("cos\x1b[31m\nsystem\n.", ENG_EUNSUPPORTED, "os?[31m.system");
    REFUSE("ctorch\nFloatStorage\n)R.", ENG_EFORMAT, "storage type");
    REFUSE("ccollections\nOrderedDict\n]\x85R.", ENG_EFORMAT, "OrderedDict made from arguments");
    REFUSE("N)R.", ENG_EFORMAT, "not a known name");
    REFUSE("ccollections\nOrderedDict\nNR.", ENG_EFORMAT, "not a known name");
}

static void broken_programs_are_refused(void)
{
    REFUSE("", ENG_EFORMAT, "cut short");
    REFUSE(".", ENG_EFORMAT, "unfinished");
    REFUSE("NN.", ENG_EFORMAT, "unfinished");
    REFUSE("(N.", ENG_EFORMAT, "unfinished");
    REFUSE("t.", ENG_EFORMAT, "TUPLE without MARK");
    REFUSE("\x87.", ENG_EFORMAT, "a tuple of more than the stack holds");
    REFUSE("N(\x85.", ENG_EFORMAT, "a tuple of more than the stack holds");
    REFUSE("u.", ENG_EFORMAT, "items without MARK");
    REFUSE("(NNu.", ENG_EFORMAT, "not a list or dictionary");
    REFUSE("](NNu.", ENG_EFORMAT, "not a list or dictionary");
    REFUSE("}(Nu.", ENG_EFORMAT, "not a list or dictionary");
    REFUSE("}(NNe.", ENG_EFORMAT, "not a list or dictionary");
    REFUSE("s.", ENG_EFORMAT, "an item of an empty stack");
    REFUSE("R.", ENG_EFORMAT, "a call on an empty stack");
    REFUSE("b.", ENG_EFORMAT, "BUILD on an empty stack");
    REFUSE("NNb.", ENG_EFORMAT, "BUILD of an unknown object");
    REFUSE("NQ.", ENG_EFORMAT, "not a storage");
    REFUSE("h\x07.", ENG_EFORMAT, "never set");
    REFUSE("q\0.", ENG_EFORMAT, "memo of an empty stack");
    REFUSE("Nq\x05.", ENG_EFORMAT, "out of order");
    REFUSE("\x80\x09N.", ENG_EFORMAT, "protocol");
    REFUSE("X\x05\0\0\0ab", ENG_EFORMAT, "cut short");
    REFUSE("cos\nsystem", ENG_EFORMAT, "cut short");
    REFUSE("N.", ENG_EFORMAT, "not a dictionary");
    REFUSE("}.", ENG_EFORMAT, "without tensors");
    REFUSE("}q\0X\x05\0\0\0modelh\0s.", ENG_EFORMAT, "without tensors"); /* holds itself */
}

static void bombs_are_refused(void)
{
    REFUSE("Nr\xff\xff\xff\xff.", ENG_ELIMIT, "memo index 4294967295");
    REFUSE("X\xff\xff\xff\xff", ENG_ELIMIT, "a string of 4294967295 bytes");
    REFUSE("\x8a\xff", ENG_EFORMAT, "more than 64 bits");
    struct bytes b = {0};
    put_repeated(&b, '(', 100);
    refuse_pickle("marks", &b, ENG_ELIMIT, "more than 64 constructions");
    b.n = 0;
    put_repeated(&b, 'N', 200000);
    refuse_pickle("stack", &b, ENG_ELIMIT, "100000 values on the stack");
    b.n = 0;
    put_text(&b, "]");
    for (size_t i = 0; i < 2100000; i++) {
        put_text(&b, "Na");
    }
    refuse_pickle("values", &b, ENG_ELIMIT, "2000000");
    b.n = 0; /* tuples of tuples of … the same tuple: two bytes a doubling, were it ever unfolded */
    put_text(&b, "Nq");
    put_number(&b, 0, 1);
    for (size_t i = 1; i < 200; i++) {
        put_text(&b, "h");
        put_number(&b, i - 1, 1);
        put_text(&b, "\x86q");
        put_number(&b, i, 1);
    }
    put_text(&b, ".");
    refuse_pickle("doubling", &b, ENG_EFORMAT, "not a dictionary");
    bytes_fini(&b);
}

/* ---- tensors ------------------------------------------------------------------------------------ */

static void refuse_view(struct view view, eng_status want, const char *words)
{
    static const char *const names[] = {"w"};
    struct bytes b = pk_state(names, &view, 1);
    refuse_pickle(words, &b, want, words);
    bytes_fini(&b);
}

static void views_must_fit_their_storage(void)
{
    const char *no = "does not fit its storage of 12 values";
    refuse_view((struct view){"FloatStorage", "0", 12, 1, 1, {12}, {1}}, ENG_EFORMAT, no);
    refuse_view((struct view){"FloatStorage", "0", 12, 12, 0, {0}, {0}}, ENG_EFORMAT, no);
    refuse_view((struct view){"FloatStorage", "0", 12, 0, 2, {3, 4}, {5, 1}}, ENG_EFORMAT, no);
    refuse_view((struct view){"FloatStorage", "0", 12, 0, 2, {4, 4}, {0, 1}}, ENG_EFORMAT, no);
    refuse_view((struct view){"FloatStorage", "0", 12, 0, 1, {2}, {INT64_MAX}}, ENG_EFORMAT, no);
    refuse_view((struct view){"FloatStorage", "0", 12, INT64_MAX, 1, {1}, {1}}, ENG_EFORMAT, no);
    refuse_view((struct view){"FloatStorage", "0", 12, 0, 2, {INT64_MAX, 4}, {1, 1}}, ENG_EFORMAT,
                no);
    refuse_view((struct view){"FloatStorage", "0", 12, 0, 1, {-1}, {1}}, ENG_EFORMAT, "sizes");
    refuse_view((struct view){"FloatStorage", "0", 12, 0, 1, {2}, {-1}}, ENG_EFORMAT, "sizes");
    refuse_view((struct view){"FloatStorage", "0", 12, -1, 1, {2}, {1}}, ENG_EFORMAT, "offset");
    refuse_view((struct view){"FloatStorage", "0", 12, 0, 9, {1}, {1}}, ENG_EFORMAT, "up to 8");
    refuse_view((struct view){"FloatStorage", "0", -12, 0, 1, {1}, {1}}, ENG_EFORMAT, "storage");
    refuse_view((struct view){"FloatStorage", "9", 12, 0, 1, {12}, {1}}, ENG_EFORMAT,
                "storage \"9\" is not in the file");
    refuse_view((struct view){"FloatStorage", "0", 13, 0, 1, {12}, {1}}, ENG_EFORMAT,
                "13 F32 values, its entry has 48 bytes");
    refuse_view((struct view){"FloatStorage", "0", INT64_MAX, 0, 1, {12}, {1}}, ENG_EFORMAT,
                "its entry has 48 bytes");
    refuse_view((struct view){"ComplexStorage", "0", 12, 0, 1, {12}, {1}}, ENG_EUNSUPPORTED,
                "torch.ComplexStorage");
}

static void names_are_checked(void)
{
    const struct view views[] = {{"FloatStorage", "0", 12, 0, 1, {12}, {1}},
                                 {"FloatStorage", "0", 12, 0, 1, {12}, {1}}};
    static const char *const twice[] = {"w", "w"}, *const empty[] = {""},
                             *const control[] = {"a\n"};
    struct bytes b = pk_state(twice, views, 2);
    refuse_pickle("twice", &b, ENG_EFORMAT, "there twice");
    bytes_fini(&b);
    b = pk_state(empty, views, 1);
    refuse_pickle("empty", &b, ENG_EFORMAT, "name is empty");
    bytes_fini(&b);
    b = pk_state(control, views, 1);
    refuse_pickle("control", &b, ENG_EFORMAT, "control characters");
    bytes_fini(&b);
}

/* ---- archives ----------------------------------------------------------------------------------- */

static struct bytes good_pickle(void)
{
    static const char *const names[] = {"w"};
    const struct view view = {"FloatStorage", "0", 12, 0, 1, {12}, {1}};
    return pk_state(names, &view, 1);
}

/* A good archive with its second entry changed as `change` says. */
static void refuse_entry(struct zip_part change, const char *words)
{
    struct bytes pickle = good_pickle();
    struct zip_part parts[] = {{.name = "a/data.pkl", .data = pickle.data, .size = pickle.n},
                               change};
    parts[1].name = change.name != NULL ? change.name : "a/data/0";
    parts[1].data = ramp;
    parts[1].size = sizeof ramp;
    struct bytes archive = zip_of(parts, 2);
    refused(words, &archive, ENG_EFORMAT, words);
    bytes_fini(&archive);
    bytes_fini(&pickle);
}

static void archives_are_checked(void)
{
    refuse_entry((struct zip_part){.method = 8}, "compressed");
    refuse_entry((struct zip_part){.flags = 1}, "encrypted");
    refuse_entry((struct zip_part){.flags = 1u << 13}, "encrypted");
    refuse_entry((struct zip_part){.stored_plus = 1}, "plain size differ");
    refuse_entry((struct zip_part){.size_plus = 4096, .stored_plus = 4096}, "runs past");
    refuse_entry((struct zip_part){.header_plus = 1}, "local header is not where");
    refuse_entry((struct zip_part){.header_plus = 0x7FFFFFFF}, "local header is not where");
    refuse_entry((struct zip_part){.name = "a/data.pkl"}, "there twice");
    refuse_entry((struct zip_part){.name = "a/data/1"}, "storage \"0\" is not in the file");
    refuse_entry((struct zip_part){.name = "a/byteorder"}, "not \"little\"");
}

static void overlapping_entries_are_refused(void)
{
    struct bytes pickle = good_pickle(), archive = {0};
    const struct zip_part first = {.name = "a/data.pkl", .data = pickle.data, .size = pickle.n};
    struct bytes inner = {0};
    const struct zip_part second = {.name = "a/data/0", .data = ramp, .size = sizeof ramp};
    zip_local(&inner, &second);
    const struct zip_part outer = {.name = "a/x", .data = inner.data, .size = inner.n};
    zip_local(&archive, &first);
    size_t outer_at = archive.n;
    zip_local(&archive, &outer);
    size_t inner_at = archive.n - inner.n, directory = archive.n;
    zip_central(&archive, &first, 0);
    zip_central(&archive, &outer, outer_at);
    zip_central(&archive, &second, inner_at);
    zip_end(&archive, 3, archive.n - directory, directory);
    refused("overlap", &archive, ENG_EFORMAT, "overlaps another entry");
    bytes_fini(&inner);
    bytes_fini(&archive);
    bytes_fini(&pickle);
}

static void directories_are_checked(void)
{
    struct bytes pickle = good_pickle();
    struct bytes archive = zip_of_pickle(&pickle, ramp, sizeof ramp);
    unsigned char *end = archive.data + archive.n - 22;
    end[10] = 0xFF; /* entries */
    refused("entries", &archive, ENG_EFORMAT, "too small for the entries");
    end[10] = 0;
    refused("no entries", &archive, ENG_EFORMAT, "too small for the entries");
    end[10] = 2;
    end[19] = 0x7F; /* place */
    refused("place", &archive, ENG_EFORMAT, "not inside the file");
    end[19] = 0;
    end[4] = 1; /* disk */
    refused("disk", &archive, ENG_EFORMAT, "several disks");
    end[4] = 0;
    end[20] = 1; /* comment that is not there */
    refused("comment", &archive, ENG_EFORMAT, "no end record");
    bytes_fini(&archive);
    const struct zip_part other = {.name = "readme.txt", .data = "hello", .size = 5};
    archive = zip_of(&other, 1);
    refused("no pickle", &archive, ENG_EFORMAT, "no data.pkl");
    bytes_fini(&archive);
    bytes_fini(&pickle);
}

/* ---- legacy streams ------------------------------------------------------------------------------- */

static struct bytes legacy_of(const struct bytes *object, const char *keys, size_t keys_len,
                              uint64_t count, size_t values)
{
    struct bytes b = {0};
    put(&b, "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e", 15);
    put(&b, "\x80\x02\x4d\xe9\x03\x2e", 6);
    put(&b, "\x80\x02}X\x0d\0\0\0little_endian\x88s.", 24);
    put(&b, object->data, object->n);
    put(&b, keys, keys_len);
    put_number(&b, count, 8);
    put(&b, ramp, values * sizeof *ramp);
    return b;
}

#define KEYS                                                                                       \
    "\x80\x02](X\x01\0\0\0"                                                                        \
    "0e."
#define KEYS_LEN (sizeof(KEYS) - 1)
#define OTHER_KEY                                                                                  \
    "\x80\x02](X\x01\0\0\0"                                                                        \
    "7e."

static void legacy_streams_are_checked(void)
{
    struct bytes object = good_pickle(), b = legacy_of(&object, KEYS, KEYS_LEN, 12, 12);
    eng_error err;
    CHECK(open_bytes(b.data, b.n, &err) == ENG_OK);
    b.data[42] = 0x89; /* little_endian False */
    refused("big endian", &b, ENG_EFORMAT, "byte order");
    bytes_fini(&b);
    b = legacy_of(&object, KEYS, KEYS_LEN, 11, 12);
    refused("count", &b, ENG_EFORMAT, "expected 12 values");
    bytes_fini(&b);
    b = legacy_of(&object, KEYS, KEYS_LEN, 12, 11);
    refused("short", &b, ENG_EFORMAT, "inside a storage");
    put_repeated(&b, 0, 5);
    refused("long", &b, ENG_EFORMAT, "behind its last storage");
    bytes_fini(&b);
    b = legacy_of(&object, OTHER_KEY, KEYS_LEN, 12, 12);
    refused("key", &b, ENG_EFORMAT, "unknown or already there");
    bytes_fini(&b);
    b = legacy_of(&object, "\x80\x02].", 4, 12, 0);
    refused("no keys", &b, ENG_EFORMAT, "behind its last storage");
    b.n -= 8;
    refused("no storage", &b, ENG_EFORMAT, "storage \"0\" is not in the file");
    b.data[17] = 0; /* protocol */
    refused("protocol", &b, ENG_EFORMAT, "1001");
    bytes_fini(&b);
    bytes_fini(&object);
}

/* ---- broken files --------------------------------------------------------------------------------- */

static void truncated_files_are_refused(void)
{
    truncated_everywhere(GOLDEN "bank_shallow.th", SIZE_MAX, 1);
    truncated_everywhere(GOLDEN "bank_deep.th", 0, 61);
    truncated_everywhere(GOLDEN "pytorch_model_legacy.bin", 300, 1009);
    truncated_everywhere(GOLDEN "pytorch_model.bin", 100, 4999);
}

static void flipped_bytes_never_crash(void)
{
    flipped_everywhere(GOLDEN "bank_shallow.th", SIZE_MAX, 1);
    flipped_everywhere(GOLDEN "pytorch_model_legacy.bin", 1500, 2003);
}

int main(void)
{
    TESTS_BEGIN;
    RUN(views_are_gathered);
    RUN(wrapped_dictionaries_are_found);
    RUN(nothing_is_executed);
    RUN(broken_programs_are_refused);
    RUN(bombs_are_refused);
    RUN(views_must_fit_their_storage);
    RUN(names_are_checked);
    RUN(archives_are_checked);
    RUN(overlapping_entries_are_refused);
    RUN(directories_are_checked);
    RUN(legacy_streams_are_checked);
    RUN(truncated_files_are_refused);
    RUN(flipped_bytes_never_crash);
    TESTS_END;
}
