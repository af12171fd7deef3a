/* test_encoder.c: a sequence's logits do not depend on its neighbours, the threads or the kind of
 * pass; several callers at once; and everything a hostile caller may ask for. */
#include "engine/encoder.h"
#include "engine/gemm.h"
#include "engine/rng.h"
#include "tests/unit/test.h"

#include <pthread.h>

#define POSITIONS  96
#define VOCAB      50
#define SEQUENCES  9
#define MAX_TOKENS (SEQUENCES * POSITIONS)

static eng_model *model;
static eng_bank *shallow, *deep;

struct sample {
    int32_t ids[SEQUENCES][POSITIONS];
    float mix[SEQUENCES][64];
    float *prompt;
    float head[2 * 128 + 2];
    eng_sequence sequences[SEQUENCES];
    size_t n, tokens;
};

static bool setup(void)
{
    const eng_model_info shape = {.layers = 3,
                                  .hidden = 128,
                                  .heads = 2,
                                  .ffn = 320,
                                  .vocab = VOCAB,
                                  .positions = POSITIONS,
                                  .types = 2};
    return eng_model_random(&shape, 4, &model, NULL) == ENG_OK &&
           eng_bank_random(model, 1, 8, 6, 10, 5, &shallow, NULL) == ENG_OK &&
           eng_bank_random(model, 3, 5, 4, 7, 6, &deep, NULL) == ENG_OK;
}

/* Different banks, mixes, a tuned prompt, none at all, and own heads, of random lengths. */
static void sample_init(struct sample *s, uint64_t seed)
{
    struct rng rng;
    rng_seed(&rng, seed);
    s->n = 2 + rng_below(&rng, SEQUENCES - 1);
    s->tokens = 0;
    s->prompt = malloc(3 * 4 * 128 * sizeof(float));
    for (size_t i = 0; s->prompt != NULL && i < 3 * 4 * 128; i++) {
        s->prompt[i] = (float)rng_normal(&rng) * 0.1f;
    }
    for (size_t i = 0; i < sizeof s->head / sizeof s->head[0]; i++) {
        s->head[i] = (float)rng_normal(&rng);
    }
    for (size_t i = 0; i < s->n; i++) {
        eng_sequence *q = &s->sequences[i];
        *q = (eng_sequence){.ids = s->ids[i], .len = 7 + rng_below(&rng, POSITIONS - 6)};
        q->bank = rng_below(&rng, 2) == 0 ? shallow : deep;
        for (size_t t = 0; t < q->len; t++) {
            s->ids[i][t] = (int32_t)rng_below(&rng, VOCAB);
        }
        for (size_t k = 0; k < 64; k++) {
            s->mix[i][k] = (float)rng_uniform(&rng);
        }
        q->mix = rng_below(&rng, 4) == 0 ? NULL : s->mix[i];
        q->prompt = q->bank == deep && rng_below(&rng, 3) == 0 ? s->prompt : NULL;
        q->head = rng_below(&rng, 3) == 0 ? s->head : NULL;
        s->tokens += q->len;
    }
}

static bool forward(const char *kernel, size_t threads, eng_class who,
                    const eng_sequence *sequences, size_t n, float *start, float *end)
{
    eng_compute *compute = NULL;
    eng_workspace *workspace = NULL;
    eng_error err = {0};
    bool ok = eng_compute_start(threads, kernel, &compute, &err) == ENG_OK &&
              eng_workspace_new(model, MAX_TOKENS, SEQUENCES, &workspace, &err) == ENG_OK &&
              eng_forward(compute, workspace, who, model, sequences, n, start, end, &err) == ENG_OK;
    if (!ok) {
        TEST_FAIL_("%s: %s", err.field, err.text);
    }
    eng_workspace_free(workspace);
    eng_compute_stop(compute);
    return ok;
}

