/* test_prompts.c: a bank in training on the small backbone of the tests: orders of options, tasks and their copies,
 * gradients, runs that are stopped, killed and resumed. The texts are ours. */
#include "engine/bank.h"
#include "engine/encoder.h"
#include "engine/mrc.h"
#include "engine/prompts.h"
#include "engine/task.h"
#include "tests/unit/prompts_fixture.h"

#include <signal.h>
#include <sys/wait.h>

/* ---- orders of options ---- */

/* In any order, a sequence is what the task with its labels in that order would have been. */
static void reorders_labels(void)
{
    static const char *const words[3] = {"好", "一般般", "很不好"};
    static const size_t orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                        {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    const eng_field field = {{"text", 4}, {"菜很好吃", 12}};
    const eng_example row = {.input = {.fields = &field, .n_fields = 1}, .label = 1};
    eng_model *model = NULL;
    eng_bank *bank = NULL;
    eng_error err;
    REQUIRE(boot_model_open(&model, &bank));
    eng_encoded *plain = NULL;
    for (size_t o = 0; o < 6; o++) {
        eng_text labels[3];
        eng_task *task = NULL;
        eng_encoded *want = NULL;
        int32_t ids[128];
        size_t len = 0, start = 0, end = 0, want_start = 0, want_end = 0;
        for (size_t j = 0; j < 3; j++) {
            labels[j] = (eng_text){words[orders[o][j]], strlen(words[orders[o][j]])};
        }
        const eng_task_spec spec = {.type = ENG_CLASSIFICATION, .labels = labels, .n_labels = 3};
        REQUIRE(eng_task_new(model, bank, &spec, &task, &err) == ENG_OK &&
                eng_encode(task, &row.input, 0, &want, &err) == ENG_OK);
        if (o == 0) {
            REQUIRE(eng_encode(task, &row.input, 0, &plain, &err) == ENG_OK);
        }
        eng_example there = row;
        for (size_t j = 0; j < 3; j++) {
            there.label = orders[o][j] == row.label ? j : there.label;
        }
        CHECK(mrc_targets(want, &there, &want_start, &want_end));
        mrc_reorder(plain, orders[o], row.label, ids, &start, &end);
        const int32_t *want_ids = eng_encoded_ids(want, &len);
        CHECK_INT(plain->len, len);
        CHECK(memcmp(ids, want_ids, len * sizeof *ids) == 0);
        CHECK_INT(start, want_start);
        CHECK_INT(end, want_end);
        eng_encoded_free(want);
        eng_task_free(task);
    }
    eng_encoded_free(plain);
    eng_bank_free(bank);
    eng_model_free(model);
}

/* A choice has no separator behind its last option, and [SEP]. */
static void reorders_a_choice(void)
{
    const eng_text options[2][2] = {{{"北京", 6}, {"上海浦东", 12}},
                                    {{"上海浦东", 12}, {"北京", 6}}};
    const eng_field field = {{"question", 8}, {"哪里", 6}};
    const size_t order[2] = {1, 0};
    const eng_task_spec spec = {.type = ENG_CHOICE};
    eng_model *model = NULL;
    eng_bank *bank = NULL;
    eng_task *task = NULL;
    eng_encoded *encoded[2] = {NULL, NULL};
    eng_error err;
    int32_t ids[128];
    size_t len = 0, start = 0, end = 0;
    REQUIRE(boot_model_open(&model, &bank));
    REQUIRE(eng_task_new(model, bank, &spec, &task, &err) == ENG_OK);
    for (size_t i = 0; i < 2; i++) {
        const eng_input input = {&field, 1, options[i], 2};
        REQUIRE(eng_encode(task, &input, 0, &encoded[i], &err) == ENG_OK);
    }
    mrc_reorder(encoded[0], order, 0, ids, &start, &end);
    const int32_t *want = eng_encoded_ids(encoded[1], &len);
    CHECK(memcmp(ids, want, len * sizeof *ids) == 0);
    CHECK_INT(start, encoded[1]->options[1].first);
    CHECK_INT(end, start + encoded[1]->options[1].n - 1);
    eng_encoded_free(encoded[0]);
    eng_encoded_free(encoded[1]);
    eng_task_free(task);
    eng_bank_free(bank);
    eng_model_free(model);
}

/* ---- tasks ---- */

struct opened {
    eng_model *model;
    eng_bank *bank;
    struct prompt_tasks tasks;
};

static bool open_tasks(const eng_prompts_config *config, struct opened *opened)
{
    eng_error err = {0};
    *opened = (struct opened){0};
    bool good =
        boot_model_open(&opened->model, &opened->bank) &&
        prompt_tasks_open(opened->model, opened->bank, config, &opened->tasks, &err) == ENG_OK;
    if (!good) {
        TEST_FAIL_("tasks: %s: %s", err.field, err.text);
    }
    return good;
}

static void close_tasks(struct opened *opened)
{
    prompt_tasks_fini(&opened->tasks);
    eng_bank_free(opened->bank);
    eng_model_free(opened->model);
}

static void neutral_copies_differ(void)
{
    struct place place;
    struct opened opened;
    char path[96];
    const char *list;
    REQUIRE(make_place(&place));
    eng_prompts_config config = tiny(&place, path, &list);
    config.neutral = 2;
    config.rows_per_task = 3;
    REQUIRE(open_tasks(&config, &opened));
    const struct prompt_task *tasks = opened.tasks.tasks;
    CHECK_INT(opened.tasks.n, 6);
    CHECK_INT(opened.tasks.rows, 18);
    CHECK_STR(tasks[0].name, "minus");
    CHECK_STR(tasks[1].name, "minus~1");
    CHECK_STR(tasks[5].name, "plus~2");
    for (size_t i = 0; i < 6; i += 3) {
        const struct option_list *a = &tasks[i + 1].task->options, *b = &tasks[i + 2].task->options;
        CHECK_STR(eng_task_label(tasks[i + 1].task, 0), "甲"); /* names stay, words change */
        CHECK(a->tokens.tokens[0].id == b->tokens.tokens[1].id);
        CHECK(a->tokens.tokens[1].id == b->tokens.tokens[0].id);
        CHECK(a->tokens.tokens[0].id != a->tokens.tokens[1].id);
    }
    char name[160];
    prompt_tasks_row_name(&opened.tasks, 3, name);
    CHECK_STR(name, "minus~1");
    prompt_tasks_row_name(&opened.tasks, 17, name);
    CHECK_STR(name, "plus~2/3");
    /* dev rows are shared out among the routes, each to one */
    size_t dev = 0;
    for (size_t r = 0; r < 3; r++) {
        for (size_t i = 0; i < tasks[1].dev[r].n; i++, dev++) {
            CHECK_INT(prompt_task_route(&tasks[1], &tasks[1].dev[r].items[i].row), r);
        }
    }
    CHECK_INT(dev, 8);
    close_tasks(&opened);
    remove_dir(place.dir);
}

static void draws_alike_and_in_order(void)
{
    struct place place;
    struct opened opened;
    char path[96];
    const char *list, *const first[] = {"plus"};
    size_t counts[2] = {0, 0}, seen[24] = {0}, rows[24], again[24];
    uint64_t drawn = 0;
    struct rng rng;
    REQUIRE(make_place(&place));
    eng_prompts_config config = tiny(&place, path, &list);
    config.first = first;
    config.n_first = 1;
    config.first_steps = 100;
    REQUIRE(open_tasks(&config, &opened));
    rng_seed(&rng, 1);
    for (uint64_t step = 0; step < 1100; step++) {
        size_t task = prompt_tasks_draw(&opened.tasks, &config, step, &rng);
        CHECK(step >= 100 || task == 1);
        counts[task] += step >= 100;
    }
    CHECK_NEAR((double)counts[0], 500, 60);
    /* every row once an epoch, whatever the pieces; the next epoch in another order */
    for (size_t done = 0; done < 24; done += 8) {
        prompt_task_rows(&opened.tasks.tasks[0], 0, 5, &drawn, 8, rows + done);
    }
    for (size_t i = 0; i < 24; i++) {
        seen[rows[i]]++;
    }
    for (size_t i = 0; i < 24; i++) {
        CHECK_INT(seen[i], 1);
    }
    prompt_task_rows(&opened.tasks.tasks[0], 0, 5, &drawn, 24, again);
    CHECK(memcmp(rows, again, sizeof rows) != 0);
    drawn = 8; /* and from anywhere the same */
    prompt_task_rows(&opened.tasks.tasks[0], 0, 5, &drawn, 16, again);
    CHECK(memcmp(rows + 8, again, 16 * sizeof *rows) == 0);
    close_tasks(&opened);
    remove_dir(place.dir);
}

/* Copies share their task's turns: half of them are its own words', whatever their number. */
static void copies_share_a_turn(void)
{
    struct place place;
    struct opened opened;
    char path[96];
    const char *list, *const first[] = {"plus"};
    size_t counts[8] = {0};
    struct rng rng;
    REQUIRE(make_place(&place));
    eng_prompts_config config = tiny(&place, path, &list);
    config.neutral = 3;
    config.first = first;
    config.n_first = 1;
    config.first_steps = 200;
    REQUIRE(open_tasks(&config, &opened));
    CHECK_INT(opened.tasks.n, 8); /* minus, minus~1 ... plus, plus~1 ... */
    rng_seed(&rng, 1);
    for (uint64_t step = 0; step < 2600; step++) {
        size_t task = prompt_tasks_draw(&opened.tasks, &config, step, &rng);
        CHECK(step >= 200 || task >= 4);
        counts[task] += step >= 200;
    }
    for (size_t i = 0; i < 8; i++) {
        CHECK_NEAR(opened.tasks.tasks[i].share, i % 4 == 0 ? 0.25 : 0.25 / 3, 1e-12);
        CHECK_NEAR((double)counts[i], 2400 * opened.tasks.tasks[i].share, 75);
    }
    close_tasks(&opened);
    remove_dir(place.dir);
}

/* A weight is its folder's, copies and all; so is the limit of labels. */
static void weights_share_the_turns(void)
{
    struct place place;
    struct opened opened;
    char path[96];
    const char *list;
    const eng_task_weight weights[] = {{"plus", 3}};
    size_t counts[4] = {0};
    struct rng rng;
    REQUIRE(make_place(&place));
    eng_prompts_config config = tiny(&place, path, &list);
    config.neutral = 1;
    config.weights = weights;
    config.n_weights = 1;
    REQUIRE(open_tasks(&config, &opened));
    REQUIRE(opened.tasks.n == 4); /* minus, minus~1, plus, plus~1 */
    rng_seed(&rng, 1);
    for (uint64_t step = 0; step < 4000; step++) {
        counts[prompt_tasks_draw(&opened.tasks, &config, step, &rng)]++;
    }
    for (size_t i = 0; i < 4; i++) {
        CHECK_NEAR(opened.tasks.tasks[i].share, i < 2 ? 0.125 : 0.375, 1e-12);
        CHECK_NEAR((double)counts[i], 4000 * opened.tasks.tasks[i].share, 100);
    }
    close_tasks(&opened);
    config.neutral_labels = 1;
    REQUIRE(open_tasks(&config, &opened));
    CHECK_INT(opened.tasks.n, 2);
    close_tasks(&opened);
    remove_dir(place.dir);
}

/* ---- gradients ---- */

static void make_values(struct rng *rng, float *values, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        values[i] = (float)rng_normal(rng);
    }
}

