// boost.fiber on one thread, with its round-robin scheduler and the default stacks.
#include <boost/fiber/all.hpp>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace fibers = boost::fibers;
using boost::this_fiber::yield;

static bool quick = false;
static long scaled(long count) { return quick ? count / 10 : count; }

static long long now() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

static void report(const char *name, long operations, long long nanoseconds) {
    std::printf("{\"case\": \"%s\", \"operations\": %ld, \"nanoseconds\": %.3f}\n", name, operations,
                static_cast<double>(nanoseconds) / static_cast<double>(operations));
}

static void yields(const char *name, long count) {
    long each = scaled(4000000) / count;
    std::vector<fibers::fiber> made;
    for (long i = 0; i < count; i++)
        made.emplace_back(fibers::launch::post, [each] {
            for (long j = 0; j < each; j++) yield();
        });
    long long start = now();
    for (auto &one : made) one.join();
    report(name, each * count, now() - start);
}

static void spawn_join(const char *name) {
    long count = scaled(1000000);
    long long start = now();
    for (long i = 0; i < count; i++) fibers::fiber(fibers::launch::post, [] {}).join();
    report(name, count, now() - start);
}

static void spawn_at_once(const char *name, long count) {
    long rounds = scaled(1000000) / count;
    long long start = now();
    for (long round = 0; round < rounds; round++) {
        std::vector<fibers::fiber> made;
        made.reserve(static_cast<size_t>(count));
        for (long i = 0; i < count; i++) made.emplace_back(fibers::launch::post, [] {});
        for (auto &one : made) one.join();
    }
    report(name, count * rounds, now() - start);
}

static void queue(const char *name) {
    long count = scaled(10000000);
    fibers::buffered_channel<long> channel(128);
    long long start = now();
    fibers::fiber producer(fibers::launch::post, [&] {
        for (long i = 0; i < count; i++) channel.push(i);
        channel.close();
    });
    long value = 0;
    while (channel.pop(value) == fibers::channel_op_status::success) {
    }
    report(name, count, now() - start);
    producer.join();
}

static long long processor_now() {
    timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/// Fibers that each sleep until their own moment. The moments are those of run-case.
static void sleep_random(const char *name) {
    long count = scaled(100000);
    std::uint64_t state = 1;
    fibers::mutex mutex;
    fibers::condition_variable gate;
    bool is_open = false;
    std::vector<fibers::fiber> made;
    for (long i = 0; i < count; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        auto moment = std::chrono::microseconds(100000 + static_cast<long>(state >> 33) % (count * 10));
        made.emplace_back(fibers::launch::post, [&, moment] {
            std::unique_lock<fibers::mutex> lock(mutex);
            gate.wait(lock, [&] { return is_open; });
            lock.unlock();
            boost::this_fiber::sleep_for(moment);
        });
    }
    yield();
    long long start = processor_now();
    is_open = true;
    gate.notify_all();
    for (auto &one : made) one.join();
    report(name, count, processor_now() - start);
}

static void raw_switch(const char *name) {
    namespace context = boost::context;
    long count = scaled(20000000);
    context::fiber other([](context::fiber &&caller) {
        for (;;) caller = std::move(caller).resume();
        return std::move(caller);
    });
    long long start = now();
    for (long i = 0; i < count / 2; i++) other = std::move(other).resume();
    report(name, count, now() - start);
}

int main(int count, char **arguments) {
    const std::vector<std::pair<std::string, std::function<void(const char *)>>> cases = {
        {"switch", raw_switch},
        {"yield-1", [](const char *name) { yields(name, 1); }},
        {"yield-2", [](const char *name) { yields(name, 2); }},
        {"yield-100", [](const char *name) { yields(name, 100); }},
        {"yield-1000", [](const char *name) { yields(name, 1000); }},
        {"yield-10000", [](const char *name) { yields(name, 10000); }},
        {"spawn-join", spawn_join},
        {"spawn-join-1000", [](const char *name) { spawn_at_once(name, 1000); }},
        {"queue-128", queue},
        {"sleep-random", sleep_random},
    };
    quick = count > 2 && std::strcmp(arguments[2], "--quick") == 0;
    for (auto &one : cases) {
        if (count > 1 && std::strcmp(arguments[1], "--list") == 0)
            std::puts(one.first.c_str());
        else if (count > 1 && one.first == arguments[1]) {
            one.second(arguments[1]);
            return 0;
        }
    }
    if (count > 1 && std::strcmp(arguments[1], "--list") == 0) return 0;
    std::fprintf(stderr, "usage: %s --list | CASE [--quick]\n", arguments[0]);
    return 64;
}
