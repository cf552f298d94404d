// State Threads on epoll, with its default stacks. It has no yield, so a thread sleeps for zero time instead. It has no
// queue, so a ring with two condition variables replaces it. Its only timers are those of sleeping and waiting threads.
#include <st.h>

#include "../c-common/peer.h"

static void *spawn_many(st_thread_t *made, int64_t count, void *(*start)(void *), void *argument) {
    for (int64_t i = 0; i < count; i++) {
        made[i] = st_thread_create(start, argument, true, 0);
        peer_check(made[i] != NULL, "st_thread_create");
    }
    return made;
}

static void join_all(st_thread_t *made, int64_t count) {
    for (int64_t i = 0; i < count; i++) peer_check(st_thread_join(made[i], NULL) == 0, "st_thread_join");
}

static st_thread_t *room_for(int64_t count) {
    st_thread_t *made = calloc((size_t)count, sizeof *made);
    peer_check(made != NULL, "calloc");
    return made;
}

// MARK: Threads only

static int64_t each;

static void *yield_often(void *argument) {
    for (int64_t i = 0; i < each; i++) st_usleep(0);
    return argument;
}

static void yields(const char *name, int64_t count, bool quick) {
    each = (quick ? 40000 : 400000) / count;
    st_thread_t *made = spawn_many(room_for(count), count, yield_often, NULL);
    int64_t start = peer_now();
    join_all(made, count);
    peer_report(name, each * count, peer_now() - start);
}

static void yield_1(bool quick) { yields("yield-1", 1, quick); }
static void yield_2(bool quick) { yields("yield-2", 2, quick); }
static void yield_100(bool quick) { yields("yield-100", 100, quick); }
static void yield_1000(bool quick) { yields("yield-1000", 1000, quick); }
static void yield_10000(bool quick) { yields("yield-10000", 10000, quick); }

static st_cond_t turns[2];

static void *play(void *argument) {
    st_cond_t *mine = argument, *others = &turns[mine == turns];
    for (int64_t i = 0; i < each; i++) {
        st_cond_wait(*mine);
        st_cond_signal(*others);
    }
    return argument;
}

static void switches(bool quick) {
    each = (quick ? 400000 : 4000000) / 2;
    st_thread_t players[2];
    for (int i = 0; i < 2; i++) {
        turns[i] = st_cond_new();
        spawn_many(&players[i], 1, play, &turns[i]);
    }
    st_usleep(0);
    int64_t start = peer_now();
    st_cond_signal(turns[0]);
    join_all(players, 2);
    peer_report("switch", 2 * each, peer_now() - start);
}

static void *nothing(void *argument) { return argument; }

static void spawns(const char *name, int64_t total, int64_t at_once) {
    st_thread_t *made = room_for(at_once);
    int64_t start = peer_now();
    for (int64_t round = 0; round < total / at_once; round++) {
        spawn_many(made, at_once, nothing, NULL);
        join_all(made, at_once);
    }
    peer_report(name, total, peer_now() - start);
}

static void spawn_join(bool quick) { spawns("spawn-join", quick ? 100000 : 1000000, 1); }
static void spawn_join_1000(bool quick) { spawns("spawn-join-1000", quick ? 100000 : 1000000, 1000); }
static void spawn_join_1000000(bool quick) { (void)quick, spawns("spawn-join-1000000", 1000000, 1000000); }

enum { CAPACITY = 128 };

static int64_t ring[CAPACITY], elements, put, got;
static st_cond_t not_full, not_empty;

static void *produce(void *argument) {
    for (; put < elements; put++) {
        while (put - got == CAPACITY) st_cond_wait(not_full);
        ring[put % CAPACITY] = put;
        st_cond_signal(not_empty);
    }
    return argument;
}

static void *consume(void *argument) {
    int64_t *sum = argument;
    for (; got < elements; got++) {
        while (put == got) st_cond_wait(not_empty);
        *sum += ring[got % CAPACITY];
        st_cond_signal(not_full);
    }
    return NULL;
}

