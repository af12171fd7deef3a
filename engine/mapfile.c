/* mapfile.c: read-only mappings with checked look-ups.
 *
 * mmap rather than read: two processes on one machine share the pages of a model, and a float32 model
 * is used where it lies.
 */
#include "engine/mapfile.h"

#include "engine/status.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static eng_status open_regular(const char *path, size_t max_bytes, int *fd_out, struct stat *st,
                               eng_error *err)
{
    /* O_NONBLOCK: opening a FIFO without a writer must not hang before we can refuse it. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        eng_status status = errno == ENOENT || errno == ENOTDIR ? ENG_ENOTFOUND : ENG_EIO;
        return fail(err, status, path, "cannot open %s: %s", path, strerror(errno));
    }
    eng_status status = ENG_OK;
    if (fstat(fd, st) != 0) {
        status = fail(err, ENG_EIO, path, "cannot stat %s: %s", path, strerror(errno));
    } else if (!S_ISREG(st->st_mode)) {
        status = fail(err, ENG_EFORMAT, path, "%s is %s, not a regular file", path,
                      S_ISDIR(st->st_mode) ? "a directory" : "a device, pipe or socket");
    } else if (max_bytes > 0 && (uint64_t)st->st_size > max_bytes) {
        status = fail(err, ENG_ELIMIT, path, "%s has %lld bytes, at most %zu are read", path,
                      (long long)st->st_size, max_bytes);
    }
    if (status != ENG_OK) {
        close(fd);
        return status;
    }
    *fd_out = fd;
    return ENG_OK;
}

eng_status mapfile_open(const char *path, size_t max_bytes, struct mapfile *out, eng_error *err)
{
    mapfile_borrow(NULL, 0, out);
    struct stat st;
    int fd = -1;
    eng_status status = open_regular(path, max_bytes, &fd, &st, err);
    if (status != ENG_OK) {
        return status;
    }
    size_t size = (size_t)st.st_size;
    if (size > 0) {
        void *data = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
        if (data == MAP_FAILED) {
            status = fail(err, errno == ENOMEM ? ENG_ENOMEM : ENG_EIO, path,
                          "cannot map %zu bytes of %s: %s", size, path, strerror(errno));
            close(fd);
            return status;
        }
        out->data = data;
    }
    out->size = size;
    out->fd = fd;
    out->mtime_s = st.st_mtim.tv_sec;
    out->mtime_ns = st.st_mtim.tv_nsec;
    return ENG_OK;
}

void mapfile_borrow(const void *data, size_t size, struct mapfile *out)
{
    *out = (struct mapfile){.data = data, .size = size, .fd = -1};
}

eng_status mapfile_check(const struct mapfile *map, const char *path, eng_error *err)
{
    struct stat st;
    if (map->fd < 0) {
        return ENG_OK;
    }
    if (fstat(map->fd, &st) != 0) {
        return fail(err, ENG_EIO, path, "cannot stat %s: %s", path, strerror(errno));
    }
    if ((uint64_t)st.st_size != map->size || st.st_mtim.tv_sec != map->mtime_s ||
        st.st_mtim.tv_nsec != map->mtime_ns) {
        return fail(err, ENG_EIO, path,
                    "%s changed while it was read (%zu bytes, now %lld); replace models by rename, "
                    "then open again",
                    path, map->size, (long long)st.st_size);
    }
    return ENG_OK;
}

void mapfile_close(struct mapfile *map)
{
    if (map->fd >= 0) {
        if (map->data != NULL) {
            munmap((void *)(uintptr_t)map->data, map->size);
        }
        close(map->fd);
    }
    mapfile_borrow(NULL, 0, map);
}

const unsigned char *mapfile_slice(const struct mapfile *map, uint64_t offset, uint64_t len)
{
    /* An empty slice of an empty file still wants a pointer that is not NULL. */
    static const unsigned char nothing[1];
    if (offset > map->size || len > map->size - offset) {
        return NULL;
    }
    return map->data != NULL ? map->data + offset : nothing;
}

uint16_t load_u16(const unsigned char *bytes)
{
    return (uint16_t)(bytes[0] | bytes[1] << 8);
}

uint32_t load_u32(const unsigned char *bytes)
{
    return (uint32_t)load_u16(bytes) | (uint32_t)load_u16(bytes + 2) << 16;
}

uint64_t load_u64(const unsigned char *bytes)
{
    return (uint64_t)load_u32(bytes) | (uint64_t)load_u32(bytes + 4) << 32;
}
