/* faults.c: a library for LD_PRELOAD that stands between mp2 and the C library, so that a test can make
 * disks and memory fail, or the power go, while the whole server runs.
 *
 * The test and the server share a page, the file named by FAULTS_CONTROL (struct control below): the test
 * writes what should fail, the library counts what did. Only files below FAULTS_DIR that are opened for
 * writing are meant, but SQLite's lock and shared-memory files, which hold nothing that must last.
 *
 * Power loss. With `journal` on, every write, truncation and sync of those files is also appended to
 * FAULTS_JOURNAL/NAME. The kernel keeps what a killed process wrote; a disk that loses its power keeps
 * what was synced, and of the rest whatever it likes. The test plays the journal back that way.
 *
 * Threads. Any; counters are atomic, the journal has a lock.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum io_kind { IO_WRITE = 1, IO_TRUNCATE = 2, IO_SYNC = 4 };

/* All members are of 8 bytes; tests/crash/faults.py has the same list. */
struct control {
    _Atomic int64_t io_countdown; /* the call that fails; 0: none */
    _Atomic int64_t io_sticky;    /* and all after it */
    _Atomic int64_t io_errno;
    _Atomic int64_t io_kinds;  /* which kinds count, added up */
    _Atomic int64_t io_failed; /* calls that did fail */
    _Atomic int64_t hold;      /* syncs wait while this is 1 */
    _Atomic int64_t held;      /* how many wait now */
    _Atomic int64_t journal;
    _Atomic int64_t alloc_countdown; /* the allocation that fails; 0: none */
    _Atomic int64_t alloc_failed;
};

#define MAX_FDS   4096
#define NAME_SIZE 64

static struct control *control;
static const char *dir, *journal_dir;
static char names[MAX_FDS][NAME_SIZE]; /* of the files meant, by descriptor; "" else */
static pthread_mutex_t journal_lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void attach(void)
{
    const char *path = getenv("FAULTS_CONTROL");
    dir = getenv("FAULTS_DIR");
    journal_dir = getenv("FAULTS_JOURNAL");
    int fd = path != NULL ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0 || dir == NULL) {
        return;
    }
    void *page = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    control = page != MAP_FAILED ? page : NULL;
}

/* ---- memory ------------------------------------------------------------------------------- */

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);

static bool allocation_fails(void)
{
    struct control *c = control;
    if (c == NULL || atomic_load_explicit(&c->alloc_countdown, memory_order_relaxed) <= 0) {
        return false;
    }
    if (atomic_fetch_sub(&c->alloc_countdown, 1) != 1) {
        return false;
    }
    atomic_fetch_add(&c->alloc_failed, 1);
    errno = ENOMEM;
    return true;
}

void *malloc(size_t size)
{
    return allocation_fails() ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    return allocation_fails() ? NULL : __libc_calloc(n, size);
}

void *realloc(void *old, size_t size)
{
    return allocation_fails() ? NULL : __libc_realloc(old, size);
}

/* ---- files -------------------------------------------------------------------------------- */

static const char *name_of(int fd)
{
    return fd >= 0 && fd < MAX_FDS && names[fd][0] != '\0' ? names[fd] : NULL;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), k = strlen(end);
    return n >= k && strcmp(text + n - k, end) == 0;
}

static void remember(int fd, const char *path, int flags)
{
    if (control == NULL || fd < 0 || fd >= MAX_FDS) {
        return;
    }
    names[fd][0] = '\0';
    if ((flags & O_ACCMODE) != O_RDONLY && strncmp(path, dir, strlen(dir)) == 0 &&
        !ends_with(path, "-lock") && !ends_with(path, "-shm")) {
        const char *slash = strrchr(path, '/');
        snprintf(names[fd], NAME_SIZE, "%s", slash != NULL ? slash + 1 : path);
    }
}

