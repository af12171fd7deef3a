/* tls.h: the certificate and key of the listener, replaceable while it serves.
 *
 * Threads.   Loop thread; the retrieval call-back is called by libmicrohttpd on it.
 * Lifetime.  Handshakes that began with an older certificate may still use it, so what a reload
 *            replaces is kept until tls_free. One tls a process (the call-back has no argument).
 */
#ifndef SERVER_TLS_H
#define SERVER_TLS_H

#include <gnutls/abstract.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tls;

/* What is spoken: TLS 1.2 and 1.3, 128 bits and more. */
#define TLS_PRIORITIES "SECURE128:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:%SERVER_PRECEDENCE"

/* NULL: `why` names the file and what is wrong with it. */
struct tls *tls_new(const char *certificate, const char *key, char *why, size_t size);
void tls_free(struct tls *tls);
/* Reads both files again, or others. False: `why`, and what was in use stays so. */
bool tls_reload(struct tls *tls, const char *certificate, const char *key, char *why, size_t size);
/* End of the certificate's validity, seconds since 1970. */
int64_t tls_not_after(const struct tls *tls);
const char *tls_library(void); /* "GnuTLS 3.7.9" */

/* For MHD_OPTION_HTTPS_CERT_CALLBACK. */
int tls_retrieve(gnutls_session_t session, const gnutls_datum_t *authorities, int n_authorities,
                 const gnutls_pk_algorithm_t *algorithms, int n_algorithms,
                 gnutls_pcert_st **certificates, unsigned *n_certificates, gnutls_privkey_t *key);

#endif
