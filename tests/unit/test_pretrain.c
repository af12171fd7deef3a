/* test_pretrain.c: vocabularies, streams of text, masking, dropout, and a tiny backbone that learns, is
 * stopped, killed and resumed. The texts are made here. */
#include "engine/encoder_tape.h"
#include "engine/pretrain.h"
#include "tests/unit/test.h"

#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define STEPS ((size_t)60)

struct place {
    char dir[64], text[96], dev[96], vocab[96];
};

/* Sentences of a small grammar: what is behind a mask follows from its neighbours. */
static void write_text(const char *path, uint64_t seed, size_t lines)
{
    static const char *const who[] = {"小猫", "老师", "船长", "邻居", "工人"};
    static const char *const does[] = {"喜欢吃鱼", "正在讲课", "驾驶大船", "打扫院子", "修理机器"};
    static const char *const when[] = {"早上", "中午", "晚上", "Today"};
    struct rng rng;
    rng_seed(&rng, seed);
    FILE *file = fopen(path, "w");
    REQUIRE(file != NULL);
    for (size_t i = 0; i < lines; i++) {
        for (size_t n = 1 + (size_t)rng_below(&rng, 3); n > 0; n--) {
            size_t w = (size_t)rng_below(&rng, 5);
            fprintf(file, "%s%s%s。", when[rng_below(&rng, 4)], who[w], does[w]);
        }
        fputc('\n', file);
    }
    fclose(file);
}

static bool make_place(struct place *place)
{
    eng_error err = {0};
    size_t written = 0;
    snprintf(place->dir, sizeof place->dir, "/tmp/mp2-pretrain-XXXXXX");
    if (mkdtemp(place->dir) == NULL) {
        return false;
    }
    snprintf(place->text, sizeof place->text, "%s/text", place->dir);
    snprintf(place->dev, sizeof place->dev, "%s/dev", place->dir);
    snprintf(place->vocab, sizeof place->vocab, "%s/vocab.txt", place->dir);
    write_text(place->text, 1, 1500);
    write_text(place->dev, 2, 40);
    const char *files[] = {place->text};
    return eng_build_vocab(files, 1, 400, 1, place->vocab, &written, &err) == ENG_OK;
}

static void remove_dir(const char *path)
{
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        char name[512];
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            unlink(name) != 0) {
            remove_dir(name);
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
    rmdir(path);
}

static eng_pretrain_config tiny(const struct place *place, const char *const *files, char to[128],
                                const char *name)
{
    eng_pretrain_config config;
    eng_pretrain_defaults(&config);
    snprintf(to, 128, "%s/%s", place->dir, name);
    config.files = files;
    config.n_files = 1;
    config.vocab = place->vocab;
    config.to = to;
    config.shape =
        (eng_model_info){.layers = 2, .hidden = 32, .heads = 2, .ffn = 64, .positions = 32};
    config.schedule.steps = STEPS;
    config.schedule.warmup = 5;
    config.batch_tokens = 320;
    config.max_len = 32;
    config.lr = 1e-2;
    config.schedule.save_every = 0;
    return config;
}

static char *slurp(const char *dir, const char *name, size_t *size)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "r");
    char *bytes = file != NULL ? malloc(1 << 20) : NULL;
    *size = bytes != NULL ? fread(bytes, 1, 1 << 20, file) : 0;
    if (file != NULL) {
        fclose(file);
    }
    return bytes;
}

static bool same_model(const char *a, const char *b)
{
    size_t n = 0, m = 0;
    char *x = slurp(a, "model.safetensors", &n), *y = slurp(b, "model.safetensors", &m);
    bool same = x != NULL && y != NULL && n == m && n > 1000 && memcmp(x, y, n) == 0;
    free(x);
    free(y);
    return same;
}

/* ---- vocabulary ---- */

