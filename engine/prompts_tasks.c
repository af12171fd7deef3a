/* prompts_tasks.c: the tasks a bank is trained on.
 *
 * A task is drawn as often as any other, whatever its size, or by the weight it was given, and with copies
 * every other time one of them in its place. Its rows come in an order that is shuffled anew every epoch and
 * is a function of seed, task and epoch, so that one number a task (rows drawn so far) is all there is to
 * save. Rows are encoded when they are drawn: a step encodes a few dozen, which costs little beside running
 * them, and the memory does not grow with the number of rows and copies.
 *
 * A neutral copy asks the same of the same rows, but its options say nothing (甲, 乙, …): which of them
 * means what can only be in its route. Copies differ in the assignment.
 */
#include "engine/prompts.h"
#include "engine/status.h"
#include "engine/task.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_FOLDERS ((size_t)4096)
#define DEV_SEED    20221007u
#define MAX_WEIGHT  1000

/* ---- folders ---- */

struct folders {
    char *paths[MAX_FOLDERS];
    size_t n;
};

static void folders_fini(struct folders *folders)
{
    for (size_t i = 0; i < folders->n; i++) {
        free(folders->paths[i]);
    }
    free(folders);
}

static bool is_task(const char *dir)
{
    char path[PATH_MAX];
    int len = snprintf(path, sizeof path, "%s/task.json", dir);
    return len > 0 && len < PATH_MAX && access(path, F_OK) == 0;
}

static eng_status add_folder(struct folders *folders, const char *path, eng_error *err)
{
    if (folders->n == MAX_FOLDERS) {
        return fail(err, ENG_ELIMIT, "tasks", "more than %zu tasks", MAX_FOLDERS);
    }
    folders->paths[folders->n] = strdup(path);
    return folders->paths[folders->n++] != NULL ? ENG_OK : fail_nomem(err, "tasks");
}

/* Task folders inside `dir`, in order of name. */
static eng_status add_inside(struct folders *folders, const char *dir, eng_error *err)
{
    struct dirent **entries = NULL;
    eng_status status = ENG_OK;
    size_t before = folders->n;
    int n = scandir(dir, &entries, NULL, alphasort);
    if (n < 0) {
        return fail(err, ENG_ENOTFOUND, "tasks", "cannot read %s: %s", dir, strerror(errno));
    }
    for (int i = 0; i < n; i++) {
        char path[PATH_MAX];
        int len = snprintf(path, sizeof path, "%s/%s", dir, entries[i]->d_name);
        if (status == ENG_OK && entries[i]->d_name[0] != '.' && len < PATH_MAX && is_task(path)) {
            status = add_folder(folders, path, err);
        }
        free(entries[i]);
    }
    free(entries);
    if (status == ENG_OK && folders->n == before) {
        status =
            fail(err, ENG_ENOTFOUND, "tasks", "%s has no task.json, nor has any folder in it", dir);
    }
    return status;
}

static eng_status list_folders(const eng_prompts_config *config, struct folders *folders,
                               eng_error *err)
{
    eng_status status = ENG_OK;
    for (size_t i = 0; status == ENG_OK && i < config->n_tasks; i++) {
        const char *dir = config->tasks[i];
        status = is_task(dir) ? add_folder(folders, dir, err) : add_inside(folders, dir, err);
    }
    return status;
}

static eng_status open_folders(const eng_model *model, const eng_bank *bank,
                               const struct folders *folders, struct prompt_tasks *out,
                               eng_error *err)
{
    out->folders = calloc(folders->n, sizeof *out->folders);
    if (out->folders == NULL) {
        return fail_nomem(err, "tasks");
    }
    for (size_t i = 0; i < folders->n; i++) {
        eng_task_folder *folder = &out->folders[i];
        eng_status status = eng_task_folder_open(model, bank, folders->paths[i], folder, err);
        if (status != ENG_OK) {
            return status;
        }
        out->n_folders++;
        eng_dataset_free(folder->test); /* nothing here may see it */
        folder->test = NULL;
        for (size_t j = 0; j < i; j++) {
            if (strcmp(folder->name, out->folders[j].name) == 0) {
                return fail(err, ENG_EINVAL, "tasks", "two tasks are named %s", folder->name);
            }
        }
    }
    return ENG_OK;
}

