/* address.c: parsing and comparing addresses. */
#include "server/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};

static bool is_v4(const struct address *address)
{
    return memcmp(address->bytes, mapped, sizeof mapped) == 0;
}

static struct address from_v4(const struct in_addr *v4)
{
    struct address out;
    memcpy(out.bytes, mapped, sizeof mapped);
    memcpy(out.bytes + 12, v4, 4);
    return out;
}

bool address_of(const struct sockaddr *from, struct address *out)
{
    memset(out, 0, sizeof *out);
    if (from->sa_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, from, sizeof v4);
        *out = from_v4(&v4.sin_addr);
    } else if (from->sa_family == AF_INET6) {
        struct sockaddr_in6 v6;
        memcpy(&v6, from, sizeof v6);
        memcpy(out->bytes, &v6.sin6_addr, 16);
    }
    return from->sa_family == AF_INET || from->sa_family == AF_INET6;
}

static bool parse_bare(const char *text, struct address *out)
{
    struct in_addr v4;
    if (inet_pton(AF_INET, text, &v4) == 1) {
        *out = from_v4(&v4);
        return true;
    }
    return inet_pton(AF_INET6, text, out->bytes) == 1;
}

bool address_parse(const char *text, size_t len, struct address *out)
{
    char bare[ADDRESS_TEXT];
    while (len > 0 && (*text == ' ' || *text == '\t')) {
        text++;
        len--;
    }
    while (len > 0 && (text[len - 1] == ' ' || text[len - 1] == '\t')) {
        len--;
    }
    if (len == 0 || len >= sizeof bare) {
        return false;
    }
    snprintf(bare, sizeof bare, "%.*s", (int)len, text);
    char *colon = strchr(bare, ':');
    if (bare[0] == '[') {
        bare[strcspn(bare, "]")] = '\0';
        return parse_bare(bare + 1, out);
    }
    if (colon != NULL && strchr(colon + 1, ':') == NULL) {
        *colon = '\0'; /* one colon: a port behind an IPv4 address */
    }
    return parse_bare(bare, out);
}

void address_print(const struct address *address, char text[ADDRESS_TEXT])
{
    bool v4 = is_v4(address);
    if (inet_ntop(v4 ? AF_INET : AF_INET6, address->bytes + (v4 ? 12 : 0), text, ADDRESS_TEXT) ==
        NULL) {
        text[0] = '\0';
    }
}

struct address address_group(const struct address *address)
{
    struct address group = *address;
    if (!is_v4(address)) {
        memset(group.bytes + 8, 0, 8);
    }
    return group;
}

/* ---- networks -------------------------------------------------------------------------------- */

static bool parse_network(const char *text, size_t len, struct network *out)
{
    const char *slash = memchr(text, '/', len);
    size_t base_len = slash != NULL ? (size_t)(slash - text) : len;
    unsigned long bits = 0;
    if (!address_parse(text, base_len, &out->base)) {
        return false;
    }
    bool v4 = is_v4(&out->base);
    out->bits = 128;
    if (slash != NULL) {
        char digits[4] = "", *end = NULL;
        size_t n = len - base_len - 1;
        if (n == 0 || n >= sizeof digits) {
            return false;
        }
        memcpy(digits, slash + 1, n);
        bits = strtoul(digits, &end, 10);
        if (strspn(digits, "0123456789") != n || bits > (v4 ? 32 : 128)) {
            return false;
        }
        out->bits = (unsigned)bits + (v4 ? 96 : 0);
    }
    return true;
}

bool address_networks(const char *text, struct network out[ADDRESS_MAX_NETWORKS], size_t *n,
                      char *why, size_t size)
{
    *n = 0;
    for (text += strspn(text, ", "); *text != '\0'; text += strspn(text, ", ")) {
        size_t len = strcspn(text, ", ");
        if (*n == ADDRESS_MAX_NETWORKS || !parse_network(text, len, &out[*n])) {
            snprintf(why, size,
                     "trusted_proxies is at most %d addresses or networks such as 10.0.0.0/8, got "
                     "\"%.*s\"",
                     ADDRESS_MAX_NETWORKS, (int)(len < 64 ? len : 64), text);
            return false;
        }
        (*n)++;
        text += len;
    }
    return true;
}

bool address_networks_ok(const char *text, char *why, size_t size)
{
    struct network networks[ADDRESS_MAX_NETWORKS];
    size_t n = 0;
    return address_networks(text, networks, &n, why, size);
}

static bool shares_prefix(const struct address *a, const struct address *b, unsigned bits)
{
    size_t whole = bits / 8;
    unsigned rest = bits % 8;
    if (memcmp(a->bytes, b->bytes, whole) != 0) {
        return false;
    }
    return rest == 0 || (a->bytes[whole] >> (8 - rest)) == (b->bytes[whole] >> (8 - rest));
}

bool address_in(const struct address *address, const struct network *networks, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (shares_prefix(address, &networks[i].base, networks[i].bits)) {
            return true;
        }
    }
    return false;
}

struct address address_client(const struct address *peer, const char *forwarded,
                              const struct network *trusted, size_t n)
{
    struct address client = *peer, next;
    size_t end = forwarded != NULL ? strlen(forwarded) : 0;
    while (end > 0 && address_in(&client, trusted, n)) {
        size_t start = end;
        while (start > 0 && forwarded[start - 1] != ',') {
            start--;
        }
        if (!address_parse(forwarded + start, end - start, &next)) {
            break;
        }
        client = next;
        end = start > 0 ? start - 1 : 0;
    }
    return client;
}

/* ---- listening ------------------------------------------------------------------------------- */

bool address_listen(const char *text, struct sockaddr_storage *out, char *why, size_t size)
{
    char host[ADDRESS_TEXT];
    const char *colon = strrchr(text, ':');
    size_t len = colon != NULL ? (size_t)(colon - text) : 0;
    char *end = NULL;
    unsigned long port = colon != NULL ? strtoul(colon + 1, &end, 10) : 65536;
    struct sockaddr_in *v4 = (struct sockaddr_in *)out;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;
    memset(out, 0, sizeof *out);
    bool ok = len > 0 && len < sizeof host && end != colon + 1 && *end == '\0' && port <= 65535;
    if (ok) {
        bool brackets = text[0] == '[' && text[len - 1] == ']';
        snprintf(host, sizeof host, "%.*s", (int)(brackets ? len - 2 : len),
                 brackets ? text + 1 : text);
        if (!brackets && inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
            v4->sin_family = AF_INET;
            v4->sin_port = htons((uint16_t)port);
        } else if (brackets && inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
            v6->sin6_family = AF_INET6;
            v6->sin6_port = htons((uint16_t)port);
        } else {
            ok = false;
        }
    }
    if (!ok) {
        snprintf(why, size,
                 "listen wants ADDRESS:PORT such as 127.0.0.1:8080 or [::1]:8080, got "
                 "\"%.64s\"",
                 text);
    }
    return ok;
}

bool address_listen_ok(const char *text, char *why, size_t size)
{
    struct sockaddr_storage address;
    return address_listen(text, &address, why, size);
}