static void vocabulary_of_characters(void)
{
    struct place place;
    size_t size = 0, written = 0;
    eng_error err = {0};
    char path[128];
    REQUIRE(make_place(&place));
    snprintf(path, sizeof path, "%s/words", place.dir);
    FILE *file = fopen(path, "w");
    REQUIRE(file != NULL);
    fputs("Éa 好好好 λ ， 天天\n好，\n", file);
    fclose(file);
    const char *files[] = {path};
    char to[128];
    snprintf(to, sizeof to, "%s/v.txt", place.dir);
    CHECK(eng_build_vocab(files, 1, 8000, 1, to, &written, &err) == ENG_OK);
    char *bytes = slurp(place.dir, "v.txt", &size);
    REQUIRE(bytes != NULL);
    bytes[size] = '\0';
    CHECK(strncmp(bytes, "[PAD]\n[unused1]\n", 16) == 0);
    CHECK(strstr(bytes, "[unused99]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n") != NULL);
    CHECK(strstr(bytes, "\n9\n##a\n") != NULL);
    const char *tail = strstr(bytes, "##9\n");
    CHECK_STR(tail != NULL ? tail + 4 : NULL, "好\n天\n，\nλ\n##λ\n");
    CHECK_INT(written, 100 + 4 + 72 + 5);
    free(bytes);
    CHECK(eng_build_vocab(files, 1, 8000, 1, to, &written, &err) == ENG_EINVAL); /* is there */
    CHECK(eng_build_vocab(files, 1, 255, 1, to, &written, &err) == ENG_EINVAL);
    remove_dir(place.dir);
}

static void vocabulary_refuses_what_is_not_text(void)
{
    char path[] = "/tmp/mp2-text-XXXXXX";
    eng_error err = {0};
    size_t written = 0;
    int fd = mkstemp(path);
    REQUIRE(fd >= 0 && write(fd, "ab\xff", 3) == 3);
    close(fd);
    const char *files[] = {path};
    CHECK(eng_build_vocab(files, 1, 8000, 1, "/tmp/mp2-none", &written, &err) == ENG_EFORMAT);
    CHECK(strstr(err.text, "byte 2") != NULL);
    unlink(path);
}

/* ---- stream ---- */

static struct tokenizer *open_vocab(const struct place *place)
{
    struct tokenizer *tokenizer = NULL;
    struct tokenizer_options options = tokenizer_defaults();
    size_t size = 0;
    char *bytes = slurp(place->dir, "vocab.txt", &size);
    CHECK(bytes != NULL &&
          tokenizer_from_vocab((eng_text){bytes, size}, &options, &tokenizer, NULL) == ENG_OK);
    free(bytes);
    return tokenizer;
}

/* All lanes of one pass give every token of the files, whatever the limit of a piece. */
static void stream_reads_everything_once(void)
{
    struct place place;
    struct textstream stream;
    eng_error err = {0};
    int32_t ids[64];
    size_t counted[2] = {0, 0};
    REQUIRE(make_place(&place));
    struct tokenizer *tokenizer = open_vocab(&place);
    const char *files[] = {place.text, place.dev};
    for (size_t lanes = 1; lanes <= 8; lanes += 7) {
        REQUIRE(textstream_init(&stream, files, 2, lanes, &err) == ENG_OK);
        CHECK(lanes == 1 || stream.lanes > 2);
        for (size_t lane = 0; lane < stream.lanes; lane++) {
            for (uint64_t passes = stream.passes;;) {
                size_t n = 0;
                CHECK(textstream_next(&stream, tokenizer, lane, 64, ids, &n, &err) == ENG_OK);
                CHECK(n >= 1 && n <= 64);
                if (stream.passes > passes) {
                    break;
                }
                counted[lanes > 1] += n;
            }
        }
        textstream_fini(&stream);
    }
    CHECK(counted[0] > 10000);
    CHECK_INT(counted[1], counted[0]);
    tokenizer_free(tokenizer);
    remove_dir(place.dir);
}

static void stream_without_text(void)
{
    char path[] = "/tmp/mp2-text-XXXXXX";
    struct place place;
    struct textstream stream;
    eng_error err = {0};
    int32_t ids[8];
    size_t n = 0;
    int fd = mkstemp(path);
    REQUIRE(fd >= 0 && make_place(&place));
    struct tokenizer *tokenizer = open_vocab(&place);
    const char *files[] = {path};
    for (int blank = 0; blank < 2; blank++) {
        REQUIRE(textstream_init(&stream, files, 1, 4, &err) == ENG_OK);
        CHECK(textstream_next(&stream, tokenizer, 0, 8, ids, &n, &err) == ENG_EFORMAT);
        textstream_fini(&stream);
        REQUIRE(write(fd, "\n \n", 3) == 3);
    }
    close(fd);
    unlink(path);
    tokenizer_free(tokenizer);
    remove_dir(place.dir);
}

/* ---- masking ---- */

