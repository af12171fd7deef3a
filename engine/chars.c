/* chars.c: the Unicode properties behind BERT's normaliser, from utf8proc.
 *
 * The reference is the Rust code in Hugging Face's `tokenizers`, which every fast BertTokenizer runs.
 * Its category tables stopped at Unicode 8: marks and punctuation encoded since are ordinary letters
 * to it. Models were trained through those tables, so newer_than_unicode8 keeps them (five hundred
 * code points of rare scripts). Its test over all code points is tests/unit/test_tokenizer.c.
 */
#include "engine/chars.h"

#include <utf8proc.h>

struct range {
    uint32_t first, last;
};

/* Marks, punctuation and formats encoded after Unicode 8 (ranges may hold letters between them). */
static const struct range newer_than_unicode8[] = {
    {0x061D, 0x061D},   {0x07FD, 0x07FD},   {0x0890, 0x08E2},   {0x09FD, 0x09FE},
    {0x0A76, 0x0A76},   {0x0AFA, 0x0AFF},   {0x0B55, 0x0B55},   {0x0C04, 0x0C3C},
    {0x0C77, 0x0C77},   {0x0C84, 0x0C84},   {0x0D00, 0x0D00},   {0x0D3B, 0x0D3C},
    {0x0D81, 0x0D81},   {0x0EBA, 0x0EBA},   {0x0ECE, 0x0ECE},   {0x180F, 0x1886},
    {0x1ABF, 0x1ACE},   {0x1B7D, 0x1B7E},   {0x1DF6, 0x1DFB},   {0x2E43, 0x2E5D},
    {0xA82C, 0xA82C},   {0xA8C5, 0xA8C5},   {0xA8FF, 0xA8FF},   {0xA9BD, 0xA9BD},
    {0x10D24, 0x10F89}, {0x11070, 0x11074}, {0x110C2, 0x110CD}, {0x111CF, 0x111CF},
    {0x1123E, 0x11241}, {0x1133B, 0x1133B}, {0x11438, 0x1145E}, {0x11660, 0x1166C},
    {0x116B9, 0x116B9}, {0x1182F, 0x11FFF}, {0x12FF1, 0x13455}, {0x16E97, 0x16F4F},
    {0x16FE2, 0x16FE4}, {0x1CF00, 0x1CF46}, {0x1E000, 0x1E4EF}, {0x1E944, 0x1E95F},
};

static bool in_ranges(uint32_t c, const struct range *ranges, size_t n)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (c > ranges[middle].last) {
            low = middle + 1;
        } else if (c < ranges[middle].first) {
            high = middle;
        } else {
            return true;
        }
    }
    return false;
}

static bool is_newer(uint32_t c)
{
    return c > 0x600 &&
           in_ranges(c, newer_than_unicode8, sizeof newer_than_unicode8 / sizeof(struct range));
}

static utf8proc_category_t category(uint32_t c)
{
    return utf8proc_category((utf8proc_int32_t)c);
}

bool chars_is_space(uint32_t c)
{
    if (c == '\t' || c == '\n' || c == '\r') {
        return true;
    }
    utf8proc_category_t kind = category(c);
    return kind == UTF8PROC_CATEGORY_ZS || kind == UTF8PROC_CATEGORY_ZL ||
           kind == UTF8PROC_CATEGORY_ZP;
}

bool chars_is_dropped(uint32_t c)
{
    if (c == 0 || c == 0xFFFD) {
        return true;
    }
    if (c == '\t' || c == '\n' || c == '\r' || is_newer(c)) {
        return false;
    }
    utf8proc_category_t kind = category(c);
    return kind == UTF8PROC_CATEGORY_CC || kind == UTF8PROC_CATEGORY_CF ||
           kind == UTF8PROC_CATEGORY_CO;
}

bool chars_is_cjk(uint32_t c)
{
    /* 2B920 is the reference's own: the block begins at 2B820. */
    static const struct range ideographs[] = {
        {0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},   {0x20000, 0x2A6DF},
        {0x2A700, 0x2B73F}, {0x2B740, 0x2B81F}, {0x2B920, 0x2CEAF}, {0x2F800, 0x2FA1F},
    };
    return c >= 0x3400 && in_ranges(c, ideographs, sizeof ideographs / sizeof ideographs[0]);
}

bool chars_is_mark(uint32_t c)
{
    if (c == 0x1734 || c == 0x111C9) {
        return c == 0x1734; /* their categories have changed since Unicode 8 */
    }
    return c >= 0x300 && category(c) == UTF8PROC_CATEGORY_MN && !is_newer(c);
}

bool chars_is_punctuation(uint32_t c)
{
    if (c < 0x80) {
        return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) ||
               (c >= 123 && c <= 126);
    }
    if (c == 0x166D || c == 0x111C9) {
        return true; /* as above */
    }
    utf8proc_category_t kind = category(c);
    return kind >= UTF8PROC_CATEGORY_PC && kind <= UTF8PROC_CATEGORY_PO && !is_newer(c);
}

uint8_t chars_combining_class(uint32_t c)
{
    return (uint8_t)utf8proc_get_property((utf8proc_int32_t)c)->combining_class;
}

size_t chars_decompose(uint32_t c, uint32_t out[CHARS_MAX_DECOMPOSED])
{
    utf8proc_int32_t buffer[CHARS_MAX_DECOMPOSED];
    utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)c, buffer, CHARS_MAX_DECOMPOSED,
                                                 UTF8PROC_DECOMPOSE, NULL);
    if (n <= 0 || n > CHARS_MAX_DECOMPOSED) {
        out[0] = c;
        return 1;
    }
    for (size_t i = 0; i < (size_t)n; i++) {
        out[i] = (uint32_t)buffer[i];
    }
    return (size_t)n;
}

size_t chars_lower(uint32_t c, uint32_t out[CHARS_MAX_LOWER])
{
    if (c == 0x130) { /* İ: the one character whose lower case is two */
        out[0] = 'i';
        out[1] = 0x307;
        return 2;
    }
    out[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
    return 1;
}
