/* bank.c: modules from the bank's factors, mixes from routes, merged prompts, and the way back.
 *
 * A bank holds z (Lp,K,d) and A (Lp,d,P*H); module M[l,k] = z[l,k]·A[l] is a prompt of P rows of H.
 * Modules are multiplied out once, when the bank is opened: for the usual K = 8 they are smaller than
 * A (K < d), and everything that runs per request reads only them.
 *
 * A forward pass never looks up a merged prompt. It adds h[1..P] += Σ_k mix[l,k] M[l,k] straight from
 * the modules: K·P·H multiply-adds per prompted layer, where that layer costs 12·T·H² with T > P. For
 * the paper's sizes that is one part in 1,500, less than keeping a million merged prompts apart would
 * cost in look-ups and evictions; and a task then really is its K numbers, with nothing to warm up.
 */
#include "engine/bank.h"
#include "engine/encoder.h"
#include "engine/status.h"

#include <math.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define MIX_EPSILON 1e-12

static size_t prompt_floats(const eng_bank *bank)
{
    return bank->info.prompt_tokens * bank->model->params.hidden;
}

/* The K route numbers of layer l. */
static const float *route_layer(const eng_bank *bank, const float *route, size_t l)
{
    return bank->info.tied ? route : route + l * bank->info.modules;
}

/* ---- preparing ---- */

/* modules[k] = Σ_i z[k,i] A[i]     z (K,d)   A (d,n)   modules (K,n) overwritten
 * Blocks of columns stay in cache while the d rows of A pass by once. */
static void multiply_modules(const float *z, const float *A, size_t K, size_t d, size_t n,
                             float *modules)
{
    const size_t block = 512;
    memset(modules, 0, K * n * sizeof *modules);
    for (size_t from = 0; from < n; from += block) {
        size_t to = from + block < n ? from + block : n;
        for (size_t i = 0; i < d; i++) {
            for (size_t k = 0; k < K; k++) {
                const float scale = z[k * d + i];
                const float *row = A + i * n;
                float *out = modules + k * n;
                for (size_t c = from; c < to; c++) {
                    out[c] += scale * row[c];
                }
            }
        }
    }
}

static void hash_floats(crypto_generichash_state *state, const float *values, size_t count)
{
    crypto_generichash_update(state, (const unsigned char *)values, count * sizeof *values);
}

/* Everything that changes an answer: shapes and settings first, so that equal bytes cut differently
 * are different banks. The backbone's own fingerprint is kept beside it, not in it. */
static void fingerprint(eng_bank *bank)
{
    const eng_bank_info *info = &bank->info;
    size_t n = prompt_floats(bank);
    uint64_t numbers[] = {info->layers,
                          info->modules,
                          info->prompt_tokens,
                          info->intrinsic,
                          bank->model->params.hidden,
                          info->tied,
                          (uint64_t)(uint32_t)info->prompt_token_offset,
                          (uint64_t)(uint32_t)info->token_type};
    unsigned char digest[32];
    crypto_generichash_state state;
    crypto_generichash_init(&state, NULL, 0, sizeof digest);
    crypto_generichash_update(&state, (const unsigned char *)numbers, sizeof numbers);
    crypto_generichash_update(&state, (const unsigned char *)bank->option_separator,
                              strlen(bank->option_separator) + 1);
    if (info->context_tokens > 0) {
        uint64_t tokens = info->context_tokens;
        crypto_generichash_update(&state, (const unsigned char *)&tokens, sizeof tokens);
    }
    hash_floats(&state, bank->z, info->layers * info->modules * info->intrinsic);
    hash_floats(&state, bank->A, info->layers * info->intrinsic * n);
    hash_floats(&state, bank->head_w, 2 * bank->model->params.hidden);
    hash_floats(&state, bank->head_b, 2);
    crypto_generichash_final(&state, digest, sizeof digest);
    sodium_bin2hex(bank->info.fingerprint, sizeof bank->info.fingerprint, digest, sizeof digest);
}

eng_status bank_prepare(eng_bank *bank, eng_error *err)
{
    const eng_bank_info *info = &bank->info;
    size_t H = bank->model->params.hidden, n = 0, count = 0;
    if (!size_mul(info->prompt_tokens, H, &n) || !size_mul(n, info->modules, &count) ||
        !size_mul(count, info->layers, &count) || !size_mul(count, sizeof(float), &count)) {
        return fail(err, ENG_ELIMIT, "A", "the sizes of this bank overflow");
    }
    free(bank->modules);
    bank->modules = malloc(count > 0 ? count : 1);
    if (bank->modules == NULL) {
        return fail_nomem(err, "A");
    }
    for (size_t l = 0; l < info->layers; l++) {
        multiply_modules(bank->z + l * info->modules * info->intrinsic,
                         bank->A + l * info->intrinsic * n, info->modules, info->intrinsic, n,
                         bank->modules + l * info->modules * n);
    }
    fingerprint(bank);
    return ENG_OK;
}

/* ---- forward ---- */

static double sigmoid(double x)
{
    return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x));
}

static double module_weight(const float *route, const struct bank_noise *noise, size_t k, size_t at)
{
    if (noise == NULL) {
        return sigmoid(route[k]);
    }
    double u = noise->u[at + k];
    return sigmoid((route[k] + log(u) - log1p(-u)) / noise->tau);
}

