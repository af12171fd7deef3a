/* newfile.h (private): a file that appears whole or not at all.
 *
 * Written under a temporary name beside its place, fsync'ed, renamed, and the directory fsync'ed. One
 * thread. After begin, call exactly one of commit and abandon.
 */
#ifndef ENGINE_NEWFILE_H
#define ENGINE_NEWFILE_H

#include "engine/engine.h"

#include <limits.h>

struct newfile {
    int fd;
    char path[PATH_MAX], temporary[PATH_MAX];
};

/* ENG_EIO when the temporary file cannot be made. */
ENG_MUST_CHECK eng_status newfile_begin(const char *path, struct newfile *file, eng_error *err);
/* ENG_EIO: a full disk, for one. The caller then abandons. */
ENG_MUST_CHECK eng_status newfile_write(struct newfile *file, const void *bytes, size_t size,
                                        eng_error *err);
/* Puts the file in its place. An existing file is replaced only when `replace`, else ENG_EINVAL. On
 * failure nothing is left behind. */
ENG_MUST_CHECK eng_status newfile_commit(struct newfile *file, bool replace, eng_error *err);
void newfile_abandon(struct newfile *file);
/* All of it for a file that is in memory: (size) bytes at `path`. */
ENG_MUST_CHECK eng_status newfile_put(const char *path, const void *bytes, size_t size,
                                      bool replace, eng_error *err);

#endif
