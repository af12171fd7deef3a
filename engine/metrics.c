/* metrics.c: macro F1 over a confusion matrix, and CMRC 2018's scores of an answer.
 *
 * CMRC's script (cmrc2018_evaluate.py) cuts a text into units and takes precision and recall of the
 * longest common contiguous run. It leaves runs of Latin letters to NLTK's tokenizer; we cut them at
 * blanks and ASCII punctuation, which differs only for contractions and abbreviations.
 */
#include "engine/metrics.h"

#include "engine/codepoints.h"
#include "engine/status.h"

#include <stdlib.h>
#include <string.h>

double metrics_macro_f1(const size_t *confusion, size_t labels)
{
    double sum = 0;
    size_t counted = 0;
    for (size_t i = 0; i < labels; i++) {
        size_t truth = 0, predicted = 0, right = confusion[i * labels + i];
        for (size_t j = 0; j < labels; j++) {
            truth += confusion[i * labels + j];
            predicted += confusion[j * labels + i];
        }
        if (truth + predicted > 0) {
            sum += 2.0 * (double)right / (double)(truth + predicted);
            counted++;
        }
    }
    return counted > 0 ? sum / (double)counted : 0.0;
}

/* ---- units of a text --------------------------------------------------------------------------- */

/* A unit is a run of code points of the lower-cased text without punctuation. */
struct units {
    int32_t *text;
    size_t *start; /* n + 1 borders in text */
    size_t n;
};

/* The marks CMRC leaves out, and no others. */
static bool is_left_out(int32_t c)
{
    static const int32_t marks[] = {
        '-',    ':',    '_',    '*',    '^',    '/',    '\\',   '~',    '`',    '+',    '=',
        0xFF0C, 0x3002, 0xFF1A, 0xFF1F, 0xFF01, 0x201C, 0x201D, 0xFF1B, 0x2019, 0x300A, 0x300B,
        0x2026, 0x00B7, 0x3001, 0x300C, 0x300D, 0xFF08, 0xFF09, 0xFF0D, 0xFF5E, 0x300E, 0x300F};
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++) {
        if (marks[i] == c) {
            return true;
        }
    }
    return false;
}

static bool is_space(int32_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || c == 0xA0 || c == 0x3000;
}

static bool is_own_unit(int32_t c)
{
    bool ascii_mark = c > ' ' && c < 0x7F && !(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'z');
    return (c >= 0x4E00 && c <= 0x9FA5) || ascii_mark;
}

static int32_t lower(int32_t c)
{
    return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

static eng_status units_make(eng_text text, struct units *units, eng_error *err)
{
    size_t most = cp_count(text) + 1, used = 0;
    bool open = false; /* the last unit may grow */
    units->n = 0;
    units->text = calloc(most, sizeof *units->text);
    units->start = calloc(most + 1, sizeof *units->start);
    if (units->text == NULL || units->start == NULL) {
        return fail_nomem(err, "answer");
    }
    for (size_t at = 0; at < text.len;) {
        int32_t c = cp_next(text, &at);
        if (c < 0) {
            break;
        }
        c = lower(c);
        if (is_space(c) || is_left_out(c)) {
            open = false;
            continue;
        }
        bool alone = is_own_unit(c);
        if (alone || !open) {
            units->start[units->n++] = used;
        }
        open = !alone;
        units->text[used++] = c;
        units->start[units->n] = used;
    }
    return ENG_OK;
}

static void units_fini(struct units *units)
{
    free(units->text);
    free(units->start);
}

static bool same_unit(const struct units *a, size_t i, const struct units *b, size_t j)
{
    size_t len = a->start[i + 1] - a->start[i];
    return len == b->start[j + 1] - b->start[j] &&
           memcmp(a->text + a->start[i], b->text + b->start[j], len * sizeof *a->text) == 0;
}

/* Length of the longest run of units that both hold. `row` has b->n + 1 zeros. */
static size_t longest_common_run(const struct units *a, const struct units *b, size_t *row)
{
    size_t best = 0;
    for (size_t i = 0; i < a->n; i++) {
        for (size_t j = b->n; j > 0; j--) { /* backwards: row[j - 1] is still of unit i - 1 */
            row[j] = same_unit(a, i, b, j - 1) ? row[j - 1] + 1 : 0;
            best = row[j] > best ? row[j] : best;
        }
    }
    return best;
}

eng_status metrics_answer(eng_text truth, eng_text guess, struct answer_score *score,
                          eng_error *err)
{
    struct units a = {0}, b = {0};
    size_t *row = NULL;
    *score = (struct answer_score){0};
    eng_status status = units_make(truth, &a, err);
    if (status == ENG_OK) {
        status = units_make(guess, &b, err);
    }
    if (status == ENG_OK && (row = calloc(b.n + 1, sizeof *row)) == NULL) {
        status = fail_nomem(err, "answer");
    }
    if (status != ENG_OK) {
        goto out;
    }
    if (a.n == 0 || b.n == 0) {
        score->exact = score->f1 = a.n == b.n ? 1.0 : 0.0;
        goto out;
    }
    size_t common = longest_common_run(&a, &b, row);
    score->f1 = 2.0 * (double)common / (double)(a.n + b.n);
    score->exact = common == a.n && common == b.n ? 1.0 : 0.0;
out:
    free(row);
    units_fini(&a);
    units_fini(&b);
    return status;
}

double eng_macro_f1(const size_t *confusion, size_t labels)
{
    return metrics_macro_f1(confusion, labels);
}

eng_status eng_score_answer(eng_text truth, eng_text guess, double *exact, double *f1,
                            eng_error *err)
{
    struct answer_score score = {0};
    eng_status status = metrics_answer(truth, guess, &score, err);
    *exact = score.exact;
    *f1 = score.f1;
    return status;
}
