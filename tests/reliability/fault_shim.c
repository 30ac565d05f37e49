/* Stands between a process and the C library for every call that changes a file system, below one folder.

   Loaded by LD_PRELOAD. `shim_arm` says which folder is meant and what to do at the N-th such call of the process:
   only record, die by SIGKILL before or after it, let it fail with an error, let it and all that would take space fail
   from then on, write a part only, or let it and all calls after it fail, so that the disk stays as a kill would leave
   it and the process goes on. Calls are counted and carried out one at a time, so that a record is an order
   that can be played back. Each line of the record: call, offset, size, result, data bytes that follow, path, other
   path, separated by tabs.
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OFF = -1, RECORD, KILL_BEFORE, KILL_AFTER, FAIL, FAIL_FROM, PART, CUT_OFF };
enum { GO = 0, SHORTENED = -1 };

static char root[4096];
static size_t root_length;
static int action = OFF, error_number, record = -1, with_data, with_reads;
static long wanted, seen;
static pthread_mutex_t one_at_a_time = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

typedef struct {
    const char *call, *path, *other;
    long long offset;
    const void *data;
    size_t size;
} Event;

void shim_arm(const char *folder, int what, long at, int error, int descriptor, int data, int reads) {
    snprintf(root, sizeof root, "%s", folder);
    root_length = strlen(root);
    wanted = at, error_number = error, record = descriptor, with_data = data, with_reads = reads, seen = 0;
    action = what;
}

void shim_disarm(void) { action = OFF; }

static int inside(const char *path) {
    return path && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length] || root_length == 1);
}

static int path_of(int descriptor, char *found, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, found, size - 1);
    found[length < 0 ? 0 : length] = 0;
    return length > 0;
}

/* The absolute form of a path that a call was given; names with .. do not occur. */
static const char *absolute(int folder, const char *path, char *room, size_t size) {
    if (!path || path[0] == '/') return path;
    char base[4096];
    if (folder == AT_FDCWD) {
        if (!getcwd(base, sizeof base)) return NULL;
    } else if (!path_of(folder, base, sizeof base)) {
        return NULL;
    }
    snprintf(room, size, "%s/%s", base, path);
    return room;
}

static int exists(const char *path) {
    struct stat state;
    return fstatat(AT_FDCWD, path, &state, AT_SYMLINK_NOFOLLOW) == 0;
}

static void note(const Event *event, long long result) {
    if (record < 0) return;
    char line[9000];
    size_t follows = with_data && event->data && result > 0 ? (size_t)result : 0;
    int length = snprintf(line, sizeof line, "%s\t%lld\t%zu\t%lld\t%zu\t%s\t%s\n", event->call, event->offset,
                          event->size, result, follows, event->path, event->other ? event->other : "");
    struct iovec parts[2] = {{line, (size_t)length}, {(void *)event->data, follows}};
    syscall(SYS_writev, record, parts, follows ? 2 : 1);
}

static void die(void) {
    syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    for (;;) pause();
}

static int takes_space(const char *call) {
    return !strcmp(call, "write") || !strcmp(call, "open") || !strcmp(call, "mkdir") || !strcmp(call, "truncate");
}

/* What to do with this call: GO, an error number, or SHORTENED. */
static int decide(const Event *event) {
    long number = seen++;
    if (action == KILL_BEFORE && number == wanted) {
        note(event, -1);
        die();
    }
    int from_here = number >= wanted && (action == CUT_OFF || (action == FAIL_FROM && takes_space(event->call)));
    if (from_here || (action == FAIL && number == wanted)) {
        note(event, -error_number);
        return error_number;
    }
    return action == PART && number == wanted && event->size > 1 ? SHORTENED : GO;
}

