/* Stands between a process and the C library: counts, journals and spoils what is done to files below a root.

   Preloaded (LD_PRELOAD) and asleep until `faults_arm` is called; then, in that process alone, every call that
   changes what lies below the root is an operation. Operations take turns, so that the journal has the order
   in which they happened. The fault strikes at the n-th; one that only a write can suffer waits for the next.

   Calls that the model of the disk does not know (links, shared writable maps, copies within the kernel) are
   journalled as such, and make the harness stop. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sendfile.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CREATE = 1, WRITE, TRUNCATE, FSYNC, RENAME, EXCHANGE, UNLINK, MKDIR, RMDIR, UNKNOWN, STRUCK };
enum { NONE, KILL_BEFORE, KILL_AFTER, KILL_AMID, FULL_ONCE, FULL, BROKEN_ONCE, BROKEN, SHORT, FLIP, DELAY };

static struct {
    char root[PATH_MAX];
    size_t length;
    int journal, fault;
    uint64_t nth, seed, count;
    pid_t pid;
    int on, due, struck;
} s;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static ssize_t plain_write(int fd, const void *data, size_t size) {
    REAL(write);
    return real(fd, data, size);
}

static void put(const void *data, size_t size) {
    const char *at = data;
    while (size) {
        ssize_t done = plain_write(s.journal, at, size);
        if (done <= 0) _exit(99);
        at += done, size -= done;
    }
}

static void note(int kind, int error, const char *one, const char *two, uint64_t at, const void *data, size_t size) {
    struct __attribute__((packed)) { uint32_t kind; int32_t error; uint32_t n1, n2; uint64_t at, size, op; } head =
        { kind, error, strlen(one), strlen(two), at, data ? size : 0, s.count };
    put(&head, sizeof head), put(one, head.n1), put(two, head.n2);
    if (data) put(data, size);
}

void faults_arm(const char *root, int journal, int fault, uint64_t nth, uint64_t seed) {
    snprintf(s.root, sizeof s.root, "%s", root);
    s.length = strlen(root);
    s.journal = journal, s.fault = fault, s.nth = nth, s.seed = seed, s.count = 0, s.due = s.struck = 0;
    s.pid = getpid(), s.on = 1;
}

void faults_disarm(void) { s.on = 0; }

static int awake(void) { return s.on && getpid() == s.pid; }

static int below(const char *path) {
    return !strncmp(path, s.root, s.length) && (path[s.length] == '/' || !path[s.length]);
}

/* the path of an open file; 0 where it lies elsewhere or has no name any more */
static int path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, PATH_MAX - 1);
    if (size < 0) return 0;
    path[size] = 0;
    const char *gone = " (deleted)";
    size_t n = strlen(gone);
    return below(path) && !((size_t)size > n && !strcmp(path + size - n, gone));
}

static int absolute(int folder, const char *name, char *path) {
    if (!name) return 0;
    if (name[0] == '/') snprintf(path, PATH_MAX, "%s", name);
    else {
        char base[PATH_MAX];
        if (folder == AT_FDCWD ? !getcwd(base, sizeof base) : !path_of(folder, base)) return 0;
        if ((size_t)snprintf(path, PATH_MAX, "%s/%s", base, name) >= PATH_MAX) return 0;
    }
    for (size_t n = strlen(path); n > 1 && path[n - 1] == '/'; n--) path[n - 1] = 0;
    return below(path);
}

