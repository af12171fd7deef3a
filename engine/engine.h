/* engine.h: the numeric library of mp2, everything about the model and nothing about HTTP or SQL.
 *
 * A frozen BERT-style backbone, banks of modular prompts, routes that mix the modules, tasks written
 * as machine reading comprehension, prediction on packed batches, and adaptation of a route.
 * The mathematics follows "Multitask Pre-training of Modular Prompt for Chinese Few-Shot Learning"
 * (ACL 2023, arXiv 2210.07565); each source file states its own part.
 *
 * Threads.   eng_model, eng_bank, eng_task and eng_dataset never change after they are made: any
 *            number of threads may use one. eng_workspace and eng_encoded belong to one thread at a
 *            time. eng_compute is made to be shared. The library starts no thread but the compute
 *            pool's, never logs, never exits.
 * Lifetime.  A bank needs its model, a task its bank, a workspace its model: free in reverse order.
 * Ownership. Inputs are borrowed for the call; outputs are the caller's. A failed call leaves its
 *            output NULL and has taken nothing.
 * Errors.    Every failing call returns a status and, when `err` is not NULL, fills it with the field
 *            at fault and a sentence that names the limit and what was found.
 * Text.      UTF-8 with a length, never NUL-terminated unless it says "string". Offsets handed to a
 *            user count Unicode code points.
 */
#ifndef MP2_ENGINE_H
#define MP2_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define ENG_MUST_CHECK __attribute__((warn_unused_result))

/* ---- status and errors ------------------------------------------------------------------- */

#define ENG_STATUS_LIST(X)                                                                         \
    X(ENG_OK, "ok")                                                                                \
    X(ENG_ENOMEM, "out of memory")                                                                 \
    X(ENG_EINVAL, "invalid argument")                                                              \
    X(ENG_EIO, "input or output failed")                                                           \
    X(ENG_EFORMAT, "malformed file or text")                                                       \
    X(ENG_ELIMIT, "over a limit")                                                                  \
    X(ENG_EMISMATCH, "does not belong to this model or bank")                                      \
    X(ENG_ENOTFOUND, "not found")                                                                  \
    X(ENG_EUNSUPPORTED, "not supported")                                                           \
    X(ENG_ECANCELLED, "cancelled")                                                                 \
    X(ENG_EDIVERGED, "diverged")

typedef enum eng_status {
#define ENG_STATUS_ENUM(name, text) name,
    ENG_STATUS_LIST(ENG_STATUS_ENUM)
#undef ENG_STATUS_ENUM
} eng_status;

typedef struct eng_error {
    eng_status status;
    char field[96]; /* the input, tensor or setting at fault; "" when there is none */
    char text[352]; /* one sentence for a person: limit, what was found, what to do */
} eng_error;

/* "ENG_EFORMAT" and "malformed file or text". Static strings. */
const char *eng_status_name(eng_status status);
const char *eng_status_text(eng_status status);

typedef struct eng_text {
    const char *data; /* UTF-8, borrowed, not NUL-terminated */
    size_t len;       /* bytes */
} eng_text;

/* ---- JSON ---------------------------------------------------------------------------------- */

struct json_t; /* jansson's */

typedef struct eng_json_fault {
    bool nomem;
    int code, line, column; /* json_error_code; 0 when nomem */
} eng_json_fault;

/* json_loadb with JSON_REJECT_DUPLICATES and `flags`, made safe for when memory runs out (jsonload.c says how). The
 * caller bounds depth and size before, owns what is returned, and reads *fault when it is NULL. */
struct json_t *eng_json_parse(const char *text, size_t len, size_t flags, eng_json_fault *fault);

/* ---- model: one frozen backbone, its tokenizer and its fingerprint ------------------------- */

typedef struct eng_model eng_model;
typedef struct eng_bank eng_bank;

typedef struct eng_model_info {
    const char *name; /* last component of the directory */
    size_t layers, hidden, heads, ffn, vocab, positions, types;
    uint64_t parameters;
    uint64_t bytes;    /* resident bytes of the weights as the engine holds them */
    const char *dtype; /* as stored: "F32", "F16", "BF16", "mixed" */
    bool half_weights; /* matrices are held as float16 */
    bool has_vocab;    /* false: no vocab.txt, ids only */
    char fingerprint
        [65]; /* hex BLAKE2b-256 over tensor names, shapes, float32 values, heads, epsilon */
} eng_model_info;

/* Opens a model directory: config.json, vocab.txt (optional), and model.safetensors, sharded
 * safetensors or pytorch_model.bin. ENG_EIO, ENG_EFORMAT, ENG_ELIMIT, ENG_EUNSUPPORTED. */
ENG_MUST_CHECK eng_status eng_model_open(const char *dir, eng_model **out, eng_error *err);
/* A backbone of seeded random weights, for benches. Shape from `info`'s numbers; no vocabulary. */
ENG_MUST_CHECK eng_status eng_model_random(const eng_model_info *shape, uint64_t seed,
                                           eng_model **out, eng_error *err);
/* As eng_model_open, with the matrices held as float16, rounded to nearest (eng_model_random:
 * shape->half_weights): half the memory; results move as far as that rounding does. ENG_EUNSUPPORTED for a weight
 * beyond 65504 and without AVX2. The fingerprint is that of the file. */
ENG_MUST_CHECK eng_status eng_model_open_half(const char *dir, eng_model **out, eng_error *err);
void eng_model_free(eng_model *model);
const eng_model_info *eng_model_get_info(const eng_model *model);

