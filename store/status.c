/* status.c: names of the status codes, filling a store_error. */
#include "store/db.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const status_names[] = {
#define STATUS_NAME(name, text) #name,
    STORE_STATUS_LIST(STATUS_NAME)
#undef STATUS_NAME
};

static const char *const status_texts[] = {
#define STATUS_TEXT(name, text) text,
    STORE_STATUS_LIST(STATUS_TEXT)
#undef STATUS_TEXT
};

static const size_t status_count = sizeof status_names / sizeof status_names[0];

const char *store_status_name(store_status status)
{
    return (size_t)status < status_count ? status_names[status] : "STORE_UNKNOWN";
}

const char *store_status_text(store_status status)
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

store_status db_fail(store_error *err, store_status status, const char *field, const char *format,
                     ...)
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
    return status;
}

store_status db_fail_nomem(store_error *err)
{
    return db_fail(err, STORE_ENOMEM, NULL, "out of memory; free some or ask for less");
}

static store_status status_of_constraint(int code)
{
    switch (code) {
    case SQLITE_CONSTRAINT_UNIQUE:
    case SQLITE_CONSTRAINT_PRIMARYKEY:
    case SQLITE_CONSTRAINT_ROWID:
        return STORE_EEXISTS;
    case SQLITE_CONSTRAINT_FOREIGNKEY:
        return STORE_ENOTFOUND;
    case SQLITE_CONSTRAINT_TRIGGER:
        return STORE_ESTATE;
    default:
        return STORE_EINVAL;
    }
}

static store_status status_of_code(int code)
{
    if (code == SQLITE_IOERR_NOMEM) {
        return STORE_ENOMEM;
    }
    switch (code & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
        return STORE_OK;
    case SQLITE_NOMEM:
        return STORE_ENOMEM;
    case SQLITE_FULL:
        return STORE_EFULL;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return STORE_ECORRUPT;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return STORE_EBUSY;
    case SQLITE_READONLY:
        return STORE_EREADONLY;
    case SQLITE_TOOBIG:
        return STORE_ELIMIT;
    case SQLITE_CONSTRAINT:
        return status_of_constraint(code);
    case SQLITE_MISMATCH:
        return STORE_EINVAL;
    default:
        return STORE_EIO;
    }
}

store_status db_fail_sqlite(store *s, int code, const char *doing, store_error *err)
{
    store_status status = status_of_code(code);
    if (status == STORE_EFULL) {
        return db_fail(err, status, NULL, "%s: no space left for the database; free some", doing);
    }
    const char *said = s != NULL && s->db != NULL && sqlite3_extended_errcode(s->db) == code
                           ? sqlite3_errmsg(s->db)
                           : sqlite3_errstr(code);
    return db_fail(err, status, NULL, "%s: %s", doing, said);
}

store_status db_not_found(store_error *err, const char *what, const char *id)
{
    return db_fail(err, STORE_ENOTFOUND, what, "no %s %.*s of this tenant", what, STORE_MAX_NAME,
                   id != NULL ? id : "(none given)");
}
