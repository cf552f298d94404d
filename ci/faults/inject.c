// A library for LD_PRELOAD that makes system calls of event loops fail on request. ci/faults/run builds it. The suite
// FaultTests, in the process that loads it, looks up the three functions at the end with dlsym.
//
// It replaces functions of the C library, and so also intercepts calls from libev and libuv.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

// Numbers, because the header may be older than the kernel.
enum { EPOLL_PWAIT2 = 441 };

// The requested fault. Several threads make calls; tests arm and disarm between their runs.
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char kind[32];
static char spared[32];
static int code;
static long to_skip, to_fail, failed;

/// Whether the caller is in the exempt library.
static bool is_spared(const void *caller) {
    Dl_info object;
    return spared[0] && dladdr(caller, &object) && object.dli_fname && strstr(object.dli_fname, spared);
}

/// Whether this call must fail. Sets errno if so.
static bool fails(const char *call, const void *caller) {
    // A check without the lock, for almost every call.
    if (!__atomic_load_n(&to_fail, __ATOMIC_ACQUIRE)) return false;
    pthread_mutex_lock(&lock);
    bool result = to_fail > 0 && strcmp(call, kind) == 0 && !is_spared(caller);
    if (result && to_skip > 0) {
        to_skip--;
        result = false;
    }
    if (result) {
        to_fail--;
        failed++;
    }
    int wanted = code;
    pthread_mutex_unlock(&lock);
    if (result) errno = wanted;
    return result;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define CALLER __builtin_return_address(0)

int epoll_create1(int flags) {
    if (fails("epoll_create1", CALLER)) return -1;
    return NEXT(epoll_create1)(flags);
}

int epoll_create(int size) {
    if (fails("epoll_create1", CALLER)) return -1;
    return NEXT(epoll_create)(size);
}

int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event) {
    const char *call = operation == EPOLL_CTL_ADD ? "epoll_ctl(ADD)"
        : operation == EPOLL_CTL_MOD ? "epoll_ctl(MOD)" : "epoll_ctl(DEL)";
    if (fails(call, CALLER)) return -1;
    return NEXT(epoll_ctl)(epoll, operation, fd, event);
}

int epoll_wait(int epoll, struct epoll_event *events, int count, int timeout) {
    if (fails("epoll_wait", CALLER)) return -1;
    return NEXT(epoll_wait)(epoll, events, count, timeout);
}

int epoll_pwait(int epoll, struct epoll_event *events, int count, int timeout, const sigset_t *mask) {
    if (fails("epoll_wait", CALLER)) return -1;
    return NEXT(epoll_pwait)(epoll, events, count, timeout, mask);
}

int eventfd(unsigned count, int flags) {
    if (fails("eventfd", CALLER)) return -1;
    return NEXT(eventfd)(count, flags);
}

int timerfd_create(int clock, int flags) {
    if (fails("timerfd_create", CALLER)) return -1;
    return NEXT(timerfd_create)(clock, flags);
}

int timerfd_settime(int fd, int flags, const struct itimerspec *value, struct itimerspec *old) {
    if (fails("timerfd_settime", CALLER)) return -1;
    return NEXT(timerfd_settime)(fd, flags, value, old);
}

int dup3(int from, int to, int flags) {
    if (fails("dup3", CALLER)) return -1;
    return NEXT(dup3)(from, to, flags);
}

// Eventfds are read and written in units of eight bytes. The tests use other sizes for everything else.

ssize_t read(int fd, void *bytes, size_t count) {
    if (count == 8 && fails("read(eventfd)", CALLER)) return -1;
    return syscall(SYS_read, fd, bytes, count);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    if (count == 8 && fails("write(eventfd)", CALLER)) return -1;
    return syscall(SYS_write, fd, bytes, count);
}

// The epoll loop makes these two calls by number.
long syscall(long number, ...) {
    const char *call = number == EPOLL_PWAIT2 ? "epoll_wait" : number == SYS_dup3 ? "dup3" : NULL;
    if (call && fails(call, CALLER)) return -1;
    va_list list;
    va_start(list, number);
    long a = va_arg(list, long), b = va_arg(list, long), c = va_arg(list, long), d = va_arg(list, long);
    long e = va_arg(list, long), f = va_arg(list, long);
    va_end(list);
    return NEXT(syscall)(number, a, b, c, d, e, f);
}

// MARK: Interface for the tests

/// Makes calls of a kind fail with an error number: the first `skip` succeed, the next `times` fail. Calls from the
/// library whose file name contains `spare` succeed and are not counted; pass an empty string to exempt none.
void gevent_faults_arm(const char *call, int error, long skip, long times, const char *spare) {
    pthread_mutex_lock(&lock);
    strncpy(kind, call, sizeof kind - 1);
    strncpy(spared, spare, sizeof spared - 1);
    code = error;
    to_skip = skip;
    failed = 0;
    __atomic_store_n(&to_fail, times, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&lock);
}

/// Lets all calls succeed again. Returns the number of failed calls since the last arming.
long gevent_faults_disarm(void) {
    pthread_mutex_lock(&lock);
    __atomic_store_n(&to_fail, 0, __ATOMIC_RELEASE);
    long result = failed;
    pthread_mutex_unlock(&lock);
    return result;
}

/// The number of failed calls since the last arming.
long gevent_faults_count(void) {
    pthread_mutex_lock(&lock);
    long result = failed;
    pthread_mutex_unlock(&lock);
    return result;
}