typedef struct eng_bank_info {
    const char *name;     /* file name without .bank.safetensors / .safetensors / .th */
    size_t modules;       /* K */
    size_t prompt_tokens; /* P */
    size_t intrinsic;     /* d */
    size_t layers;        /* Lp: 1 shallow, the backbone's L deep */
    size_t rows;          /* router rows */
    size_t route_len;     /* numbers in a route of this bank: Lp*K, or K when tied */
    bool tied;            /* one K-number route for all Lp layers */
    int32_t prompt_token_offset;
    int32_t token_type;
    double adapt_lr; /* default step size and steps of the route method for this bank */
    size_t adapt_steps;
    size_t
        context_tokens; /* read of an extractive context where the question says which; 0: what fits */
    char fingerprint[65]; /* over A, z, head and the settings above that change results */
} eng_bank_info;

/* Opens a bank file (.safetensors, or the authors' .th) for `model`. A wrong hidden width or layer
 * count is ENG_EMISMATCH. `tied` asks for one route across the layers of a deep bank; a bank that was
 * trained so (its metadata: route_scope "tied") has one either way. */
ENG_MUST_CHECK eng_status eng_bank_open(const eng_model *model, const char *path, bool tied,
                                        eng_bank **out, eng_error *err);
/* The first bank of a model directory: `*.bank.safetensors` in order of name, else
 * bank_shallow.safetensors / bank_deep.safetensors. ENG_ENOTFOUND when there is none. */
ENG_MUST_CHECK eng_status eng_bank_open_default(const eng_model *model, bool tied, eng_bank **out,
                                                eng_error *err);
/* A seeded random bank, for benches. */
ENG_MUST_CHECK eng_status eng_bank_random(const eng_model *model, size_t layers, size_t modules,
                                          size_t prompt_tokens, size_t intrinsic, uint64_t seed,
                                          eng_bank **out, eng_error *err);
void eng_bank_free(eng_bank *bank);
const eng_bank_info *eng_bank_get_info(const eng_bank *bank);
const char *eng_bank_row_name(const eng_bank *bank, size_t row); /* string; "row 3" when unnamed */
/* Router row `row` as a route (info.route_len numbers); a tied bank averages the layers. */
void eng_bank_row(const eng_bank *bank, size_t row, float *route);

/* ---- routes ---------------------------------------------------------------------------------- */

/* Mix of a route: w = sigmoid(r), ŵ[l,k] = w[l,k] / (Σ_j w[l,j] + 1e-12).
 *   route (route_len)   mix (Lp, K) overwritten.   METHOD 2, serving form. */
void eng_route_mix(const eng_bank *bank, const float *route, float *mix);
/* p[l] = Σ_k mix[l,k] M[l,k].   merged (Lp, P, H) overwritten. */
void eng_merged_prompt(const eng_bank *bank, const float *mix, float *merged);

/* ---- compute: the threads, and who goes first ------------------------------------------------ */

typedef struct eng_compute eng_compute;

/* Who goes first, most urgent first: between two pieces (a part of a layer of a batch) a pass gives way
 * to any that is more urgent and waits. */
typedef enum eng_class { ENG_URGENT = 0, ENG_SERVING = 1, ENG_TRAINING = 2 } eng_class;
#define ENG_CLASSES 3

typedef struct eng_compute_info {
    size_t threads;
    const char *kernel; /* "avx512-packed", "avx2-packed" or "openblas" */
    const char *blas;   /* OpenBLAS's own configuration string */
} eng_compute_info;

/* Starts `threads` compute threads (0: one a core this process may use; the caller's thread counts
 * as one of them while it computes). Refuses a single-threaded OpenBLAS build with ENG_EUNSUPPORTED.
 * `kernel`: NULL for the best, or a name of eng_compute_info.kernel. */
ENG_MUST_CHECK eng_status eng_compute_start(size_t threads, const char *kernel, eng_compute **out,
                                            eng_error *err);
/* From now on its threads offer their cores every tenth of a millisecond of work to other threads that
 * wait for one. For a process that answers while it computes: Linux lets a computing thread go on until its
 * slice is used up, and looks at that every 4 ms. Work takes up to twice as long beside strangers of the
 * same control group that compute too. Before anything is computed. */
void eng_compute_offer_cores(eng_compute *compute);
/* No call that uses it may be running. Returns when its threads have ended. */
void eng_compute_stop(eng_compute *compute);
const eng_compute_info *eng_compute_get_info(const eng_compute *compute);

/* ---- forward on packed batches ----------------------------------------------------------------- */

typedef struct eng_workspace eng_workspace;

/* One block with room for a packed batch of at most max_tokens tokens in max_sequences sequences;
 * nothing is allocated afterwards. */
ENG_MUST_CHECK eng_status eng_workspace_new(const eng_model *model, size_t max_tokens,
                                            size_t max_sequences, eng_workspace **out,
                                            eng_error *err);
void eng_workspace_free(eng_workspace *workspace);
size_t eng_workspace_bytes(const eng_workspace *workspace);

