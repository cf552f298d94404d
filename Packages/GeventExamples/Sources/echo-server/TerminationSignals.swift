import GeventNet
import Glibc

// Written once, before the handler that reads it is installed, and never again.
nonisolated(unsafe) private var writeEnd: CInt = -1

/// Ctrl-C and `kill`, as something a greenlet can wait for.
///
/// A signal handler may do next to nothing, so it writes a byte into a pair of sockets; to the hub that is a descriptor
/// like any other. The second signal meets the default action again and ends the process.
struct TerminationSignals {
    private let bell: Socket
    private let rope: Socket

    init() throws {
        (bell, rope) = try Socket.pair()
        writeEnd = rope.fileDescriptor
        var action = sigaction()
        action.sa_flags = SA_RESTART | CInt(bitPattern: UInt32(SA_RESETHAND))
        action.__sigaction_handler.sa_handler = { _ in
            // The code that was interrupted may be about to look at errno.
            let interrupted = errno
            var byte: UInt8 = 0
            write(writeEnd, &byte, 1)
            errno = interrupted
        }
        sigaction(SIGINT, &action, nil)
        sigaction(SIGTERM, &action, nil)
    }

    /// Parks until the first one.
    func wait() throws {
        _ = try bell.read(upTo: 1)
    }
}
