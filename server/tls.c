/* tls.c: reads PEM files, checks that they belong together, hands them to GnuTLS.
 *
 * libmicrohttpd takes a certificate at its start and never again, except through a call-back that is
 * asked at every handshake. So there is always the call-back, and a reload changes what it answers:
 * connections that are open go on with what they agreed on.
 */
#include "server/tls.h"

#include "server/log.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAX_CHAIN 16
#define MAX_FILE  (1u << 20)

struct credentials {
    gnutls_pcert_st chain[MAX_CHAIN];
    unsigned n;
    gnutls_privkey_t key;
    int64_t not_after;
    struct credentials *older;
};

struct tls {
    struct credentials *current; /* and the older ones behind it */
};

static struct tls *the_tls; /* of tls_retrieve */

static void credentials_free(struct credentials *credentials)
{
    for (unsigned i = 0; i < credentials->n; i++) {
        gnutls_pcert_deinit(&credentials->chain[i]);
    }
    if (credentials->key != NULL) {
        gnutls_privkey_deinit(credentials->key);
    }
    free(credentials);
}

/* ---- files ----------------------------------------------------------------------------------- */

/* False: `why`. A key is refused when others may read or write it. */
static bool check_mode(int fd, const char *path, bool secret, size_t *len, char *why, size_t size)
{
    struct stat info;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size > (off_t)MAX_FILE) {
        snprintf(why, size, "%.200s: not a file of at most %u bytes", path, MAX_FILE);
        return false;
    }
    if (secret && (info.st_mode & (S_IRWXO | S_IWGRP)) != 0) {
        snprintf(why, size,
                 "%.200s: its mode is %04o; a private key must not be open to others, nor be "
                 "written by its group: chmod 0600 or 0640 (setting tls_key)",
                 path, (unsigned)(info.st_mode & 07777));
        return false;
    }
    *len = (size_t)info.st_size;
    return true;
}

/* The whole file, to be freed; NULL: `why`. */
static char *read_file(const char *path, bool secret, size_t *len, char *why, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        snprintf(why, size, "%.200s: %s", path, strerror(errno));
        return NULL;
    }
    char *text = NULL;
    if (check_mode(fd, path, secret, len, why, size)) {
        text = malloc(*len + 1);
        if (text == NULL || read(fd, text, *len) != (ssize_t)*len) {
            snprintf(why, size, "%.200s: cannot be read", path);
            free(text);
            text = NULL;
        }
    }
    close(fd);
    return text;
}

/* ---- loading --------------------------------------------------------------------------------- */

static int import_chain(struct credentials *out, const char *text, size_t len)
{
    gnutls_datum_t data = {(unsigned char *)(uintptr_t)text, (unsigned)len};
    unsigned n = MAX_CHAIN;
    int code = gnutls_pcert_list_import_x509_raw(out->chain, &n, &data, GNUTLS_X509_FMT_PEM,
                                                 GNUTLS_X509_CRT_LIST_SORT);
    out->n = code >= 0 ? n : 0;
    if (code >= 0 && n == 0) {
        code = GNUTLS_E_NO_CERTIFICATE_FOUND;
    }
    gnutls_x509_crt_t first = NULL;
    if (code >= 0) {
        code = gnutls_x509_crt_init(&first);
    }
    if (code >= 0) {
        code = gnutls_x509_crt_import(first, &out->chain[0].cert, GNUTLS_X509_FMT_DER);
        out->not_after = (int64_t)gnutls_x509_crt_get_expiration_time(first);
        gnutls_x509_crt_deinit(first);
    }
    return code < 0 ? code : 0;
}

static int import_key(struct credentials *out, const char *text, size_t len)
{
    gnutls_datum_t data = {(unsigned char *)(uintptr_t)text, (unsigned)len};
    int code = gnutls_privkey_init(&out->key);
    return code < 0 ? code
                    : gnutls_privkey_import_x509_raw(out->key, &data, GNUTLS_X509_FMT_PEM, NULL, 0);
}