typedef struct eng_sequence {
    const int32_t *ids;   /* (len): [CLS], P placeholders, … */
    size_t len;           /* 1 … positions of the model */
    const eng_bank *bank; /* modules, head, token type; sequences of a batch may differ */
    const float *mix;     /* (Lp, K) from eng_route_mix; NULL adds no prompt */
    const float *prompt;  /* (Lp, P, H) a tuned prompt in place of the mix, or NULL */
    const float *head;    /* a tuned head: (2, H) weights, then 2 biases; NULL: the bank's */
    const uint32_t *read; /* (n_read) positions whose logits are wanted, ascending; NULL: all */
    size_t n_read;
} eng_sequence;

/* Start and end logits of every token of n sequences, packed without padding.
 *   start, end (Σ len) overwritten, in the order of the sequences.
 * Where a sequence says what it will read, the last layer is computed only there: the same bits at
 * those positions, NaN at the others. A sequence's logits do not depend on its neighbours. Rejects ids outside the vocabulary
 * (ENG_EINVAL) and batches beyond the workspace (ENG_ELIMIT). */
ENG_MUST_CHECK eng_status eng_forward(eng_compute *compute, eng_workspace *workspace, eng_class who,
                                      const eng_model *model, const eng_sequence *sequences,
                                      size_t n, float *start, float *end, eng_error *err);

/* ---- tokens ------------------------------------------------------------------------------------ */

typedef struct eng_token {
    int32_t id;
    uint32_t start, end; /* code points of the text this token came from, end exclusive */
} eng_token;

/* BERT WordPiece of `text`, no [CLS] or [SEP] added; "[SEP]" written in a text is punctuation and a
 * word. *tokens is malloc'ed (NULL when n is 0): the caller frees.
 * ENG_EFORMAT for invalid UTF-8; ENG_EINVAL when the model has no vocabulary. */
ENG_MUST_CHECK eng_status eng_tokenize(const eng_model *model, eng_text text, eng_token **tokens,
                                       size_t *n, eng_error *err);
const char *eng_token_string(const eng_model *model, int32_t id); /* string, NULL if no such id */

/* ---- tasks as machine reading comprehension ------------------------------------------------------ */

typedef enum eng_task_type {
    ENG_CLASSIFICATION,
    ENG_PAIR,
    ENG_CHOICE,
    ENG_EXTRACTIVE
} eng_task_type;

const char *eng_task_type_name(eng_task_type type); /* "classification", … */
bool eng_task_type_parse(const char *name, eng_task_type *type);

#define ENG_MAX_LABELS         512 /* labels of a task, options of an example */
#define ENG_MAX_LABEL_BYTES    256
#define ENG_MAX_TEMPLATE_BYTES 2048
#define ENG_MAX_FIELDS         16

typedef struct eng_task_spec {
    eng_task_type type;
    eng_text text_template; /* with {field} names; empty: the default of the type */
    const eng_text *labels; /* classification and pair: 2 … ENG_MAX_LABELS, distinct, not empty */
    size_t n_labels;
    bool may_have_no_answer; /* extractive only */
} eng_task_spec;

typedef struct eng_task eng_task;

/* Checks and compiles a task: template parsed, labels tokenised. ENG_EINVAL names the part. The task
 * fits its bank's prompt tokens; at least 8 tokens must remain for the text beside prompt, template
 * and labels (ENG_ELIMIT says how many there are). */
ENG_MUST_CHECK eng_status eng_task_new(const eng_model *model, const eng_bank *bank,
                                       const eng_task_spec *spec, eng_task **out, eng_error *err);
void eng_task_free(eng_task *task);
eng_task_type eng_task_get_type(const eng_task *task);
size_t eng_task_label_count(const eng_task *task);
const char *eng_task_label(const eng_task *task, size_t i); /* string */
const char *eng_task_template(const eng_task *task);        /* string */
/* Names of the fields the template reads, in its order; returns their count. */
size_t eng_task_fields(const eng_task *task, const char *names[ENG_MAX_FIELDS]); /* strings */

typedef struct eng_field {
    eng_text name;
    eng_text value;
} eng_field;

typedef struct eng_input {
    const eng_field *fields;
    size_t n_fields;
    const eng_text *options; /* choice only: 2 … ENG_MAX_LABELS */
    size_t n_options;
} eng_input;

typedef struct eng_encoded eng_encoded; /* one input as ids, with the way back to its text */

/* Writes an input as one sequence. Text fields are cut (from the end, the longest first, so that short
 * ones survive whole), options and template never: a cut is reported by eng_encoded_truncated.
 * text_limit > 0 also cuts every text field to that many code points first. Fields the template does
 * not read are ignored; an empty field is no tokens (an empty context has no spans). A choice may
 * come without `context`, options may repeat. ENG_EINVAL names a missing field or an option without a
 * token; ENG_EFORMAT a field that is not UTF-8; ENG_ELIMIT when options alone do not fit. */
ENG_MUST_CHECK eng_status eng_encode(const eng_task *task, const eng_input *input,
                                     size_t text_limit, eng_encoded **out, eng_error *err);
void eng_encoded_free(eng_encoded *encoded);
const int32_t *eng_encoded_ids(const eng_encoded *encoded, size_t *len);
/* The positions that decoding reads, for eng_sequence.read: first and last tokens of the options, the
 * context, "no answer". NULL when there is nothing to read. Borrowed. */
const uint32_t *eng_encoded_read(const eng_encoded *encoded, size_t *n);
size_t eng_encoded_options(const eng_encoded *encoded);   /* 0 for extractive */
size_t eng_encoded_truncated(const eng_encoded *encoded); /* code points of text left out */

