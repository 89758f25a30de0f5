/* A library to preload: the k-th change of a file below a folder ends in a kill or an error.

     FAULT_FOLDER  only changes of files below it count (all processes together)
     FAULT_COUNTER a file of 8 bytes, in which all processes count
     FAULT_AT      the k-th change is the one, from 1 on; 0 or nothing: count alone
     FAULT_KIND    kill: SIGKILL to the whole process group before it
                   half: half of the bytes are written, then the same kill
                   full: it and everything after it that needs space fails with ENOSPC
                   error: it alone fails with EIO

   A change is an open that creates or cuts a file, a write, a change of length, a rename, a link,
   an unlink, an mkdir, an rmdir and an fsync. What the kernel writes back from a memory map has no
   call of its own: a small file system tests that.
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NEVER, KILL, HALF, FULL, ERROR };
enum { GO_ON, FAIL };

static char folder[PATH_MAX];
static long *counter;
static long fault_at;
static int kind = NEVER;
static const char *names[] = {"", "kill", "half", "full", "error"};

/* Read the environment; called again by a process that was forked to be broken. */
__attribute__((constructor)) void fault_arm(void) {
    const char *at = getenv("FAULT_AT"), *what = getenv("FAULT_KIND");
    const char *where = getenv("FAULT_FOLDER"), *count = getenv("FAULT_COUNTER");
    counter = NULL;
    if (!where || !count) return;
    snprintf(folder, sizeof folder, "%s/", where);
    int file = open(count, O_RDWR);
    if (file < 0) return;
    void *map = mmap(NULL, sizeof(long), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (map == MAP_FAILED) return;
    fault_at = at ? atol(at) : 0;
    for (int i = KILL; what && i <= ERROR; i++)
        if (!strcmp(what, names[i])) kind = i;
    counter = map;
}

static int below(const char *path) {
    char whole[PATH_MAX];
    if (!counter || !path) return 0;
    if (path[0] != '/') {
        if (!getcwd(whole, sizeof whole)) return 0;
        size_t used = strlen(whole);
        snprintf(whole + used, sizeof whole - used, "/%s", path);
        path = whole;
    }
    return !strncmp(path, folder, strlen(folder));
}

static int open_below(int file) {
    char link[64], path[PATH_MAX];
    if (!counter) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return !strncmp(path, folder, strlen(folder));
}

static void die(void) {
    kill(0, SIGKILL);
    for (;;) pause();
}

/* Count one change, which needs space or not; the fault happens here. */
static int change(int needs_space) {
    long now = __atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST);
    if (!fault_at || now < fault_at) return GO_ON;
    if (kind == FULL) {
        if (!needs_space) return GO_ON;
        errno = ENOSPC;
        return FAIL;
    }
    if (now > fault_at) return GO_ON;
    if (kind == ERROR) {
        errno = EIO;
        return FAIL;
    }
    if (kind == KILL) die();
    return GO_ON; /* HALF: the write does half of its work; anything else is killed */
}

static int halves(void) { return kind == HALF && fault_at && *counter == fault_at; }

#define REAL(name) static __typeof__(&name) real; if (!real) real = dlsym(RTLD_NEXT, #name)
#define BEFORE(is_below, needs_space) \
    if (is_below) { if (change(needs_space) == FAIL) return -1; if (halves()) die(); }

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); \
        mode_t mode = 0; \
        if (flags & (O_CREAT | __O_TMPFILE)) { \
            va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); \
        } \
        if (flags & (O_CREAT | O_TRUNC)) BEFORE(below(path), flags & O_CREAT) \
        return real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int at, const char *path, int flags, ...) { \
        REAL(name); \
        mode_t mode = 0; \
        if (flags & (O_CREAT | __O_TMPFILE)) { \
            va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); \
        } \
        if (flags & (O_CREAT | O_TRUNC)) BEFORE(below(path), flags & O_CREAT) \
        return real(at, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name) \
    FILE *name(const char *path, const char *mode) { \
        REAL(name); \
        if (mode[0] != 'r' && below(path)) { \
            if (change(1) == FAIL) return NULL; \
            if (halves()) die(); \
        } \
        return real(path, mode); \
    }
FOPEN(fopen)
FOPEN(fopen64)

ssize_t write(int file, const void *bytes, size_t n) {
    REAL(write);
    if (open_below(file)) {
        if (change(1) == FAIL) return -1;
        if (halves()) { real(file, bytes, n / 2); die(); }
    }
    return real(file, bytes, n);
}

#define PWRITE(name, offset) \
    ssize_t name(int file, const void *bytes, size_t n, offset at) { \
        REAL(name); \
        if (open_below(file)) { \
            if (change(1) == FAIL) return -1; \
            if (halves()) { real(file, bytes, n / 2, at); die(); } \
        } \
        return real(file, bytes, n, at); \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t writev(int file, const struct iovec *parts, int n) {
    REAL(writev);
    BEFORE(open_below(file), 1)
    return real(file, parts, n);
}

int ftruncate(int file, off_t n) { REAL(ftruncate); BEFORE(open_below(file), 0) return real(file, n); }
int ftruncate64(int file, off64_t n) { REAL(ftruncate64); BEFORE(open_below(file), 0) return real(file, n); }

/* These return the error. */
int posix_fallocate(int file, off_t at, off_t n) {
    REAL(posix_fallocate);
    if (open_below(file)) { if (change(1) == FAIL) return errno; if (halves()) die(); }
    return real(file, at, n);
}
int posix_fallocate64(int file, off64_t at, off64_t n) {
    REAL(posix_fallocate64);
    if (open_below(file)) { if (change(1) == FAIL) return errno; if (halves()) die(); }
    return real(file, at, n);
}

int fsync(int file) { REAL(fsync); BEFORE(open_below(file), 0) return real(file); }
int fdatasync(int file) { REAL(fdatasync); BEFORE(open_below(file), 0) return real(file); }
int mkdir(const char *path, mode_t mode) { REAL(mkdir); BEFORE(below(path), 1) return real(path, mode); }
int rmdir(const char *path) { REAL(rmdir); BEFORE(below(path), 0) return real(path); }
int unlink(const char *path) { REAL(unlink); BEFORE(below(path), 0) return real(path); }
int unlinkat(int at, const char *path, int flags) {
    REAL(unlinkat);
    BEFORE(at == AT_FDCWD ? below(path) : open_below(at), 0)
    return real(at, path, flags);
}
int rename(const char *from, const char *to) { REAL(rename); BEFORE(below(to), 0) return real(from, to); }
int link(const char *from, const char *to) { REAL(link); BEFORE(below(to), 1) return real(from, to); }
int symlink(const char *from, const char *to) { REAL(symlink); BEFORE(below(to), 1) return real(from, to); }
