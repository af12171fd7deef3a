/* prompts_bank.c: the bank while it is trained, and the file it becomes.
 *
 *   modules   M[l,k] = z[l,k]·A[l]                          after every step
 *   backward  given dp of a route's prompts p[l] = Σ_k ŵ[l,k] M[l,k]:
 *     dr       bank_mix_gradient (bank.c)                    dM[l,k] += ŵ[l,k] dp[l]
 *   and, when all routes of the step have spoken:
 *     dz[l] = dM[l]·A[l]ᵀ        dA[l] = z[l]ᵀ·dM[l]
 *
 * reference: tests/golden (train.grad.z, train.grad.A, train.grad.route).
 */
#include "engine/bankfile.h"
#include "engine/gemm.h"
#include "engine/pool.h"
#include "engine/prompts.h"
#include "engine/safetensors.h"
#include "engine/status.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DEVIATION 0.02

static size_t prompt_floats(const eng_bank *bank)
{
    return bank->info.prompt_tokens * bank->model->params.hidden;
}

/* ---- making ---- */

static void fill_normal(struct rng *rng, float *values, size_t n, double deviation)
{
    for (size_t i = 0; i < n; i++) {
        values[i] = (float)(deviation * rng_normal(rng));
    }
}

static eng_status check_sizes(const eng_prompts_config *config, eng_error *err)
{
    const struct {
        const char *name;
        size_t value, max;
    } limits[] = {{"modules", config->modules, BANK_MAX_MODULES},
                  {"prompt_tokens", config->prompt_tokens, BANK_MAX_PROMPT_TOKENS},
                  {"intrinsic", config->intrinsic, BANK_MAX_INTRINSIC}};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        if (limits[i].value == 0 || limits[i].value > limits[i].max) {
            return fail(err, ENG_EINVAL, limits[i].name, "%zu, 1 to %zu are allowed",
                        limits[i].value, limits[i].max);
        }
    }
    return ENG_OK;
}

static void set_info(eng_bank *bank, const eng_model *model, const eng_prompts_config *config)
{
    size_t layers = config->deep ? model->params.layers : 1;
    int32_t offset = config->prompt_token_offset, type = config->token_type;
    if (offset < 0) {
        offset = (int32_t)bank_default_offset(model->params.vocab, config->prompt_tokens);
    }
    bank->model = model;
    snprintf(bank->option_separator, sizeof bank->option_separator, "%s", BANK_DEFAULT_SEPARATOR);
    bank->info =
        (eng_bank_info){.name = bank->name,
                        .modules = config->modules,
                        .prompt_tokens = config->prompt_tokens,
                        .intrinsic = config->intrinsic,
                        .layers = layers,
                        .tied = config->tied,
                        .route_len = config->tied ? config->modules : layers * config->modules,
                        .prompt_token_offset = offset,
                        .token_type = type >= 0 ? type : (model->params.types > 1 ? 1 : 0),
                        .adapt_lr = bank_default_lr(model->params.hidden),
                        .adapt_steps = bank_default_steps(model->params.hidden)};
}

/* Counts that both the bank and its gradients have. */
struct counts {
    size_t z, A, head, modules;
};

static eng_status count(const eng_bank *bank, struct counts *out, eng_error *err)
{
    const eng_bank_info *info = &bank->info;
    size_t n = 0, bytes = 0;
    bool fits = size_mul(info->prompt_tokens, bank->model->params.hidden, &n) &&
                size_mul(info->layers * info->modules, info->intrinsic, &out->z) &&
                size_mul(info->layers * info->intrinsic, n, &out->A) &&
                size_mul(info->layers * info->modules, n, &out->modules) &&
                size_mul(out->A, sizeof(float), &bytes) &&
                size_mul(out->modules, sizeof(float), &bytes);
    out->head = 2 * bank->model->params.hidden;
    return fits ? ENG_OK : fail(err, ENG_ELIMIT, "bank", "the sizes of this bank overflow");
}

