#include "gevent_annotations.h"

#include "gevent_sanitizers.h"

#if GEVENT_TSAN
void __tsan_acquire(void *address);
void __tsan_release(void *address);

void gevent_annotate_acquire(const void *object) { __tsan_acquire((void *)object); }
void gevent_annotate_release(const void *object) { __tsan_release((void *)object); }
#else
void gevent_annotate_acquire(const void *object) { (void)object; }
void gevent_annotate_release(const void *object) { (void)object; }
#endif