static void done(const Event *event, long long result) {
    int kept = errno;
    note(event, result < 0 ? -kept : result);
    if (action == KILL_AFTER && seen - 1 == wanted) die();
    errno = kept;
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define GUARDED(event, result_type, call)                           \
    do {                                                            \
        pthread_mutex_lock(&one_at_a_time);                         \
        int choice = decide(&(event));                              \
        result_type result;                                         \
        if (choice > 0) {                                           \
            result = -1;                                            \
            errno = choice;                                         \
        } else {                                                    \
            if (choice == SHORTENED) size = size / 2;               \
            result = (call);                                        \
            done(&(event), (long long)result);                      \
        }                                                           \
        pthread_mutex_unlock(&one_at_a_time);                       \
        return result;                                              \
    } while (0)

static void note_read(const char *path, int flags) {
    if (!with_reads || record < 0 || !path) return;
    Event event = {flags & (O_WRONLY | O_RDWR | O_CREAT) ? "opened to write" : "opened", path, NULL, 0, NULL, 0};
    note(&event, 0);
}

#define OPEN(name, parameters, folder, arguments)                                         \
    int name parameters {                                                                 \
        REAL(name);                                                                       \
        mode_t mode = 0;                                                                  \
        size_t size = 0;                                                                  \
        (void)size;                                                                       \
        if (flags & (O_CREAT | O_TMPFILE)) {                                              \
            va_list rest;                                                                 \
            va_start(rest, flags);                                                        \
            mode = va_arg(rest, mode_t);                                                  \
            va_end(rest);                                                                 \
        }                                                                                 \
        char room[8192];                                                                  \
        if (action == OFF) return real arguments;                                         \
        const char *where = absolute(folder, path, room, sizeof room);                    \
        if (action == RECORD) note_read(where, flags);                                    \
        int makes = (flags & O_CREAT) && where && !exists(where);                         \
        if (!inside(where) || (!makes && !(flags & O_TRUNC))) return real arguments;      \
        Event event = {makes ? "open" : "open-truncate", where, NULL, 0, NULL, 0};        \
        GUARDED(event, int, real arguments);                                              \
    }
OPEN(open, (const char *path, int flags, ...), AT_FDCWD, (path, flags, mode))
OPEN(open64, (const char *path, int flags, ...), AT_FDCWD, (path, flags, mode))
OPEN(openat, (int folder, const char *path, int flags, ...), folder, (folder, path, flags, mode))
OPEN(openat64, (int folder, const char *path, int flags, ...), folder, (folder, path, flags, mode))

#define ON_DESCRIPTOR(kind)                                                                             \
    REAL(kind);                                                                                         \
    char where[4096];

#define WRITE(name, offset_type, parameters, arguments, place)                                          \
    ssize_t name parameters {                                                                           \
        ON_DESCRIPTOR(name)                                                                             \
        if (action == OFF || !path_of(descriptor, where, sizeof where) || !inside(where)) return real arguments; \
        Event event = {"write", where, NULL, (place), data, size};                                      \
        GUARDED(event, ssize_t, real arguments);                                                        \
    }
static long long position(int descriptor) {
    if (fcntl(descriptor, F_GETFL) & O_APPEND) return lseek(descriptor, 0, SEEK_END);
    return lseek(descriptor, 0, SEEK_CUR);
}
WRITE(write, , (int descriptor, const void *data, size_t size), (descriptor, data, size), position(descriptor))
WRITE(pwrite, , (int descriptor, const void *data, size_t size, off_t offset), (descriptor, data, size, offset), offset)
WRITE(pwrite64, , (int descriptor, const void *data, size_t size, off64_t offset), (descriptor, data, size, offset), offset)

#define SYNC(name)                                                                                      \
    int name(int descriptor) {                                                                          \
        ON_DESCRIPTOR(name)                                                                             \
        size_t size = 0;                                                                                \
        (void)size;                                                                                     \
        if (action == OFF || !path_of(descriptor, where, sizeof where) || !inside(where)) return real(descriptor); \
        Event event = {"fsync", where, NULL, 0, NULL, 0};                                               \
        GUARDED(event, int, real(descriptor));                                                          \
    }
SYNC(fsync)
SYNC(fdatasync)

#define RESIZE(name, type)                                                                              \
    int name(int descriptor, type length) {                                                             \
        ON_DESCRIPTOR(name)                                                                             \
        size_t size = 0;                                                                                \
        (void)size;                                                                                     \
        if (action == OFF || !path_of(descriptor, where, sizeof where) || !inside(where)) return real(descriptor, length); \
        Event event = {"truncate", where, NULL, length, NULL, 0};                                       \
        GUARDED(event, int, real(descriptor, length));                                                  \
    }
RESIZE(ftruncate, off_t)
RESIZE(ftruncate64, off64_t)

/* Calls on one path. */
#define ON_PATH(name, said, parameters, folder, arguments)                                              \
    int name parameters {                                                                               \
        REAL(name);                                                                                     \
        char room[8192];                                                                                \
        size_t size = 0;                                                                                \
        (void)size;                                                                                     \
        const char *where = action == OFF ? NULL : absolute(folder, path, room, sizeof room);           \
        if (!inside(where)) return real arguments;                                                      \
        Event event = {said, where, NULL, 0, NULL, 0};                                                  \
        GUARDED(event, int, real arguments);                                                            \
    }
ON_PATH(unlink, "unlink", (const char *path), AT_FDCWD, (path))
ON_PATH(remove, "unlink", (const char *path), AT_FDCWD, (path))
ON_PATH(unlinkat, flags &AT_REMOVEDIR ? "rmdir" : "unlink", (int folder, const char *path, int flags), folder,
        (folder, path, flags))
ON_PATH(rmdir, "rmdir", (const char *path), AT_FDCWD, (path))
ON_PATH(mkdir, "mkdir", (const char *path, mode_t mode), AT_FDCWD, (path, mode))
ON_PATH(mkdirat, "mkdir", (int folder, const char *path, mode_t mode), folder, (folder, path, mode))
ON_PATH(truncate, "truncate", (const char *path, off_t length), AT_FDCWD, (path, length))
ON_PATH(truncate64, "truncate", (const char *path, off64_t length), AT_FDCWD, (path, length))

#define TWO_PATHS(name, said, parameters, folder, other_folder, arguments)                              \
    int name parameters {                                                                               \
        REAL(name);                                                                                     \
        char room[8192], other_room[8192];                                                              \
        size_t size = 0;                                                                                \
        (void)size;                                                                                     \
        if (action == OFF) return real arguments;                                                       \
        const char *where = absolute(folder, path, room, sizeof room);                                  \
        const char *to = absolute(other_folder, target, other_room, sizeof other_room);                 \
        if (!inside(where) && !inside(to)) return real arguments;                                       \
        Event event = {said, where, to, 0, NULL, 0};                                                    \
        GUARDED(event, int, real arguments);                                                            \
    }
TWO_PATHS(rename, "rename", (const char *path, const char *target), AT_FDCWD, AT_FDCWD, (path, target))
TWO_PATHS(renameat, "rename", (int folder, const char *path, int other, const char *target), folder, other,
          (folder, path, other, target))
TWO_PATHS(renameat2, "rename", (int folder, const char *path, int other, const char *target, unsigned flags), folder,
          other, (folder, path, other, target, flags))
TWO_PATHS(link, "link", (const char *path, const char *target), AT_FDCWD, AT_FDCWD, (path, target))
