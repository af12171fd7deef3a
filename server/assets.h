/* assets.h: the dashboard's files as embed.cmake compiled them in, and when a browser has one already.
 * Constant data; any thread.
 */
#ifndef SERVER_ASSETS_H
#define SERVER_ASSETS_H

#include <stdbool.h>
#include <stddef.h>

struct asset {
    const char *name; /* "app.js" */
    const char *tag;  /* its ETag, quotes included */
    const unsigned char *bytes;
    size_t len;
};

extern const struct asset asset_files[];
extern const size_t asset_files_count;

/* Whether the header If-None-Match (may be NULL) names `tag`, or is "*". Weak comparison. */
bool asset_unchanged(const char *if_none_match, const char *tag);

#endif
