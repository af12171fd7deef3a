/* prompt_encoder.c: forward and backward of the prompt encoders.
 *
 * LSTM, each direction of its own, width h = H/2, over the P rows of a module from either end:
 *   a = x·Wxᵀ + s·Whᵀ + b          gates i, f, g, o side by side (4h)
 *   c' = σ(f) c + σ(i) tanh(g)     s' = σ(o) tanh(c')          s, c = 0 before the first row
 * backward, rows in the other order; ds, dc carried:
 *   do = ds tanh(c') σ'(o)         dc += ds σ(o) (1 − tanh²(c'))
 *   di = dc tanh(g) σ'(i)   dg = dc σ(i) (1 − tanh²(g))   df = dc c σ'(f)   dc ← dc σ(f)
 *   ds ← da·Wh     dx = da·Wx     dWx += daᵀ·x   dWh += daᵀ·s   db += da
 *
 * Transformer, one head over all H:
 *   n = x̂ (LayerNorm without weights)      q, k, v = n·Wᵀ
 *   p = softmax(q·kᵀ/√H)    c = p·v        y = c·W1ᵀ + b1    f = gelu(y)     (2H wide)
 * so f(B) is (P, H) for the LSTM and (P, 2H) here; Wo takes either back to H.
 *
 * Prompts are short: everything is plain loops in double over one module at a time, modules shared out
 * over the threads; gradients of the weights are summed module by module in order.
 * reference: finite differences of this forward, which computes in double (test_prompt_encoder.c).
 */
#include "engine/prompt_encoder.h"

#include "engine/pool.h"
#include "engine/status.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TENSORS 8
#define EPSILON     1e-12

struct prompt_encoder {
    eng_prompt_encoder kind;
    size_t modules, P, H, wide; /* wide: of f(B) */
    size_t n;
    size_t rows[MAX_TENSORS], columns[MAX_TENSORS];
    size_t count;       /* of all tensors */
    float *weights;     /* all tensors, end to end */
    float *gradient;    /* likewise */
    double *room;       /* (modules, module_room) what forward keeps and backward uses */
    size_t module_room; /* doubles */
    double *partial;    /* (modules, count) gradients of each module */
};

/* ---- shapes ---- */

static const char *const lstm_names[] = {"forward.wx",  "forward.wh", "forward.b", "backward.wx",
                                         "backward.wh", "backward.b", "wo"};
static const char *const transformer_names[] = {"wq", "wk", "wv", "w1", "b1", "wo"};

static void add_shape(struct prompt_encoder *e, size_t rows, size_t columns)
{
    e->rows[e->n] = rows;
    e->columns[e->n++] = columns;
    e->count += rows * columns;
}

static void set_shapes(struct prompt_encoder *e)
{
    size_t H = e->H, P = e->P, h = H / 2;
    if (e->kind == ENG_PROMPT_LSTM) {
        for (size_t side = 0; side < 2; side++) {
            add_shape(e, 4 * h, H);
            add_shape(e, 4 * h, h);
            add_shape(e, 4 * h, 1);
        }
        e->wide = 2 * h;
        e->module_room = 2 * P * H + P * e->wide * 2 + 2 * P * 6 * h + 8 * h;
    } else {
        add_shape(e, H, H);
        add_shape(e, H, H);
        add_shape(e, H, H);
        add_shape(e, 2 * H, H);
        add_shape(e, 2 * H, 1);
        e->wide = 2 * H;
        e->module_room = 2 * P * H + P * e->wide * 2 + P * (10 * H + 2 * H + 1) + 2 * P * P;
    }
    add_shape(e, H, e->wide);
}

/* Tensor i within a block of all of them. */
static size_t at(const struct prompt_encoder *e, size_t i)
{
    size_t from = 0;
    for (size_t j = 0; j < i; j++) {
        from += e->rows[j] * e->columns[j];
    }
    return from;
}

