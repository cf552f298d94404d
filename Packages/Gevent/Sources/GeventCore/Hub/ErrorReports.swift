// What people read: reports of errors nobody caught.

internal import CGevent
internal import Glibc

extension Hub {
    /// Reports an error that ended `greenlet` before anything else runs: the process may end at any time.
    ///
    /// On the hub's stack: it is large, and whatever parks there is refused.
    func reportAtOnce(_ error: any Error, in greenlet: AnyGreenlet) {
        if isDestroyed || pointer.pointee.current == gevent_hub_root(pointer) { return report(error, in: greenlet) }
        reportOfVisitor = (error, greenlet)
        gevent_visit_hub(pointer)
    }

    /// On the hub's stack: makes the report for which a greenlet has handed control over, and hands control back.
    func serveVisitors() {
        while pointer.pointee.visitor != nil {
            reportForVisitor()
            gevent_end_visit(pointer)
        }
    }

    /// A function of its own: nothing it holds may stay on the hub's stack while others run.
    @inline(never)
    private func reportForVisitor() {
        guard let (error, greenlet) = reportOfVisitor else { return }
        reportOfVisitor = nil
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
        } catch let failure {  // control: handlers run on the hub, into which nothing can be thrown
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
        let place = SpawnLocation(site) { _ in }
        return place.frames.enumerated().map { index, frame in
            "    \(index == 0 ? place.phrase : "  called by") \(frame)\n"
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
