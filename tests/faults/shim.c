/* A file system that fails on demand: LD_PRELOADed, it stands before libc's calls on paths below one folder.
 *
 * Armed, it counts the operations of the chosen kinds below the folder, and lets the n-th, or all from the n-th on,
 * fail with one errno. It is armed by shim_arm() from within the process, or through the environment (SHIM_FOLDER,
 * SHIM_KINDS, SHIM_AT, SHIM_ERRNO, SHIM_FOR_GOOD) for processes that are started by others; SHIM_WHILE names a file,
 * and the environment's faults last as long as it is there.
 *
 * It is native, because half of the writers are: pyarrow, numpy's tofile and whatever a library does next would pass
 * by a shim made of Python functions. What calls the kernel without libc (Rust's rustix) passes by this one too; a
 * test counts with strace that nothing does.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { READ = 1, OPEN = 2, WRITE = 4, FSYNC = 8, RENAME = 16, MKDIR = 32, REMOVE = 64, LOCK = 128, LIST = 256 };

static struct {
    char folder[4096], last_path[4096], condition[4096];
    int kinds, code, for_good, last_kind;
    long at, seen, failed;
} armed;
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;

static void copy(char *to, const char *from) {
    strncpy(to, from ? from : "", 4095);
    to[4095] = 0;
}

void shim_arm(const char *folder, int kinds, long at, int code, int for_good) {
    pthread_mutex_lock(&guard);
    memset(&armed, 0, sizeof armed);
    copy(armed.folder, folder);
    armed.kinds = kinds;
    armed.at = at;
    armed.code = code;
    armed.for_good = for_good;
    pthread_mutex_unlock(&guard);
}

long shim_seen(void) { return armed.seen; }
long shim_failed(void) { return armed.failed; }
int shim_kind(void) { return armed.last_kind; }         /* of the first that failed */
const char *shim_path(void) { return armed.last_path; } /* the same */

__attribute__((constructor)) static void from_environment(void) {
    const char *folder = getenv("SHIM_FOLDER");
    if (!folder) return;
    shim_arm(folder, atoi(getenv("SHIM_KINDS")), atol(getenv("SHIM_AT")), atoi(getenv("SHIM_ERRNO")),
             atoi(getenv("SHIM_FOR_GOOD")));
    copy(armed.condition, getenv("SHIM_WHILE"));
}

static int fails(int kind, const char *path) {
    size_t n = strlen(armed.folder);
    if (!n || !(kind & armed.kinds) || strncmp(path, armed.folder, n) || (path[n] && path[n] != '/')) return 0;
    if (armed.condition[0] && access(armed.condition, F_OK)) return 0;
    pthread_mutex_lock(&guard);
    long number = ++armed.seen;
    int hit = armed.at && (number == armed.at || (armed.for_good && number > armed.at));
    if (hit && !armed.failed++) {
        armed.last_kind = kind;
        copy(armed.last_path, path);
    }
    pthread_mutex_unlock(&guard);
    if (hit) errno = armed.code;
    return hit;
}

/* The path of a descriptor, or of a name relative to one, as the kernel knows it. */
static const char *of_descriptor(int fd, char *to) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, to, 4095);
    to[n < 0 ? 0 : n] = 0;
    return to;
}

static const char *of_name(int dir, const char *name, char *to) {
    if (name[0] == '/') return name;
    if (dir == AT_FDCWD) {
        if (!getcwd(to, 4096)) to[0] = 0;
    } else {
        of_descriptor(dir, to);
    }
    size_t n = strlen(to);
    snprintf(to + n, 4096 - n, "/%s", name);
    return to;
}

static int fails_at(int kind, int dir, const char *name) {
    char buffer[4097];
    int kept = errno, hit = armed.folder[0] && fails(kind, of_name(dir, name, buffer));
    if (!hit) errno = kept;
    return hit;
}

static int fails_on(int kind, int fd) {
    char buffer[4097];
    int kept = errno, hit = armed.folder[0] && fails(kind, of_descriptor(fd, buffer));
    if (!hit) errno = kept;
    return hit;
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static int kind_of(int flags) { return flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC) ? OPEN : READ; }

