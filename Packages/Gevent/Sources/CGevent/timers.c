#include <stdio.h>
#include <stdlib.h>

#include "gevent_timers.h"

// The wheel. A timer at tick t is on the level of the highest digit in which t differs from the horizon, in the slot of
// t's digit on that level. So all timers on a level precede all timers on the next, and the slots of a level are in
// order of time: the earliest is found by two counts of trailing zeros.

static inline uint64_t tick_of(int64_t deadline) {
    return deadline <= 0 ? 0 : (uint64_t)deadline >> GEVENT_TICK_SHIFT;
}

static inline unsigned digit(uint64_t tick, unsigned level) {
    return (tick >> (level * GEVENT_LEVEL_BITS)) & (GEVENT_LEVEL_SLOTS - 1);
}

void gevent_timers_init(gevent_timers *timers) {
    *timers = (gevent_timers){0};
    for (int level = 0; level < GEVENT_LEVELS; level++)
        for (int slot = 0; slot < GEVENT_LEVEL_SLOTS; slot++) gevent_list_init(&timers->slots[level][slot]);
}

void gevent_timers_destroy(gevent_timers *timers) {
    free(timers->heap);
    timers->heap = NULL;
}

// MARK: the heap of near timers, four children a node

static inline bool earlier(gevent_timer_key a, gevent_timer_key b) {
    return a.deadline != b.deadline ? a.deadline < b.deadline : a.sequence < b.sequence;
}

static inline void heap_put(gevent_timers *timers, uint32_t index, gevent_timer_key key) {
    timers->heap[index] = key;
    key.timer->heap_index = index;
}

static void sift_up(gevent_timers *timers, uint32_t index, gevent_timer_key key) {
    while (index > 0) {
        uint32_t parent = (index - 1) / 4;
        if (!earlier(key, timers->heap[parent])) break;
        heap_put(timers, index, timers->heap[parent]);
        index = parent;
    }
    heap_put(timers, index, key);
}

static void sift_down(gevent_timers *timers, uint32_t index, gevent_timer_key key) {
    for (;;) {
        uint32_t first = index * 4 + 1;
        if (first >= timers->heap_count) break;
        uint32_t last = first + 4 < timers->heap_count ? first + 4 : timers->heap_count;
        uint32_t best = first;
        for (uint32_t child = first + 1; child < last; child++)
            if (earlier(timers->heap[child], timers->heap[best])) best = child;
        if (!earlier(timers->heap[best], key)) break;
        heap_put(timers, index, timers->heap[best]);
        index = best;
    }
    heap_put(timers, index, key);
}

static void heap_insert(gevent_timers *timers, gevent_timer *timer) {
    // It fires soon, and its payload has probably left the cache since it was started.
    __builtin_prefetch(timer->payload, 1);
    if (timers->heap_count == timers->heap_capacity) {
        uint32_t capacity = timers->heap_capacity ? timers->heap_capacity * 2 : 64;
        gevent_timer_key *heap = realloc(timers->heap, capacity * sizeof *heap);
        if (!heap) {
            fputs("gevent: out of memory for timers\n", stderr);
            abort();
        }
        timers->heap = heap;
        timers->heap_capacity = capacity;
    }
    timer->location = GEVENT_TIMER_IN_HEAP;
    gevent_timer_key key = {timer->deadline, timer->sequence, timer};
    sift_up(timers, timers->heap_count++, key);
}

static void heap_remove(gevent_timers *timers, uint32_t index) {
    gevent_timer_key last = timers->heap[--timers->heap_count];
    if (index == timers->heap_count) return;
    if (index > 0 && earlier(last, timers->heap[(index - 1) / 4]))
        sift_up(timers, index, last);
    else
        sift_down(timers, index, last);
}

// MARK: the wheel of far timers