/* ---- neutral words ---- */

#define STEMS    10
#define BRANCHES 12
static const char *const stems[STEMS] = {"甲", "乙", "丙", "丁", "戊",
                                         "己", "庚", "辛", "壬", "癸"};
static const char *const branches[BRANCHES] = {"子", "丑", "寅", "卯", "辰", "巳",
                                               "午", "未", "申", "酉", "戌", "亥"};
#define NEUTRAL_WORDS (STEMS + BRANCHES + STEMS * BRANCHES)

/* The stems; with the branches when there are more labels; then a stem and a branch. */
static void neutral_word(size_t i, char word[16])
{
    if (i < STEMS) {
        snprintf(word, 16, "%s", stems[i]);
    } else if (i < STEMS + BRANCHES) {
        snprintf(word, 16, "%s", branches[i - STEMS]);
    } else {
        i -= STEMS + BRANCHES;
        snprintf(word, 16, "%s%s", stems[i / BRANCHES], branches[i % BRANCHES]);
    }
}

/* Which word each label gets in copy `copy`: a shuffle of the words for every n copies, turned by one
 * from copy to copy, so that the first n copies all differ. */
static void assign_words(const char *task, size_t n, size_t copy, size_t *word)
{
    struct rng rng;
    unsigned char hash[8];
    uint64_t seed = copy / n;
    crypto_generichash(hash, sizeof hash, (const unsigned char *)task, strlen(task), NULL, 0);
    for (size_t i = 0; i < sizeof hash; i++) {
        seed ^= (uint64_t)hash[i] << (8 * i);
    }
    rng_seed(&rng, seed);
    for (size_t i = 0; i < n; i++) {
        word[i] = i;
    }
    rng_shuffle(&rng, word, n);
    for (size_t i = 0; i < n; i++) {
        word[i] = (word[i] + copy) % n;
    }
}

static eng_status make_neutral(const eng_task_folder *folder, size_t copy, eng_task **out,
                               eng_error *err)
{
    size_t n = eng_task_label_count(folder->task), word[ENG_MAX_LABELS];
    char text[ENG_MAX_LABELS][16];
    eng_text words[ENG_MAX_LABELS];
    assign_words(folder->name, n, copy, word);
    for (size_t i = 0; i < n; i++) {
        neutral_word(word[i], text[i]);
        words[i] = (eng_text){text[i], strlen(text[i])};
    }
    return task_reworded(folder->task, words, out, err);
}

/* ---- dev ---- */

/* Rows of the folder's dev set, a sample that is the same in every run, route by route. */
static eng_status make_dev(const eng_task_folder *folder, const eng_prompts_config *config,
                           struct prompt_task *task, eng_error *err)
{
    size_t all = eng_dataset_get_info(folder->dev)->rows;
    size_t n = config->dev_rows < all ? config->dev_rows : all;
    size_t *order = calloc(all + 1, sizeof *order), *mine = calloc(n + 1, sizeof *mine);
    struct rng rng;
    eng_status status = ENG_OK;
    task->dev = calloc(task->rows, sizeof *task->dev);
    if (order == NULL || mine == NULL || task->dev == NULL) {
        status = fail_nomem(err, "tasks");
        goto out;
    }
    rng_seed(&rng, DEV_SEED);
    for (size_t i = 0; i < all; i++) {
        order[i] = i;
    }
    rng_shuffle(&rng, order, all);
    for (size_t r = 0; status == ENG_OK && r < task->rows; r++) {
        size_t count = 0;
        for (size_t i = 0; i < n; i++) {
            eng_example example;
            eng_dataset_row(folder->dev, order[i], &example, NULL);
            if (prompt_task_route(task, &example) == r) {
                mine[count++] = order[i];
            }
        }
        status = batch_rows_make(task->task, folder->dev, mine, count, config->text_limit, false,
                                 &task->dev[r], err);
    }
out:
    free(order);
    free(mine);
    return status;
}

/* ---- tasks ---- */

static size_t copies_of(const eng_task_folder *folder, const eng_prompts_config *config)
{
    size_t n = eng_task_label_count(folder->task);
    return n > 0 && n <= NEUTRAL_WORDS && n <= config->neutral_labels ? config->neutral : 0;
}

