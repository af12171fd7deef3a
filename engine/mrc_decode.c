/* mrc_decode.c: from start and end logits to answers.
 *
 *     option j:   s_j = start[first token of j] + end[last token of j],   p = softmax_j(s),
 *                 of labels by way of what examples said about s (label_scaling.h)
 *     span i..j:  s_ij = start[i] + end[j] + prior of j - i + 1 tokens (answer_length.h) over the
 *                 admissible pairs: both in the context, i <= j, j - i < max_answer; and, when there may
 *                 be no answer, the words 没有答案.
 *                 p = softmax over all of them, so a flat distribution shows as small numbers.
 *
 * The best spans are taken one after the other, each pass over O(n·max_answer) pairs that do not
 * overlap what was taken: few spans are ever asked for, and nothing is allocated. Logits that are not
 * numbers give probabilities that are not numbers; they never index anything.
 */
#include "engine/answer_length.h"
#include "engine/label_scaling.h"
#include "engine/mrc.h"
#include "engine/task.h"

#include <math.h>

#define DEFAULT_MAX_ANSWER 64
#define MOST_MAX_ANSWER    512

void mrc_option_scores(const eng_encoded *encoded, const float *start, const float *end,
                       double *scores)
{
    for (size_t j = 0; j < encoded->n_options; j++) {
        const struct token_range *option = &encoded->options[j];
        scores[j] = (double)start[option->first] + (double)end[option->first + option->n - 1];
    }
}

void mrc_option_gradient(const eng_encoded *encoded, const double *by_scores, double weight,
                         float *dstart, float *dend)
{
    for (size_t j = 0; j < encoded->n_options; j++) {
        const struct token_range *option = &encoded->options[j];
        dstart[option->first] += (float)(by_scores[j] * weight);
        dend[option->first + option->n - 1] += (float)(by_scores[j] * weight);
    }
}

void eng_decode_options(const eng_encoded *encoded, const float *start, const float *end,
                        const eng_label_scaling *scaling, float *probabilities)
{
    double scores[ENG_MAX_LABELS];
    mrc_option_scores(encoded, start, end, scores);
    if (scaling != NULL && scaling->len > 0) {
        label_scaling_apply(scaling, scores, encoded->n_options);
    }
    (void)label_softmax(scores, encoded->n_options);
    for (size_t j = 0; j < encoded->n_options; j++) {
        probabilities[j] = (float)scores[j];
    }
}

struct decoder {
    const eng_encoded *encoded;
    const float *start, *end; /* at the first context token */
    size_t n, max_answer;
    double no_answer, log_sum;
    double prior[MOST_MAX_ANSWER]; /* of an answer of 1, 2, … tokens */
};

static double score_of(const struct decoder *decoder, size_t i, size_t j)
{
    return (double)decoder->start[i] + (double)decoder->end[j] + decoder->prior[j - i];
}

/* Last token (exclusive) of an answer that begins at i. */
static size_t reach(const struct decoder *decoder, size_t i)
{
    size_t left = decoder->n - i;
    return i + (left < decoder->max_answer ? left : decoder->max_answer);
}

static double log_sum_exp(const struct decoder *decoder)
{
    double top = decoder->no_answer, sum = 0;
    for (size_t i = 0; i < decoder->n; i++) {
        for (size_t j = i; j < reach(decoder, i); j++) {
            double score = score_of(decoder, i, j);
            top = score > top ? score : top;
        }
    }
    sum = isinf(decoder->no_answer) ? 0 : exp(decoder->no_answer - top);
    for (size_t i = 0; i < decoder->n; i++) {
        for (size_t j = i; j < reach(decoder, i); j++) {
            sum += exp(score_of(decoder, i, j) - top);
        }
    }
    return top + log(sum);
}

/* The first taken code point at or after `from`; `from` itself when it lies in a taken span. */
static size_t free_until(const eng_span *taken, size_t n, size_t from)
{
    size_t limit = SIZE_MAX;
    for (size_t i = 0; i < n; i++) {
        if (taken[i].no_answer || taken[i].end <= from) {
            continue;
        }
        size_t start = taken[i].start > from ? taken[i].start : from;
        limit = start < limit ? start : limit;
    }
    return limit;
}

static bool best_span(const struct decoder *decoder, const eng_span *taken, size_t n_taken,
                      eng_span *best)
{
    const eng_token *tokens = decoder->encoded->context_tokens;
    double top = -HUGE_VAL;
    bool found = false;
    for (size_t i = 0; i < decoder->n; i++) {
        size_t limit = free_until(taken, n_taken, tokens[i].start);
        for (size_t j = i; j < reach(decoder, i) && tokens[j].end <= limit; j++) {
            double score = score_of(decoder, i, j);
            if ((score > top || !found) && tokens[j].end > tokens[i].start) {
                top = score;
                found = true;
                *best = (eng_span){tokens[i].start, tokens[j].end, score, false};
            }
        }
    }
    return found;
}

size_t eng_decode_spans(const eng_encoded *encoded, const float *start, const float *end,
                        const eng_answer_length *length, size_t max_answer, eng_span *spans,
                        size_t max)
{
    struct decoder decoder = {.encoded = encoded,
                              .start = start + encoded->context.first,
                              .end = end + encoded->context.first,
                              .n = encoded->context.n,
                              .max_answer = max_answer > 0 ? max_answer : DEFAULT_MAX_ANSWER,
                              .no_answer = -HUGE_VAL};
    if (decoder.max_answer > MOST_MAX_ANSWER) {
        decoder.max_answer = MOST_MAX_ANSWER;
    }
    answer_length_prior(length, decoder.prior, decoder.max_answer);
    bool may_be_none = encoded->no_answer.n > 0;
    if (may_be_none) {
        decoder.no_answer = (double)start[encoded->no_answer.first] +
                            (double)end[encoded->no_answer.first + encoded->no_answer.n - 1];
    }
    decoder.log_sum = log_sum_exp(&decoder);
    size_t n = 0;
    while (n < max) {
        eng_span best = {0};
        bool found = best_span(&decoder, spans, n, &best);
        if (may_be_none && (!found || decoder.no_answer >= best.score)) {
            best = (eng_span){0, 0, decoder.no_answer, true};
            may_be_none = false;
        } else if (!found) {
            break;
        }
        best.score = exp(best.score - decoder.log_sum);
        spans[n++] = best;
    }
    return n;
}