/* How the labels of a task are read from the model's scores of them, z being the scores less their mean:
 *     p = softmax(s z + b + U z)
 *   numbers: s, b (labels), U (labels, labels) or none. len 0: p = softmax(z). */
typedef struct eng_label_scaling {
    const float *numbers; /* (len) */
    size_t len;           /* eng_label_scaling_len, or 0 */
} eng_label_scaling;

#define ENG_MAX_CROSS_LABELS 8   /* with more labels there is no U */
#define ENG_MAX_SCALING_ROWS 512 /* training rows that are read at every look to fit it */
size_t eng_label_scaling_len(size_t labels, bool cross);
/* Whether a task of so many labels may have one of `len` numbers. */
bool eng_label_scaling_fits(size_t len, size_t labels);

/* softmax_j(start[first token of option j] + end[last token of option j]), read as `scaling` says.
 *   start, end (len)   scaling of as many labels as there are options, or NULL
 *   probabilities (options) overwritten. */
void eng_decode_options(const eng_encoded *encoded, const float *start, const float *end,
                        const eng_label_scaling *scaling, float *probabilities);

typedef struct eng_span {
    size_t start, end; /* code points in the caller's context field, end exclusive */
    double score;      /* probability among the admissible spans */
    bool no_answer;    /* then start = end = 0 */
} eng_span;

/* How long a task's answers are: the natural logarithm of their tokens is normal. sigma 0: not known. */
typedef struct eng_answer_length {
    float mu, sigma;
} eng_answer_length;

/* The best spans of the context, best first, at most `max`, of at most max_answer tokens (0: the
 * default, 64; never more than 512), not overlapping an earlier one. `length` weighs them by theirs;
 * NULL: all alike. Returns how many. */
size_t eng_decode_spans(const eng_encoded *encoded, const float *start, const float *end,
                        const eng_answer_length *length, size_t max_answer, eng_span *spans,
                        size_t max);

/* ---- few-shot sets ------------------------------------------------------------------------------- */

typedef struct eng_example {
    eng_input input;
    size_t label;        /* index among the task's labels, or the example's options (choice) */
    eng_text answer;     /* extractive; empty = no answer */
    size_t answer_start; /* code points in the context */
} eng_example;

typedef struct eng_dataset eng_dataset;

typedef struct eng_row_error {
    size_t line;      /* 1-based line of the file */
    char pointer[64]; /* JSON pointer in the row: "/label" */
    char text[192];
} eng_row_error;

#define ENG_MAX_ROW_ERRORS 50

/* What a set holds before a task gives its labels a number. */
typedef struct eng_dataset_info {
    eng_task_type type; /* inferred from the rows' fields, or as asked */
    size_t rows;        /* good rows */
    size_t bad_rows;
    size_t labels; /* distinct label words, in order of first appearance; 0: choice, extractive */
} eng_dataset_info;

typedef enum eng_rows_format { ENG_ROWS_JSONL, ENG_ROWS_CSV } eng_rows_format;

/* Parses rows (API 2: text/label, text_a/text_b/label, question/context/options/label,
 * question/context/answer/answer_start, chat messages; other string fields are kept by name).
 * Bad rows are reported (first ENG_MAX_ROW_ERRORS, *n_errors may be NULL with errors NULL) and
 * counted, never fatal; ENG_EFORMAT only when no good row is left or types are mixed. `type` NULL: infer. */
ENG_MUST_CHECK eng_status eng_dataset_parse(eng_text bytes, eng_rows_format format,
                                            const eng_task_type *type, eng_dataset **out,
                                            eng_row_error *errors, size_t *n_errors,
                                            eng_error *err);
void eng_dataset_free(eng_dataset *set);
const eng_dataset_info *eng_dataset_get_info(const eng_dataset *set);
const char *eng_dataset_label(const eng_dataset *set, size_t i); /* string: i-th distinct label */
size_t eng_dataset_label_rows(const eng_dataset *set, size_t i); /* rows that carry it */
/* Row i; *label_word (may be NULL) is its label string: of a choice row the right option's text, of an
 * extractive row NULL. Borrowed from the set. */
void eng_dataset_row(const eng_dataset *set, size_t i, eng_example *row, const char **label_word);

/* A task folder of the data layout: task.json, train.jsonl, dev.jsonl, test.jsonl. */
typedef struct eng_task_folder {
    char name[96];
    eng_task *task;
    eng_dataset *train, *dev, *test;
} eng_task_folder;
ENG_MUST_CHECK eng_status eng_task_folder_open(const eng_model *model, const eng_bank *bank,
                                               const char *dir, eng_task_folder *out,
                                               eng_error *err);
void eng_task_folder_close(eng_task_folder *folder);

/* The few-shot protocol: shuffle with `seed`, per label the first k rows train and the next k dev,
 * k = k_shot or max(8, 32/labels); choice and extractive 32 and 32. train and dev receive row
 * numbers (capacity rows of the set each). */
void eng_few_shot_split(const eng_dataset *set, uint64_t seed, size_t k_shot, size_t *train,
                        size_t *n_train, size_t *dev, size_t *n_dev);
size_t eng_few_shot_k(const eng_dataset *set, size_t k_shot); /* the k that it takes */
/* How many folds a file that comes without a dev file is worth (eng_adapt_config.folds): where the rarest
 * label has fewer than ENG_FEW_ROWS rows (without labels: fewer than twice that in all) halving would
 * leave too little on either side. 0: halve it. */