/* Two routes of a step, against the gradients of bank.c, which golden tensors hold. */
static void gradients_agree_with_the_bank(void)
{
    struct train_bank train = {0};
    struct rng rng;
    eng_compute *compute = NULL;
    eng_model *model = NULL;
    eng_error err = {0};
    const char *const names[] = {"a", "b"};
    const eng_model_info shape = {
        .layers = 2, .hidden = 16, .heads = 2, .ffn = 32, .vocab = 40, .positions = 16, .types = 2};
    eng_prompts_config config;
    eng_prompts_defaults(&config);
    config.deep = true;
    config.modules = 3;
    config.prompt_tokens = 4;
    config.intrinsic = 5;
    enum { LK = 6, Z = 30, A = 2 * 5 * 64, MERGED = 2 * 64 };
    float mix[2][LK], merged[2][MERGED], dz[Z] = {0}, dA[A] = {0}, u[LK], droute[LK];
    rng_seed(&rng, 9);
    REQUIRE(eng_compute_start(2, NULL, &compute, &err) == ENG_OK &&
            eng_model_random(&shape, 4, &model, &err) == ENG_OK &&
            train_bank_init(&train, compute, model, &config, &rng, &err) == ENG_OK &&
            train_bank_rows(&train, names, 2, &rng, &err) == ENG_OK);
    for (size_t i = 0; i < LK; i++) {
        u[i] = (float)rng_uniform(&rng);
    }
    const struct bank_noise noise = {u, 0.7f};
    train_bank_modules(&train);
    memset(train.dmodules, 0, LK * 64 * sizeof(float));
    for (size_t r = 0; r < 2; r++) {
        make_values(&rng, merged[r], MERGED);
        bank_mix(train.bank, train.routes + r * LK, &noise, mix[r], NULL);
        train_bank_route_gradient(&train, r, &noise, mix[r], merged[r]);
        bank_za_gradient(train.bank, mix[r], merged[r], dz, dA);
        bank_mix_gradient(train.bank, train.routes + r * LK, &noise, merged[r], droute);
        CHECK(memcmp(droute, train.droutes + r * LK, sizeof droute) == 0);
    }
    train_bank_factor_gradient(&train);
    for (size_t i = 0; i < Z; i++) {
        CHECK_NEAR(train.dz[i], dz[i], 1e-4);
    }
    for (size_t i = 0; i < A; i++) {
        CHECK_NEAR(train.dA[i], dA[i], 1e-4);
    }
    train_bank_fini(&train);
    eng_model_free(model);
    eng_compute_stop(compute);
}

