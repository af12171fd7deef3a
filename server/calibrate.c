/* calibrate.c: the batcher's workspace, and how many tokens its target time allows.
 *
 * The budget only decides how soon a batch closes; what a sequence answers does not depend on it.
 */
#include "server/batcher_parts.h"

#include "server/fault.h"
#include "server/loop.h"

#include <stdlib.h>

#define PROBE_LEN 64 /* tokens of a calibration sequence: a short text with its prompt */

/* Seconds of one batch of `n` sequences of `len` tokens; short ones are measured three times, for the
 * least of them: others use the machine too. */
static eng_status probe(struct batcher *b, const int32_t *ids, size_t len, size_t n,
                        const float *mix, double *seconds, eng_error *err)
{
    struct lane *lane = &b->shared;
    eng_status status = ENG_OK;
    *seconds = 0;
    for (size_t i = 0; i < n; i++) {
        lane->sequences[i] =
            (eng_sequence){.ids = ids, .len = len, .bank = b->options.bank, .mix = mix};
    }
    for (int i = 0; i < 3 && status == ENG_OK && *seconds < 0.1; i++) {
        int64_t began = clock_us();
        status = eng_forward(b->options.compute, lane->workspace, ENG_SERVING, b->options.model,
                             lane->sequences, n, lane->start, lane->end, err);
        double took = (double)(clock_us() - began) * 1e-6;
        *seconds = i == 0 || took < *seconds ? took : *seconds;
    }
    return status;
}

/* Of one token in the linear layers: query, key, value and output (H, H), both of the feed-forward
 * (H, F), a multiplication and an addition for each weight. */
static double gemm_operations(const eng_model_info *info)
{
    double hidden = (double)info->hidden, ffn = (double)info->ffn;
    return (double)info->layers * 2 * (4 * hidden * hidden + 2 * hidden * ffn);
}

/* Doubles a batch until it takes the target time, then scales: the budget in tokens. Also warms up. */
static eng_status calibrate(struct batcher *b, const float *mix, eng_error *err)
{
    static const int32_t ids[PROBE_LEN]; /* zeros are words too */
    size_t positions = eng_model_get_info(b->options.model)->positions;
    size_t len = positions < PROBE_LEN ? positions : PROBE_LEN;
    size_t most = b->options.max_tokens / len;
    most = most < b->options.max_sequences ? most : b->options.max_sequences;
    double seconds = 0, target = b->options.target_seconds;
    int64_t until = clock_us() + (int64_t)(b->options.warmup_seconds * 1e6);
    eng_status status = probe(b, ids, len, 1, mix, &seconds, err);
    size_t n = 1;
    while (status == ENG_OK) {
        status = probe(b, ids, len, n, mix, &seconds, err);
        if (seconds >= target || n == most || clock_us() >= until) {
            break;
        }
        n = n * 2 < most ? n * 2 : most;
    }
    if (status != ENG_OK) {
        return status;
    }
    double rate = seconds > 0 ? (double)(n * len) / seconds : 1e9;
    double budget = target > 0 ? rate * target : (double)b->options.max_tokens;
    size_t tokens = budget < (double)b->options.max_tokens ? (size_t)budget : b->options.max_tokens;
    b->stats.tokens_per_second = rate;
    b->stats.gemm_gflops = rate * gemm_operations(eng_model_get_info(b->options.model)) * 1e-9;
    b->stats.budget_tokens = tokens > positions ? tokens : positions;
    return ENG_OK;
}

eng_status batcher_calibrate(struct batcher *b, eng_error *err)
{
    const eng_bank_info *info = eng_bank_get_info(b->options.bank);
    float *route = calloc(info->route_len, sizeof(float));
    float *mix = calloc(info->layers * info->modules, sizeof(float));
    eng_status status = ENG_OK;
    if (route == NULL || mix == NULL) {
        status = fault_nomem(err, "batcher");
    } else {
        eng_route_mix(b->options.bank, route, mix);
        status = calibrate(b, mix, err);
    }
    free(route);
    free(mix);
    return status;
}

static eng_status allocate_lane(struct lane *lane, size_t max_tokens, size_t max_sequences,
                                eng_error *err)
{
    lane->max_tokens = max_tokens;
    lane->max_sequences = max_sequences;
    lane->start = calloc(max_tokens, sizeof(float));
    lane->end = calloc(max_tokens, sizeof(float));
    lane->places = calloc(max_sequences, sizeof *lane->places);
    lane->sequences = calloc(max_sequences, sizeof *lane->sequences);
    if (lane->start == NULL || lane->end == NULL || lane->places == NULL ||
        lane->sequences == NULL) {
        return fault_nomem(err, "batch_tokens");
    }
    return eng_workspace_new(lane->batcher->options.model, max_tokens, max_sequences,
                             &lane->workspace, err);
}

eng_status batcher_allocate(struct batcher *b, eng_error *err)
{
    struct batcher_options *o = &b->options;
    size_t positions = eng_model_get_info(o->model)->positions;
    o->max_tokens = o->max_tokens > positions ? o->max_tokens : positions;
    o->max_sequences = o->max_sequences > 0 ? o->max_sequences : 1;
    eng_status status = allocate_lane(&b->shared, o->max_tokens, o->max_sequences, err);
    if (status == ENG_OK) {
        status = allocate_lane(&b->express, positions, o->max_sequences, err);
    }
    if (status == ENG_OK) {
        b->stats.workspace_bytes =
            eng_workspace_bytes(b->shared.workspace) + eng_workspace_bytes(b->express.workspace);
        b->stats.max_tokens = o->max_tokens;
    }
    return status;
}
