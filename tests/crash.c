/* Preloaded, it stops a device wherever it could lose power, or lets its disk fail there.
 *
 * `crash_at(n)` ends the process by SIGKILL in front of the n-th call of its main thread that
 * changes a file; calls of other threads (the log's writer) do not count.
 *
 * `fail_at(n, error, calls)` lets the n-th such call on the folder given to `keep_durable`
 * fail with this errno, and those after it, `calls` in all; `failed()` tells how many did.
 *
 * `keep_durable(root, mirror)` keeps in `mirror` what a disk that has just lost power would
 * hold of the folder `root`: of each file the content of its last fsync, and the names of the
 * folder's last fsync. Nothing that was only written survives there. After `forget_syncs(1)`
 * the disk says that it has synced, and has not.
 *
 * `shift_clock(seconds)` moves the wall clock from where it really is.
 *
 * `list_names(folder, to)` writes the names in a folder as they are kept in the mirror. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long left, until_failure, may_fail, have_failed;
static int failure, forgetful;
static char root[PATH_MAX], mirror[PATH_MAX];
static pthread_mutex_t keeping = PTHREAD_MUTEX_INITIALIZER;

void crash_at(long calls) { left = calls; }

void fail_at(long call, int error, long calls) {
    until_failure = call;
    failure = error;
    may_fail = calls;
}

long failed(void) { return have_failed; }

void forget_syncs(int forget) { forgetful = forget; }

static int is_below_root(int fd, const char *path) {
    char link[64], found[PATH_MAX];
    if (!path) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, found, sizeof found - 1);
        if (length < 0) return 0;
        found[length] = 0;
        path = found;
    }
    return *root && !strncmp(path, root, strlen(root));
}

static int fails(int fd, const char *path) {
    if (!until_failure || syscall(SYS_gettid) != getpid() || !is_below_root(fd, path)) return 0;
    if (until_failure > 1) {
        until_failure--;
        return 0;
    }
    if (have_failed >= may_fail) return 0;
    have_failed++;
    errno = failure;
    return 1;
}

static void count(void) {
    if (left > 0 && syscall(SYS_gettid) == getpid() && --left == 0)
        kill(getpid(), SIGKILL);
}

/* A file is known by its inode and its birth: inodes are used again. */
static void key_of(int fd, const char *name, char *key, size_t size) {
    struct statx found;
    int flags = AT_SYMLINK_NOFOLLOW | (*name ? 0 : AT_EMPTY_PATH);
    if (statx(fd, name, flags, STATX_INO | STATX_BTIME, &found)) found.stx_ino = 0;
    snprintf(key, size, "%llu-%lld-%u", (unsigned long long)found.stx_ino,
             (long long)found.stx_btime.tv_sec, found.stx_btime.tv_nsec);
}

/* Raw calls, so that what is done here is neither counted nor kept. */
static void put(const char *name, int from, const char *text, size_t length) {
    char path[2 * PATH_MAX], beside[2 * PATH_MAX + 8], data[65536];
    snprintf(path, sizeof path, "%s/%s", mirror, name);
    snprintf(beside, sizeof beside, "%s.new", path);
    int to = syscall(SYS_openat, AT_FDCWD, beside, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ssize_t got;
    for (off_t at = 0; from >= 0 && (got = pread(from, data, sizeof data, at)) > 0; at += got)
        syscall(SYS_write, to, data, got);
    if (from < 0) syscall(SYS_write, to, text, length);
    syscall(SYS_close, to);
    syscall(SYS_renameat2, AT_FDCWD, beside, AT_FDCWD, path, 0);
}

static size_t names_of(const char *path, char *text, size_t size) {
    size_t length = 0;
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        if (entry->d_type != DT_REG) continue;
        char key[128];
        key_of(dirfd(folder), entry->d_name, key, sizeof key);
        length += snprintf(text + length, size - length, "%s %s\n", key, entry->d_name);
    }
    if (folder) closedir(folder);
    return length;
}

static void keep_names(void) {
    static char text[1 << 16];
    put("names", -1, text, names_of(root, text, sizeof text));
}

void list_names(const char *folder, const char *to) {
    static char text[1 << 16];
    int fd = syscall(SYS_openat, AT_FDCWD, to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    syscall(SYS_write, fd, text, names_of(folder, text, sizeof text));
    syscall(SYS_close, fd);
}

static int keep(int fd, int result) {
    char link[64], path[PATH_MAX], key[128], reopened[64];
    if (result || !*root || forgetful) return result;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0 || strncmp(path, root, strlen(root))) return result;
    path[length] = 0;
    pthread_mutex_lock(&keeping);
    if (!strcmp(path, root)) {
        keep_names();
    } else if (!strchr(path + strlen(root) + 1, '/')) {
        snprintf(reopened, sizeof reopened, "/proc/self/fd/%d", fd);
        int readable = syscall(SYS_openat, AT_FDCWD, reopened, O_RDONLY | O_CLOEXEC);
        key_of(fd, "", key, sizeof key);
        put(key, readable, NULL, 0);
        syscall(SYS_close, readable);
    }
    pthread_mutex_unlock(&keeping);
    return result;
}

void keep_durable(const char *new_root, const char *new_mirror) {
    snprintf(root, sizeof root, "%s", new_root);
    snprintf(mirror, sizeof mirror, "%s", new_mirror);
    DIR *folder = opendir(root);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        if (entry->d_type != DT_REG) continue;
        int fd = openat(dirfd(folder), entry->d_name, O_RDONLY | O_CLOEXEC);
        keep(fd, 0);
        close(fd);
    }
    if (folder) closedir(folder);
    keep_names();
}

#define WRAP(result, name, parameters, arguments, fd, path, after)        \
    result name parameters {                                              \
        static result (*real) parameters;                                 \
        if (!real) real = (result (*) parameters)dlsym(RTLD_NEXT, #name); \
        count();                                                          \
        if (fails(fd, path)) return -1;                                   \
        return after(real arguments);                                     \
    }
#define SYNCED(result) keep(fd, result)
#define PWRITE (int fd, const void *data, size_t size, off_t at)
#define PWRITE64 (int fd, const void *data, size_t size, off64_t at)
#define RENAMEAT (int a, const char *from, int b, const char *to)

WRAP(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size), fd, NULL, )
WRAP(ssize_t, pwrite, PWRITE, (fd, data, size, at), fd, NULL, )
WRAP(ssize_t, pwrite64, PWRITE64, (fd, data, size, at), fd, NULL, )
WRAP(int, fsync, (int fd), (fd), fd, NULL, SYNCED)
WRAP(int, fdatasync, (int fd), (fd), fd, NULL, SYNCED)
WRAP(int, ftruncate, (int fd, off_t size), (fd, size), fd, NULL, )
WRAP(int, ftruncate64, (int fd, off64_t size), (fd, size), fd, NULL, )
WRAP(int, rename, (const char *from, const char *to), (from, to), -1, from, )
WRAP(int, renameat, RENAMEAT, (a, from, b, to), a, from, )
WRAP(int, unlink, (const char *path), (path), -1, path, )
WRAP(int, unlinkat, (int fd, const char *path, int flags), (fd, path, flags), fd, path, )

static long shift;

void shift_clock(long seconds) { shift = seconds; }

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (!result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += shift;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int result = syscall(SYS_gettimeofday, now, zone);
    if (!result) now->tv_sec += shift;
    return result;
}

time_t time(time_t *where) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where) *where = now.tv_sec;
    return now.tv_sec;
}
