/* test_joint.c: backbone, modules, routes and head learning together, from random weights and from a
 * model, with masked text beside them. */
#include "engine/pretrain.h"
#include "tests/unit/prompts_fixture.h"

struct joint {
    struct place place;
    char path[96], to[96], vocab[128], text[96];
    const char *tasks, *texts[1];
    eng_prompts_config config;
};

/* Random weights of a tiny shape. */
static bool make_joint(struct joint *joint)
{
    if (!make_place(&joint->place)) {
        return false;
    }
    joint->config = tiny(&joint->place, joint->path, &joint->tasks);
    eng_prompts_config *c = &joint->config;
    snprintf(joint->to, sizeof joint->to, "%s/model", joint->place.dir);
    snprintf(joint->vocab, sizeof joint->vocab, "%s/vocab.txt", joint->place.model);
    snprintf(joint->text, sizeof joint->text, "%s/text", joint->place.dir);
    FILE *file = fopen(joint->text, "w");
    for (size_t i = 0; file != NULL && i < 30; i++) {
        fprintf(file, "%s。%s。\n", toy_pleased[i % TOY_EACH], toy_angry[(i * 7) % TOY_EACH]);
    }
    joint->texts[0] = joint->text;
    c->joint = true;
    c->model = NULL;
    c->vocab = joint->vocab;
    c->to = joint->to;
    c->shape = (eng_model_info){.layers = 2, .hidden = 32, .heads = 2, .ffn = 64, .positions = 96};
    c->lr_backbone = 3e-3;
    return file != NULL && fclose(file) == 0;
}

struct losses {
    struct watch watch;
    double first, last, first_mlm, last_mlm;
};

static bool watch_losses(void *arg, const eng_pretrain_progress *progress)
{
    struct losses *losses = arg;
    bool first = losses->watch.steps == 0;
    losses->first = first ? progress->loss : losses->first;
    losses->first_mlm = first ? progress->mlm_loss : losses->first_mlm;
    losses->last = progress->loss;
    losses->last_mlm = progress->mlm_loss;
    return watch(&losses->watch, progress);
}

static eng_status run(const eng_prompts_config *config, size_t threads, struct losses *losses,
                      eng_error *err)
{
    eng_compute *compute = NULL;
    eng_status status = eng_compute_start(threads, NULL, &compute, err);
    if (status == ENG_OK) {
        status = eng_pretrain_prompts(compute, config, watch_losses, losses, err);
        eng_compute_stop(compute);
    }
    return status;
}

static bool same_in(const char *a, const char *b, const char *name)
{
    char x[256], y[256];
    snprintf(x, sizeof x, "%s/%s", a, name);
    snprintf(y, sizeof y, "%s/%s", b, name);
    return same_file(x, y);
}

static void learns_from_random_weights(void)
{
    struct joint joint;
    struct losses losses = {.first = 0};
    eng_error err = {0};
    eng_model *model = NULL;
    eng_bank *bank = NULL;
    char last[128];
    REQUIRE(make_joint(&joint));
    joint.config.mlm_weight = 0.5;
    joint.config.text = joint.texts;
    joint.config.n_text = 1;
    joint.config.mlm_tokens = 128;
    joint.config.schedule.steps = 80;
    CHECK(run(&joint.config, 2, &losses, &err) == ENG_OK);
    CHECK(losses.last < 0.6 * losses.first);
    CHECK(losses.last_mlm < 0.8 * losses.first_mlm);
    snprintf(last, sizeof last, "%s/last", joint.to);
    CHECK(eng_model_open(joint.to, &model, &err) == ENG_OK &&
          eng_bank_open_default(model, false, &bank, &err) == ENG_OK);
    if (bank != NULL) {
        CHECK_STR(eng_bank_get_info(bank)->name, "shallow");
        CHECK_STR(eng_bank_row_name(bank, 1), "plus");
        CHECK_INT(eng_model_get_info(model)->positions, 96);
    }
    eng_bank_free(bank);
    eng_model_free(model);
    CHECK(eng_model_open(last, &model, &err) == ENG_OK);
    eng_model_free(model);
    CHECK(run(&joint.config, 2, &losses, &err) == ENG_EINVAL); /* a model is there */
    remove_dir(joint.place.dir);
}

static void joint_stopped_and_resumed(void)
{
    static const char *const files[] = {"model.safetensors", "shallow.bank.safetensors",
                                        "last/model.safetensors", "last/shallow.bank.safetensors"};
    struct joint joint;
    struct losses losses = {.first = 0};
    eng_error err = {0};
    char other[96];
    REQUIRE(make_joint(&joint));
    joint.config.mlm_weight = 1;
    joint.config.text = joint.texts;
    joint.config.n_text = 1;
    joint.config.mlm_tokens = 128;
    joint.config.dropout = 0.1;
    CHECK(run(&joint.config, 1, &losses, &err) == ENG_OK);
    snprintf(other, sizeof other, "%s/parts", joint.place.dir);
    joint.config.to = other;
    losses = (struct losses){.watch.stop_at = 13};
    CHECK(run(&joint.config, 2, &losses, &err) == ENG_ECANCELLED);
    joint.config.schedule.resume = true;
    losses = (struct losses){.first = 0};
    CHECK(run(&joint.config, 2, &losses, &err) == ENG_OK);
    CHECK_INT(losses.watch.steps, 17);
    for (size_t i = 0; i < 4; i++) {
        CHECK(same_in(joint.to, other, files[i]));
    }
    remove_dir(joint.place.dir);
}

