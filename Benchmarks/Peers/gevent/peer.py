"""gevent, on its default loop."""

import json
import os
import sys
import threading
import time

import gevent
import gevent.event
import gevent.os
import gevent.queue
import gevent.server

QUICK = sys.argv[2:3] == ["--quick"]


def scaled(count):
    return count // 10 if QUICK else count


def report(name, operations, seconds):
    print(json.dumps({"case": name, "operations": operations, "nanoseconds": seconds * 1e9 / operations}), flush=True)


def yields(count):
    def run(name):
        each = scaled(400_000) // count

        def body():
            for _ in range(each):
                gevent.sleep(0)

        greenlets = [gevent.Greenlet(body) for _ in range(count)]
        start = time.perf_counter()
        for greenlet in greenlets:
            greenlet.start()
        gevent.joinall(greenlets)
        report(name, each * count, time.perf_counter() - start)

    return run


def nothing():
    pass


def spawn_join(name):
    count = scaled(200_000)
    start = time.perf_counter()
    for _ in range(count):
        gevent.spawn(nothing).join()
    report(name, count, time.perf_counter() - start)


def spawn_at_once(count):
    def run(name):
        rounds = 1 if count >= 1_000_000 else scaled(200_000) // count
        start = time.perf_counter()
        for _ in range(rounds):
            gevent.joinall([gevent.spawn(nothing) for _ in range(count)])
        report(name, count * rounds, time.perf_counter() - start)

    return run


def queue(name):
    count = scaled(1_000_000)
    items = gevent.queue.Queue(128)

    def produce():
        for number in range(count):
            items.put(number)

    start = time.perf_counter()
    gevent.spawn(produce)
    for _ in range(count):
        items.get()
    report(name, count, time.perf_counter() - start)


def timers(cancelling):
    def run(name):
        count = 100_000
        loop = gevent.get_hub().loop
        made = []
        start = time.perf_counter()
        for i in range(count):
            timer = loop.timer(60 + (i * 7919 % 600_000) / 1000)
            timer.start(nothing)
            made.append(timer)
        started = time.perf_counter()
        for timer in made:
            timer.stop()
        cancelled = time.perf_counter()
        report(name, count, cancelled - started if cancelling else started - start)

    return run


def random_moments(count):
    """Moments as run-case has them, in seconds."""
    state = 1
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
        yield 0.1 + (state >> 33) % (count * 10) / 1e6


def timers_random(name):
    count = scaled(100_000)
    moments = list(random_moments(count))
    loop = gevent.get_hub().loop
    fired = [0]
    done = gevent.event.Event()

    def fire():
        fired[0] += 1
        if fired[0] == count:
            done.set()

    start = time.process_time()
    loop.update_now()
    made = []
    for moment in moments:
        timer = loop.timer(moment)
        timer.start(fire)
        made.append(timer)
    done.wait()
    report(name, count, time.process_time() - start)


def sleep_random(name):
    count = scaled(100_000)
    gate = gevent.event.Event()

    def body(moment):
        gate.wait()
        gevent.sleep(moment)

    greenlets = [gevent.spawn(body, moment) for moment in random_moments(count)]
    gevent.sleep(0)
    start = time.process_time()
    gate.set()
    gevent.joinall(greenlets)
    report(name, count, time.process_time() - start)


def memory():
    """What this process holds, in bytes: resident memory and page tables."""
    with open("/proc/self/status", encoding="ascii") as file:
        return sum(int(line.split()[1]) << 10 for line in file if line.startswith(("VmRSS:", "VmPTE:")))


def sleeping(count):
    def run(name):
        before = memory()
        greenlets = [gevent.spawn(gevent.sleep, 3600) for _ in range(count)]
        gevent.sleep(0)
        used = (memory() - before) / len(greenlets)
        print(json.dumps({"case": name, "operations": count, "bytes": used}), flush=True)
        os._exit(0)

    return run


def wake(name):
    count = scaled(50_000)
    watcher = gevent.get_hub().loop.async_()
    readable, writable = os.pipe()
    done = gevent.event.Event()
    seen = [0]

    def answer():
        while os.read(readable, 1):
            watcher.send()

    def woken():
        seen[0] += 1
        if seen[0] == count:
            done.set()
        else:
            os.write(writable, b"x")

    watcher.start(woken)
    thread = threading.Thread(target=answer)
    thread.start()
    start = time.perf_counter()
    os.write(writable, b"x")
    done.wait()
    report(name, count, time.perf_counter() - start)
    os.close(writable)
    thread.join()


def serve(echoes):
    def run(_):
        def handle(connection, _):
            if echoes:
                while True:
                    try:
                        data = connection.recv(4096)
                        if not data:
                            break
                        connection.sendall(data)
                    except OSError:
                        break

        server = gevent.server.StreamServer(("127.0.0.1", 0), handle, backlog=4096)
        server.start()
        print(json.dumps({"port": server.server_port}), flush=True)
        gevent.os.make_nonblocking(0)
        gevent.os.nb_read(0, 1)

    return run


CASES = {
    "yield-1": yields(1),
    "yield-2": yields(2),
    "yield-100": yields(100),
    "yield-1000": yields(1000),
    "yield-10000": yields(10000),
    "spawn-join": spawn_join,
    "spawn-join-1000": spawn_at_once(1000),
    "spawn-join-1000000": spawn_at_once(1_000_000),
    "queue-128": queue,
    "timers-start": timers(cancelling=False),
    "timers-cancel": timers(cancelling=True),
    "timers-random": timers_random,
    "sleep-random": sleep_random,
    "asleep-100000": sleeping(100_000),
    "asleep-1000000": sleeping(1_000_000),
    "post-sleeping": wake,
    "serve-echo": serve(True),
    "serve-close": serve(False),
}

if __name__ == "__main__":
    if sys.argv[1:2] == ["--list"]:
        print("\n".join(CASES))
    elif sys.argv[1:2] and sys.argv[1] in CASES:
        CASES[sys.argv[1]](sys.argv[1])
    else:
        sys.exit(f"usage: {sys.argv[0]} --list | CASE [--quick]")
