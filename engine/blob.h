/* blob.h (private): saved state as one block of bytes.
 *
 * The layout of a state is written once, as a function that moves its members through a struct blob:
 * the same function counts, writes and reads. A block that leaves the process stands in a frame: magic,
 * length, a checksum of all that follows, and a hash of the settings the state belongs to, so that a
 * block that was cut or altered is found before anything of it is believed, and a state never goes on
 * under other settings. The checksum finds accidents, not forgers: readers check every count.
 * Blocks are in this machine's byte order.
 */
#ifndef ENGINE_BLOB_H
#define ENGINE_BLOB_H

#include "engine/engine.h"

struct blob {
    enum { BLOB_COUNT, BLOB_WRITE, BLOB_READ } mode;
    unsigned char *at;
    size_t used, size; /* READ: size is what there is */
};

/* READ: false when the block ends too early; `data` is then untouched. */
ENG_MUST_CHECK bool blob_move(struct blob *blob, void *data, size_t bytes);
ENG_MUST_CHECK bool blob_doubles(struct blob *blob, double *data, size_t n);
ENG_MUST_CHECK bool blob_floats(struct blob *blob, float *data, size_t n);
ENG_MUST_CHECK bool blob_sizes(struct blob *blob, size_t *data, size_t n);

/* The next `bytes` bytes of the block, to be written or read where they lie. NULL when counting; *ok
 * false (and NULL) when a block that is read ends too early. */
unsigned char *blob_take(struct blob *blob, size_t bytes, bool *ok);

/* Says what a framed block is. */
struct blob_frame {
    const char *name;  /* in errors */
    uint32_t kind;     /* blocks of another kind are not mistaken for it */
    uint64_t identity; /* hash of what the state depends on */
};

/* Where the state begins in a framed block. */
struct blob blob_count(void);
struct blob blob_write(void *block);
/* Blocks are read, not written: `block` loses its const for the struct's sake alone. */
struct blob blob_read(const void *block, size_t bytes);

/* Fills in the frame of a block of `bytes` bytes, all of it written. */
void blob_close(const struct blob_frame *frame, void *block, size_t bytes);
/* ENG_EFORMAT: cut, altered, of another version or kind. ENG_EMISMATCH: of other settings. */
ENG_MUST_CHECK eng_status blob_check(const struct blob_frame *frame, const void *block,
                                     size_t bytes, eng_error *err);

/* FNV-1a, 64 bits. */
#define HASH_START 0xCBF29CE484222325u
uint64_t blob_hash(uint64_t hash, const void *data, size_t bytes);

#endif
