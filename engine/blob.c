/* blob.c: moving saved state, and the frame around it. Contract in blob.h. */
#include "engine/blob.h"

#include "engine/status.h"

#include <string.h>

#define BLOB_MAGIC   0x45544154535F324Du /* "M2_STATE" */
#define BLOB_VERSION 3u

struct header {
    uint64_t magic;
    uint32_t version, kind;
    uint64_t bytes; /* of the whole block */
    uint64_t identity;
    uint64_t checksum; /* of what follows the header */
};

uint64_t blob_hash(uint64_t hash, const void *data, size_t bytes)
{
    const unsigned char *at = data;
    for (size_t i = 0; i < bytes; i++) {
        hash = (hash ^ at[i]) * 0x100000001B3u;
    }
    return hash;
}

/* ---- moving ---------------------------------------------------------------------------------------- */

bool blob_move(struct blob *blob, void *data, size_t bytes)
{
    if (blob->mode == BLOB_READ && bytes > blob->size - blob->used) {
        return false;
    }
    if (blob->mode == BLOB_WRITE) {
        memcpy(blob->at + blob->used, data, bytes);
    } else if (blob->mode == BLOB_READ) {
        memcpy(data, blob->at + blob->used, bytes);
    }
    blob->used += bytes;
    return true;
}

bool blob_doubles(struct blob *blob, double *data, size_t n)
{
    size_t bytes = 0;
    return size_mul(n, sizeof *data, &bytes) && blob_move(blob, data, bytes);
}

bool blob_floats(struct blob *blob, float *data, size_t n)
{
    size_t bytes = 0;
    return size_mul(n, sizeof *data, &bytes) && blob_move(blob, data, bytes);
}

bool blob_sizes(struct blob *blob, size_t *data, size_t n)
{
    size_t bytes = 0;
    return size_mul(n, sizeof *data, &bytes) && blob_move(blob, data, bytes);
}

unsigned char *blob_take(struct blob *blob, size_t bytes, bool *ok)
{
    *ok = blob->mode != BLOB_READ || bytes <= blob->size - blob->used;
    unsigned char *at = *ok && blob->mode != BLOB_COUNT ? blob->at + blob->used : NULL;
    blob->used += *ok ? bytes : 0;
    return at;
}

/* ---- the frame --------------------------------------------------------------------------------------- */

struct blob blob_count(void)
{
    return (struct blob){.mode = BLOB_COUNT, .used = sizeof(struct header)};
}

struct blob blob_write(void *block)
{
    return (struct blob){
        .mode = BLOB_WRITE, .at = block, .used = sizeof(struct header), .size = SIZE_MAX};
}

struct blob blob_read(const void *block, size_t bytes)
{
    return (struct blob){.mode = BLOB_READ,
                         .at = (unsigned char *)(uintptr_t)block,
                         .used = sizeof(struct header),
                         .size = bytes};
}

void blob_close(const struct blob_frame *frame, void *block, size_t bytes)
{
    size_t head = sizeof(struct header);
    struct header header = {.magic = BLOB_MAGIC,
                            .version = BLOB_VERSION,
                            .kind = frame->kind,
                            .bytes = bytes,
                            .identity = frame->identity,
                            .checksum =
                                blob_hash(HASH_START, (unsigned char *)block + head, bytes - head)};
    memcpy(block, &header, head);
}

eng_status blob_check(const struct blob_frame *frame, const void *block, size_t bytes,
                      eng_error *err)
{
    struct header header;
    if (bytes < sizeof header) {
        return fail(err, ENG_EFORMAT, frame->name,
                    "saved state is %zu bytes, shorter than its header", bytes);
    }
    memcpy(&header, block, sizeof header);
    if (header.magic != BLOB_MAGIC || header.version != BLOB_VERSION) {
        return fail(err, ENG_EFORMAT, frame->name, "not a saved state of version %u", BLOB_VERSION);
    }
    if (header.bytes != bytes) {
        return fail(err, ENG_EFORMAT, frame->name, "saved state is %zu bytes, its header says %llu",
                    bytes, (unsigned long long)header.bytes);
    }
    const unsigned char *body = (const unsigned char *)block + sizeof header;
    if (blob_hash(HASH_START, body, bytes - sizeof header) != header.checksum) {
        return fail(err, ENG_EFORMAT, frame->name,
                    "saved state is damaged: its checksum does not match");
    }
    if (header.kind != frame->kind || header.identity != frame->identity) {
        return fail(err, ENG_EMISMATCH, frame->name,
                    "saved state belongs to another method, seed, data or set of settings; give "
                    "what it was saved under");
    }
    return ENG_OK;
}
