// Signals for hubs: one handler for the whole process, and an inbox for each hub that watches any.
//
// The handler counts and writes to an eventfd, and that is all; a hub whose inbox is readable takes the counts.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { GEVENT_SIGNAL_COUNT = 65 };  // the kernel's numbers are 1 to 64

typedef struct gevent_signal_inbox gevent_signal_inbox;

/// An inbox for the calling thread's hub. Null with errno set if there is no descriptor or memory for it.
gevent_signal_inbox *gevent_signal_inbox_open(void);

/// Stops watching whatever is still watched, and closes the descriptor. On the thread that opened it.
void gevent_signal_inbox_close(gevent_signal_inbox *inbox);

/// Readable when a signal has been counted.
int gevent_signal_inbox_descriptor(gevent_signal_inbox *inbox);

/// From now on the signal is counted for this inbox, and the calling thread, which opened it, does not block it. 0 or
/// an error number. Harmless if it is watched already.
int gevent_signal_watch(gevent_signal_inbox *inbox, int number);

/// The last inbox that stops watching a signal restores what the process did about it before, unless somebody else has
/// put something in our place meanwhile.
void gevent_signal_unwatch(gevent_signal_inbox *inbox, int number);

/// Makes the inbox unreadable until the next signal. To be called before the counts are taken, so that what is counted
/// in between makes it readable again.
void gevent_signal_inbox_drain(gevent_signal_inbox *inbox);

/// How often the handler ran for the signal since the last call.
uint32_t gevent_signal_take(gevent_signal_inbox *inbox, int number);

/// Whether a SIGINT that comes while another one has waited in this inbox for a second kills the process, as it would
/// have without us: the program does not answer.
void gevent_signal_insist_on_interrupt(gevent_signal_inbox *inbox, bool insists);

/// In a forked child: puts a descriptor of the child's own behind the same number. 0 or an error number.
int gevent_signal_inbox_renew(gevent_signal_inbox *inbox);
