/* test_safetensors.c: what the safetensors reader refuses, and that the writer's files are read back. */
#include "engine/safetensors.h"
#include "tests/unit/bytes.h"

#include <dirent.h>

#define GOLDEN TEST_SOURCE_DIR "/tests/golden/"

/* A file of this header and so many bytes of data. */
static struct bytes file_of(const char *header, size_t data)
{
    struct bytes b = {0};
    put_number(&b, strlen(header), 8);
    put_text(&b, header);
    put_repeated(&b, 1, data);
    return b;
}

static void refuse(const char *header, size_t data, eng_status want, const char *words)
{
    struct bytes b = file_of(header, data);
    refused(header, &b, want, words);
    bytes_fini(&b);
}

static void accept(const char *header, size_t data)
{
    struct bytes b = file_of(header, data);
    eng_error err;
    if (open_bytes(b.data, b.n, &err) != ENG_OK) {
        TEST_FAIL_("%s: refused: %s", header, err.text);
    }
    bytes_fini(&b);
}

static void good_files_are_read(void)
{
    accept("{}", 0);
    accept("{}     ", 0);
    accept("{\"__metadata__\":{\"a\":\"b\"}}", 0);
    accept("{\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4);
    accept("{\"e\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0);
    accept("{\"b\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[4,8]},"
           "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
           8);
}

static void offsets_must_tile_the_data(void)
{
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, ENG_EFORMAT,
           "after a hole");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
           "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}",
           12, ENG_EFORMAT, "after a hole");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
           "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
           12, ENG_EFORMAT, "overlapping");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 5, ENG_EFORMAT,
           "the file has 5");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 3, ENG_EFORMAT,
           "cut short");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, ENG_EFORMAT,
           "lies at 4 to 0");
    refuse("{}", 1, ENG_EFORMAT, "the file has 1");
}

static void sizes_are_checked(void)
{
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, ENG_EFORMAT,
           "wants 8 bytes");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, ENG_EFORMAT,
           "integer of 0 or more");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4, ENG_EFORMAT,
           "integer of 0 or more");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,4]}}", 4,
           ENG_EFORMAT, "overflows");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}",
           0, ENG_EFORMAT, "overflows");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,4]}}", 4,
           ENG_EFORMAT, "JSON");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4,
           ENG_ELIMIT, "9 dimensions");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 4, ENG_EFORMAT,
           "data_offsets");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4, ENG_EFORMAT,
           "data_offsets");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,9223372036854775807]}}", 4,
           ENG_EFORMAT, "9223372036854775807");
}