static void masks_fifteen_percent(void)
{
    struct place place;
    struct textstream stream;
    struct mlm_batch batch;
    struct mlm_words words = {0};
    struct rng rng;
    eng_error err = {0};
    char to[128];
    size_t kept = 0, masked = 0, all = 0, targets = 0;
    REQUIRE(make_place(&place));
    const char *files[] = {place.text};
    eng_pretrain_config config = tiny(&place, files, to, "m");
    const struct mlm_limits limits = {config.batch_tokens, config.max_len, config.mask};
    struct tokenizer *tokenizer = open_vocab(&place);
    REQUIRE(textstream_init(&stream, files, 1, 4, &err) == ENG_OK &&
            mlm_batch_init(&limits, &batch, &err) == ENG_OK &&
            mlm_words_init(tokenizer, &words, &err) == ENG_OK);
    rng_seed(&rng, 3);
    for (int i = 0; i < 200; i++) {
        CHECK(mlm_batch_fill(&batch, &limits, tokenizer, &words, &stream, false, &rng, &err) ==
              ENG_OK);
        CHECK(batch.tokens <= config.batch_tokens && batch.tokens + 32 > config.batch_tokens);
        all += batch.tokens - 2 * batch.n;
        targets += batch.n_targets;
        for (size_t t = 0; t < batch.n_targets; t++) {
            int32_t id = batch.ids[batch.rows[t]];
            masked += id == words.mask ? 1 : 0;
            kept += id == batch.targets[t] ? 1 : 0;
            CHECK(batch.targets[t] != words.cls && batch.targets[t] != words.sep);
        }
    }
    CHECK_NEAR((double)targets / (double)all, 0.155, 0.012); /* at least one a piece */
    CHECK_NEAR((double)masked / (double)targets, 0.8, 0.02);
    CHECK_NEAR((double)kept / (double)targets, 0.1, 0.02);
    free(words.ids);
    mlm_batch_fini(&batch);
    textstream_fini(&stream);
    tokenizer_free(tokenizer);
    remove_dir(place.dir);
}

/* ---- dropout ---- */

struct dropped {
    eng_compute *compute;
    eng_model *model;
    struct encoder_tape *tape;
    struct mlm_tape *mlm;
    struct mlm_params head;
    float *head_params;
};

static double dropped_loss(struct dropped *d)
{
    static const int32_t ids[] = {1, 5, 9, 3, 3, 7, 2, 1, 4, 4, 8, 2};
    static const size_t rows[] = {1, 4, 9};
    static const int32_t targets[] = {6, 3, 11};
    const eng_sequence sequences[] = {{.ids = ids, .len = 7}, {.ids = ids + 7, .len = 5}};
    eng_error err = {0};
    double loss = 0;
    CHECK(encoder_forward_bare(d->compute, d->tape, ENG_TRAINING, sequences, 2, &err) == ENG_OK);
    CHECK(mlm_forward(d->compute, d->mlm, ENG_TRAINING, &d->head, d->tape, rows, targets, 3, &loss,
                      &err) == ENG_OK);
    return loss;
}

