// Reports of uncaught errors, for people to read.

internal import CGevent
internal import Glibc

extension Hub {
    /// Reports an error that ended `greenlet` before anything else runs, because the process may end at any time.
    ///
    /// The report is made on the hub's stack, which is large and on which parking is refused.
    func reportAtOnce(_ error: any Error, in greenlet: AnyGreenlet) {
        if isDestroyed || pointer.pointee.current == gevent_hub_root(pointer) { return report(error, in: greenlet) }
        requestedReport = (error, greenlet)
        gevent_call_hub(pointer)
    }

    /// On the hub's stack: makes the report that a greenlet has requested, and resumes that greenlet.
    func serveHubCalls() {
        while pointer.pointee.hub_caller != nil {
            makeRequestedReport()
            gevent_return_from_hub_call(pointer)
        }
    }

    /// A separate function, so that it leaves no references on the hub's stack while greenlets run.
    @inline(never)
    private func makeRequestedReport() {
        guard let (error, greenlet) = requestedReport else { return }
        requestedReport = nil
        report(error, in: greenlet)
    }

    /// Calls the error handler. On the hub's stack.
    func report(_ error: any Error, in greenlet: AnyGreenlet?) {
        if isQuiet(error) { return }
        guard let errorHandler else {
            printReport(of: error, in: greenlet)
            return
        }
        do {
            try errorHandler(error, greenlet)
        } catch let failure {  // control: handlers run on the hub, where no kill can arrive
            printReport(of: error, in: greenlet)
            printReport(of: failure, in: nil, source: "the error handler")
        }
    }

    private func printReport(of error: any Error, in greenlet: AnyGreenlet?, source: String = "a hub callback") {
        guard let errorOutput else { return }
        var text = "gevent: \(greenlet.map(\.description) ?? source) failed with \(type(of: error)): \(error)\n"
        if let site = greenlet?.readableSpawnSite { text += spawnLines(site) }
        errorOutput(text)
    }

    private func spawnLines(_ site: UnsafePointer<gevent_spawn_site>) -> String {
        let location = SpawnLocation(site) { _ in }
        return location.frames.enumerated().map { index, frame in
            "    \(index == 0 ? location.phrase : "  called by") \(frame)\n"
        }.joined()
    }
}

package func printToStandardError(_ text: String) {
    var rest = Array(text.utf8)[...]
    while !rest.isEmpty {
        let written = rest.withUnsafeBytes { write(STDERR_FILENO, $0.baseAddress, $0.count) }
        if written < 0 && errno == EINTR { continue }
        if written <= 0 { return }
        rest = rest.dropFirst(written)
    }
}