static size_t weight_of(const eng_task_folder *folder, const eng_prompts_config *config)
{
    for (size_t i = 0; i < config->n_weights; i++) {
        if (strcmp(config->weights[i].name, folder->name) == 0) {
            return config->weights[i].weight;
        }
    }
    return 1;
}

/* Puts where it happened before an error's reason. */
static eng_status name_place(eng_error *err, const char *place, eng_status status)
{
    if (status != ENG_OK && status != ENG_ENOMEM && err != NULL) {
        char text[sizeof err->text];
        snprintf(text, sizeof text, "%s", err->text);
        snprintf(err->text, sizeof err->text, "%.100s: %.240s", place, text);
    }
    return status;
}

static eng_status name_folder(eng_error *err, const eng_task_folder *folder, eng_status status)
{
    char place[120];
    snprintf(place, sizeof place, "task %s", folder->name);
    return name_place(err, place, status);
}

/* Encodes every row that will train, so that one that cannot be ends the run before its first step and not
 * hours later. */
static eng_status check_rows(const eng_task_folder *folder, size_t text_limit, eng_error *err)
{
    size_t rows = eng_dataset_get_info(folder->train)->rows;
    for (size_t i = 0; i < rows; i++) {
        struct batch_rows one;
        eng_status status =
            batch_rows_make(folder->task, folder->train, &i, 1, text_limit, true, &one, err);
        batch_rows_fini(&one);
        if (status != ENG_OK) {
            char place[48];
            snprintf(place, sizeof place, "training row %zu", i + 1);
            return name_place(err, place, status);
        }
    }
    return ENG_OK;
}

/* Copy 0 is the task itself. */
static eng_status add_task(struct prompt_tasks *tasks, const eng_task_folder *folder, size_t copy,
                           const eng_prompts_config *config, eng_error *err)
{
    struct prompt_task *task = &tasks->tasks[tasks->n++];
    size_t copies = copies_of(folder, config), weight = weight_of(folder, config);
    *task = (struct prompt_task){.task = folder->task,
                                 .train = folder->train,
                                 .row = tasks->rows,
                                 .rows = config->rows_per_task,
                                 .copies = copy > 0 ? 0 : copies,
                                 .weight = weight,
                                 .share = (copies > 0 ? 0.5 : 1) * (double)weight,
                                 .n = eng_dataset_get_info(folder->train)->rows,
                                 .epoch = UINT64_MAX};
    task->share /= copy > 0 ? (double)copies : 1;
    tasks->rows += task->rows;
    snprintf(task->name, sizeof task->name, copy > 0 ? "%s~%zu" : "%s", folder->name, copy);
    eng_status status = copy > 0 ? make_neutral(folder, copy - 1, &task->own, err)
                                 : check_rows(folder, config->text_limit, err);
    if (status == ENG_OK) {
        task->task = copy > 0 ? task->own : folder->task;
        task->order = calloc(task->n, sizeof *task->order);
        status =
            task->order != NULL ? make_dev(folder, config, task, err) : fail_nomem(err, "tasks");
    }
    return status;
}

static bool is_copy(const struct prompt_task *task)
{
    return task->own != NULL;
}

/* A folder's own task, or NULL with the error said. */
static struct prompt_task *find_task(struct prompt_tasks *tasks, const char *setting,
                                     const char *name, eng_error *err)
{
    for (size_t t = 0; t < tasks->n; t++) {
        if (strcmp(tasks->tasks[t].name, name) == 0 && !is_copy(&tasks->tasks[t])) {
            return &tasks->tasks[t];
        }
    }
    (void)fail(err, ENG_EINVAL, setting, "no task is named %s", name);
    return NULL;
}

static eng_status mark_first(struct prompt_tasks *tasks, const eng_prompts_config *config,
                             eng_error *err)
{
    for (size_t i = 0; i < config->n_first; i++) {
        struct prompt_task *task = find_task(tasks, "first", config->first[i], err);
        if (task == NULL) {
            return ENG_EINVAL;
        }
        task->first = true;
    }
    return ENG_OK;
}

