// Where an error goes that nobody catches: to a scoped group, into main, to nobody, or to the error handler.

extension Hub {
    /// `error` ended `greenlet`.
    func greenletEnded(_ greenlet: AnyGreenlet, with error: any Error) {
        let isSilent = isExit(error)
        if !isSilent, let member = greenlet.member, GreenletGroup.takesOver(error, of: member) { return }
        if raisesInMain(error) { return }
        if !isSilent { reportAtOnce(error, in: greenlet) }
    }

    /// `error` ended a callback, a raw link or what else runs on the hub.
    func callbackFailed(_ error: any Error) {
        if raisesInMain(error) { return }
        report(error, in: nil)
    }

    /// Throws a system error into main. Returns whether it was one, and somebody is left in main to see it.
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
    // The usual error, and a structure, which has no subclass that a cast would have to find.
    if type(of: error) == GreenletExit.self { return Wanted.self == GreenletExit.self }
    return error is Wanted
}
