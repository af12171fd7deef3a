/* opt_descent.c: projected limited-memory BFGS. One iteration:
 *   hold    coordinates at a bound whose gradient points outwards
 *   d       = -H g on the others, H from the last MEMORY steps (two-loop recursion)
 *   search  x(t) = project(x + t d), t = 1, ½, ¼, …, until f falls by 1e-4 of what g promises
 */
#include "engine/opt_descent.h"

#include <cblas.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#define MEMORY     8
#define BACKTRACKS 20

struct descent {
    size_t n;
    const double *lower, *upper;
    double *g, *d, *trial, *trial_g; /* (n) */
    double *s, *y;                   /* (MEMORY, n) steps and changes of gradient, oldest first */
    double rho[MEMORY];
    size_t kept;
};

size_t descent_work(size_t n)
{
    return (4 + 2 * MEMORY) * n;
}

static bool held(const struct descent *m, const double *x, size_t i)
{
    return (x[i] <= m->lower[i] && m->g[i] > 0.0) || (x[i] >= m->upper[i] && m->g[i] < 0.0);
}

/* d = -H g, zero where held. */
static void direction(struct descent *m, const double *x)
{
    int n = (int)m->n;
    double a[MEMORY];
    for (size_t i = 0; i < m->n; i++) {
        m->d[i] = held(m, x, i) ? 0.0 : -m->g[i];
    }
    for (size_t k = m->kept; k-- > 0;) {
        a[k] = m->rho[k] * cblas_ddot(n, m->s + k * m->n, 1, m->d, 1);
        cblas_daxpy(n, -a[k], m->y + k * m->n, 1, m->d, 1);
    }
    if (m->kept > 0) {
        const double *y = m->y + (m->kept - 1) * m->n;
        cblas_dscal(n, 1.0 / (m->rho[m->kept - 1] * cblas_ddot(n, y, 1, y, 1)), m->d, 1);
    }
    for (size_t k = 0; k < m->kept; k++) {
        double b = m->rho[k] * cblas_ddot(n, m->y + k * m->n, 1, m->d, 1);
        cblas_daxpy(n, a[k] - b, m->s + k * m->n, 1, m->d, 1);
    }
    for (size_t i = 0; i < m->n; i++) {
        m->d[i] = held(m, x, i) ? 0.0 : m->d[i];
    }
}

/* Without memory the length of a step is unknown: at most a tenth of the box. */
static double first_step(const struct descent *m)
{
    double step = 1.0;
    for (size_t i = 0; m->kept == 0 && i < m->n; i++) {
        double most = 0.1 * (m->upper[i] - m->lower[i]);
        if (fabs(m->d[i]) * step > most) {
            step = most / fabs(m->d[i]);
        }
    }
    return step;
}

static void remember(struct descent *m, const double *x)
{
    if (m->kept == MEMORY) {
        size_t bytes = (MEMORY - 1) * m->n * sizeof(double);
        memmove(m->s, m->s + m->n, bytes);
        memmove(m->y, m->y + m->n, bytes);
        memmove(m->rho, m->rho + 1, (MEMORY - 1) * sizeof(double));
        m->kept--;
    }
    double *s = m->s + m->kept * m->n, *y = m->y + m->kept * m->n;
    for (size_t i = 0; i < m->n; i++) {
        s[i] = m->trial[i] - x[i];
        y[i] = m->trial_g[i] - m->g[i];
    }
    double curvature = cblas_ddot((int)m->n, s, 1, y, 1);
    if (curvature > 1e-12 * cblas_ddot((int)m->n, y, 1, y, 1) && isfinite(curvature)) {
        m->rho[m->kept++] = 1.0 / curvature;
    }
}

/* Looks along d from x; true when trial is better, its value in *value. */
static bool line_search(struct descent *m, descent_function f, void *arg, const double *x,
                        double *value)
{
    double t = first_step(m);
    for (size_t k = 0; k < BACKTRACKS; k++, t *= 0.5) {
        double promised = 0.0;
        for (size_t i = 0; i < m->n; i++) {
            m->trial[i] = fmin(fmax(x[i] + t * m->d[i], m->lower[i]), m->upper[i]);
            promised += m->g[i] * (m->trial[i] - x[i]);
        }
        double found = promised < 0.0 ? f(arg, m->trial, m->trial_g) : HUGE_VAL;
        if (isfinite(found) && found <= *value + 1e-4 * promised) {
            *value = found;
            return true;
        }
    }
    return false;
}

double descent(descent_function f, void *arg, size_t n, const double *lower, const double *upper,
               size_t iterations, double *x, double *work)
{
    struct descent m = {.n = n, .lower = lower, .upper = upper, .g = work};
    m.d = m.g + n;
    m.trial = m.d + n;
    m.trial_g = m.trial + n;
    m.s = m.trial_g + n;
    m.y = m.s + MEMORY * n;
    double value = f(arg, x, m.g);
    for (size_t it = 0; it < iterations && isfinite(value); it++) {
        double before = value;
        direction(&m, x);
        if (!line_search(&m, f, arg, x, &value)) {
            if (m.kept == 0) {
                break;
            }
            m.kept = 0; /* a poor model of the curvature: once more along the gradient */
            continue;
        }
        remember(&m, x);
        memcpy(x, m.trial, n * sizeof *x);
        memcpy(m.g, m.trial_g, n * sizeof *x);
        if (before - value <= 1e-9 * (fabs(value) + 1e-9)) {
            break;
        }
    }
    return value;
}
