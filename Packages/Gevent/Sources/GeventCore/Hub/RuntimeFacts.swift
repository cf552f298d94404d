internal import CGevent

/// The features of the running system that the scheduler uses; for `gevent-info` and bug reports.
public struct RuntimeFacts: Sendable, Hashable {
    /// The ways to guard the ends of stacks.
    public enum GuardPages: String, Sendable, Hashable {
        /// Markers in the page tables (Linux 6.13): a million stacks need only a handful of mappings.
        case markers = "MADV_GUARD_INSTALL"
        /// Protected pages: two mappings per stack, so the kernel's `vm.max_map_count` limits the number of stacks.
        case protection = "mprotect"
    }

    /// The ways to keep the runtime's list of open exclusive accesses with its greenlet.
    public enum AccessTracking: String, Sendable, Hashable {
        /// The head of the list was found in the thread's memory and is swapped there.
        case swapped
        /// The head was not found, so the runtime's own calls swap it; that costs a few nanoseconds per switch.
        case byRuntimeCalls = "swapped by runtime calls"
        /// Neither is possible: a greenlet that waits inside a mutating access can make another one trap.
        case none = "not swapped"
    }

    /// How the ends of stacks are guarded.
    public let guardPages: GuardPages
    /// How the runtime's list of open exclusive accesses is kept with its greenlet.
    public let accessTracking: AccessTracking
    /// Whether the Concurrency runtime's words are swapped at each switch. If not, task-locals bound around a wait
    /// leak.
    public let swapsTaskWords: Bool
    /// Bytes of address space per stack, guard included: `GEVENT_STACK_SIZE`, rounded up to an odd number of pages.
    public let stackSize: Int
    /// Bytes of the guard, which are part of ``stackSize``.
    public let guardSize: Int

    /// The facts of this thread's hub.
    ///
    /// Makes the hub if there is none, and exits the program if that fails; see ``Hub/start()``.
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
