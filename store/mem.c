/* mem.c: the memory of results: a list of blocks that only grows, freed as a whole. */
#include "store/db.h"

#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES 4096u
#define ALIGNMENT   16u

struct block {
    struct block *next;
    size_t used, size;
    _Alignas(ALIGNMENT) unsigned char data[];
};

struct store_mem {
    struct block *blocks; /* the newest first; only it has room */
};

store_mem *store_mem_new(void)
{
    return calloc(1, sizeof(store_mem));
}

void store_mem_reset(store_mem *mem)
{
    while (mem->blocks != NULL) {
        struct block *next = mem->blocks->next;
        free(mem->blocks);
        mem->blocks = next;
    }
}

void store_mem_free(store_mem *mem)
{
    if (mem != NULL) {
        store_mem_reset(mem);
        free(mem);
    }
}

static struct block *block_new(size_t size)
{
    if (size > SIZE_MAX - sizeof(struct block)) {
        return NULL;
    }
    struct block *block = malloc(sizeof *block + size);
    if (block != NULL) {
        block->next = NULL;
        block->used = 0;
        block->size = size;
    }
    return block;
}

void *db_mem_alloc(store_mem *mem, size_t size)
{
    if (size > SIZE_MAX - ALIGNMENT) {
        return NULL;
    }
    size = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    struct block *top = mem->blocks;
    if (top == NULL || top->size - top->used < size) {
        struct block *block = block_new(size > BLOCK_BYTES ? size : BLOCK_BYTES);
        if (block == NULL) {
            return NULL;
        }
        block->next = top;
        mem->blocks = top = block;
    }
    void *out = top->data + top->used;
    top->used += size;
    return out;
}
