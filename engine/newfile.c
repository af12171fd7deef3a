/* newfile.c: temporary name, fsync, rename, fsync of the directory. */
#include "engine/newfile.h"

#include "engine/status.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

eng_status newfile_begin(const char *path, struct newfile *file, eng_error *err)
{
    file->fd = -1;
    int len = snprintf(file->path, sizeof file->path, "%s", path);
    int temporary = snprintf(file->temporary, sizeof file->temporary, "%s.%08x.tmp", path,
                             randombytes_random());
    if (len < 0 || temporary < 0 || (size_t)temporary >= sizeof file->temporary) {
        return fail(err, ENG_ELIMIT, "path", "%.64s… is longer than %d bytes", path, PATH_MAX - 16);
    }
    file->fd = open(file->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file->fd < 0) {
        return fail(err, ENG_EIO, path, "cannot write %s: %s", path, strerror(errno));
    }
    return ENG_OK;
}

eng_status newfile_write(struct newfile *file, const void *bytes, size_t size, eng_error *err)
{
    const char *next = bytes;
    while (size > 0) {
        ssize_t written = write(file->fd, next, size);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            return fail(err, ENG_EIO, file->path, "cannot write %s: %s", file->path,
                        strerror(written < 0 ? errno : ENOSPC));
        }
        next += written;
        size -= (size_t)written;
    }
    return ENG_OK;
}

static int move_into_place(const struct newfile *file, bool replace)
{
    if (replace) {
        return rename(file->temporary, file->path);
    }
    if (renameat2(AT_FDCWD, file->temporary, AT_FDCWD, file->path, RENAME_NOREPLACE) == 0) {
        return 0;
    }
    if (errno != EINVAL && errno != ENOSYS) {
        return -1;
    }
    /* A file system without RENAME_NOREPLACE: a link does not replace either. */
    if (link(file->temporary, file->path) != 0) {
        return -1;
    }
    return unlink(file->temporary);
}

static int sync_directory(const char *path)
{
    char dir[PATH_MAX];
    snprintf(dir, sizeof dir, "%s", path);
    char *slash = strrchr(dir, '/');
    if (slash == NULL) {
        snprintf(dir, sizeof dir, ".");
    } else {
        slash[slash == dir ? 1 : 0] = '\0';
    }
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return -1;
    }
    int result = fsync(fd);
    close(fd);
    return result;
}

eng_status newfile_commit(struct newfile *file, bool replace, eng_error *err)
{
    if (fsync(file->fd) != 0 || move_into_place(file, replace) != 0) {
        eng_status status = errno == EEXIST
                                ? fail(err, ENG_EINVAL, file->path,
                                       "%s exists already and is not overwritten", file->path)
                                : fail(err, ENG_EIO, file->path, "cannot finish %s: %s", file->path,
                                       strerror(errno));
        newfile_abandon(file);
        return status;
    }
    close(file->fd);
    file->fd = -1;
    if (sync_directory(file->path) != 0) {
        return fail(err, ENG_EIO, file->path, "%s is written, but its directory does not sync: %s",
                    file->path, strerror(errno));
    }
    return ENG_OK;
}

void newfile_abandon(struct newfile *file)
{
    if (file->fd >= 0) {
        close(file->fd);
        unlink(file->temporary);
        file->fd = -1;
    }
}

eng_status newfile_put(const char *path, const void *bytes, size_t size, bool replace,
                       eng_error *err)
{
    struct newfile file;
    eng_status status = newfile_begin(path, &file, err);
    if (status != ENG_OK) {
        return status;
    }
    status = newfile_write(&file, bytes, size, err);
    if (status != ENG_OK) {
        newfile_abandon(&file);
        return status;
    }
    return newfile_commit(&file, replace, err);
}
