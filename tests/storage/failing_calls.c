// A library to preload (LD_PRELOAD): the calls of the C library by which Python changes and reads files, of which one fails.
// arm(at, error, for_ever): call number `at` from now on fails with this errno, and for_ever those after it that need room;
// error 0: the process is killed instead. calls(): how many there were since.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static long at, count;
static int error, for_ever;

void arm(long number, int with, int all) { at = number, error = with, for_ever = all, count = 0; }
long calls(void) { return count; }

static int fails(int needs_room) {
    if (!at) return 0;
    count++;
    if (count != at && !(for_ever && needs_room && count > at)) return 0;
    if (!error) kill(getpid(), SIGKILL);
    errno = error;
    return 1;
}

// done: what a failing call has done nevertheless (close gives the descriptor back).
#define CALL(type, name, needs_room, parameters, arguments, done)  \
    type name parameters {                                         \
        static type(*real) parameters;                             \
        if (!real) *(void**)&real = dlsym(RTLD_NEXT, #name);       \
        if (fails(needs_room)) {                                   \
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
        return fails(flags & 0100 /* O_CREAT */) ? -1 : real arguments; \
    }
OPEN(open, (const char* path, int flags, ...), (path, flags, mode), flags)
OPEN(open64, (const char* path, int flags, ...), (path, flags, mode), flags)
OPEN(openat, (int folder, const char* path, int flags, ...), (folder, path, flags, mode), flags)
OPEN(openat64, (int folder, const char* path, int flags, ...), (folder, path, flags, mode), flags)
CALL(ssize_t, write, 1, (int fd, const void* data, size_t n), (fd, data, n), )
CALL(ssize_t, sendfile64, 1, (int to, int from, off_t* offset, size_t n), (to, from, offset, n), )
CALL(int, fsync, 0, (int fd), (fd), )
CALL(int, close, 0, (int fd), (fd), { int e = errno; real(fd); errno = e; })
CALL(int, rename, 0, (const char* from, const char* to), (from, to), )
CALL(int, renameat, 0, (int a, const char* from, int b, const char* to), (a, from, b, to), )
CALL(int, unlink, 0, (const char* path), (path), )
CALL(int, unlinkat, 0, (int folder, const char* path, int flags), (folder, path, flags), )
CALL(int, rmdir, 0, (const char* path), (path), )
CALL(int, mkdir, 1, (const char* path, mode_t mode), (path, mode), )
CALL(int, flock, 0, (int fd, int operation), (fd, operation), )
CALL(int, ftruncate64, 0, (int fd, off_t length), (fd, length), )
CALL(int, stat64, 0, (const char* path, void* found), (path, found), )
CALL(int, lstat64, 0, (const char* path, void* found), (path, found), )
CALL(int, fstat64, 0, (int fd, void* found), (fd, found), )
CALL(int, fstatat64, 0, (int folder, const char* path, void* found, int flags), (folder, path, found, flags), )
CALL(ssize_t, read, 0, (int fd, void* data, size_t n), (fd, data, n), )