static void insert(gevent_timers *timers, gevent_timer *timer) {
    uint64_t tick = tick_of(timer->deadline);
    if (tick < timers->horizon) {
        heap_insert(timers, timer);
        return;
    }
    uint64_t difference = tick ^ timers->horizon;
    unsigned level = difference ? (63 - (unsigned)__builtin_clzll(difference)) / GEVENT_LEVEL_BITS : 0;
    unsigned slot = digit(tick, level);
    timer->location = GEVENT_TIMER_IN_WHEEL;
    timer->slot_level = (uint8_t)level;
    timers->occupied[level] |= 1ULL << slot;
    gevent_list_append(&timers->slots[level][slot], &timer->node);
}

/// Removes a slot's timers and inserts each again, now that the horizon has moved.
static void reinsert(gevent_timers *timers, unsigned level, unsigned slot) {
    gevent_node *list = &timers->slots[level][slot];
    timers->occupied[level] &= ~(1ULL << slot);
    // Detached first: a timer may be inserted into the slot that it comes from.
    gevent_node *front = list->next, *back = list->previous;
    gevent_list_init(list);
    // From both ends, so that two timers are fetched at a time: each points only to its neighbours, and timers that
    // were started at random moments are scattered over memory. The heap restores their order.
    while (front != back) {
        gevent_node *next = front->next, *previous = back->previous;
        __builtin_prefetch(next, 1);
        __builtin_prefetch(previous, 1);
        insert(timers, (gevent_timer *)front);
        insert(timers, (gevent_timer *)back);
        if (next == back) return;
        front = next;
        back = previous;
    }
    insert(timers, (gevent_timer *)front);
}

/// Moves the horizon forward. No occupied slot may end before it.
static void set_horizon(gevent_timers *timers, uint64_t horizon) {
    timers->horizon = horizon;
    // A slot whose digit the horizon has reached holds timers that now differ from it in a lower digit only.
    for (int level = GEVENT_LEVELS - 1; level > 0; level--) {
        unsigned slot = digit(horizon, (unsigned)level);
        if (timers->occupied[level] >> slot & 1) reinsert(timers, (unsigned)level, slot);
    }
}

static inline int lowest_level(const gevent_timers *timers) {
    for (int level = 0; level < GEVENT_LEVELS; level++)
        if (timers->occupied[level]) return level;
    return -1;
}

/// Returns the first tick of the earliest occupied slot on `level`, the lowest level in use.
static inline uint64_t slot_start(const gevent_timers *timers, unsigned level) {
    unsigned slot = (unsigned)__builtin_ctzll(timers->occupied[level]);
    unsigned shift = level * GEVENT_LEVEL_BITS;
    uint64_t above = timers->horizon >> (shift + GEVENT_LEVEL_BITS);
    return (above << GEVENT_LEVEL_BITS | slot) << shift;
}

/// Empties the earliest occupied slot: from the lowest level into the heap, from any other level into lower ones.
static void open_slot(gevent_timers *timers, unsigned level, uint64_t start) {
    if (level == 0) {
        // The horizon moves past the slot first, so that its timers are inserted into the heap.
        timers->horizon = start + 1;
        reinsert(timers, 0, digit(start, 0));
        set_horizon(timers, start + 1);
    } else {
        set_horizon(timers, start);
    }
}

void gevent_timers_start(gevent_timers *timers, gevent_timer *timer, int64_t deadline, int64_t now) {
    if (timers->count++ == timers->heap_count) {
        // The wheel is empty, so it can start at the present; near deadlines are then on low levels.
        uint64_t tick = tick_of(now);
        if (tick > timers->horizon) timers->horizon = tick;
    }
    timers->referenced_count += timer->referenced;
    timer->deadline = deadline;
    timer->sequence = timers->next_sequence++;
    insert(timers, timer);
}

