internal import CGeventSystem
internal import GeventCore
@_spi(GeventInternals) internal import GeventIO
internal import Glibc

// The socket operations that can park: their system calls, and how the results are interpreted.

struct Receive: DescriptorOperation {
    static var readiness: Readiness { .read }
    private let buffer: UnsafeMutableRawBufferPointer

    init(_ buffer: UnsafeMutableRawBufferPointer) { self.buffer = buffer }

    var capacity: Int { buffer.count }

    func attempt(_ fileDescriptor: CInt) -> Int? {
        resultIfReady(gevent_net_receive(fileDescriptor, buffer.baseAddress, buffer.count))
    }
}

/// Receives into a buffer of the pool. It keeps the buffer only if bytes were received, so a waiting greenlet holds
/// none.
struct ReceiveIntoPoolBuffer: DescriptorOperation {
    static var readiness: Readiness { .read }
    let pool: BufferPool
    let capacity: Int
    /// The buffer, once the operation has succeeded.
    private(set) var buffer = UnsafeMutableRawBufferPointer(start: nil, count: 0)

    init(_ pool: BufferPool, _ limit: Int) {
        self.pool = pool
        capacity = min(limit, BufferPool.bufferSize)
    }

    mutating func attempt(_ fileDescriptor: CInt) -> Int? {
        buffer = pool.acquire()
        let count = gevent_net_receive(fileDescriptor, buffer.baseAddress, capacity)
        if count < 0 { pool.release(buffer) }
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

/// Sends the bytes of several parts in one system call, starting after the bytes already sent.
struct SendGathered: DescriptorOperation {
    /// The maximum number of parts in one system call; the kernel accepts 1024.
    private static let maxParts = 64

    static var readiness: Readiness { .write }
    private let parts: UnsafeBufferPointer<UnsafeRawBufferPointer>
    /// The index of the first part with unsent bytes, and the number of its bytes that were sent.
    private var index = 0
    private var sent = 0
    /// The number of bytes that the latest attempt tried to send.
    private(set) var offered = 0

    init(_ parts: UnsafeBufferPointer<UnsafeRawBufferPointer>) {
        self.parts = parts
        advance(by: 0)
    }

    var isDone: Bool { index == parts.count }

    /// Skips the bytes that were sent, and empty parts.
    mutating func advance(by count: Int) {
        sent += count
        while index < parts.count, sent >= parts[index].count {
            sent -= parts[index].count
            index += 1
        }
    }

    mutating func attempt(_ fileDescriptor: CInt) -> Int? {
        let count = min(parts.count - index, SendGathered.maxParts)
        return withUnsafeTemporaryAllocation(of: iovec.self, capacity: count) { vectors in
            offered = 0
            for slot in 0..<count {
                let rest = parts[index + slot].dropFirst(slot == 0 ? sent : 0)
                // sendmsg does not modify the bytes.
                let start = UnsafeMutableRawPointer(mutating: UnsafeRawBufferPointer(rebasing: rest).baseAddress)
                vectors.initializeElement(at: slot, to: iovec(iov_base: start, iov_len: rest.count))
                offered += rest.count
            }
            return resultIfReady(gevent_net_send_gathered(fileDescriptor, vectors.baseAddress, count))
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

/// Starts to connect, and gets the result from a second attempt, for which the kernel reports the error of the
/// connection.
struct Connect: DescriptorOperation {
    static var readiness: Readiness { .write }
    private var address: gevent_net_address
    private var isInProgress = false

    init(_ address: SocketAddress) { self.address = address.raw }

    mutating func attempt(_ fileDescriptor: CInt) -> Int? {
        let result = gevent_net_connect(fileDescriptor, &address)
        switch -result {
        case EISCONN where isInProgress:
            return 0
        case EINPROGRESS, EALREADY:
            isInProgress = true
            return nil
        default:
            return Int(result)
        }
    }
}

/// Returns nil for EAGAIN, which the shims return like any other error.
@inline(__always)
private func resultIfReady(_ result: Int) -> Int? { result == -Int(EAGAIN) ? nil : result }
