/* weights.h (private): tensors from any file we read, behind one interface.
 *
 *     safetensors.c   model.safetensors, its shards with an index, prompt banks
 *     torchzip.c, torchlegacy.c   PyTorch's zip files, and the stream older than 1.6
 *     weights.c       which reader a file wants, finding by name, values as float32
 *
 * Threads.   Opening and weights_f32 are for one thread; afterwards nothing changes.
 * Lifetime.  Tensors, names, metadata and float pointers belong to the struct weights and end with
 *            weights_free. A float32 tensor that lies aligned and contiguous in its file is used in
 *            place, from the mapping; everything else is converted once into memory of its own.
 * Errors.    The file is named in the text, the tensor in the field.
 */
#ifndef ENGINE_WEIGHTS_H
#define ENGINE_WEIGHTS_H

#include "engine/engine.h"

#define TENSOR_MAX_DIMS       8
#define TENSOR_MAX_NAME       1024 /* bytes */
#define WEIGHTS_MAX_TENSORS   20000
#define WEIGHTS_MAX_SHARDS    256
#define WEIGHTS_MAX_FILE_SIZE ((size_t)1 << 40)

enum tensor_dtype {
    DTYPE_F32,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_F64,
    DTYPE_I64,
    DTYPE_I32,
    DTYPE_I16,
    DTYPE_I8,
    DTYPE_U8,
    DTYPE_BOOL,
    DTYPE_COUNT
};

/* "F32", "BF16", …; static strings. */
const char *dtype_name(enum tensor_dtype dtype);
size_t dtype_size(enum tensor_dtype dtype); /* bytes of one value */
bool dtype_parse(const char *name, enum tensor_dtype *out);

struct tensor {
    const char *name; /* string */
    const char *file; /* string: path of the file it lies in */
    enum tensor_dtype dtype;
    size_t dims;
    size_t shape[TENSOR_MAX_DIMS];
    size_t stride[TENSOR_MAX_DIMS]; /* in values */
    size_t count;                   /* product of shape; 1 for a scalar */
    bool contiguous;                /* C order, no gaps */
    const unsigned char *data; /* first value; any alignment; inside the file for every index */
    float *converted;          /* by weights_f32, or NULL */
};

struct weights;

/* One file, whatever it is: told apart by its first bytes, not by its name. */
ENG_MUST_CHECK eng_status weights_open(const char *path, struct weights **out, eng_error *err);
/* The weights of a model directory: model.safetensors, else model.safetensors.index.json and its
 * shards, else pytorch_model.bin. ENG_ENOTFOUND when there is none of them. */
ENG_MUST_CHECK eng_status weights_open_dir(const char *dir, struct weights **out, eng_error *err);
/* A file already in memory (tests, fuzzing); `bytes` is borrowed until weights_free. */
ENG_MUST_CHECK eng_status weights_open_memory(const void *bytes, size_t size, const char *what,
                                              struct weights **out, eng_error *err);
void weights_free(struct weights *weights);

size_t weights_count(const struct weights *weights);
/* Tensors in the order of the file. */
const struct tensor *weights_at(const struct weights *weights, size_t i);
/* NULL when there is no tensor of that name. */
const struct tensor *weights_find(const struct weights *weights, const char *name);
/* Value of a safetensors metadata key (string), or NULL. */
const char *weights_metadata(const struct weights *weights, const char *key);
size_t weights_metadata_count(const struct weights *weights);
void weights_metadata_at(const struct weights *weights, size_t i, const char **key,
                         const char **value);
/* Path of the file (or directory), for messages. */
const char *weights_path(const struct weights *weights);
/* Fails when a mapped file changed since it was opened (mapfile_check). */
ENG_MUST_CHECK eng_status weights_check(const struct weights *weights, eng_error *err);

/* *out: the tensor's values (count) as float32, C order, owned by `weights`. F32, F16, BF16 and F64
 * only, else ENG_EUNSUPPORTED. Narrowed F64 may become infinite. */
ENG_MUST_CHECK eng_status weights_f32(struct weights *weights, const struct tensor *tensor,
                                      const float **out, eng_error *err);
/* Values that weights_f32 handed out lie in a file, not in memory of ours. */
bool weights_mapped(const struct weights *weights, const float *values);
/* Gives back the memory behind `count` values that weights_f32 handed out. True: they lie in a mapped
 * file and can still be read (slowly, once); false: they are gone. */
bool weights_drop(const struct weights *weights, const float *values, size_t count);
/* Copies the values (count) as float32 into the caller's memory. Same dtypes. */
ENG_MUST_CHECK eng_status tensor_read_f32(const struct tensor *tensor, float *out, eng_error *err);
/* Copies integer values (count): I64, I32, I16, I8, U8 and BOOL. */
ENG_MUST_CHECK eng_status tensor_read_i64(const struct tensor *tensor, int64_t *out,
                                          eng_error *err);
/* "(2, 32)", for messages. */
void tensor_shape_text(const size_t *shape, size_t dims, char *text, size_t size);

#endif
