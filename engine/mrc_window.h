/* mrc_window.h (private): which part of a context is read where not all of it can be. */
#ifndef ENGINE_MRC_WINDOW_H
#define ENGINE_MRC_WINDOW_H

#include "engine/task.h"

/* What a window is cut from and how large it may be. */
struct window_ask {
    const eng_token *tokens; /* (n) of the context, in order */
    size_t n;
    size_t most_tokens;        /* > 0 */
    size_t narrow;             /* of them, where the question says which; 0: all */
    size_t most_code_points;   /* 0: any number */
    struct token_range answer; /* to be kept in view, of a training row; n = 0: none */
};

/* Tokens of the largest window there is. */
size_t window_room(const struct window_ask *ask);

/* The window that shares most with the question; the beginning, as wide as may be, where none shares
 * anything; of a training row one around the answer when that one lacks it.   asked: n_asked ranges of `list`, the question's fields.   *out: tokens of the context. */
ENG_MUST_CHECK eng_status window_choose(const struct window_ask *ask, const struct token_list *list,
                                        const struct token_range *asked, size_t n_asked,
                                        struct token_range *out, eng_error *err);

#endif
