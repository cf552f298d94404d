// The machine room of Gevent: everything the scheduler touches on its hot path, in plain C structs.
//
// Swift classes sit on top of these structs and own all policy. What is here is here for one of three reasons: it must
// survive a stack switch without reference counting or exclusivity bookkeeping (contexts, the ready queue), it needs
// something Swift cannot spell (assembly, thread-local variables, sanitizer hooks), or it is an intrusive structure
// whose nodes live on greenlets' own stacks (waits, timers).
//
// Everything belongs to one hub and so to one thread, unless a comment says otherwise.
#pragma once

#include "gevent_context.h"
#include "gevent_deferred.h"
#include "gevent_descriptor_waiters.h"
#include "gevent_fork.h"
#include "gevent_frames.h"
#include "gevent_hub.h"
#include "gevent_hub_stacks.h"
#include "gevent_images.h"
#include "gevent_list.h"
#include "gevent_locals.h"
#include "gevent_monitor.h"
#include "gevent_monitor_thread.h"
#include "gevent_once.h"
#include "gevent_overflow.h"
#include "gevent_ready_queue.h"
#include "gevent_records.h"
#include "gevent_signals.h"
#include "gevent_spawn_site.h"
#include "gevent_spawn_tree.h"
#include "gevent_stacks.h"
#include "gevent_switching.h"
#include "gevent_thread_words.h"
#include "gevent_timers.h"
#include "gevent_waits.h"
