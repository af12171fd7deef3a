/* db.h: what the files of the store share. Not for the outside; see store.h for the contracts. */
#ifndef STORE_DB_H
#define STORE_DB_H

#include "store/store.h"

/* Fills *err (when not NULL) and returns `status`. Text that does not fit is cut at a UTF-8 boundary. */
store_status db_fail(store_error *err, store_status status, const char *field, const char *format,
                     ...) __attribute__((format(printf, 4, 5)));
store_status db_fail_nomem(store_error *err);

#endif
