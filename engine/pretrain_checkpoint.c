/* pretrain_checkpoint.c: what a run leaves on disk on its way. Form in pretrain_run.h. */
#include "engine/mapfile.h"
#include "engine/newfile.h"
#include "engine/pretrain_run.h"
#include "engine/status.h"

#include <string.h>
#include <unistd.h>

struct saved {
    char magic[16];
    unsigned char settings[RUN_SETTINGS];
    uint64_t step, tokens;
};

eng_status run_may_begin(const char *checkpoint, const char *output, bool resume, eng_error *err)
{
    bool begun = access(checkpoint, F_OK) == 0, there = access(output, F_OK) == 0;
    if (begun && resume) {
        return ENG_OK; /* an output beside its checkpoint was being finished */
    }
    if (begun || there) {
        return fail(err, ENG_EINVAL, "to", "%s is there already; %s", begun ? checkpoint : output,
                    begun ? "resume, or write to another place" : "write to another place");
    }
    return ENG_OK;
}

eng_status run_save(const struct pretrain_run *run, eng_error *err)
{
    struct newfile file;
    struct saved saved = {.step = run->step, .tokens = run->tokens};
    memcpy(saved.magic, run->kind->magic, sizeof saved.magic);
    memcpy(saved.settings, run->settings, sizeof saved.settings);
    eng_status status = newfile_begin(run->checkpoint, &file, err);
    if (status != ENG_OK) {
        return status;
    }
    status = newfile_write(&file, &saved, sizeof saved, err);
    if (status == ENG_OK && run->state_bytes > 0) {
        status = newfile_write(&file, run->state, run->state_bytes, err);
    }
    for (size_t i = 0; status == ENG_OK && i < run->n; i++) {
        const struct run_tensor *tensor = &run->tensors[i];
        status = newfile_write(&file, tensor->values, tensor->count * sizeof(float), err);
    }
    for (size_t i = 0; status == ENG_OK && i < run->n; i++) {
        status = newfile_write(&file, run->optimisers[i], adamw_bytes(run->optimisers[i]), err);
    }
    if (status != ENG_OK) {
        newfile_abandon(&file);
        return status;
    }
    return newfile_commit(&file, true, err);
}

static size_t saved_bytes(const struct pretrain_run *run)
{
    size_t bytes = sizeof(struct saved) + run->state_bytes;
    for (size_t i = 0; i < run->n; i++) {
        bytes += run->tensors[i].count * sizeof(float) + adamw_bytes(run->optimisers[i]);
    }
    return bytes;
}

/* The head says that this is a checkpoint of this run. */
static eng_status check_head(const struct pretrain_run *run, const struct mapfile *map,
                             struct saved *saved, eng_error *err)
{
    if (map->size < sizeof *saved ||
        memcmp(map->data, run->kind->magic, sizeof run->kind->magic) != 0) {
        return fail(err, ENG_EFORMAT, "to", "%s is not a checkpoint of such a run",
                    run->checkpoint);
    }
    memcpy(saved, map->data, sizeof *saved);
    if (memcmp(saved->settings, run->settings, sizeof saved->settings) != 0) {
        return fail(err, ENG_EMISMATCH, "to",
                    "%s was made with other settings, text, tasks or vocabulary; use the same ones",
                    run->checkpoint);
    }
    if (map->size != saved_bytes(run) || saved->step > run->schedule->steps) {
        return fail(err, ENG_EFORMAT, "to", "%s has %zu bytes, want %zu", run->checkpoint,
                    map->size, saved_bytes(run));
    }
    return ENG_OK;
}

static eng_status load_from(struct pretrain_run *run, const struct mapfile *map, eng_error *err)
{
    struct saved saved;
    eng_status status = check_head(run, map, &saved, err);
    if (status != ENG_OK) {
        return status;
    }
    const unsigned char *from = map->data + sizeof saved;
    if (run->state_bytes > 0) {
        memcpy(run->state, from, run->state_bytes);
        from += run->state_bytes;
    }
    if (run->kind->check != NULL) {
        status = run->kind->check(run->self, run->checkpoint, err);
    }
    for (size_t i = 0; status == ENG_OK && i < run->n; i++) {
        memcpy(run->tensors[i].values, from, run->tensors[i].count * sizeof(float));
        from += run->tensors[i].count * sizeof(float);
    }
    for (size_t i = 0; status == ENG_OK && i < run->n; i++) {
        size_t bytes = adamw_bytes(run->optimisers[i]);
        status = adamw_load(run->optimisers[i], from, bytes, err);
        from += bytes;
    }
    run->step = saved.step;
    run->tokens = saved.tokens;
    return status;
}

eng_status run_load(struct pretrain_run *run, eng_error *err)
{
    struct mapfile map = {.fd = -1};
    eng_status status = mapfile_open(run->checkpoint, 0, &map, err);
    if (status != ENG_OK) {
        return status == ENG_ENOTFOUND ? ENG_OK : status;
    }
    status = load_from(run, &map, err);
    mapfile_close(&map);
    return status;
}