void bank_mix(const eng_bank *bank, const float *route, const struct bank_noise *noise, float *mix,
              float *weights)
{
    size_t K = bank->info.modules;
    for (size_t l = 0; l < bank->info.layers; l++) {
        const float *r = route_layer(bank, route, l);
        double sum = MIX_EPSILON;
        for (size_t k = 0; k < K; k++) {
            sum += module_weight(r, noise, k, l * K);
        }
        for (size_t k = 0; k < K; k++) {
            double w = module_weight(r, noise, k, l * K);
            mix[l * K + k] = (float)(w / sum);
            if (weights != NULL) {
                weights[l * K + k] = (float)w;
            }
        }
    }
}

void eng_route_mix(const eng_bank *bank, const float *route, float *mix)
{
    bank_mix(bank, route, NULL, mix, NULL);
}

void eng_merged_prompt(const eng_bank *bank, const float *mix, float *merged)
{
    size_t n = prompt_floats(bank), K = bank->info.modules;
    memset(merged, 0, bank->info.layers * n * sizeof *merged);
    for (size_t l = 0; l < bank->info.layers; l++) {
        for (size_t k = 0; k < K; k++) {
            const float *module = bank->modules + (l * K + k) * n;
            for (size_t i = 0; i < n; i++) {
                merged[l * n + i] += mix[l * K + k] * module[i];
            }
        }
    }
}

void bank_intrinsic(const eng_bank *bank, const float *mix, float *z)
{
    size_t K = bank->info.modules, d = bank->info.intrinsic;
    memset(z, 0, bank->info.layers * d * sizeof *z);
    for (size_t l = 0; l < bank->info.layers; l++) {
        for (size_t k = 0; k < K; k++) {
            for (size_t i = 0; i < d; i++) {
                z[l * d + i] += mix[l * K + k] * bank->z[(l * K + k) * d + i];
            }
        }
    }
}

void bank_intrinsic_prompt(const eng_bank *bank, const float *z, float *prompt)
{
    size_t n = prompt_floats(bank), d = bank->info.intrinsic;
    for (size_t l = 0; l < bank->info.layers; l++) {
        multiply_modules(z + l * d, bank->A + l * d * n, 1, d, n, prompt + l * n);
    }
}

/* ---- backward ---- */

static double dot(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)a[i] * b[i];
    }
    return sum;
}

/* One layer of the chain  route → w → ŵ → merged:
 *   dŵ[k] = <M[k], dmerged>     s = Σ w + ε     dw[k] = dŵ[k]/s − Σ_j dŵ[j] w[j] / s²
 *   dr[k] = dw[k] · w[k] (1 − w[k]) / tau
 *   dr (K) accumulated, so that a tied route sums over its layers. Two passes over the modules rather
 *   than an array of K: K is not bounded here. */
static void route_gradient_layer(const eng_bank *bank, const float *r,
                                 const struct bank_noise *noise, size_t l, const float *dmerged,
                                 float *dr)
{
    size_t n = prompt_floats(bank), K = bank->info.modules;
    const float *modules = bank->modules + l * K * n;
    double sum = MIX_EPSILON, weighted = 0;
    for (size_t k = 0; k < K; k++) {
        double w = module_weight(r, noise, k, l * K);
        sum += w;
        weighted += w * dot(modules + k * n, dmerged, n);
    }
    for (size_t k = 0; k < K; k++) {
        double w = module_weight(r, noise, k, l * K);
        double dw = dot(modules + k * n, dmerged, n) / sum - weighted / (sum * sum);
        dr[k] += (float)(dw * w * (1 - w) / (noise != NULL ? noise->tau : 1));
    }
}

void bank_mix_gradient(const eng_bank *bank, const float *route, const struct bank_noise *noise,
                       const float *dmerged, float *droute)
{
    memset(droute, 0, bank->info.route_len * sizeof *droute);
    for (size_t l = 0; l < bank->info.layers; l++) {
        float *dr = bank->info.tied ? droute : droute + l * bank->info.modules;
        route_gradient_layer(bank, route_layer(bank, route, l), noise, l,
                             dmerged + l * prompt_floats(bank), dr);
    }
}

void bank_route_gradient(const eng_bank *bank, const float *route, const float *dmerged,
                         float *droute)
{
    bank_mix_gradient(bank, route, NULL, dmerged, droute);
}

/* p = Σ_k mix[k] z[k]·A   is bilinear, and dp has rank one in k:
 *   dz[k,i] += mix[k] · <A[i], dp>        dA[i] += (Σ_k mix[k] z[k,i]) · dp
 *   z (K,d)   A (d,n)   dp (n) */
static void za_gradient_layer(const eng_bank *bank, size_t l, const float *mix, const float *dp,
                              float *dz, float *dA)
{
    size_t n = prompt_floats(bank), K = bank->info.modules, d = bank->info.intrinsic;
    const float *z = bank->z + l * K * d, *A = bank->A + l * d * n;
    for (size_t i = 0; i < d; i++) {
        double along = dz != NULL ? dot(A + i * n, dp, n) : 0;
        double factor = 0;
        for (size_t k = 0; k < K; k++) {
            factor += (double)mix[k] * z[k * d + i];
            if (dz != NULL) {
                dz[k * d + i] += (float)(mix[k] * along);
            }
        }
        for (size_t c = 0; dA != NULL && c < n; c++) {
            dA[i * n + c] += (float)factor * dp[c];
        }
    }
}

void bank_za_gradient(const eng_bank *bank, const float *mix, const float *dmerged, float *dz,
                      float *dA)
{
    size_t n = prompt_floats(bank), K = bank->info.modules, d = bank->info.intrinsic;
    for (size_t l = 0; l < bank->info.layers; l++) {
        za_gradient_layer(bank, l, mix + l * K, dmerged + l * n, dz != NULL ? dz + l * K * d : NULL,
                          dA != NULL ? dA + l * d * n : NULL);
    }
}