/* Is the key the certificate's? Compares the ids of both public keys. */
static bool belong_together(const struct credentials *credentials)
{
    unsigned char a[64], b[64];
    size_t a_len = sizeof a, b_len = sizeof b;
    gnutls_pubkey_t public = NULL;
    if (gnutls_pubkey_init(&public) < 0) {
        return false;
    }
    bool same = gnutls_pubkey_import_privkey(public, credentials->key, 0, 0) >= 0 &&
                gnutls_pubkey_get_key_id(public, GNUTLS_KEYID_USE_SHA256, a, &a_len) >= 0 &&
                gnutls_pubkey_get_key_id(credentials->chain[0].pubkey, GNUTLS_KEYID_USE_SHA256, b,
                                         &b_len) >= 0 &&
                a_len == b_len && memcmp(a, b, a_len) == 0;
    gnutls_pubkey_deinit(public);
    return same;
}

static bool fill(struct credentials *out, const char *certificate, const char *key, char *why,
                 size_t size)
{
    size_t chain_len = 0, key_len = 0;
    char *chain_text = read_file(certificate, false, &chain_len, why, size);
    char *key_text = chain_text != NULL ? read_file(key, true, &key_len, why, size) : NULL;
    bool ok = chain_text != NULL && key_text != NULL;
    int code = ok ? import_chain(out, chain_text, chain_len) : 0;
    if (code < 0) {
        snprintf(why, size, "%.200s: no certificate in PEM form: %s (setting tls_certificate)",
                 certificate, gnutls_strerror(code));
        ok = false;
    }
    code = ok ? import_key(out, key_text, key_len) : 0;
    if (code < 0) {
        snprintf(why, size, "%.200s: no private key in PEM form: %s (setting tls_key)", key,
                 gnutls_strerror(code));
        ok = false;
    }
    if (ok && !belong_together(out)) {
        snprintf(why, size, "%.200s is not the key of %.200s (settings tls_key, tls_certificate)",
                 key, certificate);
        ok = false;
    }
    if (key_text != NULL) {
        sodium_memzero(key_text, key_len);
    }
    free(key_text);
    free(chain_text);
    return ok;
}

static void warn_of_age(const struct credentials *credentials, const char *path)
{
    int64_t left = credentials->not_after - (int64_t)time(NULL);
    if (left < 7 * 86400) {
        log_event(LOG_WARN, "tls_certificate_old", "%.200s %s", path,
                  left < 0 ? "has expired" : "expires within a week");
    }
}

bool tls_reload(struct tls *tls, const char *certificate, const char *key, char *why, size_t size)
{
    struct credentials *fresh = calloc(1, sizeof *fresh);
    if (fresh == NULL) {
        snprintf(why, size, "out of memory");
        return false;
    }
    if (!fill(fresh, certificate, key, why, size)) {
        credentials_free(fresh);
        return false;
    }
    warn_of_age(fresh, certificate);
    fresh->older = tls->current;
    tls->current = fresh;
    return true;
}

struct tls *tls_new(const char *certificate, const char *key, char *why, size_t size)
{
    struct tls *tls = calloc(1, sizeof *tls);
    if (tls == NULL || gnutls_global_init() < 0) {
        snprintf(why, size, "out of memory");
        free(tls);
        return NULL;
    }
    if (!tls_reload(tls, certificate, key, why, size)) {
        tls_free(tls);
        return NULL;
    }
    the_tls = tls;
    return tls;
}

void tls_free(struct tls *tls)
{
    if (tls == NULL) {
        return;
    }
    the_tls = NULL;
    while (tls->current != NULL) {
        struct credentials *older = tls->current->older;
        credentials_free(tls->current);
        tls->current = older;
    }
    free(tls);
    gnutls_global_deinit();
}

int64_t tls_not_after(const struct tls *tls)
{
    return tls->current->not_after;
}

const char *tls_library(void)
{
    static char text[48];
    snprintf(text, sizeof text, "GnuTLS %s", gnutls_check_version(NULL));
    return text;
}

int tls_retrieve(gnutls_session_t session, const gnutls_datum_t *authorities, int n_authorities,
                 const gnutls_pk_algorithm_t *algorithms, int n_algorithms,
                 gnutls_pcert_st **certificates, unsigned *n_certificates, gnutls_privkey_t *key)
{
    (void)session;
    (void)authorities;
    (void)n_authorities;
    (void)algorithms;
    (void)n_algorithms;
    if (the_tls == NULL) {
        return -1;
    }
    *certificates = the_tls->current->chain;
    *n_certificates = the_tls->current->n;
    *key = the_tls->current->key;
    return 0;
}
