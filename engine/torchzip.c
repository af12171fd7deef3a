/* torchzip.c: PyTorch's zip files.
 *
 *     [local header, padding, bytes]… | central directory | zip64 end | zip64 locator | end
 *     <root>/data.pkl   <root>/data/<key> (one a storage)   <root>/version   <root>/byteorder
 *
 * Every entry is stored, not compressed, so that a storage is a piece of the file. Local headers carry
 * no sizes (they follow in data descriptors): the central directory is what counts. Everything is
 * checked before a tensor is looked at: entries inside the file, none overlapping, none encrypted,
 * names distinct.
 */
#include "engine/status.h"
#include "engine/torchstate.h"

#include <stdlib.h>
#include <string.h>

#define LOCAL_MAGIC   0x04034b50u
#define CENTRAL_MAGIC 0x02014b50u
#define END_MAGIC     0x06054b50u
#define END64_MAGIC   0x06064b50u
#define LOCATOR_MAGIC 0x07064b50u
#define LOCAL_SIZE    30
#define CENTRAL_SIZE  46
#define END_SIZE      22
#define END64_SIZE    56
#define LOCATOR_SIZE  20
#define COMMENT_MAX   65535
#define ENTRIES_MAX   100000
#define FLAGS_REFUSED (1u << 0 | 1u << 5 | 1u << 6 | 1u << 13) /* encrypted, patched, masked */

struct zip_entry {
    const char *name; /* not a string */
    size_t name_len;
    uint64_t header, size; /* of the local header; of the payload */
    uint64_t end;          /* first byte behind the payload */
    const unsigned char *data;
};

struct zip {
    const struct mapfile *map;
    const char *file;
    struct zip_entry *entries; /* in order of name */
    size_t n;
    uint64_t directory, directory_size, directory_end;
    const char *root; /* not a string: "archive/" */
    size_t root_len;
    eng_error *err;
};

bool torchzip_is(const struct mapfile *map)
{
    const unsigned char *bytes = mapfile_slice(map, 0, 4);
    return bytes != NULL && load_u32(bytes) == LOCAL_MAGIC;
}

static eng_status bad(const struct zip *zip, const char *problem)
{
    return fail(zip->err, ENG_EFORMAT, "zip", "%s: zip: %s", zip->file, problem);
}

static eng_status bad_entry(const struct zip *zip, const struct zip_entry *entry,
                            const char *problem)
{
    char name[96];
    size_t len = entry->name_len < sizeof name - 1 ? entry->name_len : sizeof name - 1;
    for (size_t i = 0; i < len; i++) {
        name[i] = entry->name[i] >= 0x20 && entry->name[i] < 0x7F ? entry->name[i] : '?';
    }
    name[len] = '\0';
    return fail(zip->err, ENG_EFORMAT, name, "%s: zip entry \"%s\": %s", zip->file, name, problem);
}

/* ---- where the directory is ------------------------------------------------------------------- */

/* The end record closes the file, but for a comment of the length it says. */
static bool find_end(const struct mapfile *map, uint64_t *at)
{
    if (map->size < END_SIZE) {
        return false;
    }
    uint64_t last = map->size - END_SIZE;
    uint64_t first = last > COMMENT_MAX ? last - COMMENT_MAX : 0;
    for (uint64_t i = last + 1; i-- > first;) {
        const unsigned char *end = mapfile_slice(map, i, END_SIZE);
        if (load_u32(end) == END_MAGIC && load_u16(end + 20) == last - i) {
            *at = i;
            return true;
        }
    }
    return false;
}

