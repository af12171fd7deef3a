/* test_mrc_window.c: which part of a long context is read, against every window scored by its definition. */
#include "engine/mrc_window.h"
#include "engine/rng.h"
#include "tests/unit/test.h"

#include <math.h>
#include <stdlib.h>

enum { CONTEXT = 60, ASKED = 12, LIST = 2 * ASKED };

struct example {
    eng_token context[CONTEXT], list[LIST];
    struct token_range asked[2];
    struct token_list tokens;
};

/* Few different tokens, so that pairs recur; some two code points long, some a space apart. */
static void make(struct rng *rng, struct example *out)
{
    uint32_t at = 0;
    for (size_t i = 0; i < CONTEXT; i++) {
        at += rng_below(rng, 8) == 0;
        uint32_t len = 1 + (uint32_t)(rng_below(rng, 4) == 0);
        out->context[i] =
            (eng_token){.id = (int32_t)rng_below(rng, 9), .start = at, .end = at + len};
        at += len;
    }
    for (size_t i = 0; i < LIST; i++) {
        out->list[i] = (eng_token){.id = (int32_t)rng_below(rng, 9)};
    }
    out->asked[0] = (struct token_range){0, rng_below(rng, ASKED)};
    out->asked[1] = (struct token_range){ASKED, rng_below(rng, ASKED)};
    out->tokens = (struct token_list){out->list, LIST, LIST};
}

static bool pair_in(const eng_token *tokens, size_t n, const eng_token *pair, double *times)
{
    *times = 0;
    for (size_t i = 0; i + 1 < n; i++) {
        *times += tokens[i].id == pair[0].id && tokens[i + 1].id == pair[1].id;
    }
    return *times > 0;
}

static double score_of(const struct example *example, struct token_range window)
{
    double score = 0, times, before;
    for (size_t a = 0; a < 2; a++) {
        for (size_t i = 0; i + 1 < example->asked[a].n; i++) {
            const eng_token *pair = example->list + example->asked[a].first + i;
            bool again = pair_in(example->list + example->asked[a].first, i + 1, pair, &before);
            again = again || (a == 1 && pair_in(example->list, example->asked[0].n, pair, &before));
            if (!again && pair_in(example->context + window.first, window.n, pair, &times)) {
                pair_in(example->context, CONTEXT, pair, &times);
                score += 1 / times;
            }
        }
    }
    return score;
}

static size_t span_of(const struct example *example, size_t from, size_t to)
{
    return example->context[to - 1].end - example->context[from].start;
}

/* The window that begins at `from`. */
static struct token_range window_at(const struct example *example, const struct window_ask *ask,
                                    size_t from)
{
    size_t to = from;
    while (
        to < CONTEXT && to - from < ask->most_tokens &&
        (ask->most_code_points == 0 || span_of(example, from, to + 1) <= ask->most_code_points)) {
        to++;
    }
    return (struct token_range){from, to - from};
}

static void best_of_all_windows(void)
{
    struct rng rng;
    rng_seed(&rng, 8);
    for (size_t round = 0; round < 2000; round++) {
        struct example example;
        struct token_range got, room;
        make(&rng, &example);
        struct window_ask ask = {.tokens = example.context,
                                 .n = CONTEXT,
                                 .most_tokens = 1 + rng_below(&rng, CONTEXT),
                                 .most_code_points = round % 3 == 0 ? 1 + rng_below(&rng, 80) : 0};
        REQUIRE(window_choose(&ask, &example.tokens, example.asked, 2, &got, NULL) == ENG_OK);
        size_t largest = 0;
        double best = 0;
        for (size_t from = 0; from < CONTEXT; from++) {
            room = window_at(&example, &ask, from);
            largest = room.n > largest ? room.n : largest;
            best = fmax(best, score_of(&example, room));
        }
        CHECK_INT(window_room(&ask), largest);
        CHECK_NEAR(score_of(&example, got), best, 1e-9);
        /* of the first row of the best the middle, or the beginning */
        size_t first = 0, last = 0;
        while (score_of(&example, window_at(&example, &ask, first)) < best - 1e-9) {
            first++;
        }
        for (last = first; last + 1 < CONTEXT; last++) {
            room = window_at(&example, &ask, last);
            if (room.first + room.n == CONTEXT ||
                score_of(&example, window_at(&example, &ask, last + 1)) < best - 1e-9) {
                break;
            }
        }
        CHECK_INT(got.first, first > 0 ? first + (last - first) / 2 : 0);
        room = window_at(&example, &ask, got.first);
        CHECK(got.first == room.first && got.n == room.n);
    }
}

