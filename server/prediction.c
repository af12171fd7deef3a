/* prediction.c: one prediction's inputs: compiled task and mix, encoding, decoding, memory. */
#include "server/prediction.h"

#include "server/fault.h"

#include <stdlib.h>
#include <string.h>

bool prediction_alloc(struct prediction *prediction)
{
    prediction->pieces = calloc(prediction->n, sizeof *prediction->pieces);
    prediction->answers = calloc(prediction->n, sizeof *prediction->answers);
    if (prediction->pieces == NULL || prediction->answers == NULL) {
        prediction_free_work(prediction);
        prediction_fini(prediction);
        return false;
    }
    return true;
}

void prediction_free_work(struct prediction *prediction)
{
    for (size_t i = 0; prediction->pieces != NULL && i < prediction->n; i++) {
        eng_encoded_free(prediction->pieces[i].encoded);
    }
    free(prediction->pieces);
    free(prediction->mix);
    prediction->pieces = NULL;
    prediction->mix = NULL;
}

void prediction_fini(struct prediction *prediction)
{
    for (size_t i = 0; prediction->answers != NULL && i < prediction->n; i++) {
        free(prediction->answers[i].probabilities);
        free(prediction->answers[i].spans);
    }
    free(prediction->answers);
    prediction->answers = NULL;
}

/* The mix of the version's route; no route is the all-zero one. */
static bool make_mix(struct prediction *prediction)
{
    const struct version *version = prediction->version;
    const eng_bank *bank = version->base->bank;
    const eng_bank_info *info = eng_bank_get_info(bank);
    size_t n = 0;
    float *zeros = NULL;
    if (mul_sizes(info->layers, info->modules, &n)) {
        prediction->mix = calloc(n, sizeof(float));
    }
    if (version->route_len == 0) {
        zeros = calloc(info->route_len, sizeof(float));
    }
    bool ready = prediction->mix != NULL && (version->route_len != 0 || zeros != NULL);
    if (ready) {
        eng_route_mix(bank, zeros != NULL ? zeros : version->route, prediction->mix);
    } else {
        (void)fault_nomem(&prediction->err, "task");
    }
    free(zeros);
    return ready;
}

bool prediction_prepare(struct prediction *prediction)
{
    prediction->failed_input = SIZE_MAX;
    if (prediction->prepare != NULL && !prediction->prepare(prediction)) {
        return false;
    }
    const struct version *version = prediction->version;
    if ((version->has_prompt && version_prompt(version) == NULL) ||
        (version->has_head && version_head(version) == NULL)) {
        (void)fault(&prediction->err, ENG_EIO, "task", "its tuned prompt is not in memory");
        return false;
    }
    return form_compile(version->form, &prediction->task, &prediction->err) == ENG_OK &&
           make_mix(prediction);
}

eng_status prediction_encode(struct prediction *prediction, size_t i, size_t max_len,
                             eng_error *err)
{
    struct prediction_piece *piece = &prediction->pieces[i];
    eng_status status = eng_encode(prediction->task, &prediction->inputs[i], prediction->text_limit,
                                   &piece->encoded, err);
    if (status != ENG_OK) {
        return status;
    }
    (void)eng_encoded_ids(piece->encoded, &piece->len);
    if (piece->len > max_len) {
        return fault(err, ENG_ELIMIT, "", "%zu tokens, at most %zu fit", piece->len, max_len);
    }
    return ENG_OK;
}

void prediction_sequence(const struct prediction *prediction, size_t i, eng_sequence *sequence)
{
    size_t len = 0, n_read = 0;
    const int32_t *ids = eng_encoded_ids(prediction->pieces[i].encoded, &len);
    const uint32_t *read = eng_encoded_read(prediction->pieces[i].encoded, &n_read);
    *sequence = (eng_sequence){.ids = ids,
                               .len = len,
                               .bank = prediction->version->base->bank,
                               .mix = prediction->mix,
                               .prompt = version_prompt(prediction->version),
                               .head = version_head(prediction->version),
                               .read = read,
                               .n_read = n_read};
}

static bool decode_spans(struct prediction *prediction, const eng_encoded *encoded,
                         struct answer *answer, const float *start, const float *end)
{
    size_t n = prediction->n_best > 0 ? prediction->n_best : 1;
    answer->spans = calloc(n, sizeof *answer->spans);
    if (answer->spans == NULL) {
        return false;
    }
    answer->n_spans =
        eng_decode_spans(encoded, start, end, version_answer_length(prediction->version),
                         prediction->max_answer, answer->spans, n);
    return true;
}

bool prediction_decode(struct prediction *prediction, size_t i, const float *start,
                       const float *end)
{
    struct prediction_piece *piece = &prediction->pieces[i];
    struct answer *answer = &prediction->answers[i];
    bool decoded = true;
    answer->tokens = piece->len;
    answer->truncated = eng_encoded_truncated(piece->encoded);
    answer->n_options = eng_encoded_options(piece->encoded);
    if (answer->n_options == 0) {
        decoded = decode_spans(prediction, piece->encoded, answer, start, end);
    } else {
        answer->probabilities = calloc(answer->n_options, sizeof(float));
        decoded = answer->probabilities != NULL;
        if (decoded) {
            const eng_label_scaling scaling = version_label_scaling(prediction->version);
            eng_decode_options(piece->encoded, start, end, &scaling, answer->probabilities);
        }
    }
    eng_encoded_free(piece->encoded);
    piece->encoded = NULL;
    return decoded;
}