/* Along its own gradient, the loss falls by |g|² a unit: with the mask of the same key. */
static void dropout_goes_backward(void)
{
    struct dropped d = {0};
    const eng_model_info shape = {
        .layers = 2, .hidden = 16, .heads = 2, .ffn = 32, .vocab = 20, .positions = 8, .types = 2};
    eng_error err = {0};
    REQUIRE(eng_compute_start(2, "openblas", &d.compute, &err) == ENG_OK &&
            model_random_bare(&shape, 4, &d.model, &err) == ENG_OK);
    float *params = d.model->block;
    size_t n = params_total(&d.model->params), m = mlm_params_total(&d.model->params);
    float *kept = malloc(n * sizeof *kept);
    d.head_params = calloc(m, sizeof *d.head_params);
    REQUIRE(kept != NULL && d.head_params != NULL);
    mlm_params_place(&d.model->params, &d.head, d.head_params);
    for (size_t i = 0; i < 16 * 16; i++) {
        d.head_params[i] = (float)(i % 7) * 0.1f - 0.3f;
    }
    for (size_t i = 0; i < 16; i++) {
        d.head_params[16 * 16 + 16 + i] = 1;
    }
    REQUIRE(encoder_tape_new(d.model, 12, 2, WANT_WEIGHTS, &d.tape, &err) == ENG_OK &&
            mlm_tape_new(d.model, 3, &d.mlm, &err) == ENG_OK);
    for (size_t i = 0; i < n; i++) {
        params[i] *= 5; /* larger than at the start, so that every layer matters */
    }
    double plain = dropped_loss(&d);
    encoder_dropout(d.tape, 0.4f, 77);
    double loss = dropped_loss(&d);
    CHECK(loss != plain);
    CHECK(dropped_loss(&d) == loss);
    float *gradient =
        (float *)(uintptr_t)encoder_gradient(d.tape, "embeddings.word_embeddings.weight", NULL);
    mlm_backward(d.compute, d.mlm, ENG_TRAINING, &d.head, 1, d.tape, gradient);
    CHECK(encoder_backward_bare(d.compute, d.tape, ENG_TRAINING, &err) == ENG_OK);
    /* Tensor by tensor: a wrong one must not hide behind a large one. */
    memcpy(kept, params, n * sizeof *kept);
    size_t at = 0;
    for (size_t i = 0; i < params_count(&d.model->params); i++) {
        struct param param;
        double squares = 0, losses[2];
        params_at(&d.model->params, i, &param);
        for (size_t j = at; j < at + param.count; j++) {
            squares += (double)gradient[j] * gradient[j];
        }
        double step = 1e-2 / (sqrt(squares) + 1e-2);
        for (int side = 0; side < 2; side++) {
            for (size_t j = at; j < at + param.count; j++) {
                params[j] = kept[j] + (float)(side == 0 ? step : -step) * gradient[j];
            }
            losses[side] = dropped_loss(&d);
        }
        memcpy(params + at, kept + at, param.count * sizeof *kept);
        double slope = (losses[0] - losses[1]) / (2 * step);
        if (fabs(slope - squares) > 2e-2 * squares + 2e-5) {
            TEST_FAIL_("%s: slope %g, gradient says %g", param.name, slope, squares);
        }
        at += param.count;
    }
    free(kept);
    free(d.head_params);
    mlm_tape_free(d.mlm);
    encoder_tape_free(d.tape);
    eng_model_free(d.model);
    eng_compute_stop(d.compute);
}

/* ---- runs ---- */

struct watch {
    size_t stop_at, steps; /* stop_at 0: never */
    double first, last, perplexity[2];
    size_t looks;
    int slow; /* microseconds a step */
};

static bool watch(void *arg, const eng_pretrain_progress *progress)
{
    struct watch *w = arg;
    w->first = w->steps == 0 ? progress->loss : w->first;
    w->last = progress->loss;
    w->steps++;
    if (isfinite(progress->dev_perplexity)) {
        w->perplexity[w->looks++ > 0] = progress->dev_perplexity;
    }
    if (w->slow > 0) {
        usleep((useconds_t)w->slow);
    }
    return w->stop_at == 0 || progress->step < w->stop_at;
}

static eng_status pretrain(const eng_pretrain_config *config, size_t threads, struct watch *w,
                           eng_error *err)
{
    eng_compute *compute = NULL;
    eng_status status = eng_compute_start(threads, NULL, &compute, err);
    if (status == ENG_OK) {
        status = eng_pretrain_backbone(compute, config, watch, w, err);
        eng_compute_stop(compute);
    }
    return status;
}

/* ---- the start ---- */

#define T    ((size_t)24)
#define LIKE 12 /* the token at `LIKE` is the one at 3 again */

/* x = LayerNorm(word + position), which is what layer 0 sees at the start (type vectors aside). */
static void start_input(const struct encoder_params *params, const int32_t *ids, float *x)
{
    size_t H = params->hidden;
    for (size_t t = 0; t < T; t++) {
        double mean = 0, square = 0;
        for (size_t i = 0; i < H; i++) {
            x[t * H + i] = params->word[(size_t)ids[t] * H + i] + params->position[t * H + i];
            mean += x[t * H + i] / (double)H;
        }
        for (size_t i = 0; i < H; i++) {
            square += (x[t * H + i] - mean) * (x[t * H + i] - mean) / (double)H;
        }
        for (size_t i = 0; i < H; i++) {
            x[t * H + i] = (float)((x[t * H + i] - mean) / sqrt(square));
        }
    }
}

/* The score of token s as token t's head sees it. */
static double start_score(const struct encoder_params *params, const float *x, size_t head,
                          size_t t, size_t s)
{
    size_t H = params->hidden, dh = H / params->heads;
    double sum = 0;
    for (size_t r = head * dh; r < (head + 1) * dh; r++) {
        double q = 0, k = 0;
        for (size_t i = 0; i < H; i++) {
            q += (double)params->layer[0].q.w[r * H + i] * x[t * H + i];
            k += (double)params->layer[0].k.w[r * H + i] * x[s * H + i];
        }
        sum += q * k / sqrt((double)dh);
    }
    return sum;
}

