// Storage for the value of a greenlet's body: two words in the object if the value fits, otherwise a heap allocation.
//
// Not a stored property of type `Output?`: the deinit of an object with such a property asks the runtime for the
// metadata of `Optional<Output>`, which takes a sixth of the time of a short greenlet. Here the value is destroyed by
// its own type alone. All functions are inlined, because an unspecialised call would ask for metadata too: that of
// `UnsafeMutablePointer<Output>`.

extension JoinableGreenlet {
    /// Storage for a small value, or for the address of a large one.
    @usableFromInline typealias ValueRoom = (UInt, UInt)

    @inlinable
    @inline(__always)
    static func hasRoom<Value>(for _: Value.Type) -> Bool {
        MemoryLayout<Value>.size <= MemoryLayout<ValueRoom>.size
            && MemoryLayout<Value>.alignment <= MemoryLayout<ValueRoom>.alignment
    }

    /// The address of a small value.
    @inlinable
    @inline(__always)
    final var smallValueAddress: UnsafeMutableRawPointer {
        // Invariant: a final stored property without observers is accessed in place in the object, so its address is
        // valid while the object is alive. The caller keeps the object alive.
        withUnsafeMutableBytes(of: &valueRoom) { $0.baseAddress! }
    }

    /// The address of a large value.
    @inlinable
    @inline(__always)
    final var largeValueAddress: UnsafeMutableRawPointer { UnsafeMutableRawPointer(bitPattern: valueRoom.0)! }

    /// Stores the value. Called at most once in a greenlet's life.
    @inlinable
    @inline(__always)
    final func storeValue<Value>(_ value: consuming Value) {
        if Self.hasRoom(for: Value.self) {
            smallValueAddress.initializeMemory(as: Value.self, to: value)
        } else {
            let box = UnsafeMutableRawPointer.allocate(
                byteCount: MemoryLayout<Value>.size, alignment: MemoryLayout<Value>.alignment)
            box.initializeMemory(as: Value.self, to: value)
            valueRoom.0 = UInt(bitPattern: box)
        }
        hasValue = true
    }

    /// Returns the stored value, which must be a `Value`; nil if there is none.
    @inlinable
    @inline(__always)
    final func loadValue<Value>(as type: Value.Type) -> Value? {
        guard hasValue else { return nil }
        let address = Self.hasRoom(for: type) ? smallValueAddress : largeValueAddress
        return address.assumingMemoryBound(to: type).pointee
    }

    /// Destroys the value. Called by `deinit`, only if there is a value.
    @inline(__always)
    final func destroyValue<Value>(as type: Value.Type) {
        if Self.hasRoom(for: type) {
            smallValueAddress.assumingMemoryBound(to: type).deinitialize(count: 1)
        } else {
            largeValueAddress.assumingMemoryBound(to: type).deinitialize(count: 1)
            largeValueAddress.deallocate()
        }
    }
}