/* ---- runs ---- */

/* No backbone and no head can do both tasks: only routes can. */
static void routes_carry_the_task(void)
{
    struct place place;
    struct watch w = {0};
    char path[96];
    const char *list;
    eng_error err = {0};
    eng_model *model = NULL;
    eng_bank *bank = NULL;
    REQUIRE(make_place(&place));
    eng_prompts_config config = tiny(&place, path, &list);
    config.prompt_tokens = 16;
    config.intrinsic = 32;
    config.schedule.steps = 200;
    config.schedule.dev_every = 20;
    CHECK(pretrain(&config, 2, &w, &err) == ENG_OK);
    CHECK_INT(w.looks, 11);
    CHECK_INT(w.steps, 200);
    CHECK(w.minus > 65 && w.minus < 135);
    CHECK(w.first <= 0.6); /* without a prompt the two tasks are one */
    CHECK(w.best >= 0.75);
    REQUIRE(eng_model_open(place.model, &model, &err) == ENG_OK);
    CHECK(eng_bank_open(model, place.to, false, &bank, &err) == ENG_OK);
    if (bank != NULL) {
        const eng_bank_info *info = eng_bank_get_info(bank);
        CHECK_INT(info->rows, 2);
        CHECK_INT(info->modules, 4);
        CHECK_INT(info->prompt_tokens, 16);
        CHECK_INT(info->prompt_token_offset, 1000);
        CHECK_NEAR(info->adapt_lr, 0.1, 1e-9);
        CHECK_STR(eng_bank_row_name(bank, 0), "minus");
        CHECK_STR(eng_bank_row_name(bank, 1), "plus");
    }
    eng_bank_free(bank);
    eng_model_free(model);
    CHECK(pretrain(&config, 2, &w, &err) == ENG_EINVAL); /* a bank is there */
    remove_dir(place.dir);
}

