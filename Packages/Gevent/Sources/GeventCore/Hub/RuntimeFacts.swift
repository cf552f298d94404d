internal import CGevent

/// What the running system offers the scheduler, and what was made of it; for `gevent-info` and bug reports.
public struct RuntimeFacts: Sendable, Hashable {
    /// How the ends of stacks are guarded.
    public enum GuardPages: String, Sendable, Hashable {
        /// Markers in the page tables (Linux 6.13): a million stacks in a handful of mappings.
        case markers = "MADV_GUARD_INSTALL"
        /// Protected pages: two mappings a stack, so the kernel's `vm.max_map_count` limits their number.
        case protection = "mprotect"
    }

    /// How the runtime's list of open exclusive accesses follows a greenlet.
    public enum AccessTracking: String, Sendable, Hashable {
        /// Its head was found in the thread's memory and is swapped there.
        case swapped
        /// It was not found, so the runtime's own calls swap it, at a few nanoseconds a switch.
        case byRuntimeCalls = "swapped by runtime calls"
        /// Neither is possible: a greenlet that waits inside a mutating access can make another one trap.
        case none = "not swapped"
    }

    /// How the ends of stacks are guarded.
    public let guardPages: GuardPages
    /// How the runtime's list of open exclusive accesses follows a greenlet.
    public let accessTracking: AccessTracking
    /// Whether the Concurrency runtime's words follow a greenlet. If not, task-locals bound around a wait leak.
    public let swapsTaskWords: Bool
    /// Bytes of address space a stack takes, its guard included: `GEVENT_STACK_SIZE`, rounded up to an odd number of
    /// pages.
    public let stackSize: Int
    /// Bytes of it that guard.
    public let guardSize: Int

    /// The facts of this thread's hub.
    ///
    /// Makes the hub if there is none, and traps if that fails; see ``Hub/start()``.
    public static var current: RuntimeFacts {
        let hub = requireHub()
        return RuntimeFacts(
            guardPages: hub.pointee.stacks.guard_kind == Int32(GEVENT_GUARD_MARKERS) ? .markers : .protection,
            accessTracking: hub.pointee.swaps_access_head
                ? .swapped : hub.pointee.calls_runtime_for_access ? .byRuntimeCalls : .none,
            swapsTaskWords: hub.pointee.swaps_task_words, stackSize: hub.pointee.stacks.slot_size,
            guardSize: hub.pointee.stacks.guard_size)
    }
}
