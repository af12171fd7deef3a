/* pretrain_start.c: random weights that already look around.
 *
 * BERT's own start (every weight of deviation 0.02, meant for 768 wide) leaves a narrow encoder on a plateau:
 * what a layer adds is small beside what passes by, and nothing yet tells one place from another. Here
 *
 *   words      deviation 0.08, a quarter of it on the half of the numbers that has the evenly spaced sines
 *   positions  sines of amplitude 0.08 (Vaswani et al. 2017), half of the frequencies spaced evenly
 *              over (0, π), which tell neighbours apart, half from 1 down to 1/10000
 *   matrices   deviation 0.543/√H, which is BERT's 0.02 at 768
 *   queries and keys
 *              the last head of every layer: alike, so that a token looks for its like (Trockman and
 *              Kolter 2023); with four heads and more, the first two of layer 0: at the token before and
 *              at the token behind, by turning the evenly spaced sines
 *
 * All of it is a start: training moves every number. tests/results/pretrain_start.md has what it gives.
 */
#include "engine/model.h"
#include "engine/params.h"
#include "engine/pretrain.h"

#include <math.h>
#include <string.h>

#define RANDOM_DEVIATION 0.02 /* random.c's */
#define WORDS            0.08
#define QUIET            0.25 /* of WORDS, where places must be told apart */
#define AMPLITUDE        0.08
#define MATRICES         0.543 /* times 1/√H */
#define LIKENESS         23.0  /* a token's score with itself, in the mean */
#define ASIDE            1.6   /* query and key of a head that looks aside: its score is about 5 */
#define PI               3.14159265358979323846

/* The model's block is ours to write: see pretrain_model.c. */
static float *ours(const float *weights)
{
    return (float *)(uintptr_t)weights;
}

static void scale(const float *weights, size_t n, double by)
{
    float *w = ours(weights);
    for (size_t i = 0; i < n; i++) {
        w[i] = (float)(by * (double)w[i]);
    }
}

/* Of the H/2 pairs sine, cosine. */
static double frequency(size_t pair, size_t pairs)
{
    size_t even = pairs / 2;
    if (pair < even) {
        return PI * ((double)pair + 0.5) / (double)even;
    }
    return pow(10000, -(double)(pair - even) / (double)(pairs - even));
}

static void start_positions(const struct encoder_params *params)
{
    size_t H = params->hidden;
    float *position = ours(params->position);
    for (size_t t = 0; t < params->positions; t++) {
        for (size_t i = 0; i < H; i++) {
            double angle = (double)t * frequency(i / 2, (H + 1) / 2);
            position[t * H + i] = (float)(AMPLITUDE * (i % 2 == 0 ? sin(angle) : cos(angle)));
        }
    }
}

static void look_for_the_like(const struct encoder_params *params, const struct layer_params *layer)
{
    size_t H = params->hidden, dh = H / params->heads, from = (params->heads - 1) * dh * H;
    double deviation = sqrt(LIKENESS / (sqrt((double)dh) * (double)H));
    scale(layer->q.w + from, dh * H, deviation * sqrt((double)H) / MATRICES);
    memcpy(ours(layer->k.w) + from, layer->q.w + from, dh * H * sizeof(float));
}

/* Query R(offset)·x and key x, both on evenly spaced pairs: their product is largest for the token
 * `offset` on. */
static void look_aside(const struct encoder_params *params, const struct layer_params *layer,
                       size_t head, int offset)
{
    size_t H = params->hidden, dh = H / params->heads, even = H / 4;
    float *q = ours(layer->q.w) + head * dh * H, *k = ours(layer->k.w) + head * dh * H;
    memset(q, 0, dh * H * sizeof *q);
    memset(k, 0, dh * H * sizeof *k);
    for (size_t j = 0; j < dh / 2; j++) {
        size_t pair = j * even / (dh / 2), sine = 2 * pair, cosine = sine + 1;
        double angle = frequency(pair, H / 2) * offset;
        float *q_sine = q + 2 * j * H, *q_cosine = q_sine + H;
        q_sine[sine] = q_cosine[cosine] = (float)(ASIDE * cos(angle));
        q_sine[cosine] = (float)(ASIDE * sin(angle));
        q_cosine[sine] = (float)(-ASIDE * sin(angle));
        k[2 * j * H + sine] = k[(2 * j + 1) * H + cosine] = (float)ASIDE;
    }
}

void pretrain_start_looking(struct encoder_params *params)
{
    size_t H = params->hidden;
    for (size_t i = 0; i < params->vocab; i++) {
        const float *word = params->word + i * H;
        scale(word, H / 2, QUIET * WORDS / RANDOM_DEVIATION);
        scale(word + H / 2, H - H / 2, WORDS / RANDOM_DEVIATION);
    }
    start_positions(params);
    for (size_t i = 0; i < params->layers; i++) {
        struct linear *linears[LAYER_LINEARS];
        layer_linears(&params->layer[i], linears);
        for (size_t j = 0; j < LAYER_LINEARS; j++) {
            scale(linears[j]->w, linears[j]->in * linears[j]->out,
                  MATRICES / sqrt((double)H) / RANDOM_DEVIATION);
        }
        look_for_the_like(params, &params->layer[i]);
    }
    if (params->heads >= 4) {
        look_aside(params, &params->layer[0], 0, -1);
        look_aside(params, &params->layer[0], 1, 1);
    }
}
