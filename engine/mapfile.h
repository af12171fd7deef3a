/* mapfile.h (private): a regular file mapped read-only, and the only way to look into it.
 *
 * Threads.   A mapping never changes: any thread may read. Open and close are for one thread.
 * Lifetime.  Pointers from mapfile_slice end with mapfile_close.
 * Shrinking. A file cut short after it was mapped would raise SIGBUS on its lost pages. So files are
 *            replaced by rename, never rewritten in place, and mapfile_check tells, after a reader is
 *            done, whether the file changed under it.
 */
#ifndef ENGINE_MAPFILE_H
#define ENGINE_MAPFILE_H

#include "engine/engine.h"

struct mapfile {
    const unsigned char *data; /* NULL when the file is empty */
    size_t size;               /* bytes */
    int fd;                    /* -1: borrowed memory, nothing to unmap */
    int64_t mtime_s, mtime_ns;
};

/* Maps `path`. ENG_ENOTFOUND when there is none, ENG_EIO when it cannot be opened, ENG_EFORMAT when it
 * is not a regular file, ENG_ELIMIT when it is larger than max_bytes (0: no limit). */
ENG_MUST_CHECK eng_status mapfile_open(const char *path, size_t max_bytes, struct mapfile *out,
                                       eng_error *err);
/* A mapping that borrows memory, for tests, fuzzing and parts of a file already mapped. */
void mapfile_borrow(const void *data, size_t size, struct mapfile *out);
/* ENG_EIO when the file on disk no longer has the size and time it was mapped with. */
ENG_MUST_CHECK eng_status mapfile_check(const struct mapfile *map, const char *path,
                                        eng_error *err);
/* Safe on a zeroed or already closed struct. */
void mapfile_close(struct mapfile *map);

/* `len` bytes from `offset`, or NULL when they are not all inside the file. */
const unsigned char *mapfile_slice(const struct mapfile *map, uint64_t offset, uint64_t len);

/* Little-endian numbers at any alignment. */
uint16_t load_u16(const unsigned char *bytes);
uint32_t load_u32(const unsigned char *bytes);
uint64_t load_u64(const unsigned char *bytes);

#endif