/* Checks that every weight has its task; turns weights into shares of all draws. */
static eng_status settle_shares(struct prompt_tasks *tasks, const eng_prompts_config *config,
                                eng_error *err)
{
    double all = 0;
    for (size_t i = 0; i < config->n_weights; i++) {
        const eng_task_weight *weight = &config->weights[i];
        if (weight->weight < 1 || weight->weight > MAX_WEIGHT) {
            return fail(err, ENG_EINVAL, "weights", "%s: %zu, wanted 1 to %d", weight->name,
                        weight->weight, MAX_WEIGHT);
        }
        if (find_task(tasks, "weights", weight->name, err) == NULL) {
            return ENG_EINVAL;
        }
    }
    for (size_t t = 0; t < tasks->n; t++) {
        all += tasks->tasks[t].share;
    }
    for (size_t t = 0; t < tasks->n; t++) {
        tasks->tasks[t].share /= all;
    }
    return ENG_OK;
}

eng_status prompt_tasks_open(const eng_model *model, const eng_bank *bank,
                             const eng_prompts_config *config, struct prompt_tasks *out,
                             eng_error *err)
{
    size_t n = 0;
    *out = (struct prompt_tasks){0};
    struct folders *folders = calloc(1, sizeof *folders);
    if (folders == NULL) {
        return fail_nomem(err, "tasks");
    }
    eng_status status = list_folders(config, folders, err);
    if (status == ENG_OK) {
        status = open_folders(model, bank, folders, out, err);
    }
    folders_fini(folders);
    for (size_t i = 0; i < out->n_folders; i++) {
        n += 1 + copies_of(&out->folders[i], config);
    }
    out->tasks = status == ENG_OK ? calloc(n, sizeof *out->tasks) : NULL;
    if (status == ENG_OK && out->tasks == NULL) {
        status = fail_nomem(err, "tasks");
    }
    for (size_t i = 0; status == ENG_OK && i < out->n_folders; i++) {
        const eng_task_folder *folder = &out->folders[i];
        for (size_t copy = 0; status == ENG_OK && copy <= copies_of(folder, config); copy++) {
            status = name_folder(err, folder, add_task(out, folder, copy, config, err));
        }
    }
    if (status == ENG_OK) {
        status = settle_shares(out, config, err);
    }
    return status == ENG_OK ? mark_first(out, config, err) : status;
}

void prompt_tasks_fini(struct prompt_tasks *tasks)
{
    for (size_t i = 0; i < tasks->n; i++) {
        struct prompt_task *task = &tasks->tasks[i];
        for (size_t r = 0; task->dev != NULL && r < task->rows; r++) {
            batch_rows_fini(&task->dev[r]);
        }
        free(task->dev);
        free(task->order);
        eng_task_free(task->own);
    }
    for (size_t i = 0; i < tasks->n_folders; i++) {
        eng_task_folder_close(&tasks->folders[i]);
    }
    free(tasks->tasks);
    free(tasks->folders);
    *tasks = (struct prompt_tasks){0};
}

const struct prompt_task *prompt_tasks_of_row(const struct prompt_tasks *tasks, size_t row)
{
    size_t i = 0;
    while (row >= tasks->tasks[i].row + tasks->tasks[i].rows) {
        i++;
    }
    return &tasks->tasks[i];
}

void prompt_tasks_row_name(const struct prompt_tasks *tasks, size_t row, char name[160])
{
    const struct prompt_task *task = prompt_tasks_of_row(tasks, row);
    size_t number = row - task->row + 1;
    snprintf(name, 160, number > 1 ? "%s/%zu" : "%s", task->name, number);
}

/* ---- hashes ---- */

static void hash_text(crypto_generichash_state *state, const char *text, size_t len)
{
    uint64_t size = len;
    crypto_generichash_update(state, (const unsigned char *)&size, sizeof size);
    crypto_generichash_update(state, (const unsigned char *)text, len);
}

static void hash_example(crypto_generichash_state *state, const eng_example *example)
{
    const uint64_t numbers[] = {example->label, example->answer_start, example->input.n_fields,
                                example->input.n_options};
    crypto_generichash_update(state, (const unsigned char *)numbers, sizeof numbers);
    for (size_t i = 0; i < example->input.n_fields; i++) {
        const eng_field *field = &example->input.fields[i];
        hash_text(state, field->name.data, field->name.len);
        hash_text(state, field->value.data, field->value.len);
    }
    for (size_t i = 0; i < example->input.n_options; i++) {
        hash_text(state, example->input.options[i].data, example->input.options[i].len);
    }
    hash_text(state, example->answer.data, example->answer.len);
}