static int there(const char *path) {
    struct stat about;
    return !lstat(path, &about);
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static uint64_t chance(uint64_t n) {
    s.seed = s.seed * 6364136223846793005u + 1442695040888963407u;
    return n ? (s.seed >> 33) % n : 0;
}

static void strike(int kind, const char *path, uint64_t at) {
    note(STRUCK, s.fault, path, "", at, &kind, sizeof kind);
    s.struck = 1;
}

/* before an operation: the error that it shall fail with, or 0 */
static int begin(int kind, const char *path) {
    s.count++;
    if (s.count == s.nth) s.due = 1;
    if (!s.due) return 0;
    int lasting = s.fault == FULL || s.fault == BROKEN, first = !s.struck;
    if (!first && !lasting) return 0;
    switch (s.fault) {
    case KILL_BEFORE: strike(kind, path, 0); die(); break;
    case FULL_ONCE: case FULL:
        if (kind == UNLINK || kind == RMDIR || kind == TRUNCATE) return 0; /* these give room */
        if (first) strike(kind, path, 0);
        return ENOSPC;
    case BROKEN_ONCE: case BROKEN:
        if (first) strike(kind, path, 0);
        return EIO;
    case DELAY: strike(kind, path, 0); usleep(20000); break;
    case KILL_AFTER: case KILL_AMID: if (!(s.fault == KILL_AMID && kind == WRITE)) strike(kind, path, 0); break;
    }
    return 0;
}

static void end(void) {
    if (s.struck && (s.fault == KILL_AFTER || s.fault == KILL_AMID)) die();
}

/* ------------------------------------------------------------------------------------------ names */

static int opened(int folder, const char *name, int flags, mode_t mode, int (*real)(int, const char *, int, ...)) {
    char path[PATH_MAX];
    if (!awake() || !(flags & (O_CREAT | O_TRUNC)) || !absolute(folder, name, path)) return real(folder, name, flags, mode);
    pthread_mutex_lock(&turn);
    int old = there(path), kind = old ? TRUNCATE : CREATE, fd = -1, error = 0;
    int counts = old ? flags & O_TRUNC : flags & O_CREAT;
    if (counts && !(old && flags & O_EXCL)) {
        error = begin(kind, path);
        if (!error && (fd = real(folder, name, flags, mode)) < 0) error = errno;
        note(kind, error, path, "", 0, NULL, 0);
        if (!error) end();
    } else if ((fd = real(folder, name, flags, mode)) < 0) error = errno;
    pthread_mutex_unlock(&turn);
    if (error) errno = error;
    return error ? -1 : fd;
}

#define OPENED(name, real_name) \
    int name(const char *path, int flags, ...) { \
        static int (*real)(int, const char *, int, ...); \
        if (!real) real = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, real_name); \
        mode_t mode = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, int); va_end(more); } \
        return opened(AT_FDCWD, path, flags, mode, real); \
    }
#define OPENED_AT(name, real_name) \
    int name(int folder, const char *path, int flags, ...) { \
        static int (*real)(int, const char *, int, ...); \
        if (!real) real = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, real_name); \
        mode_t mode = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, int); va_end(more); } \
        return opened(folder, path, flags, mode, real); \
    }
