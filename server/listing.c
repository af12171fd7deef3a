/* listing.c: pages, lists and ids. */
#include "server/listing.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

bool listing_page(struct request *req, size_t usual, size_t most, store_page *page)
{
    uint64_t limit = 0;
    const char *order = request_query(req, "order");
    if (!request_query_u64(req, "limit", 1, most, usual, &limit)) {
        return false;
    }
    if (order != NULL && strcmp(order, "asc") != 0 && strcmp(order, "desc") != 0) {
        reply_problem(req, 422, "invalid_value", "order", "order is asc or desc, found \"%.32s\"",
                      order);
        return false;
    }
    *page = (store_page){.after = request_query(req, "after"),
                         .limit = (size_t)limit,
                         .oldest_first = order != NULL && order[0] == 'a'};
    return true;
}

json_t *listing_json(json_t *data, const char *first, const char *last, bool has_more)
{
    return json_pack("{s:s, s:o, s:s?, s:s?, s:b}", "object", "list", "data", data, "first_id",
                     first, "last_id", last, "has_more", has_more);
}

void object_id(char out[OBJECT_ID_SIZE], const char *prefix)
{
    unsigned char bytes[12];
    char hex[2 * sizeof bytes + 1];
    randombytes_buf(bytes, sizeof bytes);
    sodium_bin2hex(hex, sizeof hex, bytes, sizeof bytes);
    snprintf(out, OBJECT_ID_SIZE, "%.16s%s", prefix, hex);
}
