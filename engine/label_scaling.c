/* label_scaling.c: softmax regression of labels on the model's own scores of them.
 *
 *     p(j | row) = softmax_j(s z_j + b_j + Σ_c u_jc z_c),   z = the row's scores less their mean
 *     least over s, b, u:   Σ_rows −ln p(truth)
 *                           + ½ (PRIOR_SCALE (s − 1)² + PRIOR_BIAS Σ b² + PRIOR_CROSS labels Σ u²)
 *
 * Asked what it was not trained on, a model likes one label whatever the text says, and a route of eight
 * numbers does not talk it out of that; one bias a label does. The scale says how much the text counts
 * beside it, and u what the score of one label says about another: what labels mean that the model confuses,
 * or whose words mislead it. This is matrix scaling (Guo et al. 2017, 4.2), which asks for more rows than
 * there are here: so each of its parts keeps as near to nothing as its prior says (chosen as
 * tests/results/quality.md tells).
 *
 * The sum is convex: Newton's method, its step halved until the sum falls, finds the one least. The same input
 * gives the same bytes.
 */
#include "engine/label_scaling.h"

#include "engine/opt_linalg.h"
#include "engine/status.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PRIOR_SCALE 0.3
#define PRIOR_BIAS  0.3
#define PRIOR_CROSS 10.0 /* a label */
#define MAX_ROWS    1024 /* more say nothing new of so few numbers */
#define MAX_STEPS   50
#define ENOUGH      1e-9 /* of the sum: a step that gains less is the last */
#define LEAST_STEP  1e-6

/* ---- reading ------------------------------------------------------------------------------------ */

size_t eng_label_scaling_len(size_t labels, bool cross)
{
    return 1 + labels + (cross ? labels * labels : 0);
}

bool eng_label_scaling_fits(size_t len, size_t labels)
{
    return labels > 0 &&
           (len == eng_label_scaling_len(labels, false) ||
            (len == eng_label_scaling_len(labels, true) && labels <= ENG_MAX_CROSS_LABELS));
}

size_t label_scaling_len(size_t labels)
{
    return eng_label_scaling_len(labels, labels <= ENG_MAX_CROSS_LABELS);
}

static void centre(double *scores, size_t n)
{
    double mean = 0;
    for (size_t j = 0; j < n; j++) {
        mean += scores[j] / (double)n;
    }
    for (size_t j = 0; j < n; j++) {
        scores[j] -= mean;
    }
}

double label_softmax(double *scores, size_t n)
{
    double top = -HUGE_VAL, sum = 0;
    for (size_t j = 0; j < n; j++) {
        top = scores[j] > top ? scores[j] : top;
    }
    for (size_t j = 0; j < n; j++) {
        scores[j] = exp(scores[j] - top);
        sum += scores[j];
    }
    for (size_t j = 0; j < n; j++) {
        scores[j] /= sum;
    }
    return top + log(sum);
}

void label_scaling_apply(const eng_label_scaling *scaling, double *scores, size_t n)
{
    const float *bias = scaling->numbers + 1, *cross = bias + n;
    double read[ENG_MAX_LABELS];
    centre(scores, n);
    for (size_t j = 0; j < n; j++) {
        read[j] = (double)scaling->numbers[0] * scores[j] + (double)bias[j];
        for (size_t c = 0; c < n && scaling->len > 1 + n; c++) {
            read[j] += (double)cross[j * n + c] * scores[c];
        }
    }
    memcpy(scores, read, n * sizeof *scores);
}

/* With f the scores as read and d = p − [truth] by them: by z_c  s d_c + Σ_j u_jc d_j, by the scores that less
 * its mean. */
double label_scaling_loss(const eng_label_scaling *scaling, size_t truth, double *scores, size_t n)
{
    const float *cross = scaling->numbers + 1 + n;
    double by_read[ENG_MAX_LABELS];
    label_scaling_apply(scaling, scores, n);
    memcpy(by_read, scores, n * sizeof *scores);
    double loss = label_softmax(by_read, n) - scores[truth];
    by_read[truth] -= 1;
    for (size_t c = 0; c < n; c++) {
        scores[c] = (double)scaling->numbers[0] * by_read[c];
        for (size_t j = 0; j < n && scaling->len > 1 + n; j++) {
            scores[c] += (double)cross[j * n + c] * by_read[j];
        }
    }
    centre(scores, n);
    return loss;
}