static void entries_are_checked(void)
{
    refuse("{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4,
           ENG_EUNSUPPORTED, "F8_E4M3");
    refuse("{\"a\":{\"dtype\":7,\"shape\":[4],\"data_offsets\":[0,4]}}", 4, ENG_EFORMAT, "dtype");
    refuse("{\"a\":{\"shape\":[4],\"data_offsets\":[0,4]}}", 4, ENG_EFORMAT, "dtype");
    refuse("{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, ENG_EFORMAT, "shape");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, ENG_EFORMAT, "data_offsets");
    refuse("{\"a\":[]}", 0, ENG_EFORMAT, "not an object");
    refuse("{\"\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, ENG_EFORMAT,
           "name is empty");
    refuse("{\"a\\n\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, ENG_EFORMAT,
           "control characters");
    refuse("{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},"
           "\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}",
           0, ENG_EFORMAT, "duplicate");
    refuse("{\"__metadata__\":{\"a\":1}}", 0, ENG_EFORMAT, "not a string");
    refuse("{\"__metadata__\":[]}", 0, ENG_EFORMAT, "not an object");
}

static void headers_are_checked(void)
{
    struct bytes b = {0};
    refused("empty", &b, ENG_EFORMAT, "0 bytes");
    put_number(&b, 2, 8);
    refused("no header", &b, ENG_EFORMAT, "neither");
    put_text(&b, "{");
    refused("half a header", &b, ENG_EFORMAT, "cut short");
    b.n = 0;
    put_number(&b, UINT64_MAX, 8);
    put_text(&b, "{}");
    refused("huge header", &b, ENG_ELIMIT, "18446744073709551615");
    b.n = 0;
    put_number(&b, UINT64_MAX - 7, 8);
    put_text(&b, "{}");
    refused("wrapping header", &b, ENG_ELIMIT, "header of");
    bytes_fini(&b);
    refuse("{\"a\":{\"a\":{\"a\":{\"a\":{}}}}}", 0, ENG_ELIMIT, "deeper than 4");
    refuse("{} x", 0, ENG_EFORMAT, "JSON");
    refuse("{\"a\xff\":1}", 0, ENG_EFORMAT, "JSON");
    refuse("{\"a\":NaN}", 0, ENG_EFORMAT, "JSON");
}

static void too_many_tensors_are_refused_before_parsing(void)
{
    struct bytes header = {0};
    put_text(&header, "{\"a\":[");
    for (size_t i = 0; i < 1000000; i++) {
        put_text(&header, "1,");
    }
    put_text(&header, "1]}");
    put(&header, "", 1);
    refuse((const char *)header.data, 0, ENG_ELIMIT, "structural tokens");
    bytes_fini(&header);
}

static void broken_files_never_crash(void)
{
    truncated_everywhere(GOLDEN "bank_shallow.safetensors", SIZE_MAX, 1);
    flipped_everywhere(GOLDEN "bank_shallow.safetensors", 400, 97);
    flipped_everywhere(GOLDEN "model.safetensors", 9, 997);
}

/* ---- writer ------------------------------------------------------------------------------------- */

static char dir[] = "/tmp/mp2-test-XXXXXX";

static const char *in_dir(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static const float some_values[6] = {1.0f, -2.5f, 0.0f, 65504.0f, 1e-7f, 3.14159274f};

static void written_files_are_read_back(void)
{
    const struct safetensors_entry entries[] = {
        {"half", DTYPE_F16, 1, {3}, some_values},
        {"brain", DTYPE_BF16, 2, {1, 5}, some_values},
        {"full", DTYPE_F32, 2, {2, 3}, some_values},
        {"scalar", DTYPE_F32, 0, {0}, some_values},
        {"nothing", DTYPE_F32, 2, {0, 7}, some_values},
    };
    const struct safetensors_meta meta[] = {{"what", "测试"}};
    struct weights *weights = NULL;
    eng_error err = {0};
    const char *path = in_dir("a.safetensors");
    CHECK(safetensors_write(path, entries, 5, meta, 1, false, &err) == ENG_OK);
    REQUIRE(weights_open(path, &weights, &err) == ENG_OK);
    CHECK_STR(weights_metadata(weights, "what"), "测试");
    const float *values = NULL;
    const struct tensor *full = weights_find(weights, "full");
    CHECK(weights_f32(weights, full, &values, &err) == ENG_OK);
    CHECK(memcmp(values, some_values, sizeof some_values) == 0);
    CHECK((const unsigned char *)values == full->data); /* wide types lie aligned */
    CHECK(weights_f32(weights, weights_find(weights, "half"), &values, &err) == ENG_OK);
    CHECK(memcmp(values, some_values, 3 * sizeof *values) == 0);
    CHECK_INT(weights_find(weights, "scalar")->count, 1);
    CHECK_INT(weights_find(weights, "nothing")->count, 0);
    weights_free(weights);
}

static size_t files_in(const char *path)
{
    size_t n = 0;
    DIR *stream = opendir(path);
    for (struct dirent *entry; stream != NULL && (entry = readdir(stream)) != NULL;) {
        n += entry->d_name[0] != '.';
    }
    if (stream != NULL) {
        closedir(stream);
    }
    return n;
}

static void existing_files_are_kept(void)
{
    const struct safetensors_entry one = {"x", DTYPE_F32, 1, {6}, some_values};
    const struct safetensors_entry two = {"y", DTYPE_F32, 1, {6}, some_values};
    struct weights *weights = NULL;
    eng_error err = {0};
    const char *path = in_dir("b.safetensors");
    CHECK(safetensors_write(path, &one, 1, NULL, 0, false, &err) == ENG_OK);
    size_t before = files_in(dir);
    CHECK(safetensors_write(path, &two, 1, NULL, 0, false, &err) == ENG_EINVAL);
    CHECK(strstr(err.text, "not overwritten") != NULL);
    REQUIRE(weights_open(path, &weights, &err) == ENG_OK);
    CHECK(weights_find(weights, "x") != NULL);
    weights_free(weights);
    CHECK(safetensors_write(path, &two, 1, NULL, 0, true, &err) == ENG_OK);
    REQUIRE(weights_open(path, &weights, &err) == ENG_OK);
    CHECK(weights_find(weights, "y") != NULL);
    weights_free(weights);
    CHECK_INT(files_in(dir), before); /* no temporary file is left */
}

static void what_cannot_be_written_leaves_nothing(void)
{
    const float large[1] = {70000.0f};
    const struct safetensors_entry overflow = {"big", DTYPE_F16, 1, {1}, large};
    const struct safetensors_entry twice[] = {{"x", DTYPE_F32, 1, {1}, large},
                                              {"x", DTYPE_F32, 1, {1}, large}};
    const struct safetensors_entry wraps = {"w", DTYPE_F32, 2, {SIZE_MAX, 2}, large};
    const struct safetensors_entry integer = {"i", DTYPE_I64, 1, {1}, large};
    eng_error err = {0};
    size_t before = files_in(dir);
    const char *path = in_dir("c.safetensors");
    CHECK(safetensors_write(path, &overflow, 1, NULL, 0, false, &err) == ENG_EINVAL);
    CHECK(strstr(err.text, "BF16") != NULL && strcmp(err.field, "big") == 0);
    CHECK(safetensors_write(path, twice, 2, NULL, 0, false, &err) == ENG_EINVAL);
    CHECK(safetensors_write(path, &wraps, 1, NULL, 0, false, &err) == ENG_EINVAL);
    CHECK(safetensors_write(path, &integer, 1, NULL, 0, false, &err) == ENG_EUNSUPPORTED);
    CHECK(safetensors_write("/nowhere/x.safetensors", twice, 1, NULL, 0, false, &err) == ENG_EIO);
    CHECK_INT(files_in(dir), before);
}

static void clean_up(void)
{
    unlink(in_dir("a.safetensors"));
    unlink(in_dir("b.safetensors"));
    CHECK(rmdir(dir) == 0);
}

int main(void)
{
    TESTS_BEGIN;
    if (mkdtemp(dir) == NULL) {
        return 1;
    }
    RUN(good_files_are_read);
    RUN(offsets_must_tile_the_data);
    RUN(sizes_are_checked);
    RUN(entries_are_checked);
    RUN(headers_are_checked);
    RUN(too_many_tensors_are_refused_before_parsing);
    RUN(broken_files_never_crash);
    RUN(written_files_are_read_back);
    RUN(existing_files_are_kept);
    RUN(what_cannot_be_written_leaves_nothing);
    RUN(clean_up);
    TESTS_END;
}
