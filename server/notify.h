/* notify.h: telling systemd how the service is (Type=notify), without its library: a datagram to the
 * socket that $NOTIFY_SOCKET names.
 *
 * Threads. Any. Does nothing when there is no such socket.
 */
#ifndef SERVER_NOTIFY_H
#define SERVER_NOTIFY_H

#include <stdbool.h>
#include <stdint.h>

/* Lines as sd_notify(3) describes them: "READY=1\nSTATUS=…". False: nobody listens. */
bool notify_send(const char *lines);
/* How often "WATCHDOG=1" is wanted, in ms; 0: not at all. */
int64_t notify_watchdog_ms(void);

#endif