/* The zip64 end record, when there is one before the end record at `end_at`. */
static eng_status read_end64(struct zip *zip, uint64_t end_at, bool *found)
{
    *found = false;
    const unsigned char *locator =
        end_at >= LOCATOR_SIZE ? mapfile_slice(zip->map, end_at - LOCATOR_SIZE, LOCATOR_SIZE)
                               : NULL;
    if (locator == NULL || load_u32(locator) != LOCATOR_MAGIC) {
        return ENG_OK;
    }
    uint64_t at = load_u64(locator + 8);
    const unsigned char *end = mapfile_slice(zip->map, at, END64_SIZE);
    if (end == NULL || load_u32(end) != END64_MAGIC || at + END64_SIZE > end_at - LOCATOR_SIZE) {
        return bad(zip, "the zip64 end record is not where its locator says");
    }
    if (load_u32(end + 16) != 0 || load_u32(end + 20) != 0 ||
        load_u64(end + 24) != load_u64(end + 32)) {
        return bad(zip, "split over several disks");
    }
    if (load_u64(end + 32) > ENTRIES_MAX) {
        return bad(zip, "more than 100000 entries");
    }
    zip->n = (size_t)load_u64(end + 32);
    zip->directory_size = load_u64(end + 40);
    zip->directory = load_u64(end + 48);
    zip->directory_end = at;
    *found = true;
    return ENG_OK;
}

static eng_status find_directory(struct zip *zip)
{
    uint64_t at = 0;
    bool is64 = false;
    if (!find_end(zip->map, &at)) {
        return bad(zip, "no end record: the file is cut short");
    }
    eng_status status = read_end64(zip, at, &is64);
    if (status != ENG_OK) {
        return status;
    }
    const unsigned char *end = mapfile_slice(zip->map, at, END_SIZE);
    if (load_u16(end + 4) != load_u16(end + 6)) {
        return bad(zip, "split over several disks");
    }
    if (!is64) {
        zip->n = load_u16(end + 10);
        zip->directory_size = load_u32(end + 12);
        zip->directory = load_u32(end + 16);
        zip->directory_end = at;
    }
    if (zip->directory > zip->directory_end ||
        zip->directory_size > zip->directory_end - zip->directory) {
        return bad(zip, "the central directory is not inside the file");
    }
    if (zip->n == 0 || zip->n > zip->directory_size / CENTRAL_SIZE) {
        return bad(zip, "the central directory is too small for the entries it counts");
    }
    return ENG_OK;
}

/* ---- entries ---------------------------------------------------------------------------------- */

/* Sizes and place that do not fit 32 bits are in extra field 1, those that are needed, in order. */
static bool read_extra64(const unsigned char *extra, size_t len, struct zip_entry *entry,
                         uint64_t *stored)
{
    uint64_t *fields[3] = {&entry->size, stored, &entry->header};
    while (len >= 4) {
        size_t size = load_u16(extra + 2);
        if (size > len - 4) {
            return false;
        }
        if (load_u16(extra) == 1) {
            size_t at = 4;
            for (size_t i = 0; i < 3; i++) {
                if (*fields[i] != UINT32_MAX) {
                    continue;
                }
                if (at + 8 > 4 + size) {
                    return false;
                }
                *fields[i] = load_u64(extra + at);
                at += 8;
            }
            return true;
        }
        extra += 4 + size;
        len -= 4 + size;
    }
    return true;
}

/* The local header says only where the payload begins. */
static eng_status locate(const struct zip *zip, struct zip_entry *entry)
{
    const unsigned char *local = mapfile_slice(zip->map, entry->header, LOCAL_SIZE);
    if (local == NULL || load_u32(local) != LOCAL_MAGIC) {
        return bad_entry(zip, entry, "its local header is not where the directory says");
    }
    size_t name_len = load_u16(local + 26), extra = load_u16(local + 28);
    const unsigned char *name = mapfile_slice(zip->map, entry->header + LOCAL_SIZE, name_len);
    if (name == NULL || name_len != entry->name_len || memcmp(name, entry->name, name_len) != 0 ||
        load_u16(local + 8) != 0) {
        return bad_entry(zip, entry, "local header and directory disagree");
    }
    uint64_t start = entry->header + LOCAL_SIZE + name_len + extra;
    entry->data = mapfile_slice(zip->map, start, entry->size);
    if (entry->data == NULL || start + entry->size > zip->directory) {
        return bad_entry(zip, entry,
                         "runs past its place: the file is cut short or the size wrong");
    }
    entry->end = start + entry->size;
    return ENG_OK;
}