static bool io_fails(int fd, enum io_kind kind)
{
    struct control *c = control;
    if (name_of(fd) == NULL || (atomic_load(&c->io_kinds) & (int64_t)kind) == 0 ||
        atomic_load(&c->io_countdown) <= 0) {
        return false;
    }
    if (atomic_load(&c->io_countdown) > 1) {
        atomic_fetch_sub(&c->io_countdown, 1);
        return false;
    }
    if (atomic_load(&c->io_sticky) == 0) {
        atomic_store(&c->io_countdown, 0);
    }
    atomic_fetch_add(&c->io_failed, 1);
    errno = (int)atomic_load(&c->io_errno);
    return true;
}

static void record(int fd, enum io_kind kind, int64_t at, const void *data, size_t len)
{
    const char *name = name_of(fd);
    if (name == NULL || journal_dir == NULL || atomic_load(&control->journal) == 0) {
        return;
    }
    char path[512];
    int64_t head[3] = {(int64_t)kind, at, (int64_t)len};
    snprintf(path, sizeof path, "%s/%s", journal_dir, name);
    pthread_mutex_lock(&journal_lock);
    int out = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    syscall(SYS_write, out, head, sizeof head);
    if (data != NULL) {
        syscall(SYS_write, out, data, len);
    }
    syscall(SYS_close, out);
    pthread_mutex_unlock(&journal_lock);
}

static int open_any(int at, const char *path, int flags, mode_t mode)
{
    int fd = (int)syscall(SYS_openat, at, path, flags, mode);
    remember(fd, path, flags);
    return fd;
}

#define MODE_OF(flags, last)                                                                       \
    mode_t mode = 0;                                                                               \
    if (((flags) & (O_CREAT | __O_TMPFILE)) != 0) {                                                \
        va_list args;                                                                              \
        va_start(args, last);                                                                      \
        mode = va_arg(args, mode_t);                                                               \
        va_end(args);                                                                              \
    }

int open(const char *path, int flags, ...)
{
    MODE_OF(flags, flags)
    return open_any(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    MODE_OF(flags, flags)
    return open_any(AT_FDCWD, path, flags | O_LARGEFILE, mode);
}

int close(int fd)
{
    if (fd >= 0 && fd < MAX_FDS) {
        names[fd][0] = '\0';
    }
    return (int)syscall(SYS_close, fd);
}

ssize_t pwrite64(int fd, const void *data, size_t len, off64_t at)
{
    if (io_fails(fd, IO_WRITE)) {
        return -1;
    }
    record(fd, IO_WRITE, at, data, len);
    return syscall(SYS_pwrite64, fd, data, len, at);
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t at)
{
    return pwrite64(fd, data, len, at);
}

ssize_t write(int fd, const void *data, size_t len)
{
    if (io_fails(fd, IO_WRITE)) {
        return -1;
    }
    if (name_of(fd) != NULL) {
        record(fd, IO_WRITE, (int64_t)lseek(fd, 0, SEEK_CUR), data, len);
    }
    return syscall(SYS_write, fd, data, len);
}

int ftruncate64(int fd, off64_t size)
{
    if (io_fails(fd, IO_TRUNCATE)) {
        return -1;
    }
    record(fd, IO_TRUNCATE, size, NULL, 0);
    return (int)syscall(SYS_ftruncate, fd, size);
}

int ftruncate(int fd, off_t size)
{
    return ftruncate64(fd, size);
}

static int sync_any(int fd)
{
    if (name_of(fd) == NULL) {
        return (int)syscall(SYS_fdatasync, fd);
    }
    struct timespec pause = {0, 1000000};
    atomic_fetch_add(&control->held, 1);
    while (atomic_load(&control->hold) != 0) {
        nanosleep(&pause, NULL);
    }
    atomic_fetch_sub(&control->held, 1);
    if (io_fails(fd, IO_SYNC)) {
        return -1;
    }
    int done = (int)syscall(SYS_fdatasync, fd);
    record(fd, IO_SYNC, 0, NULL, 0); /* what follows is not yet safe; what came before is */
    return done;
}

int fdatasync(int fd)
{
    return sync_any(fd);
}

int fsync(int fd)
{
    return sync_any(fd);
}