/* From a model: its weights move with a step size, and stay without one. */
static void starts_from_a_model(void)
{
    struct joint joint;
    eng_error err = {0};
    eng_model *before = NULL, *after = NULL;
    REQUIRE(make_joint(&joint));
    joint.config.vocab = NULL;
    joint.config.model = joint.place.model;
    joint.config.schedule.steps = 2;
    for (int moved = 0; moved < 2; moved++) {
        char to[96];
        struct losses losses = {.first = 0};
        snprintf(to, sizeof to, "%s/model%d", joint.place.dir, moved);
        joint.config.to = to;
        joint.config.lr_backbone = moved ? 1e-3 : 0;
        CHECK(run(&joint.config, 2, &losses, &err) == ENG_OK);
        REQUIRE(eng_model_open(joint.place.model, &before, &err) == ENG_OK &&
                eng_model_open(to, &after, &err) == ENG_OK);
        bool same = strcmp(eng_model_get_info(before)->fingerprint,
                           eng_model_get_info(after)->fingerprint) == 0;
        CHECK(same == (moved == 0));
        eng_model_free(before);
        eng_model_free(after);
    }
    remove_dir(joint.place.dir);
}

/* A masked batch in parts has the loss and the gradient of the whole. */
static void parts_make_the_whole(void)
{
    const eng_model_info shape = {
        .layers = 2, .hidden = 16, .heads = 2, .ffn = 32, .vocab = 30, .positions = 12, .types = 2};
    const size_t parts[] = {1000, 20, 9, 5}; /* tokens of a part */
    int32_t ids[40], targets[] = {3, 7, 9, 4, 1};
    size_t rows[] = {1, 2, 9, 21, 30};
    eng_sequence sequences[5];
    const struct mlm_batch batch = {.ids = ids,
                                    .sequences = sequences,
                                    .n = 5,
                                    .tokens = 40,
                                    .rows = rows,
                                    .targets = targets,
                                    .n_targets = 5};
    eng_compute *compute = NULL;
    eng_model *model = NULL;
    eng_error err = {0};
    float *kept = NULL;
    double loss = 0, whole = 0;
    for (size_t i = 0; i < 40; i++) {
        ids[i] = (int32_t)(i * 7 % 30);
        sequences[i / 8] = (eng_sequence){.ids = ids + i / 8 * 8, .len = 8};
    }
    REQUIRE(eng_compute_start(2, NULL, &compute, &err) == ENG_OK &&
            eng_model_random(&shape, 4, &model, &err) == ENG_OK);
    size_t n = params_total(&model->params);
    for (size_t i = 0; i < 4; i++) {
        struct mlm_learner learner;
        struct rng rng;
        struct encoder_tape *tape = NULL;
        rng_seed(&rng, 3);
        REQUIRE(encoder_tape_new(model, 40, 5, WANT_WEIGHTS, &tape, &err) == ENG_OK &&
                mlm_learner_init(&learner, compute, model, parts[i], 4, &rng, &err) == ENG_OK);
        learner.tape = tape;
        float *dword =
            (float *)(uintptr_t)encoder_gradient(tape, "embeddings.word_embeddings.weight", NULL);
        encoder_tape_zero(tape);
        mlm_tape_zero(learner.mlm);
        CHECK(mlm_learner_run(&learner, &batch, 0.5, dword, &loss, &err) == ENG_OK);
        if (i == 0) {
            whole = loss;
            kept = malloc(n * sizeof *kept);
            REQUIRE(kept != NULL);
            memcpy(kept, dword, n * sizeof *kept);
        }
        CHECK_NEAR(loss, whole, 1e-6);
        double apart = 0, size = 0;
        for (size_t j = 0; j < n; j++) {
            apart += fabs((double)dword[j] - kept[j]);
            size += fabs((double)kept[j]);
        }
        CHECK(size > 0.1 && apart < 1e-5 * size);
        mlm_learner_fini(&learner);
        encoder_tape_free(tape);
    }
    free(kept);
    eng_model_free(model);
    eng_compute_stop(compute);
}

static void joint_refusals(void)
{
    struct joint joint;
    struct losses losses = {.first = 0};
    eng_error err = {0};
    REQUIRE(make_joint(&joint));
    eng_prompts_config config = joint.config;
    config.model = joint.place.model; /* and a vocabulary */
    CHECK(run(&config, 1, &losses, &err) == ENG_EINVAL);
    CHECK_STR(err.field, "model");
    config = joint.config;
    config.joint = false;
    CHECK(run(&config, 1, &losses, &err) == ENG_EINVAL);
    config = joint.config;
    config.mlm_weight = 1; /* without text */
    CHECK(run(&config, 1, &losses, &err) == ENG_EINVAL);
    CHECK_STR(err.field, "mlm_weight");
    CHECK_INT(losses.watch.steps, 0);
    remove_dir(joint.place.dir);
}

int main(void)
{
    TESTS_BEGIN;
    RUN(learns_from_random_weights);
    RUN(joint_stopped_and_resumed);
    RUN(starts_from_a_model);
    RUN(parts_make_the_whole);
    RUN(joint_refusals);
    TESTS_END;
}
