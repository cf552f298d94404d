// What ThreadSanitizer must be told where Swift code synchronises: Swift's Mutex lives in a part of the standard library
// that is not instrumented, so what it orders looks like a race. Without the sanitizer these do nothing.
#pragma once

/// The calling thread has come to know what others did before they released `object`.
void gevent_annotate_acquire(const void *object);

/// Whoever acquires `object` from now on knows what the calling thread has done.
void gevent_annotate_release(const void *object);
