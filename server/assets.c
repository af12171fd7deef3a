/* assets.c: the dashboard's files, served from memory.
 *
 * The files of static/ are compiled into the executable (embed.cmake writes the table asset_files), so
 * that an installed server needs no folder beside it and no URL ever becomes a path of the file
 * system: a name is looked up in the table, and what is not there is a 404. The page may load only
 * what this server serves, may not be framed and runs no script but its own modules.
 *
 * A tag is the hash of the file, so it changes with the build; browsers ask again each time and mostly
 * get 304.
 */
#include "server/assets.h"
#include "server/endpoints.h"

#include <string.h>

static const char content_policy[] =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

static const char *type_of(const char *name)
{
    static const char *const types[][2] = {{".html", "text/html; charset=utf-8"},
                                           {".js", "text/javascript; charset=utf-8"},
                                           {".css", "text/css; charset=utf-8"},
                                           {".svg", "image/svg+xml"}};
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot != NULL && i < sizeof types / sizeof types[0]; i++) {
        if (strcmp(types[i][0], dot) == 0) {
            return types[i][1];
        }
    }
    return "application/octet-stream";
}

static const struct asset *find(const char *name)
{
    for (size_t i = 0; i < asset_files_count; i++) {
        if (strcmp(asset_files[i].name, name) == 0) {
            return &asset_files[i];
        }
    }
    return NULL;
}

bool asset_unchanged(const char *if_none_match, const char *tag)
{
    if (if_none_match == NULL) {
        return false;
    }
    size_t len = strlen(tag);
    const char *at = if_none_match + strspn(if_none_match, " \t");
    if (at[0] == '*') {
        return at[1 + strspn(at + 1, " \t")] == '\0';
    }
    while (*at != '\0') {
        at += strspn(at, " \t,");
        at += strncmp(at, "W/", 2) == 0 ? 2 : 0;
        size_t end = strncmp(at, tag, len) == 0 ? len : 0;
        if (end > 0 && strspn(at + end, " \t") == strcspn(at + end, ",")) {
            return true;
        }
        at += strcspn(at, ",");
    }
    return false;
}

static void send_asset(struct request *req, const struct asset *asset)
{
    reply_header(req, "ETag", asset->tag);
    reply_header(req, "Cache-Control", "no-cache");
    reply_header(req, "Content-Security-Policy", content_policy);
    reply_header(req, "Referrer-Policy", "no-referrer");
    reply_header(req, "X-Frame-Options", "DENY");
    reply_header(req, "Cross-Origin-Opener-Policy", "same-origin");
    reply_header(req, "Cross-Origin-Resource-Policy", "same-origin");
    if (asset_unchanged(request_header(req, "If-None-Match"), asset->tag)) {
        reply_empty(req, 304);
    } else {
        reply_bytes(req, 200, type_of(asset->name), asset->bytes, asset->len);
    }
}

void ep_root(struct request *req)
{
    send_asset(req, find("index.html"));
}

void ep_asset(struct request *req)
{
    const struct asset *asset = find(request_param(req, "asset"));
    if (asset == NULL) {
        reply_problem(req, 404, "not_found", NULL, "the dashboard has no such file");
        return;
    }
    send_asset(req, asset);
}