/* One record of the central directory; *at moves behind it. */
static eng_status read_entry(const struct zip *zip, uint64_t *at, struct zip_entry *entry)
{
    uint64_t left = zip->directory + zip->directory_size - *at;
    const unsigned char *record = mapfile_slice(zip->map, *at, CENTRAL_SIZE);
    if (left < CENTRAL_SIZE || record == NULL || load_u32(record) != CENTRAL_MAGIC) {
        return bad(zip, "the central directory is damaged");
    }
    size_t name_len = load_u16(record + 28), extra_len = load_u16(record + 30);
    size_t total = CENTRAL_SIZE + name_len + extra_len + load_u16(record + 32);
    if (total > left) {
        return bad(zip, "the central directory is damaged");
    }
    uint64_t stored = load_u32(record + 20);
    *entry = (struct zip_entry){.name = (const char *)record + CENTRAL_SIZE,
                                .name_len = name_len,
                                .size = load_u32(record + 24),
                                .header = load_u32(record + 42)};
    *at += total;
    if (!read_extra64(record + CENTRAL_SIZE + name_len, extra_len, entry, &stored)) {
        return bad_entry(zip, entry, "its extra field is damaged");
    }
    if ((load_u16(record + 8) & FLAGS_REFUSED) != 0) {
        return bad_entry(zip, entry, "encrypted or masked");
    }
    if (load_u16(record + 10) != 0) {
        return bad_entry(zip, entry, "compressed; torch.save stores without compression");
    }
    if (stored != entry->size) {
        return bad_entry(zip, entry, "stored and plain size differ");
    }
    return locate(zip, entry);
}

static int by_place(const void *a, const void *b)
{
    const struct zip_entry *x = a, *y = b;
    return x->header < y->header ? -1 : x->header > y->header;
}

static int compare_bytes(const char *a, size_t a_len, const char *b, size_t b_len)
{
    int order = memcmp(a, b, a_len < b_len ? a_len : b_len);
    return order != 0 ? order : (a_len > b_len) - (a_len < b_len);
}

static int by_name(const void *a, const void *b)
{
    const struct zip_entry *x = a, *y = b;
    return compare_bytes(x->name, x->name_len, y->name, y->name_len);
}

static eng_status read_directory(struct zip *zip)
{
    uint64_t at = zip->directory;
    zip->entries = calloc(zip->n, sizeof *zip->entries);
    if (zip->entries == NULL) {
        return fail_nomem(zip->err, zip->file);
    }
    for (size_t i = 0; i < zip->n; i++) {
        eng_status status = read_entry(zip, &at, &zip->entries[i]);
        if (status != ENG_OK) {
            return status;
        }
    }
    qsort(zip->entries, zip->n, sizeof *zip->entries, by_place);
    for (size_t i = 1; i < zip->n; i++) {
        if (zip->entries[i].header < zip->entries[i - 1].end) {
            return bad_entry(zip, &zip->entries[i], "overlaps another entry");
        }
    }
    qsort(zip->entries, zip->n, sizeof *zip->entries, by_name);
    for (size_t i = 1; i < zip->n; i++) {
        if (by_name(&zip->entries[i - 1], &zip->entries[i]) == 0) {
            return bad_entry(zip, &zip->entries[i], "is there twice");
        }
    }
    return ENG_OK;
}

/* ---- what torch put there ------------------------------------------------------------------------ */

