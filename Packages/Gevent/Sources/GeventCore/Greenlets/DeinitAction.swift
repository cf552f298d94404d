/// Calls a closure when it goes. Captured by the body of a greenlet, it tells that the greenlet's turn is over: also if
/// it was killed before it ran, or there was no stack for it.
package final class DeinitAction {
    private let isOver: () -> Void

    package init(_ isOver: @escaping () -> Void) { self.isOver = isOver }

    deinit { isOver() }
}