/* ---- fitting ------------------------------------------------------------------------------------- */

/* The numbers x lie as in eng_label_scaling. Score j depends on some of them alone, each with a coefficient:
 * s by z_j, b_j by 1, u_jc by z_c. */
struct fit {
    double *z; /* (n, labels) */
    size_t *truth;
    size_t n, labels, size;
    bool cross;
    double *x, *gradient, *next, *mean, *prior; /* (size) */
    double *hessian;                            /* (size, size), lower triangle */
    double *p;                                  /* (labels) of the row that is on */
    double *coefficients;                       /* (2 + labels) of the score that is on */
    size_t *numbers;                            /* (2 + labels) which they are of, ascending */
};

/* Sets numbers and coefficients of score j of a row; returns their count. */
static size_t depends_on(const struct fit *fit, const double *z, size_t j)
{
    size_t labels = fit->labels, n = 2;
    fit->numbers[0] = 0;
    fit->coefficients[0] = z[j];
    fit->numbers[1] = 1 + j;
    fit->coefficients[1] = 1;
    for (size_t c = 0; c < labels && fit->cross; c++) {
        fit->numbers[n] = 1 + labels + j * labels + c;
        fit->coefficients[n++] = z[c];
    }
    return n;
}

/* p of a row under x; returns −ln p(truth). */
static double row_loss(const struct fit *fit, const double *x, size_t row)
{
    const double *z = fit->z + row * fit->labels;
    for (size_t j = 0; j < fit->labels; j++) {
        size_t n = depends_on(fit, z, j);
        fit->p[j] = 0;
        for (size_t i = 0; i < n; i++) {
            fit->p[j] += fit->coefficients[i] * x[fit->numbers[i]];
        }
    }
    double truth = fit->p[fit->truth[row]];
    return label_softmax(fit->p, fit->labels) - truth;
}

/* Where x would be without rows. */
static double at_rest(size_t number)
{
    return number == 0 ? 1 : 0;
}

static double loss_of(const struct fit *fit, const double *x)
{
    double sum = 0;
    for (size_t i = 0; i < fit->size; i++) {
        sum += 0.5 * fit->prior[i] * (x[i] - at_rest(i)) * (x[i] - at_rest(i));
    }
    for (size_t i = 0; i < fit->n; i++) {
        sum += row_loss(fit, x, i);
    }
    return sum;
}

/* Adds a row, whose p is known. With a_j the coefficients of score j and m = Σ_j p_j a_j:
 *   gradient += Σ_j (p_j − [j = truth]) a_j    Hessian += Σ_j p_j a_j a_jᵀ − m mᵀ */
static void add_row(const struct fit *fit, size_t row)
{
    memset(fit->mean, 0, fit->size * sizeof *fit->mean);
    for (size_t j = 0; j < fit->labels; j++) {
        size_t n = depends_on(fit, fit->z + row * fit->labels, j);
        double p = fit->p[j], off = p - (j == fit->truth[row] ? 1 : 0);
        for (size_t i = 0; i < n; i++) {
            double *line = fit->hessian + fit->numbers[i] * fit->size;
            fit->mean[fit->numbers[i]] += p * fit->coefficients[i];
            fit->gradient[fit->numbers[i]] += off * fit->coefficients[i];
            for (size_t k = 0; k <= i; k++) {
                line[fit->numbers[k]] += p * fit->coefficients[i] * fit->coefficients[k];
            }
        }
    }
    for (size_t i = 0; i < fit->size; i++) {
        double *line = fit->hessian + i * fit->size;
        for (size_t k = 0; k <= i; k++) {
            line[k] -= fit->mean[i] * fit->mean[k];
        }
    }
}

/* Gradient and Hessian at x. */
static void differentiate(const struct fit *fit)
{
    memset(fit->hessian, 0, fit->size * fit->size * sizeof *fit->hessian);
    for (size_t i = 0; i < fit->size; i++) {
        fit->gradient[i] = fit->prior[i] * (fit->x[i] - at_rest(i));
        fit->hessian[i * fit->size + i] = fit->prior[i];
    }
    for (size_t i = 0; i < fit->n; i++) {
        (void)row_loss(fit, fit->x, i);
        add_row(fit, i);
    }
}