size_t eng_folds(const eng_dataset *set);
#define ENG_FEW_ROWS    16
#define ENG_USUAL_FOLDS 4
#define ENG_MAX_FOLDS   16
/* For a file that comes without a dev file: of each label's rows, shuffled with `seed`, the first
 * half (rounded up) trains and the rest is dev. Capacities as above. */
void eng_half_split(const eng_dataset *set, uint64_t seed, size_t *train, size_t *n_train,
                    size_t *dev, size_t *n_dev);

/* ---- evaluation ------------------------------------------------------------------------------------ */

typedef struct eng_scores {
    size_t rows;
    double accuracy; /* options; extractive: exact match */
    double macro_f1; /* fixed labels; extractive: character F1; choice: = accuracy */
    double loss;     /* mean MRC loss; of labels read by a scaling −ln p(label) */
    size_t tokens;
    double seconds;
    size_t truncated; /* rows whose text was cut */
} eng_scores;

/* The one number that counts, and that chooses among steps and versions: accuracy, of extractive tasks the
 * characters' F1 (of a few dozen answers hardly one is right to the character). */
double eng_score_of(eng_task_type type, double accuracy, double macro_f1);

/* How the answers of a task are read from the logits, beside the route: each part of eng_adapt_result. */
typedef struct eng_reading {
    eng_answer_length answer_length; /* for eng_decode_spans */
    eng_label_scaling label_scaling; /* for eng_decode_options */
} eng_reading;

/* Evaluates `mix` (or a tuned prompt, a tuned head: as in eng_sequence) on rows `which` (NULL: all) of
 * a set. `reading`: NULL for one that knows nothing.
 *   predicted (rows): the option of each row, or NULL.   confusion (labels, labels) counts, rows =
 *   truth, or NULL; fixed labels only.
 * ENG_EINVAL when a row's label is not among the task's. ENG_ECANCELLED through `cancelled`. */
typedef bool (*eng_cancelled)(void *arg);
ENG_MUST_CHECK eng_status eng_evaluate(eng_compute *compute, eng_class who, const eng_model *model,
                                       const eng_bank *bank, const eng_task *task,
                                       const eng_dataset *set, const size_t *which, size_t n,
                                       const float *mix, const float *prompt, const float *head,
                                       const eng_reading *reading, size_t text_limit,
                                       eng_cancelled cancelled, void *arg, size_t *predicted,
                                       size_t *confusion, eng_scores *scores, eng_error *err);

/* Mean F1 over the labels that occur as truth or as prediction.   confusion (labels, labels), rows = truth. */
double eng_macro_f1(const size_t *confusion, size_t labels);
/* Exact match and character F1 of an extracted answer, 0 … 1, as eng_evaluate counts them. */
ENG_MUST_CHECK eng_status eng_score_answer(eng_text truth, eng_text guess, double *exact,
                                           double *f1, eng_error *err);

/* What needs no model: both NaN for extractive tasks. */
typedef struct eng_baselines {
    double majority;      /* accuracy of the test rows' most frequent label; choice: of a guess */
    double bag;           /* of a bag of characters trained on the training rows */
    const char *bag_name; /* "naive Bayes"; "overlap" of option and text (choice); "none" */
} eng_baselines;
ENG_MUST_CHECK eng_status eng_baselines_of(const eng_task *task, const eng_dataset *train_set,
                                           const size_t *train, size_t n_train,
                                           const eng_dataset *test_set, const size_t *test,
                                           size_t n_test, eng_baselines *out, eng_error *err);

/* ---- adaptation --------------------------------------------------------------------------------------- */

typedef enum eng_init { ENG_INIT_AVERAGE, ENG_INIT_RANDOM, ENG_INIT_RETRIEVE } eng_init;

/* The whole state of a run on its way. Borrowed for the call, on the caller's thread. */
typedef void (*eng_on_checkpoint)(void *arg, const void *block, size_t bytes);

/* A route that a start by retrieval may take beside the bank's rows: of another task, say. */
typedef struct eng_candidate {
    const char *name;   /* string, shown as started_from */
    const float *route; /* (route_len) */
} eng_candidate;

typedef struct eng_adapt_config {
    const char *method; /* one of eng_adapt_method; NULL: "route" */
    eng_init init;
    double lr; /* 0: the bank's default */
    double weight_decay;
    size_t steps;      /* 0: the bank's default */
    size_t batch;      /* rows a step; 0: 32 */
    size_t eval_every; /* steps between looks at dev; 0: 20 */
    double seconds;    /* 0: no limit; a method of two stages gives each its half */
    uint64_t seed;
    size_t text_limit; /* 0: none */
    /* Labels are read as the model scores them, nothing is fitted, and the loss is that of the pointers (the
     * paper's); else that of the labels as they are read: −ln p(label). */
    bool no_label_scaling;
    size_t patience; /* looks' worth of steps without a better one that end a stage; 0: none do */
    /* Without dev rows: 2 or more folds choose the steps (of a search, evaluations) by cross-validation,
     * then all rows train so long; eng_folds says how many. 0: the training rows choose. */
    size_t folds;
    size_t evaluations; /* gradient-free methods: few-shot losses computed; 0: the method's usual */
    double prompt_lr;   /* step size where a prompt is tuned by gradient; 0: the method's usual */
    const eng_candidate
        *candidates; /* more routes to retrieve from, borrowed for the call, or NULL */
    size_t n_candidates;
    const eng_candidate *start; /* a route to start from instead of `init`, borrowed, or NULL */

    eng_on_checkpoint on_checkpoint; /* NULL: no checkpoints */
    void *checkpoint_arg;
    double checkpoint_seconds; /* a checkpoint at most this often; 0: only when paused */
    /* A block from on_checkpoint: the run goes on from there and ends with the bytes it would have
     * ended with. ENG_EMISMATCH: of other settings, rows, task or bank; ENG_EFORMAT: damaged. */
    const void *resume;
    size_t resume_bytes;
    /* Looked at between the batches of retrieval and of looks at dev, which may take long: true ends the
     * run at once with ENG_ECANCELLED, without a checkpoint. NULL: never. */
    eng_cancelled cancelled;
    void *cancelled_arg;
} eng_adapt_config;

