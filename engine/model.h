/* model.h (private): what eng_model and eng_bank are made of.
 *
 * Readers (weights.c, model.c, bankfile.c) fill these structs once; encoder.c and bank.c read them.
 * After eng_model_open / eng_bank_open nothing here changes: any thread may read.
 */
#ifndef ENGINE_MODEL_H
#define ENGINE_MODEL_H

#include "engine/engine.h"

struct tokenizer; /* tokenizer.h */
struct weights; /* weights.h: owns the mapping or the converted block the pointers below go into */
struct gemm_packed; /* gemm.h: a weight matrix packed for the kernel, NULL before encoder_prepare */

/* One linear map y = x·Wᵀ + b.   w (out, in)   b (out) or NULL. Of a packed one w is NULL, unless it can
 * be read from a mapped file again: nothing in the way of a prediction or a frozen backward needs it. */
struct linear {
    const float *w;
    const float *b;
    size_t in, out;
    struct gemm_packed *packed;
    struct gemm_packed *turned; /* Wᵀ packed, for dx = dy·W: of small models alone, else NULL */
};

struct layernorm {
    const float *w, *b; /* (H) each */
};

/* A post-LayerNorm encoder layer. q, k, v, o are H → H; up is H → F; down is F → H. */
struct layer_params {
    struct linear q, k, v, o;
    struct layernorm attention_norm;
    struct linear up, down;
    struct layernorm output_norm;
};

#define ENG_MAX_LAYERS 64

struct encoder_params {
    size_t layers, hidden, heads, ffn, vocab, positions, types;
    float epsilon;         /* LayerNorm */
    const float *word;     /* (vocab, H) */
    const float *position; /* (positions, H) */
    const float *type;     /* (types, H) */
    struct layernorm embedding_norm;
    struct layer_params layer[ENG_MAX_LAYERS];
};

struct eng_model {
    eng_model_info info; /* info.name points at name */
    char name[128];
    char dir[1024];
    struct encoder_params params;
    struct tokenizer *tokenizer; /* NULL without a vocabulary */
    struct weights *weights;
    void *packed; /* encoder_prepare's: all matrices packed, one block; NULL without AVX2 */
    void *block;  /* eng_model_random's parameters (malloc'ed, freed by eng_model_free) or NULL */
};

struct eng_bank {
    eng_bank_info info; /* info.name points at name */
    char name[128];
    const eng_model *model;
    float *A;      /* (Lp, d, P*H); these four and `modules` are malloc'ed one by one */
    float *z;      /* (Lp, K, d) */
    float *router; /* (rows, Lp, K) */
    float *head_w; /* (2, H): start, end */
    float head_b[2];
    float *modules;            /* (Lp, K, P*H) = z·A, by bank_prepare */
    char **row_names;          /* rows strings, NULL entries when unnamed */
    char option_separator[16]; /* string; "，" */
};

/* model.c: fills info (all but dtype and name's text) from params, their values and tokenizer: sizes,
 * bytes, fingerprint. */
void model_describe(struct eng_model *model);

/* model.c: eng_model_open for training: nothing packed, every matrix where the table says. */
ENG_MUST_CHECK eng_status model_open_bare(const char *dir, eng_model **out, eng_error *err);

/* model.c: a tensor of the model's files beside the backbone, by its whole name or, of a LayerNorm, the
 * old one. Reading copies its values (param->count) to `out`: ENG_EFORMAT for another shape and for what
 * is not finite. Any thread. */
struct param;
bool model_has_param(const eng_model *model, const struct param *param);
ENG_MUST_CHECK eng_status model_read_param(const eng_model *model, const struct param *param,
                                           float *out, eng_error *err);

/* random.c: eng_model_random for training: every parameter in `block`, in table order, nothing packed. */
ENG_MUST_CHECK eng_status model_random_bare(const eng_model_info *shape, uint64_t seed,
                                            eng_model **out, eng_error *err);

/* encoder.c: whether these sizes can be computed with. ENG_EFORMAT, ENG_ELIMIT. */
ENG_MUST_CHECK eng_status encoder_check(const struct encoder_params *params, eng_error *err);
/* encoder.c: packs what the kernel wants packed. Called once at the end of eng_model_open. */
ENG_MUST_CHECK eng_status encoder_prepare(eng_model *model, eng_error *err);
/* Frees it. The model cannot compute afterwards. */
void encoder_unprepare(eng_model *model);

/* bank.c: computes `modules` and info.fingerprint. Called once at the end of eng_bank_open. */
ENG_MUST_CHECK eng_status bank_prepare(eng_bank *bank, eng_error *err);

#endif