static void queue(bool quick) {
    elements = quick ? 1000000 : 10000000;
    int64_t sum = 0;
    not_full = st_cond_new();
    not_empty = st_cond_new();
    st_thread_t ends[2];
    int64_t start = peer_now();
    spawn_many(&ends[0], 1, produce, NULL);
    spawn_many(&ends[1], 1, consume, &sum);
    join_all(ends, 2);
    peer_report("queue-128", elements, peer_now() - start);
    peer_check(sum == elements * (elements - 1) / 2, "an element got lost");
}

// MARK: Sleeping

static st_cond_t gate;
static int64_t sleepers;

static void *sleep_until_moment(void *argument) {
    st_utime_t moment = (st_utime_t)peer_random_moment(sleepers);
    st_cond_wait(gate);
    st_usleep(moment);
    return argument;
}

static void sleep_random(bool quick) {
    sleepers = quick ? 10000 : 100000;
    gate = st_cond_new();
    st_thread_t *made = spawn_many(room_for(sleepers), sleepers, sleep_until_moment, NULL);
    st_usleep(0);
    int64_t start = peer_processor_now();
    st_cond_broadcast(gate);
    join_all(made, sleepers);
    peer_report("sleep-random", sleepers, peer_processor_now() - start);
}

static void *sleep_long(void *argument) {
    st_sleep(3600);
    return argument;
}

static void asleep(const char *name, int64_t count) {
    int64_t before = peer_memory();
    spawn_many(room_for(count), count, sleep_long, NULL);
    st_usleep(0);
    peer_report_bytes(name, count, peer_memory() - before);
}

static void asleep_100000(bool quick) { (void)quick, asleep("asleep-100000", 100000); }
static void asleep_1000000(bool quick) { (void)quick, asleep("asleep-1000000", 1000000); }

// MARK: Serving

static void *echo(void *argument) {
    st_netfd_t connection = argument;
    char buffer[4096];
    ssize_t size;
    while ((size = st_read(connection, buffer, sizeof buffer, ST_UTIME_NO_TIMEOUT)) > 0) {
        if (st_write(connection, buffer, (size_t)size, ST_UTIME_NO_TIMEOUT) != size) break;
    }
    st_netfd_close(connection);
    return NULL;
}

static void *end_with_input(void *argument) {
    char byte;
    st_read(argument, &byte, 1, ST_UTIME_NO_TIMEOUT);
    exit(0);
}

static void serve(bool echoes) {
    st_netfd_t listener = st_netfd_open_socket(peer_listen(true));
    st_thread_create(end_with_input, st_netfd_open(STDIN_FILENO), false, 0);
    for (;;) {
        st_netfd_t accepted = st_accept(listener, NULL, NULL, ST_UTIME_NO_TIMEOUT);
        if (!accepted) continue;
        if (echoes) {
            peer_no_delay(st_netfd_fileno(accepted));
            peer_check(st_thread_create(echo, accepted, false, 0) != NULL, "st_thread_create");
        } else {
            st_netfd_close(accepted);
        }
    }
}

int main(int count, char **arguments) {
    // Otherwise it would use select.
    peer_check(st_set_eventsys(ST_EVENTSYS_ALT) == 0 && st_init() == 0, "st_init");
    static const peer_case cases[] = {
        {"switch", switches},
        {"yield-1", yield_1},
        {"yield-2", yield_2},
        {"yield-100", yield_100},
        {"yield-1000", yield_1000},
        {"yield-10000", yield_10000},
        {"spawn-join", spawn_join},
        {"spawn-join-1000", spawn_join_1000},
        {"spawn-join-1000000", spawn_join_1000000},
        {"queue-128", queue},
        {"sleep-random", sleep_random},
        {"asleep-100000", asleep_100000},
        {"asleep-1000000", asleep_1000000},
    };
    return peer_main(count, arguments, serve, cases, sizeof cases / sizeof *cases);
}
