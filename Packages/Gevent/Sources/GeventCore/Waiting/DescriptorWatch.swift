internal import CGevent
internal import Glibc

/// A watch that calls a closure on the hub each time one of the library's own descriptors is readable, without a parked
/// greenlet.
///
/// Readiness is level-triggered, so the closure must read until the descriptor is drained, or close the watch. No
/// greenlet may wait on the descriptor. An open watch lives as long as its hub's loop, even without other references.
package final class DescriptorWatch {
    let fileDescriptor: CInt
    private let hub: Hub
    /// The closure; released on close, since its captures may retain the watch.
    private var onReadable: (() -> Void)?
    private var hold: Registration?
    private(set) var isOpen = true
    /// The timer of the next attempt to register, while the loop refuses to watch the descriptor.
    private var retry: HubTimer?
    private static let retryInterval = Duration.milliseconds(100)

    /// Starts watching, without owning the descriptor. `referenced`: whether the watch keeps the hub waiting.
    package init(
        _ fileDescriptor: CInt, on hub: Hub, referenced: Bool, onReadable: @escaping () -> Void
    ) throws(LoopError) {
        self.fileDescriptor = fileDescriptor
        self.hub = hub
        self.onReadable = onReadable
        hub.descriptors.forget(fileDescriptor)
        let entry = try hub.descriptors.entry(fileDescriptor)
        try hub.descriptors.arm(fileDescriptor, entry, .read)
        entry.pointee.watch = Unmanaged.passRetained(self).toOpaque()
        if referenced { hold = hub.hold() }
    }

    /// Whether the watch keeps the hub waiting.
    var isReferenced: Bool {
        get { hold != nil }
        set {
            if newValue == isReferenced || !isOpen { return }
            hold = newValue ? hub.hold() : nil
        }
    }

    /// Stops watching. Repeatable. The descriptor stays open; its owner may close it afterwards.
    package func close() {
        if !isOpen { return }
        isOpen = false
        hold = nil
        onReadable = nil
        retry?.cancel()
        retry = nil
        hub.descriptors.existing(fileDescriptor)?.pointee.watch = nil
        hub.descriptors.willClose(fileDescriptor)
        Unmanaged.passUnretained(self).release()
    }

    func becameReadable() { onReadable?() }

    /// Called when the loop has stopped watching the descriptor, most likely for lack of memory.
    ///
    /// No waiting greenlet can receive the error, and signals or children must not be missed. So the hub reports the
    /// error once, and the watch retries until it succeeds. Level-triggered readiness is not lost meanwhile.
    func registrationFailed(_ error: LoopError) {
        if retry == nil { hub.enqueue { [hub] in hub.report(error, in: nil) } }
        let timer = retry ?? HubTimer(hub.pointer) { [unowned self] in register() }
        retry = timer
        let now = Hub.time(hub.pointer)
        timer.start(at: now.advanced(by: DescriptorWatch.retryInterval), now: now, referenced: false)
    }

    private func register() {
        do throws(LoopError) {
            try hub.descriptors.arm(fileDescriptor, try hub.descriptors.entry(fileDescriptor), .read)
            retry = nil
        } catch {
            // `arm` has called `registrationFailed`, which has restarted the timer.
        }
    }
}
