/* status.c: names of the status codes, filling an eng_error, checked sizes. */
#include "engine/status.h"

#include <stdarg.h>
#include <string.h>

static const char *const status_names[] = {
#define STATUS_NAME(name, text) #name,
    ENG_STATUS_LIST(STATUS_NAME)
#undef STATUS_NAME
};

static const char *const status_texts[] = {
#define STATUS_TEXT(name, text) text,
    ENG_STATUS_LIST(STATUS_TEXT)
#undef STATUS_TEXT
};

static const size_t status_count = sizeof status_names / sizeof status_names[0];

const char *eng_status_name(eng_status status)
{
    return (size_t)status < status_count ? status_names[status] : "ENG_UNKNOWN";
}

const char *eng_status_text(eng_status status)
{
    return (size_t)status < status_count ? status_texts[status] : "unknown status";
}

/* Drops a UTF-8 sequence that the end of the buffer cut in two. */
static void trim_partial_utf8(char *text, size_t size)
{
    size_t len = strlen(text);
    if (len + 1 < size) {
        return;
    }
    size_t i = len;
    while (i > 0 && ((unsigned char)text[i - 1] & 0xC0) == 0x80) {
        i--;
    }
    if (i > 0 && (unsigned char)text[i - 1] >= 0xC0) {
        text[i - 1] = '\0';
    }
}

/* Texts quote names from files and requests; what would steer a terminal or break a log line is '?'. */
static void scrub(char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7F) {
            *text = '?';
        }
    }
}

eng_status fail(eng_error *err, eng_status status, const char *field, const char *format, ...)
{
    if (err == NULL) {
        return status;
    }
    err->status = status;
    snprintf(err->field, sizeof err->field, "%s", field != NULL ? field : "");
    trim_partial_utf8(err->field, sizeof err->field);
    va_list args;
    va_start(args, format);
    vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    trim_partial_utf8(err->text, sizeof err->text);
    scrub(err->field);
    scrub(err->text);
    return status;
}

eng_status fail_nomem(eng_error *err, const char *field)
{
    return fail(err, ENG_ENOMEM, field, "out of memory; free some or ask for less");
}

bool size_mul(size_t a, size_t b, size_t *out)
{
    if (__builtin_mul_overflow(a, b, out)) {
        *out = 0;
        return false;
    }
    return true;
}

bool size_add(size_t a, size_t b, size_t *out)
{
    if (__builtin_add_overflow(a, b, out)) {
        *out = 0;
        return false;
    }
    return true;
}
