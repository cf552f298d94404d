// Signals for hubs: one handler for the process, and an inbox for each hub that watches signals.
//
// The handler only counts the signal and writes to an eventfd. A hub whose inbox is readable takes the counts.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { GEVENT_SIGNAL_COUNT = 65 };  // the kernel's numbers are 1 to 64

typedef struct gevent_signal_inbox gevent_signal_inbox;

/// Opens an inbox for the calling thread's hub. Returns null with errno set if descriptors or memory are exhausted.
gevent_signal_inbox *gevent_signal_inbox_open(void);

/// Stops watching all signals, and closes the descriptor. On the thread that opened the inbox.
void gevent_signal_inbox_close(gevent_signal_inbox *inbox);

/// Returns the eventfd, which is readable when a signal has been counted.
int gevent_signal_inbox_descriptor(gevent_signal_inbox *inbox);

/// Starts to count the signal for this inbox, and unblocks it on the calling thread, which must have opened the inbox.
/// Returns 0 or an error number. Does nothing if the signal is watched already.
int gevent_signal_watch(gevent_signal_inbox *inbox, int number);

/// Stops counting the signal. The last inbox that watches it restores its previous action, unless other code has
/// replaced our handler meanwhile.
void gevent_signal_unwatch(gevent_signal_inbox *inbox, int number);

/// Makes the inbox unreadable until the next signal. Must be called before the counts are taken, so that a signal in
/// between makes it readable again.
void gevent_signal_inbox_drain(gevent_signal_inbox *inbox);

/// Returns how often the handler ran for the signal since the last call, and resets the count.
uint32_t gevent_signal_take(gevent_signal_inbox *inbox, int number);

/// Sets whether a SIGINT kills the process if another one has been pending in this inbox for a second, because the
/// program does not respond.
void gevent_signal_enforce_interrupt_limit(gevent_signal_inbox *inbox, bool enforces);

/// Replaces the inherited descriptor in a forked child with a new one of the same number. Returns 0 or an error number.
int gevent_signal_inbox_renew(gevent_signal_inbox *inbox);