static void same_alone_and_together_with(const char *kernel)
{
    static float start[MAX_TOKENS], end[MAX_TOKENS], start1[MAX_TOKENS], end1[MAX_TOKENS];
    for (uint64_t seed = 0; seed < 12; seed++) {
        static struct sample s;
        sample_init(&s, seed);
        REQUIRE(forward(kernel, 1, ENG_SERVING, s.sequences, s.n, start, end));
        for (size_t threads = 2; threads <= 3; threads++) {
            REQUIRE(forward(kernel, threads, ENG_TRAINING, s.sequences, s.n, start1, end1));
            CHECK(memcmp(start, start1, s.tokens * sizeof(float)) == 0);
            CHECK(memcmp(end, end1, s.tokens * sizeof(float)) == 0);
        }
        size_t at = 0;
        for (size_t i = 0; i < s.n; i++) {
            size_t len = s.sequences[i].len;
            REQUIRE(forward(kernel, 1 + seed % 3, ENG_SERVING, &s.sequences[i], 1, start1, end1));
            CHECK(memcmp(start + at, start1, len * sizeof(float)) == 0);
            CHECK(memcmp(end + at, end1, len * sizeof(float)) == 0);
            at += len;
        }
        free(s.prompt);
    }
}

/* With each of our kernels; OpenBLAS promises equality to rounding only. */
static void same_alone_and_together(void)
{
    for (enum simd simd = SIMD_AVX2; simd <= gemm_cpu(); simd++) {
        same_alone_and_together_with(gemm_kernel_name(simd));
    }
}

static void back_ends_agree(void)
{
    static float start[MAX_TOKENS], end[MAX_TOKENS], start1[MAX_TOKENS], end1[MAX_TOKENS];
    static struct sample s;
    sample_init(&s, 99);
    REQUIRE(forward("openblas", 2, ENG_SERVING, s.sequences, s.n, start1, end1));
    for (enum simd simd = SIMD_AVX2; simd <= gemm_cpu(); simd++) {
        double error = 0;
        REQUIRE(forward(gemm_kernel_name(simd), 2, ENG_SERVING, s.sequences, s.n, start, end));
        for (size_t t = 0; t < s.tokens; t++) {
            error =
                fmax(error, fabs((double)start[t] - start1[t]) + fabs((double)end[t] - end1[t]));
        }
        CHECK(error < 2e-5);
    }
    free(s.prompt);
}

/* What is said to be read is what the whole pass gives there, and nothing else is given. */
static void reads_some_with(const char *kernel)
{
    static float start[MAX_TOKENS], end[MAX_TOKENS], start1[MAX_TOKENS], end1[MAX_TOKENS];
    static uint32_t read[SEQUENCES][POSITIONS];
    static struct sample s;
    struct rng rng;
    rng_seed(&rng, 21);
    for (uint64_t seed = 20; seed < 26; seed++) {
        sample_init(&s, seed);
        REQUIRE(forward(kernel, 2, ENG_SERVING, s.sequences, s.n, start, end));
        for (size_t i = 0; i < s.n; i++) {
            size_t every = 1 + rng_below(&rng, 12), n = 0;
            for (size_t t = rng_below(&rng, 7); t < s.sequences[i].len; t += every) {
                read[i][n++] = (uint32_t)t;
            }
            s.sequences[i].read = i == 1 ? NULL : read[i]; /* one reads all */
            s.sequences[i].n_read = n;
        }
        REQUIRE(forward(kernel, 1 + seed % 3, ENG_SERVING, s.sequences, s.n, start1, end1));
        size_t at = 0, wrong = 0;
        for (size_t i = 0; i < s.n; at += s.sequences[i++].len) {
            for (size_t t = 0, next = 0; t < s.sequences[i].len; t++) {
                bool wanted = i == 1 || (next < s.sequences[i].n_read && read[i][next] == t);
                next += wanted;
                bool same = memcmp(&start[at + t], &start1[at + t], sizeof *start) == 0 &&
                            memcmp(&end[at + t], &end1[at + t], sizeof *end) == 0;
                wrong += wanted ? !same : !isnan(start1[at + t]) || !isnan(end1[at + t]);
            }
        }
        CHECK_INT(wrong, 0);
        free(s.prompt);
    }
}