static void stopped_and_resumed(void)
{
    struct place place;
    char path[96], other[96], whole_last[96], parts_last[96];
    const char *list;
    eng_error err = {0};
    struct watch w = {0};
    REQUIRE(make_place(&place));
    eng_prompts_config config = tiny(&place, path, &list);
    config.neutral = 1;
    config.deep = config.tied = true;
    config.tau_end = 0.5;
    config.dropout = 0.1;
    CHECK(pretrain(&config, 1, &w, &err) == ENG_OK);
    snprintf(other, sizeof other, "%s/parts.bank.safetensors", place.dir);
    config.to = other;
    w = (struct watch){.stop_at = 7};
    CHECK(pretrain(&config, 2, &w, &err) == ENG_ECANCELLED);
    CHECK(pretrain(&config, 2, &w, &err) == ENG_EINVAL); /* a checkpoint, and no resume */
    config.schedule.resume = true;
    config.lr_route *= 2;
    CHECK(pretrain(&config, 2, &w, &err) == ENG_EMISMATCH);
    config.lr_route /= 2;
    w = (struct watch){.stop_at = 19};
    CHECK(pretrain(&config, 2, &w, &err) == ENG_ECANCELLED);
    CHECK_INT(w.steps, 12);
    w = (struct watch){0};
    CHECK(pretrain(&config, 2, &w, &err) == ENG_OK);
    CHECK(same_file(place.to, other));
    snprintf(whole_last, sizeof whole_last, "%s/out.last.bank.safetensors", place.dir);
    snprintf(parts_last, sizeof parts_last, "%s/parts.last.bank.safetensors", place.dir);
    CHECK(same_file(whole_last, parts_last));
    CHECK(access(place.to, F_OK) == 0);
    remove_dir(place.dir);
}