eng_status prompt_encoder_new(eng_prompt_encoder kind, size_t modules, size_t P, size_t H,
                              struct rng *rng, struct prompt_encoder **out, eng_error *err)
{
    *out = NULL;
    if (kind == ENG_PROMPT_LSTM && H % 2 != 0) {
        return fail(err, ENG_EINVAL, "prompt_encoder", "an LSTM wants an even width, got %zu", H);
    }
    struct prompt_encoder *e = calloc(1, sizeof *e);
    if (e == NULL) {
        return fail_nomem(err, "prompt_encoder");
    }
    *e = (struct prompt_encoder){.kind = kind, .modules = modules, .P = P, .H = H};
    set_shapes(e);
    e->weights = calloc(e->count, sizeof *e->weights);
    e->gradient = calloc(e->count, sizeof *e->gradient);
    e->room = calloc(modules, e->module_room * sizeof *e->room);
    e->partial = calloc(modules, e->count * sizeof *e->partial);
    if (e->weights == NULL || e->gradient == NULL || e->room == NULL || e->partial == NULL) {
        prompt_encoder_free(e);
        return fail_nomem(err, "prompt_encoder");
    }
    for (size_t i = 0; i < at(e, e->n - 1); i++) { /* all but Wo */
        e->weights[i] = (float)(rng_normal(rng) / sqrt((double)H));
    }
    *out = e;
    return ENG_OK;
}

void prompt_encoder_free(struct prompt_encoder *e)
{
    if (e != NULL) {
        free(e->weights);
        free(e->gradient);
        free(e->room);
        free(e->partial);
        free(e);
    }
}

eng_status prompt_encoder_add(struct prompt_encoder *e, double lr, struct pretrain_run *run,
                              eng_error *err)
{
    const char *const *names = e->kind == ENG_PROMPT_LSTM ? lstm_names : transformer_names;
    eng_status status = ENG_OK;
    for (size_t i = 0; status == ENG_OK && i < e->n; i++) {
        struct run_tensor tensor = {.dims = 2,
                                    .shape = {e->rows[i], e->columns[i], 1},
                                    .values = e->weights + at(e, i),
                                    .gradient = e->gradient + at(e, i),
                                    .lr = lr,
                                    .decayed = e->columns[i] > 1};
        snprintf(tensor.name, sizeof tensor.name, "encoder.%s", names[i]);
        status = run_add(run, &tensor, err);
    }
    return status;
}

/* ---- small products, in double ---- */

/* y (out) += x (in)·Wᵀ     W (out,in) */
static void times(const float *w, size_t out, size_t in, const double *x, double *y)
{
    for (size_t o = 0; o < out; o++) {
        double sum = 0;
        for (size_t i = 0; i < in; i++) {
            sum += x[i] * w[o * in + i];
        }
        y[o] += sum;
    }
}