/* gradient := H⁻¹ gradient, H = L·Lᵀ. */
static bool solve(const struct fit *fit)
{
    size_t n = fit->size;
    const double *l = fit->hessian;
    double *x = fit->gradient;
    if (!linalg_cholesky(n, fit->hessian, n)) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < i; k++) {
            x[i] -= l[i * n + k] * x[k];
        }
        x[i] /= l[i * n + i];
    }
    for (size_t i = n; i-- > 0;) {
        for (size_t k = i + 1; k < n; k++) {
            x[i] -= l[k * n + i] * x[k];
        }
        x[i] /= l[i * n + i];
    }
    return true;
}

/* One Newton step; *loss is that of x. False: this is the least. */
static bool step(const struct fit *fit, double *loss)
{
    differentiate(fit);
    if (!solve(fit)) {
        return false;
    }
    for (double by = 1; by > LEAST_STEP; by /= 2) {
        for (size_t i = 0; i < fit->size; i++) {
            fit->next[i] = fit->x[i] - by * fit->gradient[i];
        }
        double next = loss_of(fit, fit->next);
        if (next < *loss) {
            bool more = *loss - next > ENOUGH * *loss;
            memcpy(fit->x, fit->next, fit->size * sizeof *fit->x);
            *loss = next;
            return more;
        }
    }
    return false;
}

/* Room for n rows; free fit->x and fit->truth, also when it fails. */
static bool make_room(struct fit *fit)
{
    size_t labels = fit->labels, size = fit->size, doubles = 0;
    bool fits = size_mul(size, size + 5, &doubles) &&
                size_add(doubles, (fit->n + 2) * labels + 2, &doubles);
    double *room = fits ? calloc(doubles, sizeof *room) : NULL;
    fit->truth = calloc(fit->n + 2 + labels, sizeof *fit->truth);
    if (room == NULL || fit->truth == NULL) {
        free(room);
        return false;
    }
    fit->x = room;
    fit->gradient = fit->x + size;
    fit->next = fit->gradient + size;
    fit->mean = fit->next + size;
    fit->prior = fit->mean + size;
    fit->hessian = fit->prior + size;
    fit->p = fit->hessian + size * size;
    fit->coefficients = fit->p + labels;
    fit->z = fit->coefficients + 2 + labels;
    fit->numbers = fit->truth + fit->n;
    return true;
}

static void fill_room(struct fit *fit, const double *scores, const size_t *truth, size_t rows)
{
    size_t labels = fit->labels;
    for (size_t i = 0; i < fit->n; i++) {
        size_t row = i * rows / fit->n;
        fit->truth[i] = truth[row];
        memcpy(fit->z + i * labels, scores + row * labels, labels * sizeof *fit->z);
        centre(fit->z + i * labels, labels);
    }
    for (size_t i = 0; i < fit->size; i++) {
        fit->x[i] = at_rest(i);
        fit->prior[i] = i == 0        ? PRIOR_SCALE
                        : i <= labels ? PRIOR_BIAS
                                      : PRIOR_CROSS * (double)labels;
    }
}

eng_status label_scaling_fit(const double *scores, const size_t *truth, size_t n, size_t labels,
                             float *numbers, double *least, eng_error *err)
{
    struct fit fit = {.n = n < MAX_ROWS ? n : MAX_ROWS,
                      .labels = labels,
                      .size = label_scaling_len(labels),
                      .cross = labels <= ENG_MAX_CROSS_LABELS};
    if (!make_room(&fit)) {
        free(fit.truth);
        return fail_nomem(err, "labels");
    }
    fill_room(&fit, scores, truth, n);
    double loss = loss_of(&fit, fit.x);
    bool sound = isfinite(loss);
    for (size_t i = 0; sound && i < MAX_STEPS && step(&fit, &loss); i++) {
    }
    for (size_t i = 0; numbers != NULL && i < fit.size; i++) {
        numbers[i] = (float)(sound ? fit.x[i] : at_rest(i));
    }
    if (least != NULL) {
        *least = loss;
    }
    free(fit.x);
    free(fit.truth);
    return ENG_OK;
}
