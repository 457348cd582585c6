// A library to preload (LD_PRELOAD): the calls of the C library by which Python changes and reads files, of which one fails.
// arm(at, error, kinds): of the calls of these kinds, number `at` from now on fails with this errno, or with ENOSPC all from
// that one on, as on a full disk; error 0: the process is killed instead. calls(): how many there were since.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

enum { ROOM = 1, WAITS = 2, CHANGES = 4, READS = 8 };  // kinds: needs room, may be interrupted, changes something, other

static long at, count;
static int error, kinds;

void arm(long number, int with, int of) { at = number, error = with, kinds = of, count = 0; }
long calls(void) { return count; }

static int fails(int kind) {
    if (!at || !(kind & kinds)) return 0;
    count++;
    if (count != at && !(error == ENOSPC && count > at)) return 0;
    if (!error) kill(getpid(), SIGKILL);
    errno = error;
    return 1;
}

// done: what a failing call has done nevertheless (close gives the descriptor back).
#define CALL(type, name, kind, parameters, arguments, done)  \
    type name parameters {                                         \
        static type(*real) parameters;                             \
        if (!real) *(void**)&real = dlsym(RTLD_NEXT, #name);       \
        if (fails(kind)) {                                   \
            done;                                                  \
            return -1;                                             \
        }                                                          \
        return real arguments;                                     \
    }
#define OPEN(name, parameters, arguments, flags)                     \
    int name parameters {                                            \
        static int (*real) parameters;                               \
        if (!real) *(void**)&real = dlsym(RTLD_NEXT, #name);         \
        va_list rest;                                                \
        va_start(rest, flags);                                       \
        int mode = va_arg(rest, int);                                \
        va_end(rest);                                                \
        return fails(flags & 0100 /* O_CREAT */ ? ROOM | WAITS | CHANGES : WAITS) ? -1 : real arguments; \
    }
OPEN(open, (const char* path, int flags, ...), (path, flags, mode), flags)
OPEN(open64, (const char* path, int flags, ...), (path, flags, mode), flags)
OPEN(openat, (int folder, const char* path, int flags, ...), (folder, path, flags, mode), flags)
OPEN(openat64, (int folder, const char* path, int flags, ...), (folder, path, flags, mode), flags)
CALL(ssize_t, write, ROOM | WAITS | CHANGES, (int fd, const void* data, size_t n), (fd, data, n), )
CALL(ssize_t, sendfile64, ROOM | WAITS | CHANGES, (int to, int from, off_t* offset, size_t n), (to, from, offset, n), )
CALL(int, fsync, ROOM | WAITS | CHANGES, (int fd), (fd), )
CALL(int, close, WAITS, (int fd), (fd), { int e = errno; real(fd); errno = e; })
CALL(int, rename, ROOM | CHANGES, (const char* from, const char* to), (from, to), )
CALL(int, renameat, ROOM | CHANGES, (int a, const char* from, int b, const char* to), (a, from, b, to), )
CALL(int, unlink, CHANGES, (const char* path), (path), )
CALL(int, unlinkat, CHANGES, (int folder, const char* path, int flags), (folder, path, flags), )
CALL(int, rmdir, CHANGES, (const char* path), (path), )
CALL(int, mkdir, ROOM | CHANGES, (const char* path, mode_t mode), (path, mode), )
CALL(int, flock, WAITS, (int fd, int operation), (fd, operation), )
CALL(int, ftruncate64, CHANGES, (int fd, off_t length), (fd, length), )
CALL(int, stat64, READS, (const char* path, void* found), (path, found), )
CALL(int, lstat64, READS, (const char* path, void* found), (path, found), )
CALL(int, fstat64, READS, (int fd, void* found), (fd, found), )
CALL(int, fstatat64, READS, (int folder, const char* path, void* found, int flags), (folder, path, found, flags), )
CALL(ssize_t, read, WAITS, (int fd, void* data, size_t n), (fd, data, n), )
