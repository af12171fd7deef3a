/* torchfile.h: PyTorch files put together piece by piece: pickles, zip archives, legacy streams. */
#ifndef TESTS_UNIT_TORCHFILE_H
#define TESTS_UNIT_TORCHFILE_H

#include "tests/unit/bytes.h"

/* ---- pickles ---------------------------------------------------------------------------------- */

static inline void pk_text(struct bytes *b, const char *text)
{
    put_text(b, "X");
    put_number(b, strlen(text), 4);
    put_text(b, text);
}

static inline void pk_int(struct bytes *b, int64_t value)
{
    put(b, "\x8a\x08", 2);
    put_number(b, (uint64_t)value, 8);
}

static inline void pk_sizes(struct bytes *b, const int64_t *sizes, size_t n)
{
    put_text(b, "(");
    for (size_t i = 0; i < n; i++) {
        pk_int(b, sizes[i]);
    }
    put_text(b, "t");
}

static inline void pk_storage(struct bytes *b, const char *type, const char *key, int64_t count)
{
    put_text(b, "(");
    pk_text(b, "storage");
    put_text(b, "ctorch\n");
    put_text(b, type);
    put_text(b, "\n");
    pk_text(b, key);
    pk_text(b, "cpu");
    pk_int(b, count);
    put_text(b, "tQ");
}

/* A tensor as torch.save writes it. */
struct view {
    const char *type, *key;
    int64_t count, offset;
    size_t dims;
    int64_t shape[9], stride[9];
};

static inline void pk_tensor(struct bytes *b, const struct view *view)
{
    put_text(b, "ctorch._utils\n_rebuild_tensor_v2\n(");
    pk_storage(b, view->type, view->key, view->count);
    pk_int(b, view->offset);
    pk_sizes(b, view->shape, view->dims);
    pk_sizes(b, view->stride, view->dims);
    put_text(b, "\x89"
                "ccollections\nOrderedDict\n)RtR");
}

/* {name: tensor, …} whole: PROTO to STOP. */
static inline struct bytes pk_state(const char *const *names, const struct view *views, size_t n)
{
    struct bytes b = {0};
    put(&b, "\x80\x02}(", 4);
    for (size_t i = 0; i < n; i++) {
        pk_text(&b, names[i]);
        pk_tensor(&b, &views[i]);
    }
    put_text(&b, "u.");
    return b;
}

/* ---- zip archives ------------------------------------------------------------------------------ */

struct zip_part {
    const char *name;
    const void *data;
    size_t size;
    /* What the directory says when it lies. */
    unsigned flags, method;
    uint32_t stored_plus, size_plus, header_plus;
};

static inline void zip_local(struct bytes *b, const struct zip_part *part)
{
    put_number(b, 0x04034b50, 4);
    put_number(b, 0, 2);
    put_number(b, 0x0808, 2);
    put_number(b, 0, 2 + 4 + 4 + 4 + 4); /* method, time, crc and sizes: all in the directory */
    put_number(b, strlen(part->name), 2);
    put_number(b, 3, 2);
    put_text(b, part->name);
    put_text(b, "ZZZ"); /* padding, as torch does to align */
    put(b, part->data, part->size);
}

static inline void zip_central(struct bytes *b, const struct zip_part *part, size_t header)
{
    put_number(b, 0x02014b50, 4);
    put_number(b, 0, 4);
    put_number(b, 0x0808 | part->flags, 2);
    put_number(b, part->method, 2);
    put_number(b, 0, 8);
    put_number(b, part->size + part->stored_plus, 4);
    put_number(b, part->size + part->size_plus, 4);
    put_number(b, strlen(part->name), 2);
    put_number(b, 0, 12);
    put_number(b, header + part->header_plus, 4);
    put_text(b, part->name);
}

static inline void zip_end(struct bytes *b, size_t entries, size_t size, size_t directory)
{
    put_number(b, 0x06054b50, 4);
    put_number(b, 0, 4);
    put_number(b, entries, 2);
    put_number(b, entries, 2);
    put_number(b, size, 4);
    put_number(b, directory, 4);
    put_number(b, 0, 2);
}

static inline struct bytes zip_of(const struct zip_part *parts, size_t n)
{
    struct bytes b = {0};
    size_t headers[16];
    for (size_t i = 0; i < n && i < 16; i++) {
        headers[i] = b.n;
        zip_local(&b, &parts[i]);
    }
    size_t directory = b.n;
    for (size_t i = 0; i < n && i < 16; i++) {
        zip_central(&b, &parts[i], headers[i]);
    }
    zip_end(&b, n, b.n - directory, directory);
    return b;
}

/* An archive of one pickle and one storage "0". */
static inline struct bytes zip_of_pickle(const struct bytes *pickle, const void *data, size_t size)
{
    const struct zip_part parts[] = {
        {.name = "a/data.pkl", .data = pickle->data, .size = pickle->n},
        {.name = "a/data/0", .data = data, .size = size}};
    return zip_of(parts, 2);
}

#endif
