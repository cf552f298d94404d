// Calls that inform the sanitizers of stack switches. Private to the C sources.
#pragma once

#include <stddef.h>

#include "gevent_context.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GEVENT_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define GEVENT_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define GEVENT_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define GEVENT_TSAN 1
#endif

#if GEVENT_ASAN
void __sanitizer_start_switch_fiber(void **fake_stack_save, const void *bottom, size_t size);
void __sanitizer_finish_switch_fiber(void *fake_stack_save, const void **bottom_old, size_t *size_old);
void __lsan_register_root_region(const void *begin, size_t size);
void __lsan_unregister_root_region(const void *begin, size_t size);
void __asan_unpoison_memory_region(const volatile void *address, size_t size);
#endif

#if GEVENT_TSAN
void *__tsan_get_current_fiber(void);
void *__tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void *fiber);
void __tsan_switch_to_fiber(void *fiber, unsigned flags);
#define GEVENT_TSAN_DESTROY_FIBER(context)                                      \
    do {                                                                        \
        if ((context)->tsan_fiber) __tsan_destroy_fiber((context)->tsan_fiber); \
        (context)->tsan_fiber = NULL;                                           \
    } while (0)
#else
#define GEVENT_TSAN_DESTROY_FIBER(context) ((void)(context))
#endif