static eng_status make_tensors(struct train_bank *train, struct rng *rng, eng_error *err)
{
    eng_bank *bank = train->bank;
    struct counts n;
    eng_status status = count(bank, &n, err);
    if (status != ENG_OK) {
        return status;
    }
    const struct {
        float **place;
        size_t count;
    } all[] = {{&bank->z, n.z},
               {&bank->A, n.A},
               {&bank->head_w, n.head},
               {&train->dz, n.z},
               {&train->dA, n.A},
               {&train->dhead, n.head},
               {&bank->modules, n.modules},
               {&train->dmodules, n.modules}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        *all[i].place = calloc(all[i].count, sizeof(float));
        if (*all[i].place == NULL) {
            return fail_nomem(err, "bank");
        }
    }
    fill_normal(rng, bank->z, n.z, 1);
    fill_normal(rng, bank->A, n.A, DEVIATION);
    fill_normal(rng, bank->head_w, n.head, DEVIATION);
    return ENG_OK;
}

static eng_status make_encoder(struct train_bank *train, eng_prompt_encoder kind, struct rng *rng,
                               eng_error *err)
{
    const eng_bank_info *info = &train->bank->info;
    size_t modules = info->layers * info->modules, n = prompt_floats(train->bank);
    train->base = calloc(modules, n * sizeof *train->base);
    train->dbase = calloc(modules, n * sizeof *train->dbase);
    if (train->base == NULL || train->dbase == NULL) {
        return fail_nomem(err, "prompt_encoder");
    }
    return prompt_encoder_new(kind, modules, info->prompt_tokens, train->bank->model->params.hidden,
                              rng, &train->encoder, err);
}

eng_status train_bank_init(struct train_bank *train, eng_compute *compute, const eng_model *model,
                           const eng_prompts_config *config, struct rng *rng, eng_error *err)
{
    *train = (struct train_bank){.compute = compute, .bank = calloc(1, sizeof(eng_bank))};
    if (train->bank == NULL) {
        return fail_nomem(err, "bank");
    }
    eng_status status = check_sizes(config, err);
    if (status == ENG_OK) {
        set_info(train->bank, model, config);
        status = bank_check_model(train->bank, "the bank asked for", err);
    }
    if (status == ENG_OK) {
        status = make_tensors(train, rng, err);
    }
    if (status == ENG_OK && config->encoder != ENG_PROMPT_PLAIN) {
        status = make_encoder(train, config->encoder, rng, err);
    }
    if (status == ENG_OK) {
        train_bank_modules(train);
    }
    return status;
}

void train_bank_fini(struct train_bank *train)
{
    eng_bank_free(train->bank);
    free(train->routes);
    free(train->droutes);
    free(train->dz);
    free(train->dA);
    free(train->dhead);
    free(train->dmodules);
    prompt_encoder_free(train->encoder);
    free(train->base);
    free(train->dbase);
    *train = (struct train_bank){0};
}

eng_status train_bank_rows(struct train_bank *train, const char *const *names, size_t rows,
                           struct rng *rng, eng_error *err)
{
    eng_bank *bank = train->bank;
    size_t all = rows * bank->info.route_len;
    if (rows == 0 || rows > BANK_MAX_ROWS) {
        return fail(err, ENG_ELIMIT, "tasks", "%zu router rows, 1 to %d are allowed", rows,
                    BANK_MAX_ROWS);
    }
    bank->info.rows = rows;
    bank->row_names = calloc(rows, sizeof *bank->row_names);
    bank->router = calloc(rows * bank->info.layers * bank->info.modules, sizeof *bank->router);
    train->routes = calloc(all, sizeof *train->routes);
    train->droutes = calloc(all, sizeof *train->droutes);
    if (bank->row_names == NULL || bank->router == NULL || train->routes == NULL ||
        train->droutes == NULL) {
        return fail_nomem(err, "tasks");
    }
    for (size_t i = 0; i < rows; i++) {
        bank->row_names[i] = strdup(names[i]);
        if (bank->row_names[i] == NULL) {
            return fail_nomem(err, "tasks");
        }
    }
    fill_normal(rng, train->routes, all, DEVIATION);
    return ENG_OK;
}

/* ---- going on from a bank ---- */

