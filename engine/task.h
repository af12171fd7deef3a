/* task.h (private): a compiled task, and an input written as one sequence.
 *
 * task.c makes tasks, mrc_encode.c sequences, mrc_decode.c reads answers out of them. Neither struct
 * changes after it is made.
 */
#ifndef ENGINE_TASK_H
#define ENGINE_TASK_H

#include "engine/engine.h"
#include "engine/template.h"
#include "engine/tokenizer.h"

/* Tokens [first, first + n) of some list or sequence. */
struct token_range {
    size_t first, n;
};

/* Options (labels of a task, or of one choice example) as tokens. */
struct option_list {
    struct token_list tokens;
    struct token_range *ranges; /* (n) */
    size_t n;
};

/* Tokenises n options. `what` ("labels", "options") names them in errors: ENG_EINVAL for one that is
 * not UTF-8 or leaves no token (empty, only spaces or controls). */
ENG_MUST_CHECK eng_status option_list_init(struct option_list *list,
                                           const struct tokenizer *tokenizer, const char *what,
                                           const eng_text *options, size_t n, eng_error *err);
void option_list_fini(struct option_list *list);

struct eng_task {
    const eng_model *model;
    const eng_bank *bank;
    eng_task_type type;
    bool may_have_no_answer;
    struct template template;
    struct token_list literals;
    struct token_range literal[TEMPLATE_MAX_PIECES]; /* of piece i, when it is one */
    struct token_list separator;
    char **labels; /* (n_labels) strings */
    size_t n_labels;
    struct option_list options; /* the labels' tokens */
    size_t fixed;           /* tokens of every sequence beside field texts and a choice's options */
    size_t context;         /* extractive: the field answers are taken from */
    size_t no_answer_piece; /* the literal with the words 没有答案 … */
    struct token_range no_answer; /* … and their tokens in it */
};

/* The same task (its labels keep their names, so rows of a set still fit), but its options read `words`
 * (n_labels). Errors as eng_task_new. */
ENG_MUST_CHECK eng_status task_reworded(const eng_task *task, const eng_text *words, eng_task **out,
                                        eng_error *err);

struct eng_encoded {
    int32_t *ids; /* (len) */
    size_t len;
    struct token_range *options; /* (n_options) positions in ids */
    size_t n_options;
    struct token_range context;   /* positions; extractive */
    eng_token *context_tokens;    /* (context.n) offsets in the caller's context */
    bool front_cut, back_cut;     /* of the context */
    struct token_range no_answer; /* positions; n = 0 when there must be an answer */
    size_t truncated;
    uint32_t *read; /* (n_read) positions that decoding reads, ascending */
    size_t n_read;
};

#endif
