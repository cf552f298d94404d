// The C core of Gevent: everything that the scheduler touches on its hot path, in plain C structs.
//
// Swift classes are built on these structs and own all policy. Code is here for one of three reasons: it must survive a
// stack switch without reference counting or exclusivity bookkeeping (contexts, the ready queue), it needs something
// that Swift cannot express (assembly, thread-local variables, sanitizer hooks), or it is an intrusive structure whose
// nodes are stored on greenlets' own stacks (waits, timers).
//
// Every object belongs to one hub and so to one thread, unless a comment says otherwise.
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