/* What was trained with one route for all layers is opened so, asked for or not. */
static void a_tied_bank_opens_tied(void)
{
    for (int tied = 0; tied < 2; tied++) {
        struct place place;
        char path[96];
        const char *list;
        eng_error err = {0};
        struct watch w = {0};
        eng_model *model = NULL;
        eng_bank *bank = NULL;
        REQUIRE(make_place(&place));
        eng_prompts_config config = tiny(&place, path, &list);
        config.deep = true;
        config.tied = tied == 1;
        config.schedule.steps = 2;
        CHECK(pretrain(&config, 1, &w, &err) == ENG_OK);
        REQUIRE(eng_model_open(place.model, &model, &err) == ENG_OK &&
                eng_bank_open(model, place.to, false, &bank, &err) == ENG_OK);
        const eng_bank_info *info = eng_bank_get_info(bank);
        CHECK(info->tied == config.tied && info->layers > 1);
        CHECK_INT(info->route_len, tied == 1 ? info->modules : info->layers * info->modules);
        eng_bank_free(bank);
        REQUIRE(eng_bank_open(model, place.to, true, &bank, &err) == ENG_OK);
        CHECK(eng_bank_get_info(bank)->tied);
        eng_bank_free(bank);
        eng_model_free(model);
        remove_dir(place.dir);
    }
}

static void killed_and_resumed(void)
{
    struct place place;
    char path[96], other[96];
    const char *list;
    eng_error err = {0};
    struct watch w = {0};
    bool done = false;
    int kills = 0;
    REQUIRE(make_place(&place));
    eng_prompts_config config = tiny(&place, path, &list);
    config.schedule.save_every = 3;
    CHECK(pretrain(&config, 1, &w, &err) == ENG_OK);
    snprintf(other, sizeof other, "%s/parts.bank.safetensors", place.dir);
    config.to = other;
    config.schedule.resume = true;
    for (useconds_t i = 0; i < 5 && !done; i++) {
        pid_t child = fork();
        REQUIRE(child >= 0);
        if (child == 0) {
            w = (struct watch){.slow = 3000};
            _exit(pretrain(&config, 1, &w, &err) == ENG_OK ? 0 : 1);
        }
        int state = 0;
        usleep(60000 + 17000 * i);
        if (i < 4 && waitpid(child, &state, WNOHANG) == 0) {
            kill(child, SIGKILL);
            waitpid(child, &state, 0);
            kills++;
        } else if (i == 4) { /* and at last it may finish */
            waitpid(child, &state, 0);
        }
        CHECK(!WIFEXITED(state) || WEXITSTATUS(state) == 0);
        done = WIFEXITED(state);
    }
    CHECK(done);
    CHECK(kills > 0);
    CHECK(same_file(place.to, other));
    remove_dir(place.dir);
}

/* With step sizes of 0 what a run makes is what it started from; a copy has no row to start from. */
static void goes_on_from_a_bank(void)
{
    struct place place;
    char path[96], other[96];
    const char *list;
    eng_error err = {0};
    struct watch w = {0};
    eng_model *model = NULL;
    eng_bank *before = NULL, *after = NULL;
    float route[4], same[4];
    REQUIRE(make_place(&place));
    eng_prompts_config config = tiny(&place, path, &list);
    CHECK(pretrain(&config, 1, &w, &err) == ENG_OK);
    snprintf(other, sizeof other, "%s/more.bank.safetensors", place.dir);
    config.bank = place.to;
    config.to = other;
    config.neutral = 1;
    config.schedule.steps = 1;
    config.lr_prompt = config.lr_route = config.lr_head = 0;
    CHECK(pretrain(&config, 1, &w, &err) == ENG_OK);
    REQUIRE(eng_model_open(place.model, &model, &err) == ENG_OK &&
            eng_bank_open(model, place.to, false, &before, &err) == ENG_OK &&
            eng_bank_open(model, other, false, &after, &err) == ENG_OK);
    CHECK_STR(eng_bank_get_info(after)->fingerprint, eng_bank_get_info(before)->fingerprint);
    CHECK_STR(eng_bank_row_name(after, 2), "plus");
    eng_bank_row(before, 1, same);
    eng_bank_row(after, 2, route);
    CHECK(memcmp(route, same, sizeof route) == 0);
    eng_bank_row(after, 3, route);
    float learnt = 0, random = 0;
    for (size_t k = 0; k < 4; k++) {
        learnt = fmaxf(learnt, fabsf(same[k]));
        random = fmaxf(random, fabsf(route[k]));
    }
    CHECK(random < 0.1f && learnt > 0.1f);
    eng_bank_free(before);
    eng_bank_free(after);
    eng_model_free(model);
    snprintf(other, sizeof other, "%s/wide.bank.safetensors", place.dir);
    config.intrinsic = 9;
    CHECK(pretrain(&config, 1, &w, &err) == ENG_EMISMATCH);
    CHECK_STR(err.field, "bank");
    config.intrinsic = 8;
    config.encoder = ENG_PROMPT_LSTM;
    CHECK(pretrain(&config, 1, &w, &err) == ENG_EINVAL);
    CHECK_STR(err.field, "bank");
    remove_dir(place.dir);
}

