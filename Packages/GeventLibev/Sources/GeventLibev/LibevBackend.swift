internal import CLibev
internal import GeventLoop

extension LibevLoop {
    /// The ways in which libev can ask a Linux kernel for events.
    public enum Backend: String, Sendable, CaseIterable {
        /// epoll: libev's own choice on Linux.
        case epoll
        /// `poll(2)`: its cost grows with the number of descriptors.
        case poll
        /// `select(2)`: its cost grows with the highest descriptor.
        case select
        /// The kernel's asynchronous I/O, with epoll for what that cannot do. Experimental, says libev's manual.
        case linuxaio
        /// io_uring. Experimental, says libev's manual; libev never chooses it by itself.
        case iouring

        /// The backends that this build of libev has, best first. The kernel may still refuse one.
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
            case .iouring: CUnsignedInt(EVBACKEND_IOURING)
            }
        }

        /// The backends in a text such as "poll, select"; case and spaces do not matter.
        static func list(_ text: String) throws(LoopError) -> [Backend] {
            var backends: [Backend] = []
            for part in text.lowercased().split(whereSeparator: { $0 == "," || $0.isWhitespace }) {
                guard let backend = Backend(rawValue: String(part)) else {
                    throw LoopError(
                        .unsupported, operation: "GEVENT_BACKEND=\"\(text)\"",
                        message: "libev has no backend \"\(part)\"; it has \(names(supported))")
                }
                backends.append(backend)
            }
            return backends
        }

        static func names(_ backends: [Backend]) -> String {
            backends.map(\.rawValue).joined(separator: ", ")
        }
    }

    /// The backend of a loop that runs.
    static func backend(of loop: OpaquePointer) -> Backend? {
        let flag = ev_backend(loop)
        return Backend.allCases.first { $0.flag == flag }
    }
}
