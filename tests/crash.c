/* Preloaded, it ends the process by SIGKILL in front of the n-th call of its main thread
 * that changes a file: so that a test can stop a device at every point where it could lose
 * power. `crash_at(n)` arms it; calls of other threads (the log's writer) do not count. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static long left;

void crash_at(long calls) { left = calls; }

static void count(void) {
    if (left > 0 && syscall(SYS_gettid) == getpid() && --left == 0)
        kill(getpid(), SIGKILL);
}

#define WRAP(result, name, parameters, arguments)                 \
    result name parameters {                                      \
        static result (*real) parameters;                         \
        if (!real) real = (result (*) parameters)dlsym(RTLD_NEXT, #name); \
        count();                                                  \
        return real arguments;                                    \
    }

WRAP(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size))
WRAP(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
WRAP(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
WRAP(int, fsync, (int fd), (fd))
WRAP(int, fdatasync, (int fd), (fd))
WRAP(int, ftruncate, (int fd, off_t size), (fd, size))
WRAP(int, ftruncate64, (int fd, off64_t size), (fd, size))
WRAP(int, rename, (const char *from, const char *to), (from, to))
WRAP(int, renameat, (int a, const char *from, int b, const char *to), (a, from, b, to))
WRAP(int, unlink, (const char *path), (path))
WRAP(int, unlinkat, (int fd, const char *path, int flags), (fd, path, flags))
