/* mrc_window.c: the part of a long context that a question is most likely about.
 *
 *     score of a window = Σ over the pairs of neighbouring tokens of the question that occur in it
 *                         of 1 / (how often the pair occurs in the context)
 *
 * A pair that the whole context is full of says little about where to look. Windows begin at every token and
 * reach as far as they may, so one pass with two ends scores them all: O(n log q) for a context of n tokens
 * and a question of q.
 */
#include "engine/mrc_window.h"

#include "engine/status.h"

#include <stdlib.h>
#include <string.h>

#define NO_PAIR SIZE_MAX

struct pair {
    uint64_t tokens;
    double in_context; /* occurrences */
    size_t in_window;
};

struct windows {
    const struct window_ask *ask;
    struct pair *pairs; /* (n_pairs) of the question, sorted, each once */
    size_t n_pairs;
    size_t *pair_at; /* (n) the pair that tokens i and i + 1 are, or NO_PAIR */
    size_t from, to; /* the window [from, to) */
    double score;
};

/* ---- windows ------------------------------------------------------------------------------------------ */

static bool fits(const struct window_ask *ask, size_t from, size_t to)
{
    size_t span = to > from ? ask->tokens[to - 1].end - ask->tokens[from].start : 0;
    return to - from <= ask->most_tokens &&
           (ask->most_code_points == 0 || span <= ask->most_code_points);
}

/* End of the window that begins at `from`, not before `to`. */
static size_t reach(const struct window_ask *ask, size_t from, size_t to)
{
    while (to < ask->n && fits(ask, from, to + 1)) {
        to++;
    }
    return to;
}

size_t window_room(const struct window_ask *ask)
{
    size_t room = 0;
    for (size_t from = 0, to = 0; from < ask->n; from++) {
        to = reach(ask, from, to > from ? to : from);
        room = to - from > room ? to - from : room;
        if (to == ask->n) {
            break; /* those behind are shorter */
        }
    }
    return room;
}

/* ---- pairs ------------------------------------------------------------------------------------------------ */

static uint64_t pair_of(const eng_token *tokens)
{
    return (uint64_t)(uint32_t)tokens[0].id << 32 | (uint32_t)tokens[1].id;
}

static int by_tokens(const void *a, const void *b)
{
    uint64_t x = ((const struct pair *)a)->tokens, y = ((const struct pair *)b)->tokens;
    return (x > y) - (x < y);
}

static void take_pairs(struct windows *windows, const struct token_list *list,
                       const struct token_range *asked, size_t n_asked)
{
    size_t n = 0, kept = 0;
    for (size_t a = 0; a < n_asked; a++) {
        for (size_t i = 0; i + 1 < asked[a].n; i++) {
            windows->pairs[n++] =
                (struct pair){.tokens = pair_of(list->tokens + asked[a].first + i)};
        }
    }
    if (n > 0) {
        qsort(windows->pairs, n, sizeof *windows->pairs, by_tokens);
    }
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || windows->pairs[i].tokens != windows->pairs[kept - 1].tokens) {
            windows->pairs[kept++] = windows->pairs[i];
        }
    }
    windows->n_pairs = kept;
}

static void find_pairs(struct windows *windows)
{
    const struct window_ask *ask = windows->ask;
    for (size_t i = 0; i < ask->n; i++) {
        struct pair *found = NULL;
        if (i + 1 < ask->n && windows->n_pairs > 0) {
            struct pair wanted = {.tokens = pair_of(ask->tokens + i)};
            found = bsearch(&wanted, windows->pairs, windows->n_pairs, sizeof wanted, by_tokens);
        }
        windows->pair_at[i] = found != NULL ? (size_t)(found - windows->pairs) : NO_PAIR;
        if (found != NULL) {
            found->in_context++;
        }
    }
}

/* Token `to` joins the window, and with it the pair that ends there. */
static void grow(struct windows *windows)
{
    size_t pair = windows->to > windows->from ? windows->pair_at[windows->to - 1] : NO_PAIR;
    windows->to++;
    if (pair != NO_PAIR && windows->pairs[pair].in_window++ == 0) {
        windows->score += 1 / windows->pairs[pair].in_context;
    }
}

/* Token `from` leaves. */
static void shrink(struct windows *windows)
{
    size_t pair = windows->to > windows->from + 1 ? windows->pair_at[windows->from] : NO_PAIR;
    windows->from++;
    if (pair != NO_PAIR && --windows->pairs[pair].in_window == 0) {
        windows->score -= 1 / windows->pairs[pair].in_context;
    }
}

/* ---- choosing -------------------------------------------------------------------------------------------- */

#define ROUNDING 1e-9 /* what adding and taking away again may leave */

/* Of the first windows in a row that share most the middle one, for there what they share is in the middle;
 * the beginning where that is one of them, for texts begin with what they are about. Their score is left in
 * windows->score. */
static struct token_range best_of(struct windows *windows)
{
    const struct window_ask *ask = windows->ask;
    size_t first = 0, last = 0;
    double top = -1;
    do {
        for (size_t end = reach(ask, windows->from, windows->to); windows->to < end;) {
            grow(windows);
        }
        if (windows->score > top + ROUNDING) {
            top = windows->score;
            first = last = windows->from;
        } else if (windows->score > top - ROUNDING && windows->from == last + 1) {
            last = windows->from;
        }
        shrink(windows);
    } while (windows->to < ask->n && windows->from < ask->n);
    windows->score = top;
    first += first > 0 ? (last - first) / 2 : 0;
    return (struct token_range){first, reach(ask, first, first) - first};
}

static bool holds(struct token_range window, struct token_range part)
{
    return window.first <= part.first && part.first + part.n <= window.first + window.n;
}

/* The first window that holds the answer and has no more before it than behind; at the end of the context
 * the last one. An answer longer than any window: where it begins. */
static struct token_range around(const struct window_ask *ask)
{
    struct token_range window = {0, 0};
    for (size_t from = 0, to = 0; from <= ask->answer.first; from++) {
        to = reach(ask, from, to > from ? to : from);
        window = (struct token_range){from, to - from};
        if (to == ask->n ||
            (holds(window, ask->answer) &&
             (from == 0 || 2 * (ask->answer.first - from) + ask->answer.n <= window.n))) {
            break;
        }
    }
    return window;
}

eng_status window_choose(const struct window_ask *ask, const struct token_list *list,
                         const struct token_range *asked, size_t n_asked, struct token_range *out,
                         eng_error *err)
{
    struct window_ask narrow = *ask;
    struct windows windows = {.ask = &narrow};
    eng_status status = ENG_OK;
    size_t most = 0;
    if (ask->narrow > 0 && ask->narrow < ask->most_tokens) {
        narrow.most_tokens = ask->narrow;
    }
    for (size_t a = 0; a < n_asked; a++) {
        most += asked[a].n;
    }
    windows.pairs = calloc(most + 1, sizeof *windows.pairs);
    windows.pair_at = calloc(ask->n + 1, sizeof *windows.pair_at);
    if (windows.pairs == NULL || windows.pair_at == NULL) {
        status = fail_nomem(err, "context");
    } else {
        take_pairs(&windows, list, asked, n_asked);
        find_pairs(&windows);
        *out = best_of(&windows);
        if (windows.score <= ROUNDING) {
            *out = (struct token_range){0, reach(ask, 0, 0)};
        }
        if (ask->answer.n > 0 && !holds(*out, ask->answer)) {
            *out = around(&narrow);
        }
    }
    free(windows.pairs);
    free(windows.pair_at);
    return status;
}