/* What a config asks for: gradient steps and evaluations of all stages, whether it retrieves. */
typedef struct eng_adapt_count {
    size_t steps, evaluations;
    bool retrieves;
} eng_adapt_count;
ENG_MUST_CHECK eng_status eng_adapt_count_steps(const eng_bank *bank,
                                                const eng_adapt_config *config,
                                                eng_adapt_count *out, eng_error *err);

/* The names a config's method may have: i-th, NULL behind the last. */
const char *eng_adapt_method(size_t i);
/* Whether the method may give a tuned prompt beside the route. */
bool eng_adapt_gives_prompt(const char *method);
/* Whether it tunes the backbone itself: for the command line, not for a server that shares one. */
bool eng_adapt_gives_model(const char *method);
/* Defaults of `bank`, to be changed field by field. */
void eng_adapt_defaults(const eng_bank *bank, eng_adapt_config *config);

typedef struct eng_progress {
    size_t step, steps; /* of a gradient-free method: evaluations */
    double train_loss;  /* of the step; of a gradient-free method: the least so far */
    double dev_loss, dev_accuracy, dev_macro_f1; /* NaN when dev was not looked at in this step */
    bool best;                                   /* dev chose this step so far */
    size_t tokens;
    double seconds;
    /* Cross-validation: the fold left out, from 0; `folds`: the last run, on all rows. Without: 0, 0. */
    size_t fold, folds;
} eng_progress;

/* ENG_STOP and ENG_PAUSE end the run with ENG_ECANCELLED; ENG_PAUSE hands a checkpoint over first. */
typedef enum eng_verdict { ENG_STOP = 0, ENG_GO_ON, ENG_PAUSE } eng_verdict;

/* Called on the caller's thread between steps; must return soon. */
typedef eng_verdict (*eng_on_progress)(void *arg, const eng_progress *progress);

typedef struct eng_adapt_result {
    float *route; /* (route_len) malloc'ed; free with eng_adapt_result_fini */
    size_t route_len;
    /* (Lp, P, H) malloc'ed: takes the place of the route's mix; NULL: the route is all, also when no
     * tuned prompt did better on dev than the route it started from */
    float *prompt;
    size_t prompt_len;
    float *head; /* (2H + 2) malloc'ed: tuned with the prompt; NULL: the bank's */
    size_t head_len;
    /* Of an extractive task, what its training rows say: for eng_decode_spans. sigma 0: nothing. */
    eng_answer_length answer_length;
    /* malloc'ed: of a task with fixed labels the eng_label_scaling that fits all its rows, and the one that fits
     * the rows that train, with which the dev figures were read. NULL: none. */
    float *label_scaling, *dev_label_scaling;
    size_t label_scaling_len; /* of either */
    /* The tuned backbone, without vocabulary, and its bank: what `route` and `head` belong to. NULL: no
     * weight has moved. The bank borrows from the caller's, which must outlive the result. */
    eng_model *model;
    eng_bank *bank;
    size_t tuned; /* parameters that the method could change */
    size_t best_step;
    double train_loss, dev_loss, dev_accuracy, dev_macro_f1;
    double dev_accuracy_before, dev_macro_f1_before, dev_loss_before; /* of the start */
    size_t folds; /* > 0: the dev figures and best_step are of cross-validation; F1 is NaN but for
                   * extractive tasks */
    size_t steps, tokens;
    size_t forward_passes; /* sequences run forward, for whatever purpose */
    double seconds;
    char started_from[96]; /* "average", "random", or the router row or candidate retrieved */
} eng_adapt_result;

/* Learns a route, and with some methods a prompt, for `task` from rows of `set`. Nothing of the model
 * or bank changes. Same inputs, seed and thread count give the same bytes. Called on a thread of the
 * caller's that may take minutes; computes as ENG_TRAINING. ENG_EDIVERGED when the loss is not
 * finite: result then holds the best route and prompt so far. */
ENG_MUST_CHECK eng_status eng_adapt(eng_compute *compute, const eng_model *model,
                                    const eng_bank *bank, const eng_task *task,
                                    const eng_dataset *train_set, const size_t *train,
                                    size_t n_train, const eng_dataset *dev_set, const size_t *dev,
                                    size_t n_dev, const eng_adapt_config *config,
                                    eng_on_progress on_progress, void *arg,
                                    eng_adapt_result *result, eng_error *err);
void eng_adapt_result_fini(eng_adapt_result *result);
/* Writes a tuned backbone as a model directory: `model`'s own, its banks and vocabulary, with the
 * result's weights in float32. The tuned head stays in the result. Existing files are not overwritten. */
ENG_MUST_CHECK eng_status eng_adapt_write_model(const eng_model *model,
                                                const eng_adapt_result *result, const char *to,
                                                eng_error *err);

