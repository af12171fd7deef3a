/* prompts_fixture.h: task folders for runs of `pretrain prompts`, and running one. Two tasks on the same
 * texts with the same words, which mean the contrary of each other: only routes can tell them apart.
 */
#ifndef TESTS_UNIT_PROMPTS_FIXTURE_H
#define TESTS_UNIT_PROMPTS_FIXTURE_H

#include "tests/unit/toy_task.h"

#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- folders of tasks ---- */

struct place {
    char dir[64], model[96], to[96];
};

static inline void write_rows(const char *dir, const char *name, const char *pleased,
                              const char *angry, size_t from, size_t to)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "w");
    REQUIRE(file != NULL);
    for (size_t i = from; i < to; i++) {
        fprintf(file, "{\"text\":\"%s\",\"label\":\"%s\"}\n", toy_pleased[i], pleased);
        fprintf(file, "{\"text\":\"%s\",\"label\":\"%s\"}\n", toy_angry[i], angry);
    }
    fclose(file);
}

/* Twelve of each kind train, four are dev. */
static inline void write_task(const struct place *place, const char *name, const char *pleased,
                              const char *angry, const char *labels)
{
    char dir[160], path[256];
    snprintf(dir, sizeof dir, "%s/tasks/%s", place->dir, name);
    REQUIRE(mkdir(dir, 0700) == 0);
    snprintf(path, sizeof path, "%s/task.json", dir);
    FILE *file = fopen(path, "w");
    REQUIRE(file != NULL);
    fprintf(file,
            "{\"name\":\"%s\",\"type\":\"classification\",\"labels\":[%s],"
            "\"template\":\"问题：\\\"{text}\\\"选项：\"}\n",
            name, labels);
    fclose(file);
    write_rows(dir, "train.jsonl", pleased, angry, 0, 12);
    write_rows(dir, "dev.jsonl", pleased, angry, 12, 16);
    write_rows(dir, "test.jsonl", pleased, angry, 15, 16);
}

/* Two tasks on the same texts with the same words, which mean the contrary of each other. */
static inline bool make_place(struct place *place)
{
    char tasks[96];
    snprintf(place->dir, sizeof place->dir, "/tmp/mp2-prompts-XXXXXX");
    if (mkdtemp(place->dir) == NULL) {
        return false;
    }
    snprintf(place->model, sizeof place->model, "%s", TEST_SOURCE_DIR "/tests/models/boot");
    snprintf(place->to, sizeof place->to, "%s/out.bank.safetensors", place->dir);
    snprintf(tasks, sizeof tasks, "%s/tasks", place->dir);
    if (mkdir(tasks, 0700) != 0) {
        return false;
    }
    write_task(place, "minus", "甲", "乙", "\"甲\",\"乙\"");
    write_task(place, "plus", "乙", "甲", "\"甲\",\"乙\"");
    return true;
}

static inline int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

static inline void remove_dir(const char *path)
{
    CHECK(nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS) == 0);
}

/* config.tasks points at *tasks. */
static inline eng_prompts_config tiny(const struct place *place, char path[96], const char **tasks)
{
    eng_prompts_config config;
    eng_prompts_defaults(&config);
    snprintf(path, 96, "%s/tasks", place->dir);
    *tasks = path;
    config.model = place->model;
    config.tasks = tasks;
    config.n_tasks = 1;
    config.to = place->to;
    config.modules = 4;
    config.prompt_tokens = 4;
    config.intrinsic = 8;
    config.batch = 8;
    config.lr_prompt = config.lr_head = 1e-2;
    config.lr_route = 1e-1;
    config.schedule.steps = 30;
    config.schedule.warmup = 5;
    config.schedule.dev_every = 10;
    config.schedule.save_every = 0;
    return config;
}

/* ---- runs ---- */

struct watch {
    size_t stop_at, steps; /* stop_at 0: never */
    double first, best;
    size_t looks, minus;
    int slow; /* microseconds a step */
};

static inline bool watch(void *arg, const eng_pretrain_progress *progress)
{
    struct watch *w = arg;
    if (isfinite(progress->dev_score)) {
        w->first = w->looks == 0 ? progress->dev_score : w->first;
        w->best = progress->best ? progress->dev_score : w->best;
        w->looks++;
    }
    w->steps += progress->step > 0;
    w->minus += progress->task != NULL && strncmp(progress->task, "minus", 5) == 0;
    if (w->slow > 0) {
        usleep((useconds_t)w->slow);
    }
    return w->stop_at == 0 || progress->step < w->stop_at;
}

static inline eng_status pretrain(const eng_prompts_config *config, size_t threads, struct watch *w,
                                  eng_error *err)
{
    eng_compute *compute = NULL;
    eng_status status = eng_compute_start(threads, NULL, &compute, err);
    if (status == ENG_OK) {
        status = eng_pretrain_prompts(compute, config, watch, w, err);
        eng_compute_stop(compute);
    }
    return status;
}

static inline char *slurp(const char *path, size_t *size)
{
    FILE *file = fopen(path, "r");
    char *bytes = file != NULL ? malloc(1 << 20) : NULL;
    *size = bytes != NULL ? fread(bytes, 1, 1 << 20, file) : 0;
    if (file != NULL) {
        fclose(file);
    }
    return bytes;
}

static inline bool same_file(const char *a, const char *b)
{
    size_t n = 0, m = 0;
    char *x = slurp(a, &n), *y = slurp(b, &m);
    bool same = x != NULL && y != NULL && n == m && n > 1000 && memcmp(x, y, n) == 0;
    free(x);
    free(y);
    return same;
}

#endif
