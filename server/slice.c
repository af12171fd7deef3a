/* slice.c: sched_setattr, which Debian 12's C library does not wrap. A thread whose slice is shorter than
 * that of the one running goes before it (EEVDF); without, it waits until that slice ends, which is looked
 * at every tick, 4 ms. */
#include "server/slice.h"

#include <linux/sched.h>
#include <linux/sched/types.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BRIEF_NS 100000 /* the shortest there is */

void slice_brief(void)
{
    struct sched_attr attr;
    if (syscall(SYS_sched_getattr, 0, &attr, sizeof attr, 0) != 0 ||
        attr.sched_policy != SCHED_NORMAL) {
        return;
    }
    attr.sched_runtime = BRIEF_NS;
    (void)syscall(SYS_sched_setattr, 0, &attr, 0); /* a wish: failing changes nothing else */
}