OPENED(open, "openat")
OPENED(open64, "openat64")
OPENED_AT(openat, "openat")
OPENED_AT(openat64, "openat64")
int creat(const char *path, mode_t mode) { return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return open64(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

/* an operation on a name: watched if `path` lies below the root, done by `call` */
#define ON_NAME(kind, folder, name, call) \
    char path[PATH_MAX]; \
    if (!awake() || !absolute(folder, name, path)) return call; \
    pthread_mutex_lock(&turn); \
    int error = there(path) == (kind == MKDIR) ? -1 : begin(kind, path); \
    int given = error == -1 ? call : error ? -1 : call; \
    int why = given < 0 ? error > 0 ? error : errno : 0; \
    if (error != -1) { note(kind, why, path, "", 0, NULL, 0); if (!why) end(); } \
    pthread_mutex_unlock(&turn); \
    if (why) errno = why; \
    return given

int unlink(const char *name) { REAL(unlink); ON_NAME(UNLINK, AT_FDCWD, name, real(name)); }
int rmdir(const char *name) { REAL(rmdir); ON_NAME(RMDIR, AT_FDCWD, name, real(name)); }
int mkdir(const char *name, mode_t mode) { REAL(mkdir); ON_NAME(MKDIR, AT_FDCWD, name, real(name, mode)); }
int mkdirat(int at, const char *name, mode_t mode) { REAL(mkdirat); ON_NAME(MKDIR, at, name, real(at, name, mode)); }
int unlinkat(int at, const char *name, int flags) {
    REAL(unlinkat);
    int kind = flags & AT_REMOVEDIR ? RMDIR : UNLINK;
    ON_NAME(kind, at, name, real(at, name, flags));
}

static int renamed(int from, const char *old, int to, const char *new, unsigned flags) {
    REAL(renameat2);
    char one[PATH_MAX], two[PATH_MAX];
    if (!awake()) return real(from, old, to, new, flags);
    int a = absolute(from, old, one), b = absolute(to, new, two);
    if (!a && !b) return real(from, old, to, new, flags);
    pthread_mutex_lock(&turn);
    int error = begin(RENAME, two);
    if (!error && real(from, old, to, new, flags) < 0) error = errno;
    int kind = a != b || flags & ~RENAME_EXCHANGE ? UNKNOWN : flags ? EXCHANGE : RENAME;
    note(kind, error, one, two, 0, NULL, 0);
    if (!error) end();
    pthread_mutex_unlock(&turn);
    if (error) errno = error;
    return error ? -1 : 0;
}
int rename(const char *old, const char *new) { return renamed(AT_FDCWD, old, AT_FDCWD, new, 0); }
int renameat(int a, const char *old, int b, const char *new) { return renamed(a, old, b, new, 0); }
int renameat2(int a, const char *old, int b, const char *new, unsigned flags) { return renamed(a, old, b, new, flags); }

/* ------------------------------------------------------------------------------------------ content */

static ssize_t written(int fd, const void *data, size_t size, off_t at, int positioned) {
    REAL(pwrite);
    char path[PATH_MAX];
    pthread_mutex_lock(&turn);
    if (!path_of(fd, path)) { /* on its way out of sight: not an operation */
        ssize_t given = positioned ? real(fd, data, size, at) : plain_write(fd, data, size);
        pthread_mutex_unlock(&turn);
        return given;
    }
    if (!positioned) {
        struct stat about;
        fstat(fd, &about);
        at = fcntl(fd, F_GETFL) & O_APPEND ? about.st_size : lseek(fd, 0, SEEK_CUR);
    }
    int error = begin(WRITE, path), kills = 0;
    char *changed = NULL;
    if (!error && s.due && !s.struck && size) {
        if (s.fault == SHORT && size > 1) strike(WRITE, path, at), size = 1 + chance(size - 1);
        else if (s.fault == KILL_AMID) strike(WRITE, path, at), size = 1 + chance(size), kills = 1;
        else if (s.fault == FLIP && (changed = malloc(size))) {
            uint64_t bit = chance(8 * size);
            memcpy(changed, data, size);
            changed[bit / 8] ^= 1 << bit % 8;
            strike(WRITE, path, at + bit / 8);
            data = changed;
        }
    } else if (error == ENOSPC && size > 1 && s.count == s.nth && chance(2)) { /* a last piece found room */
        error = 0, size = 1 + chance(size - 1);
    }
    ssize_t given = -1;
    if (!error) {
        given = positioned ? real(fd, data, size, at) : plain_write(fd, data, size);
        if (given < 0) error = errno;
    }
    note(WRITE, error, path, "", at, error ? NULL : data, error ? 0 : given);
    if (kills) die();
    if (!error) end();
    free(changed);
    pthread_mutex_unlock(&turn);
    if (error) errno = error;
    return given;
}

static int regular(int fd) {
    struct stat about;
    return !fstat(fd, &about) && S_ISREG(about.st_mode);
}
ssize_t write(int fd, const void *data, size_t size) {
    return awake() && fd != s.journal && regular(fd) ? written(fd, data, size, 0, 0) : plain_write(fd, data, size);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    REAL(pwrite);
    return awake() && regular(fd) ? written(fd, data, size, at, 1) : real(fd, data, size, at);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { return pwrite(fd, data, size, at); }
ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    if (!awake() || !regular(fd)) return real(fd, parts, count);
    ssize_t total = 0;
    for (int i = 0; i < count; i++) {
        ssize_t done = write(fd, parts[i].iov_base, parts[i].iov_len);
        if (done < 0) return total ? total : -1;
        total += done;
        if ((size_t)done < parts[i].iov_len) break;
    }
    return total;
}

static int on_file(int kind, int fd, off_t size, int (*call)(int, off_t)) {
    char path[PATH_MAX];
    pthread_mutex_lock(&turn);
    int seen = path_of(fd, path), error = seen ? begin(kind, path) : 0;
    if (!error && call(fd, size) < 0) error = errno;
    if (seen) note(kind, error, path, "", size, NULL, 0);
    if (seen && !error) end();
    pthread_mutex_unlock(&turn);
    if (error) errno = error;
    return error ? -1 : 0;
}
static int real_ftruncate(int fd, off_t size) { REAL(ftruncate); return real(fd, size); }
static int real_fsync(int fd, off_t none) { REAL(fsync); (void)none; return real(fd); }
int ftruncate(int fd, off_t size) { return awake() ? on_file(TRUNCATE, fd, size, real_ftruncate) : real_ftruncate(fd, size); }
int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }
int fsync(int fd) { return awake() ? on_file(FSYNC, fd, 0, real_fsync) : real_fsync(fd, 0); }
int fdatasync(int fd) { return fsync(fd); }

/* --------------------------------------------------------------- what the model does not know */

static void unknown(const char *what, int fd) {
    char path[PATH_MAX];
    if (!awake() || !path_of(fd, path)) return;
    pthread_mutex_lock(&turn);
    note(UNKNOWN, 0, path, what, 0, NULL, 0);
    pthread_mutex_unlock(&turn);
}
void *mmap(void *at, size_t size, int prot, int flags, int fd, off_t from) {
    REAL(mmap);
    if (fd >= 0 && prot & PROT_WRITE && flags & MAP_SHARED) unknown("mmap", fd);
    return real(at, size, prot, flags, fd, from);
}
void *mmap64(void *at, size_t size, int prot, int flags, int fd, off64_t from) { return mmap(at, size, prot, flags, fd, from); }
ssize_t sendfile(int out, int in, off_t *from, size_t size) { REAL(sendfile); unknown("sendfile", out); return real(out, in, from, size); }
ssize_t sendfile64(int out, int in, off64_t *from, size_t size) { REAL(sendfile64); unknown("sendfile", out); return real(out, in, from, size); }
ssize_t copy_file_range(int in, off64_t *a, int out, off64_t *b, size_t size, unsigned flags) {
    REAL(copy_file_range); unknown("copy_file_range", out); return real(in, a, out, b, size, flags);
}
int posix_fallocate(int fd, off_t from, off_t size) { REAL(posix_fallocate); unknown("posix_fallocate", fd); return real(fd, from, size); }
int fallocate(int fd, int mode, off_t from, off_t size) { REAL(fallocate); unknown("fallocate", fd); return real(fd, mode, from, size); }
int linkat(int a, const char *old, int b, const char *new, int flags) {
    REAL(linkat);
    char path[PATH_MAX];
    if (awake() && absolute(b, new, path)) note(UNKNOWN, 0, path, "link", 0, NULL, 0);
    return real(a, old, b, new, flags);
}
int link(const char *old, const char *new) { return linkat(AT_FDCWD, old, AT_FDCWD, new, 0); }
int symlinkat(const char *to, int at, const char *name) {
    REAL(symlinkat);
    char path[PATH_MAX];
    if (awake() && absolute(at, name, path)) note(UNKNOWN, 0, path, "symlink", 0, NULL, 0);
    return real(to, at, name);
}
int symlink(const char *to, const char *name) { return symlinkat(to, AT_FDCWD, name); }
int truncate(const char *name, off_t size) {
    int fd = open(name, O_WRONLY);
    if (fd < 0) return -1;
    int given = ftruncate(fd, size), why = errno;
    close(fd);
    if (given) errno = why;
    return given;
}
int truncate64(const char *name, off64_t size) { return truncate(name, size); }
