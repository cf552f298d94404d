// What people read: reports of errors nobody caught.

internal import CGevent
internal import Glibc

extension Hub {
    /// Queues the report of an error that ended `greenlet`: handlers run on the hub, whose stack is large.
    func reportLater(_ error: any Error, in greenlet: AnyGreenlet) {
        enqueue { self.report(error, in: greenlet) }
    }

    /// Tells the error handler. On the hub's stack.
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
        let place = SpawnPlace(site) {}
        return place.frames.enumerated().map { index, frame in
            "    \(index == 0 ? place.phrase : "  called by") \(frame)\n"
        }.joined()
    }
}

func printToStandardError(_ text: String) {
    var rest = Array(text.utf8)[...]
    while !rest.isEmpty {
        let written = rest.withUnsafeBytes { write(STDERR_FILENO, $0.baseAddress, $0.count) }
        if written < 0 && errno == EINTR { continue }
        if written <= 0 { return }
        rest = rest.dropFirst(written)
    }
}