static eng_status check_sizes_of(const eng_bank *bank, const eng_bank *from, const char *path,
                                 eng_error *err)
{
    const eng_bank_info *want = &bank->info, *got = &from->info;
    const struct {
        const char *name;
        size_t want, got;
    } sizes[] = {{"layers with a prompt", got->layers == 1 ? 1 : want->layers, got->layers},
                 {"modules", want->modules, got->modules},
                 {"prompt tokens", want->prompt_tokens, got->prompt_tokens},
                 {"intrinsic dimensions", want->intrinsic, got->intrinsic}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        if (sizes[i].want != sizes[i].got) {
            return fail(err, ENG_EMISMATCH, "bank", "%s: %zu %s, this run has %zu", path,
                        sizes[i].got, sizes[i].name, sizes[i].want);
        }
    }
    return ENG_OK;
}

/* The first layer's weights are every layer's where a deep bank starts from a shallow one. */
static void take_routes(struct train_bank *train, const eng_bank *from)
{
    const eng_bank *bank = train->bank;
    size_t len = from->info.route_len;
    for (size_t row = 0; row < bank->info.rows; row++) {
        float *route = train->routes + row * bank->info.route_len;
        for (size_t i = 0; i < from->info.rows; i++) {
            if (strcmp(bank->row_names[row], eng_bank_row_name(from, i)) == 0) {
                eng_bank_row(from, i, route);
                for (size_t at = len; at < bank->info.route_len; at += len) {
                    memcpy(route + at, route, len * sizeof *route);
                }
            }
        }
    }
}

eng_status train_bank_take(struct train_bank *train, const char *path, eng_error *err)
{
    eng_bank *bank = train->bank, *from = NULL;
    struct counts n, all;
    if (train->encoder != NULL) {
        return fail(err, ENG_EINVAL, "bank",
                    "a run with a prompt encoder starts from random modules: no file has what they "
                    "were before the encoder");
    }
    eng_status status = eng_bank_open(bank->model, path, bank->info.tied, &from, err);
    if (status == ENG_OK) {
        status = check_sizes_of(bank, from, path, err);
    }
    if (status == ENG_OK) {
        status = count(from, &n, err);
    }
    if (status == ENG_OK) {
        status = count(bank, &all, err);
    }
    if (status == ENG_OK) {
        memcpy(bank->z, from->z, n.z * sizeof(float));
        memcpy(bank->A, from->A, n.A * sizeof(float));
        memset(bank->A + n.A, 0, (all.A - n.A) * sizeof(float));
        memcpy(bank->head_w, from->head_w, n.head * sizeof(float));
        take_routes(train, from);
        train_bank_modules(train);
    }
    eng_bank_free(from);
    return status;
}

/* ---- forward and backward ---- */

void train_bank_modules(struct train_bank *train)
{
    const eng_bank *bank = train->bank;
    size_t n = prompt_floats(bank), K = bank->info.modules, d = bank->info.intrinsic;
    float *modules = train->encoder != NULL ? train->base : bank->modules;
    compute_turn_take(train->compute, ENG_TRAINING);
    for (size_t l = 0; l < bank->info.layers; l++) {
        struct gemm_product product = {.m = K,
                                       .n = n,
                                       .k = d,
                                       .a = bank->z + l * K * d,
                                       .lda = d,
                                       .b = bank->A + l * d * n,
                                       .ldb = n,
                                       .c = modules + l * K * n,
                                       .ldc = n};
        gemm_run(train->compute, &product, 1);
    }
    compute_turn_give(train->compute);
    if (train->encoder != NULL) {
        prompt_encoder_forward(train->compute, train->encoder, train->base, bank->modules);
    }
}

void train_bank_route_gradient(struct train_bank *train, size_t row, const struct bank_noise *noise,
                               const float *mix, const float *dmerged)
{
    const eng_bank *bank = train->bank;
    size_t n = prompt_floats(bank), K = bank->info.modules, len = bank->info.route_len;
    bank_mix_gradient(bank, train->routes + row * len, noise, dmerged, train->droutes + row * len);
    for (size_t l = 0; l < bank->info.layers; l++) {
        for (size_t k = 0; k < K; k++) {
            float *to = train->dmodules + (l * K + k) * n;
            for (size_t i = 0; i < n; i++) {
                to[i] += mix[l * K + k] * dmerged[l * n + i];
            }
        }
    }
}

