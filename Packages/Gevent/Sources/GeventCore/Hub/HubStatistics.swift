internal import CGevent

/// What a hub has done and what it holds, at one moment.
public struct HubStatistics: Sendable, Hashable {
    /// Switches between stacks since the hub was made.
    public let switchCount: UInt64
    /// Polls of the loop since then.
    public let pollCount: UInt64
    /// Greenlets started since then, raw ones included.
    public let spawnCount: UInt64
    /// Sleeps, wait limits, timeouts and delayed starts that have fired since then. Cancelled ones do not count.
    public let firedTimers: UInt64
    /// Jobs that were posted to the hub since then, by whatever thread.
    public let postCount: UInt64
    /// Those of them that have not run yet.
    public let waitingPosts: Int
    /// How long the hub exists, on its loop's clock.
    public let uptime: Duration
    /// Greenlets that have a stack now: running, ready or parked.
    public let liveGreenlets: Int
    /// The most there ever were.
    public let peakLiveGreenlets: Int
    /// Greenlets that wait for something, main included. Those that only yielded are not among them.
    public let parkedGreenlets: Int
    /// Entries of the ready queue.
    public let readyCount: Int
    /// Pending sleeps, timeouts and delayed starts.
    public let pendingTimers: Int
    /// Greenlets that wait for a descriptor.
    public let descriptorWaiters: Int
    /// Stacks whose memory is kept for the next greenlet.
    public let idleStacks: Int

    /// Greenlets started per second, on average over the hub's life; 0 if no time has passed. Two statistics give the
    /// rate between them: the difference of ``spawnCount`` by that of ``uptime``.
    public var spawnsPerSecond: Double {
        uptime > .zero ? Double(spawnCount) / (uptime / .seconds(1)) : 0
    }

    /// Of a hub that is gone.
    init() {
        (switchCount, pollCount, spawnCount, firedTimers, uptime) = (0, 0, 0, 0, .zero)
        (postCount, waitingPosts) = (0, 0)
        (liveGreenlets, peakLiveGreenlets, parkedGreenlets) = (0, 0, 0)
        (readyCount, pendingTimers, descriptorWaiters, idleStacks) = (0, 0, 0, 0)
    }

    init(_ hub: Hub) {
        let pointer = hub.pointer
        switchCount = gevent_switch_count(pointer)
        // Counted at the beginning and at the end of each.
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
