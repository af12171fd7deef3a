/* opt_adamw.c: see opt_adamw.h for the mathematics. Moments are float32, like the weights; each
 * element is computed in double, so the step number may grow without the correction drifting.
 */
#include "engine/opt_adamw.h"

#include "engine/status.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ADAMW_MAGIC 0x31574D414441u /* "ADAMW1" */
#define BETA1       0.9
#define BETA2       0.999
#define EPSILON     1e-8

struct adamw {
    uint64_t magic;
    uint64_t n;
    uint64_t step;
    float moments[]; /* m (n), then v (n) */
};

eng_status adamw_new(size_t n, struct adamw **out, eng_error *err)
{
    *out = NULL;
    size_t bytes = 0;
    if (!size_mul(n, 2 * sizeof(float), &bytes) || !size_add(bytes, sizeof(struct adamw), &bytes)) {
        return fail_nomem(err, "optimiser");
    }
    struct adamw *opt = calloc(1, bytes);
    if (opt == NULL) {
        return fail_nomem(err, "optimiser");
    }
    opt->magic = ADAMW_MAGIC;
    opt->n = n;
    *out = opt;
    return ENG_OK;
}

void adamw_free(struct adamw *opt)
{
    free(opt);
}

void adamw_step(struct adamw *opt, double lr, double decay, const float *gradient, float *weights)
{
    opt->step++;
    float *m = opt->moments, *v = opt->moments + opt->n;
    double correct1 = 1.0 - pow(BETA1, (double)opt->step);
    double correct2 = 1.0 - pow(BETA2, (double)opt->step);
    for (size_t i = 0; i < opt->n; i++) {
        double g = gradient[i];
        double mi = BETA1 * m[i] + (1.0 - BETA1) * g;
        double vi = BETA2 * v[i] + (1.0 - BETA2) * g * g;
        double w = weights[i] * (1.0 - lr * decay);
        w -= lr * (mi / correct1) / (sqrt(vi / correct2) + EPSILON);
        m[i] = (float)mi;
        v[i] = (float)vi;
        weights[i] = (float)w;
    }
}

size_t adamw_bytes(const struct adamw *opt)
{
    return sizeof *opt + opt->n * 2 * sizeof(float);
}

void adamw_save(const struct adamw *opt, void *block)
{
    memcpy(block, opt, adamw_bytes(opt));
}

eng_status adamw_load(struct adamw *opt, const void *block, size_t bytes, eng_error *err)
{
    struct adamw head = {0};
    if (bytes != adamw_bytes(opt)) {
        return fail(err, ENG_EFORMAT, "optimiser", "state is %zu bytes, want %zu", bytes,
                    adamw_bytes(opt));
    }
    memcpy(&head, block, sizeof head);
    if (head.magic != ADAMW_MAGIC || head.n != opt->n) {
        return fail(err, ENG_EFORMAT, "optimiser", "state is not an AdamW state of %zu numbers",
                    (size_t)opt->n);
    }
    memcpy(opt, block, bytes);
    return ENG_OK;
}
