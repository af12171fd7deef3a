/* pickle.h (private): the pickles inside PyTorch checkpoints, as data.
 *
 * A pickle is a program for a small stack machine, and Python's machine will call anything it is told
 * to. This one calls nothing: it knows the opcodes that torch.save writes for a dictionary of tensors
 * and an allow-list of names; a call (REDUCE) of one of those becomes a node of a known kind, any
 * other name or opcode ends the reading with an error that names it. Nodes live in one arena; strings
 * point into the file. One thread while parsing, any afterwards.
 */
#ifndef ENGINE_PICKLE_H
#define ENGINE_PICKLE_H

#include "engine/weights.h"

#define PICKLE_MAX_BYTES  ((size_t)64 << 20)
#define PICKLE_MAX_STACK  100000
#define PICKLE_MAX_MEMO   1000000
#define PICKLE_MAX_MARKS  64
#define PICKLE_MAX_NODES  2000000 /* also items of tuples, entries of lists and dictionaries */
#define PICKLE_MAX_STRING 4096

enum pickle_kind {
    PICKLE_NONE,
    PICKLE_BOOL,
    PICKLE_INT,
    PICKLE_FLOAT,
    PICKLE_STRING,
    PICKLE_TUPLE,
    PICKLE_LIST,
    PICKLE_DICT,
    PICKLE_GLOBAL,
    PICKLE_STORAGE,
    PICKLE_TENSOR
};

/* A run of a tensor's memory: all values of one file entry. */
struct pickle_storage {
    const char *key; /* not a string: key_len bytes */
    size_t key_len;
    enum tensor_dtype dtype;
    uint64_t count; /* values */
};

/* A view of a storage, as written: nothing is checked against the storage yet. */
struct pickle_tensor {
    uint32_t storage; /* index */
    uint64_t offset;  /* in values */
    size_t dims;
    uint64_t shape[TENSOR_MAX_DIMS], stride[TENSOR_MAX_DIMS];
};

struct pickle;

/* Parses one pickle that begins at `bytes`; *used receives its length (another may follow). `what`
 * names the file in errors. `bytes` must outlive the result. */
ENG_MUST_CHECK eng_status pickle_parse(const unsigned char *bytes, size_t size, const char *what,
                                       size_t *used, struct pickle **out, eng_error *err);
void pickle_free(struct pickle *pickle);

/* Nodes are numbers. */
uint32_t pickle_root(const struct pickle *pickle);
enum pickle_kind pickle_kind(const struct pickle *pickle, uint32_t node);
/* Not a string: *len bytes. NULL when the node is no PICKLE_STRING. */
const char *pickle_string(const struct pickle *pickle, uint32_t node, size_t *len);
/* False when the node is no PICKLE_BOOL. */
bool pickle_bool(const struct pickle *pickle, uint32_t node, bool *out);
/* A cursor over a list (key is then unspecified) or dictionary: start with *cursor 0; false at the
 * end, and at once for any other kind. */
bool pickle_next(const struct pickle *pickle, uint32_t node, uint32_t *cursor, uint32_t *key,
                 uint32_t *value);
/* NULL when the node is no PICKLE_TENSOR. */
const struct pickle_tensor *pickle_tensor(const struct pickle *pickle, uint32_t node);
size_t pickle_storages(const struct pickle *pickle);
const struct pickle_storage *pickle_storage(const struct pickle *pickle, size_t i);

#endif