/* Where token t's head looks, itself not counted. */
static size_t start_looks(const struct encoder_params *params, const float *x, size_t head,
                          size_t t)
{
    size_t best = t == 0 ? 1 : 0;
    for (size_t s = 0; s < T; s++) {
        if (s != t && start_score(params, x, head, t, s) > start_score(params, x, head, t, best)) {
            best = s;
        }
    }
    return best;
}

static void heads_look_around(void)
{
    const eng_model_info shape = {.layers = 2,
                                  .hidden = 128,
                                  .heads = 4,
                                  .ffn = 256,
                                  .vocab = 40,
                                  .positions = 64,
                                  .types = 2};
    eng_model *model = NULL;
    eng_error err = {0};
    REQUIRE(model_random_bare(&shape, 5, &model, &err) == ENG_OK);
    const struct encoder_params *params = &model->params;
    int32_t ids[T];
    float *x = malloc(T * shape.hidden * sizeof *x);
    REQUIRE(x != NULL);
    for (size_t t = 0; t < T; t++) {
        ids[t] = (int32_t)(t == LIKE ? 3 : t);
    }
    pretrain_start_looking(&model->params);
    start_input(params, ids, x);
    size_t before = 0, behind = 0;
    for (size_t t = 1; t + 1 < T; t++) {
        before += start_looks(params, x, 0, t) == t - 1;
        behind += start_looks(params, x, 1, t) == t + 1;
    }
    CHECK_INT(before, T - 2);
    CHECK_INT(behind, T - 2);
    CHECK_INT(start_looks(params, x, 3, LIKE), 3);
    CHECK_INT(start_looks(params, x, 3, 3), LIKE);
    CHECK(memcmp(params->layer[1].q.w + 96 * 128, params->layer[1].k.w + 96 * 128,
                 32 * 128 * sizeof(float)) == 0);
    free(x);
    eng_model_free(model);
}

/* Joint training goes on with the head that its model brings: the loss of a learnt one, not of chance. */
static void head_is_read_again(const char *dir, const char *text, double first, double last)
{
    const struct mlm_limits limits = {512, 32, 0.15};
    eng_error err = {0};
    eng_model *model = NULL;
    eng_compute *compute = NULL;
    struct mlm_learner learner = {0};
    struct textstream stream = {0};
    struct mlm_words words = {0};
    struct mlm_batch batch = {0};
    struct rng rng;
    double loss = 0;
    rng_seed(&rng, 9);
    REQUIRE(eng_compute_start(1, NULL, &compute, &err) == ENG_OK &&
            pretrain_model_own(dir, &model, &err) == ENG_OK &&
            textstream_init(&stream, &text, 1, 1, &err) == ENG_OK &&
            mlm_words_init(model->tokenizer, &words, &err) == ENG_OK &&
            mlm_batch_init(&limits, &batch, &err) == ENG_OK &&
            mlm_learner_init(&learner, compute, model, 512, batch.max_sequences, &rng, &err) ==
                ENG_OK &&
            encoder_tape_new(model, 512, batch.max_sequences, WANT_WEIGHTS, &learner.tape, &err) ==
                ENG_OK &&
            mlm_batch_fill(&batch, &limits, model->tokenizer, &words, &stream, false, &rng, &err) ==
                ENG_OK);
    CHECK(mlm_learner_run(&learner, &batch, 1, NULL, &loss, &err) == ENG_OK);
    CHECK(loss < last + 0.3 * (first - last));
    encoder_tape_free(learner.tape);
    mlm_learner_fini(&learner);
    mlm_batch_fini(&batch);
    textstream_fini(&stream);
    free(words.ids);
    eng_model_free(model);
    eng_compute_stop(compute);
}

