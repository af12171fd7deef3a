/* fault.c: fills an eng_error from the server's side of the engine's border. */
#include "server/fault.h"

#include <stdarg.h>

eng_status fault(eng_error *err, eng_status status, const char *field, const char *format, ...)
{
    if (err != NULL) {
        err->status = status;
        snprintf(err->field, sizeof err->field, "%s", field != NULL ? field : "");
        va_list args;
        va_start(args, format);
        vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
    }
    return status;
}

eng_status fault_nomem(eng_error *err, const char *field)
{
    return fault(err, ENG_ENOMEM, field, "out of memory; try again or ask for less");
}

bool mul_sizes(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

bool add_sizes(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}