static void reads_some(void)
{
    for (enum simd simd = SIMD_AVX2; simd <= gemm_cpu(); simd++) {
        reads_some_with(gemm_kernel_name(simd));
    }
}

/* A mix, the merged prompt it stands for, and the training forward: one answer. */
static void three_ways_to_one_answer(void)
{
    static float a[2][POSITIONS], b[2][POSITIONS], kept[2][POSITIONS];
    static struct sample s;
    eng_compute *compute = NULL;
    struct encoder_tape *tape = NULL;
    sample_init(&s, 7);
    eng_sequence q = {.ids = s.ids[0], .len = 40, .bank = deep, .mix = s.mix[0]};
    for (size_t t = 0; t < 40; t++) {
        s.ids[0][t] = (int32_t)t;
    }
    REQUIRE(forward(NULL, 2, ENG_SERVING, &q, 1, a[0], a[1]));
    REQUIRE(eng_compute_start(2, NULL, &compute, NULL) == ENG_OK);
    REQUIRE(encoder_tape_new(model, 40, 1, WANT_PROMPT, &tape, NULL) == ENG_OK);
    CHECK(encoder_tape_bytes(tape) > 40 * 3 * (5 * 128 + 320) * sizeof(float));
    CHECK(encoder_forward_keep(compute, tape, ENG_TRAINING, &q, 1, kept[0], kept[1], NULL) ==
          ENG_OK);
    CHECK(memcmp(a[0], kept[0], 40 * sizeof(float)) == 0);
    CHECK(memcmp(a[1], kept[1], 40 * sizeof(float)) == 0);
    eng_merged_prompt(deep, s.mix[0], s.prompt);
    q.prompt = s.prompt;
    REQUIRE(forward(NULL, 2, ENG_SERVING, &q, 1, b[0], b[1]));
    for (size_t t = 0; t < 40; t++) {
        CHECK_NEAR(b[0][t], a[0][t], 1e-5);
    }
    encoder_tape_free(tape);
    eng_compute_stop(compute);
    free(s.prompt);
}

/* ---- a head of one's own ---- */

/* Logits and the prompt's gradient of one sequence, whose loss is `scale` times the sum of its logits. */
static void pass_both_ways(eng_compute *compute, const eng_sequence *q, float scale, float *logits,
                           float *dprompt)
{
    static float d[2 * POSITIONS];
    struct encoder_tape *tape = NULL;
    for (size_t i = 0; i < 2 * POSITIONS; i++) {
        d[i] = scale;
    }
    REQUIRE(encoder_tape_new(model, POSITIONS, 1, WANT_PROMPT, &tape, NULL) == ENG_OK);
    CHECK(encoder_forward_keep(compute, tape, ENG_TRAINING, q, 1, logits, logits + q->len, NULL) ==
          ENG_OK);
    CHECK(encoder_backward(compute, tape, ENG_TRAINING, d, d + POSITIONS, dprompt, NULL) == ENG_OK);
    encoder_tape_free(tape);
}

/* The bank's head, copied, changes nothing; twice that head is twice the logits and the gradient. */
static void a_head_takes_the_place_of_the_banks(void)
{
    static float a[2 * POSITIONS], b[2 * POSITIONS], da[6 * 128], db[6 * 128], head[2 * 128 + 2];
    static struct sample s;
    eng_compute *compute = NULL;
    sample_init(&s, 11);
    eng_sequence q = {.ids = s.ids[0], .len = 7, .bank = shallow, .mix = s.mix[0]};
    REQUIRE(eng_compute_start(2, NULL, &compute, NULL) == ENG_OK);
    shallow->head_b[0] = 0.5f;
    pass_both_ways(compute, &q, 2, a, da);
    memcpy(head, shallow->head_w, 2 * 128 * sizeof *head);
    memcpy(head + 2 * 128, shallow->head_b, 2 * sizeof *head);
    q.head = head;
    pass_both_ways(compute, &q, 2, b, db);
    CHECK(memcmp(a, b, 2 * q.len * sizeof *a) == 0 && memcmp(da, db, sizeof da) == 0);
    for (size_t i = 0; i < 2 * 128 + 2; i++) {
        head[i] *= 2;
    }
    pass_both_ways(compute, &q, 1, b, db);
    CHECK(memcmp(da, db, sizeof da) == 0 && da[0] != 0);
    for (size_t t = 0; t < 2 * q.len; t++) {
        CHECK(b[t] == 2 * a[t] && a[t] != 0);
    }
    shallow->head_b[0] = 0;
    eng_compute_stop(compute);
    free(s.prompt);
}