/* ---- files ------------------------------------------------------------------------------------------------ */

/* Rewrites a model directory (any readable form; banks and vocabulary too) as safetensors in
 * dtype "F32", "F16" or "BF16" under `to` (made if missing; existing files are not overwritten). Of its
 * position embeddings the first `positions` are kept, 0: all; ENG_EINVAL when it has fewer. Its banks are
 * told to read at most `context_tokens` of an extractive context, 0: what they were. */
ENG_MUST_CHECK eng_status eng_convert_model(const char *from, const char *to, const char *dtype,
                                            size_t positions, size_t context_tokens,
                                            eng_error *err);
/* Rewrites one bank file; context_tokens as above. */
ENG_MUST_CHECK eng_status eng_convert_bank(const char *from, const char *to, const char *dtype,
                                           size_t context_tokens, eng_error *err);

typedef struct eng_tensor_info {
    const char *name; /* string, borrowed for the call */
    const char *dtype;
    size_t dims;
    const uint64_t *shape;
    uint64_t bytes;
} eng_tensor_info;
/* Lists the tensors of any readable file (safetensors, zip or legacy PyTorch), in file order. */
ENG_MUST_CHECK eng_status eng_list_tensors(const char *path,
                                           void (*each)(void *arg, const eng_tensor_info *info),
                                           void *arg, eng_error *err);

/* ---- pre-training a backbone ------------------------------------------------------------------------------ */

#define ENG_MIN_VOCAB 256

/* Writes a vocabulary of at most `size` tokens (ENG_MIN_VOCAB or more) from UTF-8 text files to the new
 * file `to`: special and [unusedN] tokens, letters, digits and their ## pieces, then the files'
 * characters seen at least min_count times, most frequent first. */
ENG_MUST_CHECK eng_status eng_build_vocab(const char *const *files, size_t n, size_t size,
                                          size_t min_count, const char *to, size_t *written,
                                          eng_error *err);

/* What every pre-training has: how long, how it steps, when it looks at dev and saves. */
typedef struct eng_schedule {
    size_t steps, warmup; /* the step size rises for `warmup` steps, then falls linearly to 0 */
    double weight_decay, clip;    /* clip 0: gradients are not clipped */
    size_t dev_every, save_every; /* steps; 0: only at the end, or never */
    uint64_t seed;
    bool resume; /* go on from the checkpoint where there is one */
} eng_schedule;

typedef struct eng_pretrain_config {
    eng_schedule schedule;
    const char *const *files; /* UTF-8 text, a piece a line */
    size_t n_files;
    const char *dev;      /* a text file for dev perplexity, or NULL */
    const char *vocab;    /* a vocab.txt */
    const char *to;       /* the model directory to make */
    eng_model_info shape; /* layers, hidden, heads, ffn, positions */
    bool plain_start;     /* BERT's: every weight of deviation 0.02; else see pretrain_start.c */
    size_t batch_tokens;  /* of one step, packed */
    size_t max_len;       /* tokens of a sequence, [CLS] and [SEP] included */
    double lr;
    double dropout, mask;
    size_t dev_tokens;
} eng_pretrain_config;

/* Defaults for a small model, to be changed field by field; files, vocab and to are NULL. */
void eng_pretrain_defaults(eng_pretrain_config *config);

typedef struct eng_pretrain_progress {
    size_t step, steps; /* step 0: a look at dev before the first step (prompts) */
    double loss, lr, gradient_norm;
    double mlm_loss;       /* of masked text beside the tasks, else NaN */
    const char *task;      /* of prompts: what this step trained on, else NULL */
    double dev_perplexity; /* these two NaN where there is none, or not in this step */
    double dev_score;      /* mean of the tasks' scores, copies weighing half their task */
    const char *const
        *task_names; /* (n_tasks), with each one's score, in a step with a dev_score */
    const double *task_scores;
    size_t n_tasks;
    bool best;       /* the best dev_score so far: what it came from is on disk */
    uint64_t tokens; /* read since step 0 */
    double seconds, tokens_per_second, seconds_left; /* of this process */
} eng_pretrain_progress;

/* Called after every step; false ends the run: the checkpoint is saved, ENG_ECANCELLED. */
typedef bool (*eng_on_pretrain)(void *arg, const eng_pretrain_progress *progress);

/* Masked language modelling from random weights. Writes a model directory (config.json, vocab.txt,
 * model.safetensors in BertForMaskedLM's names) that eng_model_open reads. Same text, settings and
 * seed give the same bytes, whether or not the run was interrupted and resumed. A directory that has
 * a model or a checkpoint is refused unless `resume`; a checkpoint of other settings or text is
 * ENG_EMISMATCH. ENG_EDIVERGED when the loss is not finite; the last checkpoint stays. */
ENG_MUST_CHECK eng_status eng_pretrain_backbone(eng_compute *compute,
                                                const eng_pretrain_config *config,
                                                eng_on_pretrain on_progress, void *arg,
                                                eng_error *err);

/* Logits of the masked-language head that lies in the model's directory (cls.predictions.*, BertForMaskedLM's
 * names; the decoder is the word embeddings, as there): token type 0, no prompt, no dropout.
 *   ids (len), len 1 … positions   logits (len, vocab) overwritten
 * Reads the head and allocates on every call: for looking at a model. ENG_EUNSUPPORTED when the
 * directory has no such head, naming the tensors that are missing; ENG_EFORMAT for one that does not fit the
 * model; ENG_EINVAL for an id outside the vocabulary and for none; ENG_ELIMIT beyond the positions. */