/* A deep bank that starts from a shallow one is that one: the other layers have no prompt yet. */
static void a_deep_bank_starts_from_a_shallow_one(void)
{
    struct place place;
    char path[96], to[96];
    const char *list;
    eng_error err = {0};
    struct watch w = {0};
    eng_model *model = NULL;
    eng_bank *shallow = NULL, *deep = NULL;
    float a[4 * 128], b[3 * 4 * 128], route[4], routes[3 * 4], mix[4], mixes[3 * 4];
    REQUIRE(make_place(&place));
    eng_prompts_config config = tiny(&place, path, &list);
    CHECK(pretrain(&config, 1, &w, &err) == ENG_OK);
    REQUIRE(eng_model_open(place.model, &model, &err) == ENG_OK &&
            eng_bank_open(model, place.to, false, &shallow, &err) == ENG_OK);
    size_t layers = eng_model_get_info(model)->layers;
    size_t floats = 4 * eng_model_get_info(model)->hidden;
    REQUIRE(layers <= 3 && floats <= sizeof a / sizeof a[0]);
    eng_bank_row(shallow, 1, route);
    eng_route_mix(shallow, route, mix);
    eng_merged_prompt(shallow, mix, a);
    config.bank = place.to;
    config.to = to;
    config.deep = true;
    config.schedule.steps = 1;
    config.lr_prompt = config.lr_route = config.lr_head = 0;
    for (int tied = 0; tied < 2; tied++) {
        config.tied = tied;
        snprintf(to, sizeof to, "%s/deep%d.bank.safetensors", place.dir, tied);
        CHECK(pretrain(&config, 1, &w, &err) == ENG_OK);
        REQUIRE(eng_bank_open(model, to, tied, &deep, &err) == ENG_OK);
        CHECK_INT(eng_bank_get_info(deep)->layers, layers);
        eng_bank_row(deep, 1, routes);
        eng_route_mix(deep, routes, mixes);
        eng_merged_prompt(deep, mixes, b);
        for (size_t i = 0; i < layers * floats; i++) {
            CHECK_NEAR(b[i], i < floats ? a[i] : 0, 1e-6);
        }
        eng_bank_free(deep);
    }
    char again[96];
    snprintf(again, sizeof again, "%s/again.bank.safetensors", place.dir);
    config.bank = to; /* and no shallow one from a deep one */
    config.to = again;
    config.deep = config.tied = false;
    CHECK(pretrain(&config, 1, &w, &err) == ENG_EMISMATCH);
    eng_bank_free(shallow);
    eng_model_free(model);
    remove_dir(place.dir);
}

static void groups_of_zero_stay(void)
{
    struct place place;
    char path[96];
    const char *list;
    eng_error err = {0};
    struct watch w = {0};
    eng_model *model = NULL;
    eng_bank *bank = NULL;
    float route[4];
    REQUIRE(make_place(&place));
    eng_prompts_config config = tiny(&place, path, &list);
    config.lr_route = 0;
    config.schedule.steps = 3;
    CHECK(pretrain(&config, 1, &w, &err) == ENG_OK);
    REQUIRE(eng_model_open(place.model, &model, &err) == ENG_OK &&
            eng_bank_open(model, place.to, false, &bank, &err) == ENG_OK);
    eng_bank_row(bank, 0, route);
    for (size_t k = 0; k < 4; k++) {
        CHECK(fabsf(route[k]) < 0.1f); /* a step of another group's size would be larger */
    }
    eng_bank_free(bank);
    eng_model_free(model);
    remove_dir(place.dir);
}