/* ---- several callers ---- */

struct caller {
    eng_compute *compute;
    const struct sample *s;
    const float *want;
    int wrong;
};

static void *caller_main(void *arg)
{
    struct caller *c = arg;
    eng_workspace *workspace = NULL;
    float *start = malloc(2 * MAX_TOKENS * sizeof *start);
    bool ok = start != NULL &&
              eng_workspace_new(model, MAX_TOKENS, SEQUENCES, &workspace, NULL) == ENG_OK;
    for (size_t round = 0; ok && round < 10; round++) {
        eng_class who = round % 2 == 0 ? ENG_SERVING : ENG_TRAINING;
        ok = eng_forward(c->compute, workspace, who, model, c->s->sequences, c->s->n, start,
                         start + MAX_TOKENS, NULL) == ENG_OK;
        c->wrong += !ok || memcmp(start, c->want, c->s->tokens * sizeof *start) != 0;
    }
    c->wrong += !ok;
    eng_workspace_free(workspace);
    free(start);
    return NULL;
}

static void callers_share_a_compute(void)
{
    static float start[MAX_TOKENS], end[MAX_TOKENS];
    static struct sample s;
    eng_compute *compute = NULL;
    struct caller callers[3];
    pthread_t threads[3];
    sample_init(&s, 3);
    REQUIRE(forward(NULL, 2, ENG_SERVING, s.sequences, s.n, start, end));
    REQUIRE(eng_compute_start(2, NULL, &compute, NULL) == ENG_OK);
    for (size_t i = 0; i < 3; i++) {
        callers[i] = (struct caller){compute, &s, start, 0};
        REQUIRE(pthread_create(&threads[i], NULL, caller_main, &callers[i]) == 0);
    }
    for (size_t i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        CHECK_INT(callers[i].wrong, 0);
    }
    eng_compute_stop(compute);
    free(s.prompt);
}

/* ---- hostile ---- */

static void expect(eng_compute *compute, eng_workspace *workspace, const eng_sequence *q, size_t n,
                   eng_status status, const char *field)
{
    float start[2 * POSITIONS + 2], end[2 * POSITIONS + 2];
    eng_error err = {0};
    CHECK_INT(eng_forward(compute, workspace, ENG_SERVING, model, q, n, start, end, &err), status);
    if (status != ENG_OK) {
        CHECK_STR(err.field, field);
        CHECK(err.text[0] != '\0');
    }
}

