/* answer_length.c: how long the answers of a task are, and what that makes of a span.
 *
 *     ln n ~ N(mu, sigma^2),   ln p(n) = -(ln n - (mu - sigma^2))^2 / (2 sigma^2) + const
 *
 * so that mu - sigma^2 is the logarithm of the likeliest length. The pointers to start and end know
 * nothing of each other, and two places that both look right become one span from the first to the second;
 * a few examples tell what the pointers cannot, that answers here are names, or years, or sentences.
 *
 * Few rows may all happen to be of one length: sigma is fitted as if FURTHER more had been seen that lie
 * SPREAD from the mean.
 */
#include "engine/answer_length.h"

#include <math.h>

#define FURTHER 4
#define SPREAD  0.7

eng_answer_length answer_length_of(const struct batch_rows *rows)
{
    double n = 0, sum = 0, squares = 0;
    for (size_t i = 0; i < rows->n; i++) {
        const struct batch_item *item = &rows->items[i];
        if (item->has_target && item->row.answer.len > 0) {
            double log_tokens = log((double)(item->end - item->start + 1));
            n++;
            sum += log_tokens;
            squares += log_tokens * log_tokens;
        }
    }
    if (n == 0) {
        return (eng_answer_length){0, 0};
    }
    double mean = sum / n, around = squares - n * mean * mean;
    around = around > 0 ? around : 0; /* rounding */
    return (eng_answer_length){(float)mean,
                               (float)sqrt((around + FURTHER * SPREAD * SPREAD) / (n + FURTHER))};
}

void answer_length_prior(const eng_answer_length *length, double *prior, size_t most)
{
    bool known = length != NULL && length->sigma > 0;
    double variance = known ? (double)length->sigma * (double)length->sigma : 1;
    for (size_t i = 0; i < most; i++) {
        double off = known ? log((double)(i + 1)) - ((double)length->mu - variance) : 0;
        prior[i] = -off * off / (2 * variance);
    }
}