#define OPENER(name)                                                              \
    int name(const char *path, int flags, ...) {                                  \
        REAL(name);                                                               \
        mode_t mode = 0;                                                          \
        if (flags & (O_CREAT | O_TMPFILE)) {                                      \
            va_list rest;                                                         \
            va_start(rest, flags);                                                \
            mode = va_arg(rest, mode_t);                                          \
            va_end(rest);                                                         \
        }                                                                         \
        return fails_at(kind_of(flags), AT_FDCWD, path) ? -1 : real(path, flags, mode); \
    }
OPENER(open)
OPENER(open64)

#define OPENER_AT(name)                                                           \
    int name(int dir, const char *path, int flags, ...) {                         \
        REAL(name);                                                               \
        mode_t mode = 0;                                                          \
        if (flags & (O_CREAT | O_TMPFILE)) {                                      \
            va_list rest;                                                         \
            va_start(rest, flags);                                                \
            mode = va_arg(rest, mode_t);                                          \
            va_end(rest);                                                         \
        }                                                                         \
        return fails_at(kind_of(flags), dir, path) ? -1 : real(dir, path, flags, mode); \
    }
OPENER_AT(openat)
OPENER_AT(openat64)

#define STREAM_OPENER(name)                                                       \
    FILE *name(const char *path, const char *mode) {                              \
        REAL(name);                                                               \
        int kind = strpbrk(mode, "wa+") ? OPEN : READ;                            \
        return fails_at(kind, AT_FDCWD, path) ? NULL : real(path, mode);          \
    }
STREAM_OPENER(fopen)
STREAM_OPENER(fopen64)

DIR *opendir(const char *path) { /* which opens without calling open */
    REAL(opendir);
    return fails_at(LIST, AT_FDCWD, path) ? NULL : real(path);
}

ssize_t write(int fd, const void *data, size_t n) {
    REAL(write);
    return fails_on(WRITE, fd) ? -1 : real(fd, data, n);
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
    REAL(pwrite);
    return fails_on(WRITE, fd) ? -1 : real(fd, data, n, at);
}
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
    REAL(pwrite64);
    return fails_on(WRITE, fd) ? -1 : real(fd, data, n, at);
}
ssize_t writev(int fd, const struct iovec *parts, int n) {
    REAL(writev);
    return fails_on(WRITE, fd) ? -1 : real(fd, parts, n);
}
size_t fwrite(const void *data, size_t size, size_t n, FILE *stream) {
    REAL(fwrite);
    return fails_on(WRITE, fileno(stream)) ? 0 : real(data, size, n, stream);
}
int ftruncate(int fd, off_t n) {
    REAL(ftruncate);
    return fails_on(WRITE, fd) ? -1 : real(fd, n);
}
int ftruncate64(int fd, off64_t n) {
    REAL(ftruncate64);
    return fails_on(WRITE, fd) ? -1 : real(fd, n);
}

int fsync(int fd) {
    REAL(fsync);
    return fails_on(FSYNC, fd) ? -1 : real(fd);
}
int fdatasync(int fd) {
    REAL(fdatasync);
    return fails_on(FSYNC, fd) ? -1 : real(fd);
}

int rename(const char *from, const char *to) {
    REAL(rename);
    return fails_at(RENAME, AT_FDCWD, to) ? -1 : real(from, to);
}
int renameat(int a, const char *from, int b, const char *to) {
    REAL(renameat);
    return fails_at(RENAME, b, to) ? -1 : real(a, from, b, to);
}
int link(const char *from, const char *to) {
    REAL(link);
    return fails_at(RENAME, AT_FDCWD, to) ? -1 : real(from, to);
}

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    return fails_at(MKDIR, AT_FDCWD, path) ? -1 : real(path, mode);
}
int mkdirat(int dir, const char *path, mode_t mode) {
    REAL(mkdirat);
    return fails_at(MKDIR, dir, path) ? -1 : real(dir, path, mode);
}

int unlink(const char *path) {
    REAL(unlink);
    return fails_at(REMOVE, AT_FDCWD, path) ? -1 : real(path);
}
int unlinkat(int dir, const char *path, int flags) {
    REAL(unlinkat);
    return fails_at(REMOVE, dir, path) ? -1 : real(dir, path, flags);
}
int rmdir(const char *path) {
    REAL(rmdir);
    return fails_at(REMOVE, AT_FDCWD, path) ? -1 : real(path);
}

int flock(int fd, int how) {
    REAL(flock);
    return !(how & LOCK_UN) && fails_on(LOCK, fd) ? -1 : real(fd, how);
}