static void hash_set(crypto_generichash_state *state, const eng_dataset *set)
{
    const eng_dataset_info *info = eng_dataset_get_info(set);
    for (size_t i = 0; i < info->labels; i++) {
        hash_text(state, eng_dataset_label(set, i), strlen(eng_dataset_label(set, i)));
    }
    for (size_t i = 0; i < info->rows; i++) {
        eng_example example;
        eng_dataset_row(set, i, &example, NULL);
        hash_example(state, &example);
    }
}

void prompt_tasks_hash(const struct prompt_tasks *tasks, unsigned char hash[RUN_SETTINGS])
{
    crypto_generichash_state state;
    crypto_generichash_init(&state, NULL, 0, RUN_SETTINGS);
    for (size_t i = 0; i < tasks->n; i++) {
        const struct prompt_task *task = &tasks->tasks[i];
        const char *template = eng_task_template(task->task);
        hash_text(&state, task->name, strlen(task->name));
        hash_text(&state, template, strlen(template));
        hash_text(&state, task->first ? "first" : "", task->first ? 5 : 0);
        hash_text(&state, (const char *)&task->weight, sizeof task->weight);
        for (size_t j = 0; j < eng_task_label_count(task->task); j++) {
            const char *label = eng_task_label(task->task, j);
            hash_text(&state, label, strlen(label));
        }
    }
    for (size_t i = 0; i < tasks->n_folders; i++) {
        hash_set(&state, tasks->folders[i].train);
        hash_set(&state, tasks->folders[i].dev);
    }
    crypto_generichash_final(&state, hash, RUN_SETTINGS);
}

/* ---- drawing ---- */

static size_t weight_in(const struct prompt_task *task, bool first)
{
    return is_copy(task) || (first && !task->first) ? 0 : task->weight;
}

size_t prompt_tasks_draw(const struct prompt_tasks *tasks, const eng_prompts_config *config,
                         uint64_t step, struct rng *rng)
{
    bool first = config->n_first > 0 && step < config->first_steps;
    size_t all = 0, i = 0;
    for (size_t t = 0; t < tasks->n; t++) {
        all += weight_in(&tasks->tasks[t], first);
    }
    size_t nth = (size_t)rng_below(rng, all);
    while (nth >= weight_in(&tasks->tasks[i], first)) {
        nth -= weight_in(&tasks->tasks[i], first);
        i++;
    }
    size_t copies = tasks->tasks[i].copies;
    return copies > 0 && rng_below(rng, 2) == 1 ? i + 1 + (size_t)rng_below(rng, copies) : i;
}

static void shuffle_for(struct prompt_task *task, size_t index, uint64_t seed, uint64_t epoch)
{
    struct rng rng;
    uint64_t mixed = seed ^ (uint64_t)index << 40 ^ epoch;
    rng_seed(&rng, splitmix64(&mixed));
    for (size_t i = 0; i < task->n; i++) {
        task->order[i] = i;
    }
    rng_shuffle(&rng, task->order, task->n);
    task->epoch = epoch;
}

void prompt_task_rows(struct prompt_task *task, size_t index, uint64_t seed, uint64_t *drawn,
                      size_t n, size_t *rows)
{
    for (size_t i = 0; i < n; i++, (*drawn)++) {
        if (task->epoch != *drawn / task->n) {
            shuffle_for(task, index, seed, *drawn / task->n);
        }
        rows[i] = task->order[*drawn % task->n];
    }
}

size_t prompt_task_route(const struct prompt_task *task, const eng_example *example)
{
    uint64_t hash = 0;
    crypto_generichash_state state;
    if (task->rows == 1) {
        return 0;
    }
    crypto_generichash_init(&state, NULL, 0, crypto_generichash_BYTES_MIN);
    for (size_t i = 0; i < example->input.n_fields; i++) {
        hash_text(&state, example->input.fields[i].value.data, example->input.fields[i].value.len);
    }
    unsigned char bytes[crypto_generichash_BYTES_MIN];
    crypto_generichash_final(&state, bytes, sizeof bytes);
    memcpy(&hash, bytes, sizeof hash);
    return (size_t)(hash % task->rows);
}