void gevent_timers_cancel(gevent_timers *timers, gevent_timer *timer) {
    switch (timer->location) {
    case GEVENT_TIMER_IDLE: return;
    case GEVENT_TIMER_IN_HEAP: heap_remove(timers, timer->heap_index); break;
    case GEVENT_TIMER_IN_WHEEL: {
        gevent_node *next = timer->node.next;
        bool was_alone = next == timer->node.previous;
        gevent_node_unlink(&timer->node);
        // Its neighbours on both sides are the slot's head, so the slot is empty now.
        if (was_alone) {
            unsigned level = timer->slot_level;
            size_t slot = (size_t)(next - &timers->slots[level][0]);
            timers->occupied[level] &= ~(1ULL << slot);
        }
        break;
    }
    }
    timer->location = GEVENT_TIMER_IDLE;
    timers->count--;
    timers->referenced_count -= timer->referenced;
}

gevent_timer *gevent_timers_pop_due(gevent_timers *timers, int64_t now) {
    uint64_t now_tick = tick_of(now);
    // All timers in the heap precede all timers in the wheel. So slots are opened one by one, and the heap stays small
    // for any number of due timers.
    while (timers->heap_count == 0 && timers->horizon <= now_tick) {
        int level = lowest_level(timers);
        uint64_t start = level < 0 ? UINT64_MAX : slot_start(timers, (unsigned)level);
        if (start > now_tick) {
            if (timers->horizon < now_tick) set_horizon(timers, now_tick);
            break;
        }
        open_slot(timers, (unsigned)level, start);
    }
    if (timers->heap_count == 0 || timers->heap[0].deadline > now) return NULL;
    gevent_timer *timer = timers->heap[0].timer;
    gevent_timers_cancel(timers, timer);
    timers->fired_count++;
    return timer;
}

int64_t gevent_timers_next(gevent_timers *timers, int64_t now) {
    // A slot that begins soon is opened, which yields the exact deadline. A later slot is not: the horizon would
    // advance so far that deadlines started meanwhile would fill the heap. The hub wakes early, at most once per level,
    // and calls again.
    enum { SOON = 256 };  // ticks; 16.8 ms
    uint64_t soon = tick_of(now) + SOON;
    while (timers->heap_count == 0) {
        int level = lowest_level(timers);
        if (level < 0) return INT64_MAX;
        uint64_t start = slot_start(timers, (unsigned)level);
        if (start > soon) return (int64_t)(start << GEVENT_TICK_SHIFT);
        open_slot(timers, (unsigned)level, start);
    }
    return timers->heap[0].deadline;
}

/// How many timers are examined to find the latest of those that may fire together. If there are more, the latest is
/// close to the end of the slack anyway.
enum { MAX_EXAMINED = 16 };

/// Returns the latest deadline in the heap up to `limit`; `limit` itself if there are more than a few.
static int64_t latest_until(const gevent_timers *timers, int64_t limit) {
    uint32_t indices[MAX_EXAMINED * 4];
    int64_t latest = timers->heap[0].deadline;
    uint32_t pending = 1, seen = 0;
    indices[0] = 0;
    while (pending > 0) {
        if (++seen == MAX_EXAMINED) return limit;
        uint32_t index = indices[--pending];
        if (timers->heap[index].deadline > latest) latest = timers->heap[index].deadline;
        uint32_t first = index * 4 + 1;
        for (uint32_t child = first; child < first + 4 && child < timers->heap_count; child++)
            if (timers->heap[child].deadline <= limit) indices[pending++] = child;
    }
    return latest;
}

int64_t gevent_timers_next_together(gevent_timers *timers, int64_t now, int64_t slack) {
    int64_t next = gevent_timers_next(timers, now);
    // If the heap is empty, there are no timers, or `next` is only an instant at which to call again.
    if (slack <= 0 || timers->heap_count == 0 || next <= now || next > INT64_MAX - slack) return next;
    int64_t limit = next + slack;
    // All timers in the heap precede all timers in the wheel.
    while (timers->heap_count < MAX_EXAMINED) {
        int level = lowest_level(timers);
        if (level < 0) break;
        uint64_t start = slot_start(timers, (unsigned)level);
        if (start > tick_of(limit)) break;
        open_slot(timers, (unsigned)level, start);
    }
    return latest_until(timers, limit);
}