void train_bank_factor_gradient(struct train_bank *train)
{
    const eng_bank *bank = train->bank;
    size_t n = prompt_floats(bank), K = bank->info.modules, d = bank->info.intrinsic;
    const float *dmodules = train->dmodules;
    if (train->encoder != NULL) {
        prompt_encoder_backward(train->compute, train->encoder, train->base, dmodules,
                                train->dbase);
        dmodules = train->dbase;
    }
    compute_turn_take(train->compute, ENG_TRAINING);
    for (size_t l = 0; l < bank->info.layers; l++) {
        const float *dM = dmodules + l * K * n;
        struct gemm_product products[] = {{.m = K,
                                           .n = d,
                                           .k = n,
                                           .a = dM,
                                           .lda = n,
                                           .b = bank->A + l * d * n,
                                           .ldb = n,
                                           .b_transposed = true,
                                           .c = train->dz + l * K * d,
                                           .ldc = d},
                                          {.m = d,
                                           .n = n,
                                           .k = K,
                                           .a = bank->z + l * K * d,
                                           .lda = d,
                                           .a_transposed = true,
                                           .b = dM,
                                           .ldb = n,
                                           .c = train->dA + l * d * n,
                                           .ldc = n}};
        gemm_run(train->compute, products, 2);
    }
    compute_turn_give(train->compute);
}

/* ---- the file ---- */

/* Lists that say of each row: its name, its type, its template, its option words. */
struct row_lists {
    json_t *names, *types, *templates, *labels;
};

static bool append_row(struct row_lists *lists, const eng_bank *bank,
                       const struct prompt_tasks *tasks, size_t row)
{
    const struct prompt_task *task = prompt_tasks_of_row(tasks, row);
    json_t *words = json_array();
    for (size_t i = 0; i < eng_task_label_count(task->task); i++) {
        (void)json_array_append_new(words, json_string(eng_task_label(task->task, i)));
    }
    const char *type = eng_task_type_name(eng_task_get_type(task->task));
    return json_array_append_new(lists->labels, words) == 0 &&
           json_array_append_new(lists->names, json_string(bank->row_names[row])) == 0 &&
           json_array_append_new(lists->types, json_string(type)) == 0 &&
           json_array_append_new(lists->templates, json_string(eng_task_template(task->task))) == 0;
}

#define N_LISTS 4
#define N_META  12

struct meta {
    struct safetensors_meta entries[N_META];
    size_t n;
    char *lists[N_LISTS]; /* malloc'ed */
    char numbers[6][32];
};

static eng_status make_lists(struct meta *meta, const eng_bank *bank,
                             const struct prompt_tasks *tasks, eng_error *err)
{
    static const char *const keys[N_LISTS] = {"tasks", "types", "templates", "labels"};
    struct row_lists lists = {json_array(), json_array(), json_array(), json_array()};
    json_t *const all[N_LISTS] = {lists.names, lists.types, lists.templates, lists.labels};
    bool made = true;
    for (size_t row = 0; made && row < bank->info.rows; row++) {
        made = append_row(&lists, bank, tasks, row);
    }
    for (size_t i = 0; i < N_LISTS; i++) {
        meta->lists[i] = made ? json_dumps(all[i], JSON_COMPACT) : NULL;
        made = made && meta->lists[i] != NULL;
        meta->entries[meta->n++] = (struct safetensors_meta){keys[i], meta->lists[i]};
        json_decref(all[i]);
    }
    return made ? ENG_OK : fail_nomem(err, "tasks");
}

static void add_number(struct meta *meta, size_t i, const char *key, double value)
{
    snprintf(meta->numbers[i], sizeof meta->numbers[i], "%.9g", value);
    meta->entries[meta->n++] = (struct safetensors_meta){key, meta->numbers[i]};
}

