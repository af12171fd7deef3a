/* ask.h: one request's prediction, between the endpoints that ask in different dialects and the batcher.
 *
 *     struct ask *ask = ask_new(req, version);        loop; takes the version
 *     ask->inputs = …; ask->write = write_my_dialect;
 *     ask_send(ask);                                  parks the request
 *     … inputs are read on the encoding thread, computed in batches …
 *     ask->write(ask, out)                            when all is computed; errors are replied here
 *
 * Threads.   Loop thread. While the request is parked the encoding thread reads the JSON and allocates
 *            from the request's arena.
 * Lifetime.  The ask lives with its request, answers included.
 */
#ifndef SERVER_ASK_H
#define SERVER_ASK_H

#include "server/batcher.h"
#include "server/http.h"
#include "server/textout.h"

struct ask {
    struct request *req;
    struct prediction prediction;
    struct version *version;
    const json_t *inputs; /* array of strings and objects, at least one */
    const char *pointer;  /* of the inputs, "#/inputs" */
    bool alone;           /* a façade's only input, `pointer` is its own */
    /* What stands before the parts of a task that came with the request in a pointer: "#/", "#/task/".
     * NULL: the request named a task. */
    const char *inline_prefix;
    json_t *keep;        /* taken: inputs that the endpoint made itself, or NULL */
    size_t max_text;     /* bytes of a text */
    size_t top_k;        /* 0: not asked */
    size_t max_answer;   /* tokens of a span; 0: the engine's own bound */
    unsigned want;       /* of the endpoint */
    const void *dialect; /* the endpoint's own, for `write`; in the request's arena */
    /* Writes the answer's JSON. Runs on the loop, or on a worker when the answer is long: reads the ask
     * and nothing else. */
    void (*write)(const struct ask *ask, struct text_out *out);

    uint64_t taken; /* tokens counted against the quotas: an estimate until it ends */
    enum fair_verdict verdict;
    struct problems *problems; /* of the inputs, or NULL */
    struct text_out out;
};

/* NULL: replied 503 already, the version was given back. */
struct ask *ask_new(struct request *req, struct version *version);
/* Admits it or replies 503. */
void ask_send(struct ask *ask);

/* A problem at `key` of the body when a request may not have n inputs. */
void ask_check_count(struct request *req, const char *key, size_t n, struct problems *problems);

/* The i-th field value of input i named `name`; length 0 when absent. For answers that quote. */
eng_text ask_field(const struct ask *ask, size_t input, const char *name);
/* Options of answer i by falling probability; returns how many. */
size_t ask_order(const struct ask *ask, size_t input, size_t order[ENG_MAX_LABELS]);
/* The words of option `option` of input i. */
eng_text ask_option(const struct ask *ask, size_t input, size_t option);
/* Bytes [*from, *to) of the code points [start, end) of valid UTF-8 text. */
void code_point_range(eng_text text, size_t start, size_t end, size_t *from, size_t *to);

/* The words of a span of input i; none when there is no answer. */
eng_text ask_span_text(const struct ask *ask, size_t input, const eng_span *span);

/* ---- writing ------------------------------------------------------------------------------------ */

/* "key":value,"score":… */
void ask_write_scored(struct text_out *out, const char *key, eng_text value, double score);
/* "answer":…,"score":…,"start":…,"end":… of the k-th best span; no answer when there is none. */
void ask_write_span(const struct ask *ask, size_t input, size_t k, struct text_out *out);

#endif