static void learns_and_opens(void)
{
    struct place place;
    char to[128];
    eng_error err = {0};
    struct watch w = {0};
    eng_model *model = NULL;
    REQUIRE(make_place(&place));
    const char *files[] = {place.text};
    eng_pretrain_config config = tiny(&place, files, to, "learnt");
    config.dev = place.dev;
    config.schedule.dev_every = 10;
    config.schedule.steps = 240;
    CHECK(pretrain(&config, 2, &w, &err) == ENG_OK);
    CHECK(err.status == ENG_OK);
    CHECK_INT(w.steps, 240);
    CHECK(w.first > 4);
    CHECK(w.last < 0.5 * w.first);
    CHECK_INT(w.looks, 24);
    CHECK(w.perplexity[1] < 0.3 * w.perplexity[0]);
    CHECK(eng_model_open(to, &model, &err) == ENG_OK);
    if (model != NULL) {
        CHECK(eng_model_get_info(model)->has_vocab);
        CHECK_INT(eng_model_get_info(model)->hidden, 32);
    }
    eng_model_free(model);
    head_is_read_again(to, place.text, w.first, w.last);
    CHECK(pretrain(&config, 2, &w, &err) == ENG_EINVAL); /* a model is there */
    remove_dir(place.dir);
}

static void stopped_and_resumed(void)
{
    struct place place;
    char whole[128], parts[128];
    eng_error err = {0};
    REQUIRE(make_place(&place));
    const char *files[] = {place.text};
    eng_pretrain_config config = tiny(&place, files, whole, "whole");
    struct watch w = {0};
    CHECK(pretrain(&config, 1, &w, &err) == ENG_OK);
    config = tiny(&place, files, parts, "parts");
    w = (struct watch){.stop_at = 7};
    CHECK(pretrain(&config, 2, &w, &err) == ENG_ECANCELLED);
    CHECK(pretrain(&config, 2, &w, &err) == ENG_EINVAL); /* a checkpoint, and no resume */
    config.schedule.resume = true;
    config.lr *= 2;
    CHECK(pretrain(&config, 2, &w, &err) == ENG_EMISMATCH);
    config.lr /= 2;
    w = (struct watch){.stop_at = 23};
    CHECK(pretrain(&config, 2, &w, &err) == ENG_ECANCELLED);
    CHECK_INT(w.steps, 16);
    w = (struct watch){0};
    CHECK(pretrain(&config, 2, &w, &err) == ENG_OK);
    CHECK(same_model(whole, parts));
    remove_dir(place.dir);
}

static void killed_and_resumed(void)
{
    struct place place;
    char whole[128], parts[128];
    eng_error err = {0};
    bool done = false;
    int kills = 0;
    REQUIRE(make_place(&place));
    const char *files[] = {place.text};
    eng_pretrain_config config = tiny(&place, files, whole, "whole");
    config.schedule.save_every = 5;
    struct watch w = {0};
    CHECK(pretrain(&config, 1, &w, &err) == ENG_OK);
    config.to = parts;
    snprintf(parts, sizeof parts, "%s/parts", place.dir);
    config.schedule.resume = true;
    for (useconds_t i = 0; i < 5 && !done; i++) {
        pid_t child = fork();
        REQUIRE(child >= 0);
        if (child == 0) {
            w = (struct watch){.slow = 2000};
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
    CHECK(same_model(whole, parts));
    remove_dir(place.dir);
}

static void refusals(void)
{
    struct place place;
    char to[128];
    eng_error err = {0};
    struct watch w = {0};
    REQUIRE(make_place(&place));
    const char *files[] = {place.text}, *none[] = {"/nowhere/text"};
    eng_pretrain_config config = tiny(&place, files, to, "out");
    config.max_len = 33;
    CHECK(pretrain(&config, 1, &w, &err) == ENG_EINVAL);
    CHECK_STR(err.field, "max_len");
    config = tiny(&place, none, to, "out");
    CHECK(pretrain(&config, 1, &w, &err) == ENG_ENOTFOUND);
    config = tiny(&place, files, to, "out");
    config.shape.heads = 3;
    CHECK(pretrain(&config, 1, &w, &err) == ENG_EFORMAT);
    config = tiny(&place, files, to, "out");
    config.vocab = place.text;
    CHECK(pretrain(&config, 1, &w, &err) == ENG_EFORMAT);
    CHECK_INT(w.steps, 0);
    remove_dir(place.dir);
}

int main(void)
{
    TESTS_BEGIN;
    RUN(vocabulary_of_characters);
    RUN(vocabulary_refuses_what_is_not_text);
    RUN(stream_reads_everything_once);
    RUN(stream_without_text);
    RUN(masks_fifteen_percent);
    RUN(dropout_goes_backward);
    RUN(heads_look_around);
    RUN(learns_and_opens);
    RUN(stopped_and_resumed);
    RUN(killed_and_resumed);
    RUN(refusals);
    TESTS_END;
}