/* A choice of two rows; the second has an option without a character. */
static void write_bad_choice(const struct place *place)
{
    static const char *const files[] = {"task.json", "train.jsonl", "dev.jsonl", "test.jsonl"};
    static const char good[] =
        "{\"question\":\"哪个甜？\",\"options\":[\"糖\",\"盐\"],\"label\":0}\n";
    static const char bad[] =
        "{\"question\":\"哪个咸？\",\"options\":[\"盐\",\" \"],\"label\":0}\n";
    char path[256];
    snprintf(path, sizeof path, "%s/tasks/pick", place->dir);
    REQUIRE(mkdir(path, 0700) == 0);
    for (size_t i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/tasks/pick/%s", place->dir, files[i]);
        FILE *file = fopen(path, "w");
        REQUIRE(file != NULL);
        fputs(i == 0 ? "{\"name\":\"pick\",\"type\":\"choice\",\"labels\":[]}\n" : good, file);
        fputs(i == 1 ? bad : "", file);
        fclose(file);
    }
}

static void refusals(void)
{
    struct place place;
    char path[96];
    const char *list, *const none[] = {"/nowhere/tasks"}, *const first[] = {"other"};
    eng_error err = {0};
    struct watch w = {0};
    REQUIRE(make_place(&place));
    eng_prompts_config config = tiny(&place, path, &list);
    config.tied = true;
    CHECK(pretrain(&config, 1, &w, &err) == ENG_EINVAL);
    CHECK_STR(err.field, "tied");
    config = tiny(&place, path, &list);
    config.to = "bank.safetensors";
    CHECK(pretrain(&config, 1, &w, &err) == ENG_EINVAL);
    CHECK_STR(err.field, "to");
    config = tiny(&place, path, &list);
    config.tasks = none;
    CHECK(pretrain(&config, 1, &w, &err) == ENG_ENOTFOUND);
    config = tiny(&place, path, &list);
    config.first = first;
    config.n_first = 1;
    config.first_steps = 3;
    CHECK(pretrain(&config, 1, &w, &err) == ENG_EINVAL);
    CHECK_STR(err.field, "first");
    config = tiny(&place, path, &list);
    const eng_task_weight other = {"other", 2}, nothing = {"plus", 0};
    config.weights = &other;
    config.n_weights = 1;
    CHECK(pretrain(&config, 1, &w, &err) == ENG_EINVAL);
    CHECK(strcmp(err.field, "weights") == 0 && strstr(err.text, "other") != NULL);
    config.weights = &nothing;
    CHECK(pretrain(&config, 1, &w, &err) == ENG_EINVAL);
    CHECK(strcmp(err.field, "weights") == 0 && strstr(err.text, "plus: 0") != NULL);
    config = tiny(&place, path, &list);
    config.prompt_tokens = 4000;
    CHECK(pretrain(&config, 1, &w, &err) == ENG_EMISMATCH);
    config = tiny(&place, path, &list);
    config.tau = 0;
    CHECK(pretrain(&config, 1, &w, &err) == ENG_EINVAL);
    CHECK_STR(err.field, "tau");
    config = tiny(&place, path, &list);
    write_bad_choice(&place);
    CHECK(pretrain(&config, 1, &w, &err) == ENG_EINVAL);
    CHECK(strstr(err.text, "pick") != NULL && strstr(err.text, "training row 2") != NULL);
    CHECK_INT(w.steps, 0);
    remove_dir(place.dir);
}

int main(void)
{
    TESTS_BEGIN;
    RUN(reorders_labels);
    RUN(reorders_a_choice);
    RUN(neutral_copies_differ);
    RUN(draws_alike_and_in_order);
    RUN(copies_share_a_turn);
    RUN(weights_share_the_turns);
    RUN(gradients_agree_with_the_bank);
    RUN(routes_carry_the_task);
    RUN(stopped_and_resumed);
    RUN(a_tied_bank_opens_tied);
    RUN(killed_and_resumed);
    RUN(goes_on_from_a_bank);
    RUN(a_deep_bank_starts_from_a_shallow_one);
    RUN(groups_of_zero_stay);
    RUN(refusals);
    TESTS_END;
}
