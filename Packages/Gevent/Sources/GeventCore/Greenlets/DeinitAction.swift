/// Runs a closure on deinit. The body of a greenlet captures one to learn that the greenlet is done, even if it was
/// killed before it ran or no stack could be allocated for it.
package final class DeinitAction {
    private let action: () -> Void

    package init(_ action: @escaping () -> Void) { self.action = action }

    deinit { action() }
}
