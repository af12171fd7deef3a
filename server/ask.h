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
    bool is_inline;       /* the task came with the request: its faults are the request's */
    size_t max_text;      /* bytes of a text */
    size_t top_k;         /* 0: not asked */
    unsigned want;        /* of the endpoint */
    /* Writes the answer's JSON. Runs on the loop, or on a worker when the answer is long: reads the ask
     * and nothing else. */
    void (*write)(const struct ask *ask, struct text_out *out);

    enum fair_verdict verdict;
    struct problems *problems; /* of the inputs, or NULL */
    struct text_out out;
};

/* NULL: replied 503 already, the version was given back. */
struct ask *ask_new(struct request *req, struct version *version);
/* Admits it or replies 503. */
void ask_send(struct ask *ask);

/* The i-th field value of input i named `name`; length 0 when absent. For answers that quote. */
eng_text ask_field(const struct ask *ask, size_t input, const char *name);
/* Options of answer i by falling probability; returns how many. */
size_t ask_order(const struct ask *ask, size_t input, size_t order[ENG_MAX_LABELS]);
/* The words of option `option` of input i. */
eng_text ask_option(const struct ask *ask, size_t input, size_t option);
/* Bytes [*from, *to) of the code points [start, end) of valid UTF-8 text. */
void code_point_range(eng_text text, size_t start, size_t end, size_t *from, size_t *to);

#endif
