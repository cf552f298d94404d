internal import CGevent
internal import Glibc

/// Calls a closure on the hub each time a descriptor of the library's own is readable, without a greenlet that waits.
///
/// The closure reads until nothing is left, or closes the watch: readiness is level-triggered. Nobody else may wait on
/// the descriptor. An open watch lives as long as its hub's loop, whoever holds it.
package final class DescriptorWatch {
    let fileDescriptor: CInt
    private let hub: Hub
    /// Until it is closed: what it captures may hold the watch.
    private var onReadable: (() -> Void)?
    private var hold: Registration?
    private(set) var isOpen = true
    /// While the loop has refused to watch the descriptor: fires when it is asked again.
    private var retry: HubTimer?
    private static let timeToRetry = Duration.milliseconds(100)

    /// Watches from now on. Does not take the descriptor over. `referenced` says whether the hub waits for it.
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

    /// Whether it keeps the hub waiting.
    var isReferenced: Bool {
        get { hold != nil }
        set {
            if newValue == isReferenced || !isOpen { return }
            hold = newValue ? hub.hold() : nil
        }
    }

    /// Stops watching. Repeatable. The descriptor stays open, and may be closed afterwards.
    package func close() {
        if !isOpen { return }
        isOpen = false
        hold = nil
        onReadable = nil
        retry?.cancel()
        retry = nil
        hub.descriptors.existing(fileDescriptor)?.pointee.watch = nil
        hub.descriptors.closing(fileDescriptor)
        Unmanaged.passUnretained(self).release()
    }

    func becameReadable() { onReadable?() }

    /// The loop does not watch the descriptor any more, most likely for want of memory.
    ///
    /// No greenlet waits that could be thrown the error, and signals or children must not go unnoticed for good. So the
    /// hub reports the error once, and asks the loop again until it agrees; readiness lasts until then.
    func registrationFailed(_ error: LoopError) {
        if retry == nil { hub.enqueue { [hub] in hub.report(error, in: nil) } }
        let timer = retry ?? HubTimer(hub.pointer) { [unowned self] in register() }
        retry = timer
        let now = Hub.time(hub.pointer)
        timer.start(at: now.advanced(by: DescriptorWatch.timeToRetry), now: now, referenced: false)
    }

    private func register() {
        do throws(LoopError) {
            try hub.descriptors.arm(fileDescriptor, try hub.descriptors.entry(fileDescriptor), .read)
            retry = nil
        } catch {
            // Has come to `registrationFailed`, which has started the timer again.
        }
    }
}