/* dx (in) += dy (out)·W     dW += dyᵀ·x */
static void times_backward(const float *w, size_t out, size_t in, const double *x, const double *dy,
                           double *dx, double *dw)
{
    for (size_t o = 0; o < out; o++) {
        for (size_t i = 0; i < in; i++) {
            dx[i] += dy[o] * w[o * in + i];
            dw[o * in + i] += dy[o] * x[i];
        }
    }
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

/* One module: where its values lie in the room. */
struct module {
    const struct prompt_encoder *e;
    double *x, *dx; /* (P,H) */
    double *f, *df; /* (P,wide) */
    double *rest;   /* the kind's own */
    double *dw;     /* all tensors */
};

/* ---- LSTM ---- */

/* Of a direction and row: gates i f g o after their functions (4h), cell (h), its tanh (h). */
static double *lstm_row(const struct module *m, size_t side, size_t row)
{
    size_t h = m->e->H / 2;
    return m->rest + (side * m->e->P + row) * 6 * h;
}

/* The n-th row that a direction reads. */
static size_t lstm_order(const struct module *m, size_t side, size_t n)
{
    return side == 0 ? n : m->e->P - 1 - n;
}

static void lstm_step(const struct module *m, size_t side, size_t row, const double *state,
                      const double *cell)
{
    const struct prompt_encoder *e = m->e;
    size_t H = e->H, h = H / 2;
    const float *wx = e->weights + at(e, 3 * side), *wh = e->weights + at(e, 3 * side + 1);
    const float *b = e->weights + at(e, 3 * side + 2);
    double *gates = lstm_row(m, side, row), *c = gates + 4 * h, *t = c + h;
    for (size_t i = 0; i < 4 * h; i++) {
        gates[i] = b[i];
    }
    times(wx, 4 * h, H, m->x + row * H, gates);
    if (state != NULL) {
        times(wh, 4 * h, h, state, gates);
    }
    for (size_t i = 0; i < h; i++) {
        gates[i] = sigmoid(gates[i]);
        gates[h + i] = sigmoid(gates[h + i]);
        gates[2 * h + i] = tanh(gates[2 * h + i]);
        gates[3 * h + i] = sigmoid(gates[3 * h + i]);
        c[i] = gates[i] * gates[2 * h + i] + (cell != NULL ? gates[h + i] * cell[i] : 0);
        t[i] = tanh(c[i]);
        m->f[row * e->wide + side * h + i] = gates[3 * h + i] * t[i];
    }
}

static void lstm_forward(const struct module *m)
{
    size_t h = m->e->H / 2;
    for (size_t side = 0; side < 2; side++) {
        for (size_t n = 0; n < m->e->P; n++) {
            size_t row = lstm_order(m, side, n), before = n > 0 ? lstm_order(m, side, n - 1) : 0;
            lstm_step(m, side, row, n > 0 ? m->f + before * m->e->wide + side * h : NULL,
                      n > 0 ? lstm_row(m, side, before) + 4 * h : NULL);
        }
    }
}

/* da (4h) of one row from ds, dc (h), which become those of the row before; see the head of the file. */
static void lstm_gates_backward(const double *gates, const double *cell, size_t h, const double *ds,
                                double *dc, double *da)
{
    const double *t = gates + 5 * h;
    for (size_t j = 0; j < h; j++) {
        double i = gates[j], f = gates[h + j], g = gates[2 * h + j], o = gates[3 * h + j];
        double d = dc[j] + ds[j] * o * (1 - t[j] * t[j]);
        da[j] = d * g * i * (1 - i);
        da[h + j] = cell != NULL ? d * cell[j] * f * (1 - f) : 0;
        da[2 * h + j] = d * i * (1 - g * g);
        da[3 * h + j] = ds[j] * t[j] * o * (1 - o);
        dc[j] = d * f;
    }
}

static void lstm_side_backward(const struct module *m, size_t side)
{
    const struct prompt_encoder *e = m->e;
    size_t H = e->H, h = H / 2, P = e->P;
    double *ds = m->rest + 2 * P * 6 * h, *dc = ds + h, *da = dc + h;
    double *db = m->dw + at(e, 3 * side + 2);
    memset(ds, 0, 2 * h * sizeof *ds);
    for (size_t n = P; n-- > 0;) {
        size_t row = lstm_order(m, side, n), before = n > 0 ? lstm_order(m, side, n - 1) : 0;
        const double *gates = lstm_row(m, side, row);
        const double *cell = n > 0 ? lstm_row(m, side, before) + 4 * h : NULL;
        for (size_t i = 0; i < h; i++) {
            ds[i] += m->df[row * e->wide + side * h + i];
        }
        lstm_gates_backward(gates, cell, h, ds, dc, da);
        for (size_t i = 0; i < 4 * h; i++) {
            db[i] += da[i];
        }
        memset(ds, 0, h * sizeof *ds);
        times_backward(e->weights + at(e, 3 * side), 4 * h, H, m->x + row * H, da, m->dx + row * H,
                       m->dw + at(e, 3 * side));
        if (n > 0) {
            times_backward(e->weights + at(e, 3 * side + 1), 4 * h, h,
                           m->f + before * e->wide + side * h, da, ds, m->dw + at(e, 3 * side + 1));
        }
    }
}

/* ---- Transformer ---- */

struct transformer {
    double *n, *q, *k, *v, *c, *y, *rstd, *p; /* (P,H) five, (P,2H), (P), (P,P) */
    double *dn, *dq, *dk, *dv, *dc, *dp;      /* (P,H) five, (P,P) */
};

static struct transformer transformer_of(const struct module *m)
{
    size_t P = m->e->P, all = P * m->e->H;
    double *r = m->rest, *y = r + 5 * all, *rstd = y + 2 * all, *p = rstd + P;
    double *d = p + P * P;
    return (struct transformer){r,           r + all,     r + 2 * all, r + 3 * all, r + 4 * all,
                                y,           rstd,        p,           d,           d + all,
                                d + 2 * all, d + 3 * all, d + 4 * all, d + 5 * all};
}

static void normalise(const double *x, size_t H, double *n, double *rstd)
{
    double mean = 0, square = 0;
    for (size_t i = 0; i < H; i++) {
        mean += x[i] / (double)H;
    }
    for (size_t i = 0; i < H; i++) {
        square += (x[i] - mean) * (x[i] - mean) / (double)H;
    }
    *rstd = 1 / sqrt(square + EPSILON);
    for (size_t i = 0; i < H; i++) {
        n[i] = (x[i] - mean) * *rstd;
    }
}

/* Row r of p, and of c = p·v. */
static void attend(const struct transformer *t, size_t P, size_t H, size_t r)
{
    double sum = 0, most = -INFINITY, *p = t->p + r * P;
    for (size_t s = 0; s < P; s++) {
        p[s] = 0;
        for (size_t i = 0; i < H; i++) {
            p[s] += t->q[r * H + i] * t->k[s * H + i] / sqrt((double)H);
        }
        most = p[s] > most ? p[s] : most;
    }
    for (size_t s = 0; s < P; s++) {
        p[s] = exp(p[s] - most);
        sum += p[s];
    }
    for (size_t s = 0; s < P; s++) {
        p[s] /= sum;
        for (size_t i = 0; i < H; i++) {
            t->c[r * H + i] += p[s] * t->v[s * H + i];
        }
    }
}

static void transformer_forward(const struct module *m)
{
    const struct prompt_encoder *e = m->e;
    size_t P = e->P, H = e->H;
    struct transformer t = transformer_of(m);
    double *const qkv[3] = {t.q, t.k, t.v};
    const float *b1 = e->weights + at(e, 4);
    memset(t.q, 0, 4 * P * H * sizeof *t.q); /* q, k, v, c */
    for (size_t r = 0; r < P; r++) {
        normalise(m->x + r * H, H, t.n + r * H, t.rstd + r);
        for (size_t j = 0; j < 3; j++) {
            times(e->weights + at(e, j), H, H, t.n + r * H, qkv[j] + r * H);
        }
    }
    for (size_t r = 0; r < P; r++) {
        attend(&t, P, H, r);
        for (size_t i = 0; i < 2 * H; i++) {
            t.y[r * 2 * H + i] = b1[i];
        }
        times(e->weights + at(e, 3), 2 * H, H, t.c + r * H, t.y + r * 2 * H);
        for (size_t i = 0; i < 2 * H; i++) {
            double y = t.y[r * 2 * H + i];
            m->f[r * e->wide + i] = 0.5 * y * (1 + erf(y * M_SQRT1_2));
        }
    }
}

/* dp = dc·vᵀ through the softmax; dq, dk, dv of row r's part. */
static void attend_backward(const struct transformer *t, size_t P, size_t H, size_t r)
{
    double along = 0, *dp = t->dp + r * P;
    const double *p = t->p + r * P, *dc = t->dc + r * H;
    for (size_t s = 0; s < P; s++) {
        dp[s] = 0;
        for (size_t i = 0; i < H; i++) {
            dp[s] += dc[i] * t->v[s * H + i];
            t->dv[s * H + i] += p[s] * dc[i];
        }
        along += p[s] * dp[s];
    }
    for (size_t s = 0; s < P; s++) {
        double d = p[s] * (dp[s] - along) / sqrt((double)H);
        for (size_t i = 0; i < H; i++) {
            t->dq[r * H + i] += d * t->k[s * H + i];
            t->dk[s * H + i] += d * t->q[r * H + i];
        }
    }
}

static void normalise_backward(const double *dn, const double *n, double rstd, size_t H, double *dx)
{
    double mean = 0, along = 0;
    for (size_t i = 0; i < H; i++) {
        mean += dn[i] / (double)H;
        along += dn[i] * n[i] / (double)H;
    }
    for (size_t i = 0; i < H; i++) {
        dx[i] += rstd * (dn[i] - mean - n[i] * along);
    }
}

static void transformer_backward(const struct module *m)
{
    const struct prompt_encoder *e = m->e;
    size_t P = e->P, H = e->H;
    struct transformer t = transformer_of(m);
    const double *const dqkv[3] = {t.dq, t.dk, t.dv};
    double *db1 = m->dw + at(e, 4);
    memset(t.dn, 0, 5 * P * H * sizeof *t.dn); /* dn, dq, dk, dv, dc */
    for (size_t r = 0; r < P; r++) {
        double *dy = m->df + r * e->wide; /* df becomes dy */
        for (size_t i = 0; i < 2 * H; i++) {
            double y = t.y[r * 2 * H + i];
            double density = exp(-0.5 * y * y) * M_2_SQRTPI * M_SQRT1_2 / 2;
            dy[i] *= 0.5 * (1 + erf(y * M_SQRT1_2)) + y * density;
            db1[i] += dy[i];
        }
        times_backward(e->weights + at(e, 3), 2 * H, H, t.c + r * H, dy, t.dc + r * H,
                       m->dw + at(e, 3));
        attend_backward(&t, P, H, r);
    }
    for (size_t r = 0; r < P; r++) {
        for (size_t j = 0; j < 3; j++) {
            times_backward(e->weights + at(e, j), H, H, t.n + r * H, dqkv[j] + r * H, t.dn + r * H,
                           m->dw + at(e, j));
        }
        normalise_backward(t.dn + r * H, t.n + r * H, t.rstd[r], H, m->dx + r * H);
    }
}

/* ---- both ---- */

struct job {
    struct prompt_encoder *e;
    const float *base, *dout;
    float *out; /* or dbase */
};

static struct module module_of(const struct prompt_encoder *e, size_t index)
{
    size_t all = e->P * e->H, wide = e->P * e->wide;
    double *room = e->room + index * e->module_room;
    return (struct module){e,
                           room,
                           room + all,
                           room + 2 * all,
                           room + 2 * all + wide,
                           room + 2 * all + 2 * wide,
                           e->partial + index * e->count};
}

static void forward_task(void *arg, size_t index, size_t thread, void *scratch)
{
    (void)thread;
    (void)scratch;
    const struct job *job = arg;
    const struct prompt_encoder *e = job->e;
    struct module m = module_of(e, index);
    size_t H = e->H, all = e->P * H;
    for (size_t i = 0; i < all; i++) {
        m.x[i] = job->base[index * all + i];
    }
    if (e->kind == ENG_PROMPT_LSTM) {
        lstm_forward(&m);
    } else {
        transformer_forward(&m);
    }
    for (size_t r = 0; r < e->P; r++) {
        double *y = m.dx + r * H; /* free until backward */
        memcpy(y, m.x + r * H, H * sizeof *y);
        times(e->weights + at(e, e->n - 1), H, e->wide, m.f + r * e->wide, y);
        for (size_t i = 0; i < H; i++) {
            job->out[index * all + r * H + i] = (float)y[i];
        }
    }
}

const double *prompt_encoder_exact(const struct prompt_encoder *e, size_t module)
{
    return module_of(e, module).dx;
}

static void backward_task(void *arg, size_t index, size_t thread, void *scratch)
{
    (void)thread;
    (void)scratch;
    const struct job *job = arg;
    const struct prompt_encoder *e = job->e;
    struct module m = module_of(e, index);
    size_t H = e->H, all = e->P * H, last = e->n - 1;
    memset(m.dw, 0, e->count * sizeof *m.dw);
    memset(m.df, 0, e->P * e->wide * sizeof *m.df);
    for (size_t i = 0; i < all; i++) {
        m.dx[i] = job->dout[index * all + i];
    }
    for (size_t r = 0; r < e->P; r++) {
        times_backward(e->weights + at(e, last), H, e->wide, m.f + r * e->wide, m.dx + r * H,
                       m.df + r * e->wide, m.dw + at(e, last));
    }
    if (e->kind == ENG_PROMPT_LSTM) {
        lstm_side_backward(&m, 0);
        lstm_side_backward(&m, 1);
    } else {
        transformer_backward(&m);
    }
    for (size_t i = 0; i < all; i++) {
        job->out[index * all + i] = (float)m.dx[i];
    }
}

static double work(const struct prompt_encoder *e)
{
    return 4.0 * (double)(e->modules * e->P) * (double)e->count;
}

void prompt_encoder_forward(eng_compute *compute, struct prompt_encoder *e, const float *base,
                            float *out)
{
    struct job job = {.e = e, .base = base, .out = out};
    compute_turn_take(compute, ENG_TRAINING);
    pool_run(compute, e->modules, work(e), forward_task, &job);
    compute_turn_give(compute);
}

void prompt_encoder_backward(eng_compute *compute, struct prompt_encoder *e, const float *base,
                             const float *dout, float *dbase)
{
    struct job job = {.e = e, .base = base, .dout = dout, .out = dbase};
    compute_turn_take(compute, ENG_TRAINING);
    pool_run(compute, e->modules, work(e), backward_task, &job);
    compute_turn_give(compute);
    for (size_t i = 0; i < e->count; i++) {
        double sum = 0;
        for (size_t k = 0; k < e->modules; k++) {
            sum += e->partial[k * e->count + i];
        }
        e->gradient[i] = (float)sum;
    }
}
