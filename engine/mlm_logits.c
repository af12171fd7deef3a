/* mlm_logits.c: the answer of the masked-language head that lies beside a backbone in its directory, so
 * that it can be looked at and compared with other programs' that read the same files.
 *
 * Serving has no use for the head and never reads it; here it is copied out of the files, used once and
 * let go. Backbone and head are run by what trains them (encoder_tape.c, mlm.c), at dropout 0.
 */
#include "engine/gemm.h"
#include "engine/mlm.h"
#include "engine/params.h"
#include "engine/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROWS ((size_t)64) /* that go through the head at a time: each has a row of the vocabulary */

struct mlm_run {
    struct encoder_tape *encoder;
    struct mlm_tape *tape;
    struct mlm_params head;
    float *head_params;
};

static void run_fini(struct mlm_run *run)
{
    encoder_tape_free(run->encoder);
    mlm_tape_free(run->tape);
    free(run->head_params);
}

static eng_status read_head(const eng_model *model, struct mlm_run *run, eng_error *err)
{
    run->head_params = malloc(mlm_params_total(&model->params) * sizeof *run->head_params);
    if (run->head_params == NULL) {
        return fail_nomem(err, "cls.predictions");
    }
    return mlm_params_read(model, &run->head, run->head_params, err);
}

/* ---- the passes ---- */

/* Positions [first, first + n) through the head. The targets are the ids themselves; the loss is not used. */
static eng_status run_rows(eng_compute *compute, eng_class who, const eng_model *model,
                           const struct mlm_run *run, const int32_t *ids, size_t first, size_t n,
                           float *logits, eng_error *err)
{
    size_t rows[ROWS], vocab = model->params.vocab;
    double loss;
    for (size_t i = 0; i < n; i++) {
        rows[i] = first + i;
    }
    eng_status status = mlm_forward(compute, run->tape, who, &run->head, run->encoder, rows,
                                    ids + first, n, &loss, err);
    for (size_t i = 0; status == ENG_OK && i < n; i++) {
        memcpy(logits + (first + i) * vocab, mlm_logits(run->tape) + i * gemm_stride(vocab),
               vocab * sizeof *logits);
    }
    return status;
}

static eng_status run_all(eng_compute *compute, eng_class who, const eng_model *model,
                          struct mlm_run *run, const int32_t *ids, size_t len, float *logits,
                          eng_error *err)
{
    const eng_sequence sequence = {.ids = ids, .len = len};
    size_t at_once = len < ROWS ? len : ROWS;
    eng_status status = encoder_tape_new(model, len, 1, 0, &run->encoder, err);
    if (status == ENG_OK) {
        status = mlm_tape_new(model, at_once, &run->tape, err);
    }
    if (status == ENG_OK) {
        status = encoder_forward_bare(compute, run->encoder, who, &sequence, 1, err);
    }
    for (size_t first = 0, n; status == ENG_OK && first < len; first += n) {
        n = len - first < at_once ? len - first : at_once;
        status = run_rows(compute, who, model, run, ids, first, n, logits, err);
    }
    return status;
}

eng_status eng_mlm_logits(eng_compute *compute, eng_class who, const eng_model *model,
                          const int32_t *ids, size_t len, float *logits, eng_error *err)
{
    if (len == 0 || len > model->params.positions) {
        return fail(err, len == 0 ? ENG_EINVAL : ENG_ELIMIT, "ids",
                    "a sequence of %zu tokens, wanted 1 to %zu", len, model->params.positions);
    }
    struct mlm_run run = {0};
    eng_status status = read_head(model, &run, err);
    if (status == ENG_OK) {
        status = run_all(compute, who, model, &run, ids, len, logits, err);
    }
    run_fini(&run);
    return status;
}
