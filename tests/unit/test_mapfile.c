/* test_mapfile.c: looking into a mapped file, and noticing that it changed. */
#include "engine/mapfile.h"
#include "tests/unit/bytes.h"

#include <fcntl.h>

static char path[] = "/tmp/mp2-test-XXXXXX";

static void slices_stay_inside(void)
{
    struct mapfile map;
    eng_error err = {0};
    CHECK(write_whole(path, "0123456789", 10));
    REQUIRE(mapfile_open(path, 10, &map, &err) == ENG_OK);
    const unsigned char *slice = mapfile_slice(&map, 8, 2);
    CHECK(slice != NULL && memcmp(slice, "89", 2) == 0);
    CHECK(mapfile_slice(&map, 10, 0) != NULL);
    CHECK(mapfile_slice(&map, 9, 2) == NULL);
    CHECK(mapfile_slice(&map, 11, 0) == NULL);
    CHECK(mapfile_slice(&map, UINT64_MAX, 2) == NULL);
    CHECK(mapfile_slice(&map, 2, UINT64_MAX) == NULL);
    mapfile_close(&map);
    mapfile_close(&map); /* twice is fine */
    CHECK(mapfile_open(path, 9, &map, &err) == ENG_ELIMIT);
    CHECK(strstr(err.text, "has 10 bytes, at most 9") != NULL);
}

static void empty_files_have_empty_slices(void)
{
    struct mapfile map;
    CHECK(write_whole(path, "", 0));
    REQUIRE(mapfile_open(path, 0, &map, NULL) == ENG_OK);
    CHECK(mapfile_slice(&map, 0, 0) != NULL);
    CHECK(mapfile_slice(&map, 0, 1) == NULL);
    mapfile_close(&map);
}

static void changed_files_are_noticed(void)
{
    struct mapfile map;
    eng_error err = {0};
    CHECK(write_whole(path, "0123456789", 10));
    REQUIRE(mapfile_open(path, 0, &map, NULL) == ENG_OK);
    CHECK(mapfile_check(&map, path, &err) == ENG_OK);
    CHECK(truncate(path, 4) == 0);
    CHECK(mapfile_check(&map, path, &err) == ENG_EIO);
    CHECK(strstr(err.text, "10 bytes, now 4") != NULL);
    mapfile_close(&map);
    REQUIRE(mapfile_open(path, 0, &map, NULL) == ENG_OK);
    const struct timespec times[2] = {{1, 0}, {1, 0}};
    CHECK(utimensat(AT_FDCWD, path, times, 0) == 0);
    CHECK(mapfile_check(&map, path, &err) == ENG_EIO);
    mapfile_close(&map);
}

static void numbers_are_little_endian(void)
{
    const unsigned char bytes[] = {1, 2, 3, 4, 5, 6, 7, 0x88};
    CHECK_INT(load_u16(bytes), 0x0201);
    CHECK_INT(load_u32(bytes), 0x04030201);
    CHECK(load_u64(bytes) == 0x8807060504030201u);
}

int main(void)
{
    TESTS_BEGIN;
    int fd = mkstemp(path);
    if (fd < 0) {
        return 1;
    }
    close(fd);
    RUN(slices_stay_inside);
    RUN(empty_files_have_empty_slices);
    RUN(changed_files_are_noticed);
    RUN(numbers_are_little_endian);
    unlink(path);
    TESTS_END;
}
