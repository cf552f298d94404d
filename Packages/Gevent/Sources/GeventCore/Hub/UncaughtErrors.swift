// Routes uncaught errors: to a scoped group, into main, to the error handler, or nowhere.

extension Hub {
    /// Routes an error that ended `greenlet`.
    func greenletEnded(_ greenlet: AnyGreenlet, with error: any Error) {
        let isSilent = isExit(error)
        if !isSilent, let member = greenlet.member, GreenletGroup.adoptFailure(error, of: member) { return }
        if raisesInMain(error) { return }
        if !isSilent, greenlet.reportsFailure { reportAtOnce(error, in: greenlet) }
    }

    /// Routes an error that ended a callback, a raw link or other code that runs on the hub.
    func callbackFailed(_ error: any Error) {
        if raisesInMain(error) { return }
        report(error, in: nil)
    }

    /// Delivers a system error to main. Returns whether `error` is one and main still accepts errors.
    private func raisesInMain(_ error: any Error) -> Bool {
        guard !isBeingDestroyed, systemErrors.contains(where: { isInstance(error, of: $0) }) else { return false }
        mainGreenlet.deliver(error)
        return true
    }

    func isQuiet(_ error: any Error) -> Bool {
        isExit(error) || quietErrors.contains { isInstance(error, of: $0) }
    }
}

private func isInstance<Wanted: Error>(_ error: any Error, of _: Wanted.Type) -> Bool {
    // The fast path for the usual error, a structure: it has no subclass that a cast would have to find.
    if type(of: error) == GreenletExit.self { return Wanted.self == GreenletExit.self }
    return error is Wanted
}
