internal import CGeventSystem
internal import GeventCore
@_spi(GeventInternals) internal import GeventIO
internal import Glibc

// The operations of sockets that can park: the system calls, and how their results are to be read.

struct Receive: DescriptorOperation {
    static var readiness: Readiness { .read }
    private let buffer: UnsafeMutableRawBufferPointer

    init(_ buffer: UnsafeMutableRawBufferPointer) { self.buffer = buffer }

    var room: Int { buffer.count }

    func attempt(_ fileDescriptor: CInt) -> Int? {
        resultIfReady(gevent_net_receive(fileDescriptor, buffer.baseAddress, buffer.count))
    }
}

/// Receives into a buffer of the pool, which it has only if something was received: a greenlet that waits has none.
struct ReceiveOnLoan: DescriptorOperation {
    static var readiness: Readiness { .read }
    let pool: BufferPool
    let room: Int
    /// The buffer, once the operation has succeeded.
    private(set) var whole = UnsafeMutableRawBufferPointer(start: nil, count: 0)

    init(_ pool: BufferPool, _ limit: Int) {
        self.pool = pool
        room = min(limit, BufferPool.bufferSize)
    }

    mutating func attempt(_ fileDescriptor: CInt) -> Int? {
        whole = pool.take()
        let count = gevent_net_receive(fileDescriptor, whole.baseAddress, room)
        if count < 0 { pool.release(whole) }
        return resultIfReady(count)
    }
}

struct Send: DescriptorOperation {
    static var readiness: Readiness { .write }
    private let bytes: UnsafeRawBufferPointer

    init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    func attempt(_ fileDescriptor: CInt) -> Int? {
        resultIfReady(gevent_net_send(fileDescriptor, bytes.baseAddress, bytes.count))
    }
}

/// Sends the bytes of several parts in one system call, from where the latest one has ended.
struct SendGathered: DescriptorOperation {
    /// Most parts for one system call; the kernel takes 1024.
    private static let mostParts = 64

    static var readiness: Readiness { .write }
    private let parts: UnsafeBufferPointer<UnsafeRawBufferPointer>
    /// The first part of which bytes are left, and how many of its bytes have been sent.
    private var index = 0
    private var sent = 0
    /// How many bytes the latest attempt was to send.
    private(set) var offered = 0

    init(_ parts: UnsafeBufferPointer<UnsafeRawBufferPointer>) {
        self.parts = parts
        advance(by: 0)
    }

    var isDone: Bool { index == parts.count }

    /// Leaves out the bytes that were sent, and parts without any.
    mutating func advance(by count: Int) {
        sent += count
        while index < parts.count, sent >= parts[index].count {
            sent -= parts[index].count
            index += 1
        }
    }

    mutating func attempt(_ fileDescriptor: CInt) -> Int? {
        let count = min(parts.count - index, SendGathered.mostParts)
        return withUnsafeTemporaryAllocation(of: iovec.self, capacity: count) { pieces in
            offered = 0
            for place in 0..<count {
                let rest = parts[index + place].dropFirst(place == 0 ? sent : 0)
                // sendmsg does not write to the bytes.
                let start = UnsafeMutableRawPointer(mutating: UnsafeRawBufferPointer(rebasing: rest).baseAddress)
                pieces.initializeElement(at: place, to: iovec(iov_base: start, iov_len: rest.count))
                offered += rest.count
            }
            return resultIfReady(gevent_net_send_gathered(fileDescriptor, pieces.baseAddress, count))
        }
    }
}

struct Accept: DescriptorOperation {
    static var readiness: Readiness { .read }
    /// The peer's address, once the operation has succeeded.
    private(set) var address = gevent_net_address()

    mutating func attempt(_ fileDescriptor: CInt) -> Int? {
        resultIfReady(Int(gevent_net_accept(fileDescriptor, &address)))
    }
}

/// Begins to connect, and learns the outcome by its second attempt: the kernel then reports the attempt's own error.
struct Connect: DescriptorOperation {
    static var readiness: Readiness { .write }
    private var address: gevent_net_address
    private var isUnderWay = false

    init(_ address: SocketAddress) { self.address = address.raw }

    mutating func attempt(_ fileDescriptor: CInt) -> Int? {
        let result = gevent_net_connect(fileDescriptor, &address)
        switch -result {
        case EISCONN where isUnderWay:
            return 0
        case EINPROGRESS, EALREADY:
            isUnderWay = true
            return nil
        default:
            return Int(result)
        }
    }
}

/// Nil for EAGAIN, which the shims return like other errors.
@inline(__always)
private func resultIfReady(_ result: Int) -> Int? { result == -Int(EAGAIN) ? nil : result }
