#include "gevent_once.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "gevent_frames.h"
#include "gevent_hub.h"

// Exported by libswiftCore.
extern void swift_once(intptr_t *token, void (*function)(void *), void *context) __attribute__((weak));

/// The address in the runtime that an initializer returns to; null if unknown.
static const void *return_address = NULL;

__attribute__((noinline)) static void note_caller(void *context) {
    *(const void **)context = __builtin_return_address(0);
}

/// Finds `return_address` by running an initializer, because the runtime's function that calls it has no exported
/// symbol.
static void probe(void) {
    static intptr_t token = 0;
    if (swift_once) swift_once(&token, note_caller, &return_address);
}

int gevent_once_find(void *const *frames, size_t count) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, probe);
    if (!return_address) return -1;
    for (size_t i = 1; i < count; i++)
        if (frames[i] == return_address) return (int)i - 1;
    return -1;
}

static gevent_function_text function_text = NULL;

void gevent_once_set_function_text(gevent_function_text function) {
    __atomic_store_n(&function_text, function, __ATOMIC_RELAXED);
}

#ifdef DEBUG

/// Whether the initializer is seen for the first time. Also returns false when the table is full.
static bool is_new(const void *initializer) {
    enum { KNOWN_MOST = 64 };
    static const void *known[KNOWN_MOST];
    for (size_t i = 0; i < KNOWN_MOST; i++) {
        const void *expected = NULL;
        if (__atomic_compare_exchange_n(&known[i], &expected, initializer, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            return true;
        if (expected == initializer) return false;
    }
    return false;
}

static void print_warning(const gevent_context *context, const void *initializer, size_t room) {
    char name[1024] = "", text[1536];
    // Symbolication takes a lot of stack, and this stack may be small.
    enum { ROOM = 96 << 10 };
    gevent_function_text write_name = __atomic_load_n(&function_text, __ATOMIC_RELAXED);
    if (write_name && room >= ROOM) {
        write_name(initializer, name, sizeof name);
    } else {
        snprintf(name, sizeof name, "the one-time initialization function at %p", initializer);
    }
    const char *kind = context == &context->hub->main ? "the main greenlet" : "a greenlet";
    int length = snprintf(
        text, sizeof text,
        "gevent: %s%s%s%s waits in %s. If another greenlet of this thread touches that variable meanwhile, the thread "
        "stops for ever.\n",
        kind, context->name[0] ? " \"" : "", context->name, context->name[0] ? "\"" : "", name);
    if (length <= 0) return;
    size_t size = (size_t)length < sizeof text ? (size_t)length : sizeof text - 1;
    ssize_t written = write(STDERR_FILENO, text, size);
    (void)written;
}

__attribute__((noinline)) void gevent_once_warn(const gevent_context *context) {
    enum { FRAMES_MOST = 64 };
    void *frames[FRAMES_MOST];
    const char *frame_pointer = __builtin_frame_address(0);
    // Not the greenlet's stack: a C library may have switched to its own.
    if (frame_pointer < context->stack_low || frame_pointer >= context->stack_high) return;
    int index = gevent_once_find(frames, gevent_frames_from(frame_pointer, context->stack_high, frames, FRAMES_MOST));
    size_t room = (size_t)(frame_pointer - context->stack_low);
    if (index >= 0 && is_new(frames[index])) print_warning(context, frames[index], room);
}

#endif