static void add_settings(struct meta *meta, const eng_bank *bank, const char *record)
{
    const eng_bank_info *info = &bank->info;
    add_number(meta, 0, "prompt_tokens", (double)info->prompt_tokens);
    add_number(meta, 1, "prompt_token_offset", info->prompt_token_offset);
    add_number(meta, 2, "token_type", info->token_type);
    add_number(meta, 3, "adapt_lr", info->adapt_lr);
    add_number(meta, 4, "adapt_steps", (double)info->adapt_steps);
    meta->entries[meta->n++] =
        (struct safetensors_meta){"option_separator", bank->option_separator};
    meta->entries[meta->n++] =
        (struct safetensors_meta){"route_scope", info->tied ? "tied" : "layer"};
    meta->entries[meta->n++] = (struct safetensors_meta){"training", record};
}

/* The routes as router rows: a tied one is written for every layer. */
static void fill_router(const struct train_bank *train)
{
    const eng_bank *bank = train->bank;
    size_t K = bank->info.modules, L = bank->info.layers, len = bank->info.route_len;
    for (size_t row = 0; row < bank->info.rows; row++) {
        for (size_t l = 0; l < L; l++) {
            const float *route = train->routes + row * len + (bank->info.tied ? 0 : l * K);
            memcpy(bank->router + (row * L + l) * K, route, K * sizeof *route);
        }
    }
}

/* z and A such that z·A are the modules to the bit: z the first rows of the identity, A the modules and
 * behind them what rows of A there were, for searches in the space they span. *d becomes their number.
 * malloc'ed. */
static eng_status fold(const eng_bank *bank, float **z, float **A, size_t *d, eng_error *err)
{
    size_t n = prompt_floats(bank), L = bank->info.layers, K = bank->info.modules;
    size_t had = bank->info.intrinsic;
    *d = had > K ? had : K;
    *z = calloc(L * K, *d * sizeof **z);
    *A = calloc(L * *d, n * sizeof **A);
    if (*z == NULL || *A == NULL) {
        return fail_nomem(err, "A");
    }
    for (size_t l = 0; l < L; l++) {
        for (size_t k = 0; k < K; k++) {
            (*z)[(l * K + k) * *d + k] = 1;
        }
        memcpy(*A + l * *d * n, bank->modules + l * K * n, K * n * sizeof **A);
        if (had > K) {
            memcpy(*A + (l * *d + K) * n, bank->A + (l * had + K) * n, (had - K) * n * sizeof **A);
        }
    }
    return ENG_OK;
}

static eng_status write_tensors(const struct train_bank *train, const struct meta *meta,
                                const char *path, eng_error *err)
{
    const eng_bank *bank = train->bank;
    const eng_bank_info *info = &bank->info;
    size_t n = prompt_floats(bank), L = info->layers, K = info->modules, d = info->intrinsic;
    float *z = NULL, *A = NULL;
    eng_status status = train->encoder != NULL ? fold(bank, &z, &A, &d, err) : ENG_OK;
    const struct safetensors_entry entries[] = {
        {"A", DTYPE_F32, 3, {L, d, n}, A != NULL ? A : bank->A},
        {"z", DTYPE_F32, 3, {L, K, d}, z != NULL ? z : bank->z},
        {"router", DTYPE_F32, 3, {info->rows, L, K}, bank->router},
        {"lmhead", DTYPE_F32, 2, {2, bank->model->params.hidden}, bank->head_w},
        {"qa_bias", DTYPE_F32, 1, {2}, bank->head_b}};
    if (status == ENG_OK) {
        status = safetensors_write(path, entries, sizeof entries / sizeof entries[0], meta->entries,
                                   meta->n, true, err);
    }
    free(z);
    free(A);
    return status;
}

eng_status train_bank_write(const struct train_bank *train, const struct prompt_tasks *tasks,
                            const char *record, const char *path, eng_error *err)
{
    struct meta meta = {.n = 0};
    fill_router(train);
    eng_status status = make_lists(&meta, train->bank, tasks, err);
    if (status == ENG_OK) {
        add_settings(&meta, train->bank, record);
        status = write_tensors(train, &meta, path, err);
    }
    for (size_t i = 0; i < N_LISTS; i++) {
        free(meta.lists[i]);
    }
    return status;
}