/* Entry <root><folder><key>, or NULL. */
static const struct zip_entry *find(const struct zip *zip, const char *folder, const char *key,
                                    size_t key_len)
{
    char name[512];
    size_t folder_len = strlen(folder), len = zip->root_len + folder_len + key_len;
    if (len > sizeof name) {
        return NULL;
    }
    memcpy(name, zip->root, zip->root_len);
    memcpy(name + zip->root_len, folder, folder_len);
    memcpy(name + zip->root_len + folder_len, key, key_len);
    const struct zip_entry wanted = {.name = name, .name_len = len};
    return bsearch(&wanted, zip->entries, zip->n, sizeof *zip->entries, by_name);
}

/* data.pkl at the top or in the one folder of the archive. */
static const struct zip_entry *find_pickle(struct zip *zip)
{
    static const char name[] = "data.pkl";
    const size_t len = sizeof name - 1;
    for (size_t i = 0; i < zip->n; i++) {
        const struct zip_entry *entry = &zip->entries[i];
        size_t root = entry->name_len - len;
        if (entry->name_len >= len && memcmp(entry->name + root, name, len) == 0 &&
            (root == 0 || memchr(entry->name, '/', root) == entry->name + root - 1)) {
            zip->root = entry->name;
            zip->root_len = root;
            return entry;
        }
    }
    return NULL;
}

static eng_status find_storage(void *arg, const struct pickle_storage *storage,
                               const unsigned char **out, eng_error *err)
{
    const struct zip *zip = arg;
    const struct zip_entry *entry = find(zip, "data/", storage->key, storage->key_len);
    uint64_t bytes = 0;
    if (entry == NULL) {
        return fail(err, ENG_EFORMAT, "pickle", "%s: storage \"%.*s\" is not in the file",
                    zip->file, storage->key_len < 64 ? (int)storage->key_len : 64, storage->key);
    }
    if (__builtin_mul_overflow(storage->count, dtype_size(storage->dtype), &bytes) ||
        bytes != entry->size) {
        return fail(err, ENG_EFORMAT, "pickle",
                    "%s: storage \"%.*s\" should hold %llu %s values, its entry has %llu bytes",
                    zip->file, storage->key_len < 64 ? (int)storage->key_len : 64, storage->key,
                    (unsigned long long)storage->count, dtype_name(storage->dtype),
                    (unsigned long long)entry->size);
    }
    *out = entry->data;
    return ENG_OK;
}

static eng_status check_byteorder(const struct zip *zip)
{
    const struct zip_entry *entry = find(zip, "byteorder", "", 0);
    if (entry == NULL || (entry->size == 6 && memcmp(entry->data, "little", 6) == 0)) {
        return ENG_OK;
    }
    return bad_entry(zip, entry, "not \"little\": values of another byte order are not read");
}

static eng_status read_tensors(struct zip *zip, struct weights *weights)
{
    const struct zip_entry *entry = find_pickle(zip);
    struct pickle *pickle = NULL;
    size_t used = 0;
    if (entry == NULL) {
        return bad(zip, "no data.pkl: a zip file, but not one of torch.save");
    }
    if (entry->size > PICKLE_MAX_BYTES) {
        return bad_entry(zip, entry, "larger than the 64 MiB that are read");
    }
    eng_status status = check_byteorder(zip);
    if (status == ENG_OK) {
        status =
            pickle_parse(entry->data, (size_t)entry->size, zip->file, &used, &pickle, zip->err);
    }
    if (status == ENG_OK) {
        status = torchstate_collect(pickle, find_storage, zip, weights, zip->err);
    }
    pickle_free(pickle);
    return status;
}

eng_status torchzip_read(const struct mapfile *map, struct weights *weights, eng_error *err)
{
    struct zip zip = {.map = map, .file = weights_file(weights), .err = err};
    eng_status status = find_directory(&zip);
    if (status == ENG_OK) {
        status = read_directory(&zip);
    }
    if (status == ENG_OK) {
        status = read_tensors(&zip, weights);
    }
    free(zip.entries);
    return status;
}