static void narrow_where_the_question_says(void)
{
    struct example example = {.asked = {{0, 2}, {2, 0}}};
    struct token_range got;
    for (size_t i = 0; i < CONTEXT; i++) {
        uint32_t at = (uint32_t)i;
        example.context[i] = (eng_token){.id = (int32_t)i, .start = at, .end = at + 1};
    }
    example.list[0].id = 40;
    example.list[1].id = 41;
    example.tokens = (struct token_list){example.list, LIST, LIST};
    struct window_ask ask = {
        .tokens = example.context, .n = CONTEXT, .most_tokens = 50, .narrow = 10};
    REQUIRE(window_choose(&ask, &example.tokens, example.asked, 2, &got, NULL) == ENG_OK);
    CHECK(got.first == 36 && got.n == 10); /* those from 32 to 40 have the pair */
    example.list[1].id = 40;               /* no such pair: the beginning, and all of the room */
    REQUIRE(window_choose(&ask, &example.tokens, example.asked, 2, &got, NULL) == ENG_OK);
    CHECK(got.first == 0 && got.n == 50);
    REQUIRE(window_choose(&ask, &example.tokens, NULL, 0, &got, NULL) == ENG_OK);
    CHECK(got.first == 0 && got.n == 50);
    /* an answer in view stays there; one that is not gets its own window */
    ask.answer = (struct token_range){20, 3};
    REQUIRE(window_choose(&ask, &example.tokens, example.asked, 2, &got, NULL) == ENG_OK);
    CHECK(got.first == 0 && got.n == 50);
    example.list[1].id = 41;
    REQUIRE(window_choose(&ask, &example.tokens, example.asked, 2, &got, NULL) == ENG_OK);
    CHECK(got.first == 17 && got.n == 10);
    ask.answer = (struct token_range){57, 3};
    REQUIRE(window_choose(&ask, &example.tokens, example.asked, 2, &got, NULL) == ENG_OK);
    CHECK(got.first == 50 && got.n == 10);
    ask.answer = (struct token_range){30, 20}; /* longer than the window */
    REQUIRE(window_choose(&ask, &example.tokens, example.asked, 2, &got, NULL) == ENG_OK);
    CHECK(got.first == 30 && got.n == 10);
}

static void answers_stay_in_view(void)
{
    struct rng rng;
    rng_seed(&rng, 13);
    for (size_t round = 0; round < 2000; round++) {
        struct example example;
        struct token_range got;
        make(&rng, &example);
        struct window_ask ask = {.tokens = example.context,
                                 .n = CONTEXT,
                                 .most_tokens = 6 + rng_below(&rng, 30),
                                 .narrow = round % 2 * 6,
                                 .answer = {rng_below(&rng, CONTEXT - 4), 1 + rng_below(&rng, 4)}};
        REQUIRE(window_choose(&ask, &example.tokens, example.asked, 2, &got, NULL) == ENG_OK);
        CHECK(got.first <= ask.answer.first &&
              ask.answer.first + ask.answer.n <= got.first + got.n);
        CHECK(got.n <= ask.most_tokens && got.first + got.n <= CONTEXT);
    }
}

/* A word longer than the limit: nothing of it can be read, and the others still can. */
static void words_wider_than_the_window(void)
{
    struct example example = {.asked = {{0, 2}, {2, 0}}};
    struct token_range got;
    for (size_t i = 0; i < CONTEXT; i++) {
        uint32_t at = 10 * (uint32_t)i;
        example.context[i] = (eng_token){.id = 1, .start = at, .end = at + (i == 30 ? 2 : 10)};
    }
    example.tokens = (struct token_list){example.list, LIST, LIST};
    struct window_ask ask = {
        .tokens = example.context, .n = CONTEXT, .most_tokens = 50, .most_code_points = 5};
    CHECK_INT(window_room(&ask), 1);
    REQUIRE(window_choose(&ask, &example.tokens, example.asked, 2, &got, NULL) == ENG_OK);
    CHECK(got.n <= 1);
}

int main(void)
{
    TESTS_BEGIN;
    RUN(best_of_all_windows);
    RUN(narrow_where_the_question_says);
    RUN(answers_stay_in_view);
    RUN(words_wider_than_the_window);
    TESTS_END;
}