static void bad_batches(void)
{
    eng_compute *compute = NULL;
    eng_workspace *workspace = NULL;
    int32_t ids[POSITIONS + 1] = {0};
    float mix[64] = {0};
    REQUIRE(eng_compute_start(1, NULL, &compute, NULL) == ENG_OK);
    REQUIRE(eng_workspace_new(model, 2 * POSITIONS - 1, 2, &workspace, NULL) == ENG_OK);
    CHECK(eng_workspace_bytes(workspace) > 0);
    const eng_sequence good = {.ids = ids, .len = POSITIONS, .bank = shallow, .mix = mix};
    eng_sequence q[3] = {good, good, good};
    expect(compute, workspace, q, 1, ENG_OK, "");
    expect(compute, workspace, q, 0, ENG_EINVAL, "sequences");
    expect(compute, workspace, NULL, 1, ENG_EINVAL, "sequences");
    expect(compute, workspace, q, 2, ENG_ELIMIT, "sequences");
    expect(compute, workspace, q, 3, ENG_ELIMIT, "sequences");
    q[0].len = 0;
    expect(compute, workspace, q, 1, ENG_EINVAL, "ids");
    q[0].len = POSITIONS + 1;
    expect(compute, workspace, q, 1, ENG_ELIMIT, "ids");
    q[0].len = SIZE_MAX;
    expect(compute, workspace, q, 1, ENG_ELIMIT, "ids");
    q[0].len = 6; /* shorter than [CLS] and 6 prompt tokens */
    expect(compute, workspace, q, 1, ENG_EINVAL, "ids");
    q[0].mix = NULL;
    expect(compute, workspace, q, 1, ENG_OK, "");
    q[0] = good;
    q[0].ids = NULL;
    expect(compute, workspace, q, 1, ENG_EINVAL, "ids");
    q[0] = good;
    q[0].bank = NULL;
    expect(compute, workspace, q, 1, ENG_EMISMATCH, "bank");
    uint32_t read[2] = {3, 3};
    q[0] = good;
    q[0].read = read;
    expect(compute, workspace, q, 1, ENG_EINVAL, "read"); /* none */
    q[0].n_read = 2;
    expect(compute, workspace, q, 1, ENG_EINVAL, "read"); /* not ascending */
    read[1] = POSITIONS;
    expect(compute, workspace, q, 1, ENG_EINVAL, "read"); /* past the end */
    read[1] = POSITIONS - 1;
    expect(compute, workspace, q, 1, ENG_OK, "");
    static const int32_t bad[] = {-1, INT32_MIN, VOCAB, INT32_MAX};
    for (size_t i = 0; i < 4; i++) {
        ids[POSITIONS - 1] = bad[i];
        expect(compute, workspace, &good, 1, ENG_EINVAL, "ids");
    }
    ids[POSITIONS - 1] = VOCAB - 1;
    expect(compute, workspace, &good, 1, ENG_OK, "");
    eng_workspace_free(workspace);
    eng_compute_stop(compute);
}

static void sizes_that_cannot_be(void)
{
    eng_workspace *workspace = NULL;
    struct encoder_tape *tape = NULL;
    eng_error err = {0};
    CHECK(eng_workspace_new(model, 0, 1, &workspace, &err) == ENG_EINVAL);
    CHECK(eng_workspace_new(model, SIZE_MAX / 64, 1, &workspace, &err) == ENG_ELIMIT);
    CHECK(eng_workspace_new(model, 1, SIZE_MAX, &workspace, &err) == ENG_ELIMIT);
    CHECK(workspace == NULL);
    CHECK(encoder_tape_new(model, SIZE_MAX / 4096, 1, WANT_WEIGHTS, &tape, &err) == ENG_ELIMIT);
    CHECK(tape == NULL);
    eng_model_info shape = {
        .layers = 1, .hidden = 30, .heads = 4, .ffn = 8, .vocab = 8, .positions = 8, .types = 1};
    eng_model *odd = NULL;
    CHECK(eng_model_random(&shape, 1, &odd, &err) == ENG_EFORMAT);
    CHECK_STR(err.field, "num_attention_heads");
    shape.layers = 65;
    CHECK(eng_model_random(&shape, 1, &odd, &err) == ENG_ELIMIT);
    CHECK(odd == NULL);
    eng_workspace_free(NULL);
    encoder_tape_free(NULL);
}

/* A frozen backbone goes back through its first layer at the rows of the prompt alone, another one at all
 * rows: the prompt's gradient is the same to the bit, for banks of one layer and of all. */
