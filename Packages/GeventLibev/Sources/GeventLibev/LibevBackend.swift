internal import CLibev
internal import GeventLoop

extension LibevLoop {
    /// A kernel interface that libev can use on Linux to get events.
    public enum Backend: String, Sendable, CaseIterable {
        /// epoll, libev's default on Linux.
        case epoll
        /// `poll(2)`, whose cost grows with the number of descriptors.
        case poll
        /// `select(2)`, whose cost grows with the highest descriptor.
        case select
        /// The kernel's asynchronous I/O, with epoll for the descriptors it does not support. libev's manual calls it
        /// experimental.
        case linuxaio

        /// The backends that this build of libev supports, best first. The kernel may still refuse one.
        ///
        /// io_uring is excluded. libev 4.33 reuses entries of its submission queue without clearing them. Linux rejects
        /// such entries since 5.13, and an assertion in libev then ends the process.
        public static var supported: [Backend] {
            let mask = ev_supported_backends()
            return allCases.filter { $0.flag & mask != 0 }
        }

        var flag: CUnsignedInt {
            switch self {
            case .epoll: CUnsignedInt(EVBACKEND_EPOLL)
            case .poll: CUnsignedInt(EVBACKEND_POLL)
            case .select: CUnsignedInt(EVBACKEND_SELECT)
            case .linuxaio: CUnsignedInt(EVBACKEND_LINUXAIO)
            }
        }

        /// Parses a text such as "poll, select"; case and spaces are ignored.
        static func list(_ text: String) throws(LoopError) -> [Backend] {
            var backends: [Backend] = []
            for part in text.lowercased().split(whereSeparator: { $0 == "," || $0.isWhitespace }) {
                if part == "iouring" { throw ioUringRefused("GEVENT_BACKEND=\"\(text)\"") }
                guard let backend = Backend(rawValue: String(part)) else {
                    throw LoopError(
                        .unsupported, operation: "GEVENT_BACKEND=\"\(text)\"",
                        message: "libev has no backend \"\(part)\"; it has \(names(supported))")
                }
                backends.append(backend)
            }
            return backends
        }

        /// Returns the error for libev on io_uring, which is not supported.
        static func ioUringRefused(_ operation: String) -> LoopError {
            LoopError(
                .unsupported, operation: operation,
                message: "libev's io_uring backend is not used: it submits requests that Linux refuses since 5.13, and "
                    + "then aborts; this build of libev also has \(names(supported))")
        }

        static func names(_ backends: [Backend]) -> String {
            backends.map(\.rawValue).joined(separator: ", ")
        }
    }

    /// Returns whether a loop runs on io_uring.
    static func usesIOUring(_ loop: OpaquePointer) -> Bool { ev_backend(loop) == CUnsignedInt(EVBACKEND_IOURING) }

    /// Returns the backend of an existing loop.
    static func backend(of loop: OpaquePointer) -> Backend? {
        let flag = ev_backend(loop)
        return Backend.allCases.first { $0.flag == flag }
    }
}