ENG_MUST_CHECK eng_status eng_mlm_logits(eng_compute *compute, eng_class who,
                                         const eng_model *model, const int32_t *ids, size_t len,
                                         float *logits, eng_error *err);

/* ---- pre-training a bank ---------------------------------------------------------------------------------- */

/* Over the prompt positions of each module while it is trained; none of it is left in the bank. */
typedef enum eng_prompt_encoder {
    ENG_PROMPT_PLAIN, /* none */
    ENG_PROMPT_LSTM,
    ENG_PROMPT_TRANSFORMER
} eng_prompt_encoder;

/* A task drawn `weight` times as often as one that is not named; 1 to 1000. */
typedef struct eng_task_weight {
    const char *name;
    size_t weight;
} eng_task_weight;

typedef struct eng_prompts_config {
    eng_schedule schedule;
    const char *model; /* a model directory: the backbone */
    const char *bank; /* of that model and of the sizes below: modules, head and the routes of tasks
                       * that have a row of their name start from it; a deep bank may start from a
                       * shallow one, as its first layer. NULL: from random ones */
    const char *const *tasks; /* task folders, and folders of task folders */
    size_t n_tasks;
    const char *to; /* NAME.bank.safetensors; of joint training the model directory to make */
    bool deep;      /* a prompt for every layer, not only the first */
    bool tied;      /* deep: one route across the layers */
    size_t modules, prompt_tokens, intrinsic; /* K, P, d */
    int32_t prompt_token_offset, token_type;  /* -1: as a bank that does not say */
    eng_prompt_encoder encoder;               /* learns with lr_prompt */
    double lr_prompt, lr_route, lr_head;      /* 0: that group stays as it starts */
    double tau, tau_end; /* temperature of the relaxed Bernoulli, changed linearly over the steps */
    double dropout;
    size_t batch;      /* rows of one task, a step */
    size_t text_limit; /* code points of a text field; 0: what fits the model */
    size_t dev_rows;   /* of each task, at most */
    bool keep_order;   /* options in the order of the task; else shuffled for every example */
    const char *const
        *first; /* names of tasks: for first_steps steps only these, and their copies, are drawn */
    size_t n_first, first_steps;
    const eng_task_weight *weights; /* of tasks with their copies; of those not named 1 */
    size_t n_weights;
    size_t neutral; /* copies of each task with labels whose option words say nothing: NAME~1 … */
    size_t neutral_labels; /* … if it has at most so many labels */
    size_t
        rows_per_task; /* router rows of a task (and of a copy), its examples shared out by hash */
    bool joint;        /* the backbone learns too */
    double lr_backbone;
    const char *vocab;    /* joint without a model: a vocab.txt, and random weights of this shape */
    eng_model_info shape; /* layers, hidden, heads, ffn, positions */
    bool plain_start;     /* of random weights: as in eng_pretrain_config */
    double mlm_weight;    /* joint: weight of masked language modelling beside each step; 0: none */
    const char *const *text;   /* its text files */
    size_t n_text, mlm_tokens; /* of a step */
} eng_prompts_config;

/* The paper's sizes and steps for a wide backbone, to be changed field by field; the names are NULL. */
void eng_prompts_defaults(eng_prompts_config *config);

/* Multi-task pre-training of modules, routes and head. A step draws one task, all alike, and `batch` of
 * its training rows. Same tasks, settings and seed give the same bytes, interrupted or not.
 *   On a backbone that stays as it is: writes the bank whose mean dev score is best to `to`, as it finds
 *   it, and at the end the last to NAME.last.bank.safetensors: a router row for each task, of its name.
 *   NAME.checkpoint lies beside it until then.
 *   Joint: the backbone learns too, from its directory or from random weights. `to` is a model directory,
 *   its bank shallow.bank.safetensors or deep.bank.safetensors, the best of the run; to/last the last.
 *   A run that is killed while it writes a best pair and never resumed may leave weights and bank of
 *   two steps.
 * Errors as eng_pretrain_backbone, and eng_task_folder_open's. */
ENG_MUST_CHECK eng_status eng_pretrain_prompts(eng_compute *compute,
                                               const eng_prompts_config *config,
                                               eng_on_pretrain on_progress, void *arg,
                                               eng_error *err);

/* ---- benches ------------------------------------------------------------------------------------------------ */

/* Best seen rate, in GFLOP/s, of C (m,n) = A (m,k) · W (n,k)ᵀ over at least `seconds`.
 * kernel NULL: the compute's own; "openblas"; "peak": the FMA peak of the threads, shape ignored. */
ENG_MUST_CHECK eng_status eng_bench_gemm(eng_compute *compute, const char *kernel, size_t m,
                                         size_t n, size_t k, double seconds, double *gflops,
                                         eng_error *err);
/* Floating-point operations of one forward pass over sequences of these lengths. */
double eng_forward_flops(const eng_model *model, const size_t *lens, size_t n);
/* Seconds of one training step of a route (forward and backward) on `batch` sequences of `tokens`. */
ENG_MUST_CHECK eng_status eng_bench_train_step(eng_compute *compute, const eng_model *model,
                                               const eng_bank *bank, size_t tokens, size_t batch,
                                               double *seconds, eng_error *err);

#endif