static void the_prompts_rows_suffice(void)
{
    enum { N = 3, MOST = 3 * 3 * 6 * 128 };
    static float logits[2 * N * POSITIONS], d[N * POSITIONS], dprompt[2][MOST];
    static int32_t ids[POSITIONS];
    static const size_t lens[N] = {7, 40, 23};
    const unsigned wants[2] = {WANT_PROMPT, WANT_PROMPT | WANT_WEIGHTS};
    eng_bank *const banks[2] = {shallow, deep};
    const size_t floats[2] = {N * 6 * 128, N * 3 * 4 * 128};
    eng_compute *compute = NULL;
    REQUIRE(eng_compute_start(2, NULL, &compute, NULL) == ENG_OK);
    for (size_t t = 0; t < N * POSITIONS; t++) {
        d[t] = (float)(t % 7) - 3;
        ids[t % POSITIONS] = (int32_t)(t % VOCAB);
    }
    for (size_t i = 0; i < 2; i++) {
        eng_sequence q[N];
        for (size_t s = 0; s < N; s++) {
            q[s] = (eng_sequence){.ids = ids, .len = lens[s], .bank = banks[i]};
        }
        for (size_t w = 0; w < 2; w++) {
            struct encoder_tape *tape = NULL;
            memset(dprompt[w], 0xFF, sizeof dprompt[w]); /* NaN, if left */
            REQUIRE(encoder_tape_new(model, N * POSITIONS, N, wants[w], &tape, NULL) == ENG_OK);
            CHECK(encoder_forward_keep(compute, tape, ENG_TRAINING, q, N, logits,
                                       logits + N * POSITIONS, NULL) == ENG_OK);
            CHECK(encoder_backward(compute, tape, ENG_TRAINING, d, d, dprompt[w], NULL) == ENG_OK);
            encoder_tape_free(tape);
        }
        size_t wrong = 0, nothing = 0;
        for (size_t k = 0; k < floats[i]; k++) {
            float difference = fabsf(dprompt[0][k] - dprompt[1][k]);
            wrong += !(difference <= (gemm_cpu_capable() ? 0 : 1e-4f * fabsf(dprompt[1][k])));
            nothing += dprompt[0][k] == 0;
        }
        CHECK_INT(wrong, 0);
        CHECK(nothing < floats[i] / 10);
    }
    eng_compute_stop(compute);
}

static void backward_needs_a_forward(void)
{
    eng_compute *compute = NULL;
    struct encoder_tape *tape = NULL;
    eng_error err = {0};
    float logits[4 * POSITIONS] = {0};
    static float dprompt[2 * 6 * 128];
    int32_t ids[POSITIONS] = {0};
    eng_sequence q[2] = {{.ids = ids, .len = 10, .bank = shallow},
                         {.ids = ids, .len = 10, .bank = deep}};
    REQUIRE(eng_compute_start(1, NULL, &compute, NULL) == ENG_OK);
    REQUIRE(encoder_tape_new(model, POSITIONS, 2, WANT_PROMPT, &tape, NULL) == ENG_OK);
    CHECK(encoder_backward(compute, tape, ENG_TRAINING, logits, logits, dprompt, &err) ==
          ENG_EINVAL);
    CHECK(encoder_forward_keep(compute, tape, ENG_TRAINING, q, 2, logits, logits + 20, &err) ==
          ENG_OK);
    CHECK(encoder_backward(compute, tape, ENG_TRAINING, logits, logits, dprompt, &err) ==
          ENG_EMISMATCH); /* two banks */
    q[0].len = 3;
    CHECK(encoder_forward_keep(compute, tape, ENG_TRAINING, q, 1, logits, logits + 20, &err) ==
          ENG_OK);
    CHECK(encoder_backward(compute, tape, ENG_TRAINING, logits, logits, dprompt, &err) ==
          ENG_EINVAL); /* no room for the prompt whose gradient is wanted */
    encoder_tape_free(tape);
    eng_compute_stop(compute);
}

int main(void)
{
    TESTS_BEGIN;
    if (!setup()) {
        fprintf(stderr, "cannot make the random model\n");
        return 1;
    }
    RUN(same_alone_and_together);
    RUN(reads_some);
    RUN(back_ends_agree);
    RUN(three_ways_to_one_answer);
    RUN(a_head_takes_the_place_of_the_banks);
    RUN(callers_share_a_compute);
    RUN(bad_batches);
    RUN(sizes_that_cannot_be);
    RUN(the_prompts_rows_suffice);
    RUN(backward_needs_a_forward);
    eng_bank_free(shallow);
    eng_bank_free(deep);
    eng_model_free(model);
    TESTS_END;
}
