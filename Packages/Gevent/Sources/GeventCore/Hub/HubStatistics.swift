internal import CGevent

/// The counters of a hub and of the objects it holds, at one moment.
public struct HubStatistics: Sendable, Hashable {
    /// Switches since the hub was made, with the callbacks that the hub has run.
    public let switchCount: UInt64
    /// Polls of the loop since the hub was made.
    public let pollCount: UInt64
    /// Greenlets started since the hub was made, raw ones included.
    public let spawnCount: UInt64
    /// Sleeps, wait limits, timeouts and delayed starts that have fired since the hub was made, without cancelled ones.
    public let firedTimers: UInt64
    /// Jobs posted to the hub since it was made, from any thread.
    public let postCount: UInt64
    /// Posted jobs that have not run yet.
    public let waitingPosts: Int
    /// How long the hub has existed, on its loop's clock.
    public let uptime: Duration
    /// Greenlets that have a stack now: running, ready or parked.
    public let liveGreenlets: Int
    /// The highest value that ``liveGreenlets`` has had.
    public let peakLiveGreenlets: Int
    /// Parked greenlets, main included. Greenlets that only yielded are ready and not counted.
    public let parkedGreenlets: Int
    /// Entries of the ready queue.
    public let readyCount: Int
    /// Pending sleeps, wait limits, timeouts, delayed starts and timers of the hub.
    public let pendingTimers: Int
    /// Greenlets that wait for a descriptor, and descriptors whose readiness others wait for.
    public let descriptorWaiters: Int
    /// Free stacks whose memory is kept for the next greenlet.
    public let idleStacks: Int

    /// Greenlets started per second, on average over the hub's life; 0 if no time has passed. For the rate between two
    /// statistics, divide the difference of ``spawnCount`` by the difference of ``uptime``.
    public var spawnsPerSecond: Double {
        uptime > .zero ? Double(spawnCount) / (uptime / .seconds(1)) : 0
    }

    /// Creates the statistics of a destroyed hub.
    init() {
        (switchCount, pollCount, spawnCount, firedTimers, uptime) = (0, 0, 0, 0, .zero)
        (postCount, waitingPosts) = (0, 0)
        (liveGreenlets, peakLiveGreenlets, parkedGreenlets) = (0, 0, 0)
        (readyCount, pendingTimers, descriptorWaiters, idleStacks) = (0, 0, 0, 0)
    }

    init(_ hub: Hub) {
        let pointer = hub.pointer
        switchCount = gevent_switch_count(pointer)
        // `poll_phase` counts both the beginning and the end of each poll.
        pollCount = (pointer.pointee.poll_phase + 1) / 2
        spawnCount = pointer.pointee.spawn_count
        firedTimers = pointer.pointee.timers.fired_count
        (postCount, waitingPosts) = hub.handle.counts
        uptime = hub.startTime.duration(to: hub.now)
        liveGreenlets = pointer.pointee.live_stacks
        peakLiveGreenlets = pointer.pointee.peak_live_stacks
        parkedGreenlets = Int(pointer.pointee.parked_count)
        readyCount = Int(gevent_ready_count(pointer))
        pendingTimers = Int(pointer.pointee.timers.count)
        descriptorWaiters = Int(pointer.pointee.descriptor_waiters)
        idleStacks = gevent_hub_idle_stacks(pointer)
    }
}
