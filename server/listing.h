/* listing.h: what the lists of files, jobs and events have in common: a page in, the shape of a list
 * out, and ids for new objects. Loop thread, but object_id (any). */
#ifndef SERVER_LISTING_H
#define SERVER_LISTING_H

#include "server/http.h"

/* `after`, `limit` and `order` (asc, desc) of the query. False: replied. */
bool listing_page(struct request *req, size_t usual, size_t most, store_page *page);
/* {"object":"list","data","first_id","last_id","has_more"}; takes `data`. NULL: out of memory. */
json_t *listing_json(json_t *data, const char *first, const char *last, bool has_more);

#define OBJECT_ID_SIZE 48
/* "file-" and 24 random hex digits, say. `prefix` has at most 16 bytes. */
void object_id(char out[OBJECT_ID_SIZE], const char *prefix);

#endif
