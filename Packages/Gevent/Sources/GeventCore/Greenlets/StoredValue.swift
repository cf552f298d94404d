// Where a greenlet keeps the value of its body: in two words of its own if the value fits there, in a box if not.
//
// Not a stored property of type `Output?`: the end of every object that has one asks the runtime for the metadata of
// `Optional<Output>`, which is a sixth of the price of a short greenlet. Here the value is destroyed by its own type
// alone. All of it is inlined, since an unspecialised call would ask for metadata just so: that of
// `UnsafeMutablePointer<Output>`.

extension JoinableGreenlet {
    /// Room for a small value, or for the address of a large one.
    @usableFromInline typealias ValueRoom = (UInt, UInt)

    @inlinable
    @inline(__always)
    static func hasRoom<Value>(for _: Value.Type) -> Bool {
        MemoryLayout<Value>.size <= MemoryLayout<ValueRoom>.size
            && MemoryLayout<Value>.alignment <= MemoryLayout<ValueRoom>.alignment
    }

    /// Where the value is if it is small.
    @inlinable
    @inline(__always)
    final var valuePlace: UnsafeMutableRawPointer {
        // Invariant: a final stored property without observers is accessed where it lies in the object, so its address
        // holds as long as the object does, which the caller sees to.
        withUnsafeMutableBytes(of: &valueRoom) { $0.baseAddress! }
    }

    /// Where it is if it is large.
    @inlinable
    @inline(__always)
    final var valueBox: UnsafeMutableRawPointer { UnsafeMutableRawPointer(bitPattern: valueRoom.0)! }

    /// Keeps the value, once in a greenlet's life.
    @inlinable
    @inline(__always)
    final func storeValue<Value>(_ value: consuming Value) {
        if Self.hasRoom(for: Value.self) {
            valuePlace.initializeMemory(as: Value.self, to: value)
        } else {
            let box = UnsafeMutableRawPointer.allocate(
                byteCount: MemoryLayout<Value>.size, alignment: MemoryLayout<Value>.alignment)
            box.initializeMemory(as: Value.self, to: value)
            valueRoom.0 = UInt(bitPattern: box)
        }
        hasValue = true
    }

    /// What was stored, as a `Value`, which it has to be; nil if nothing was.
    @inlinable
    @inline(__always)
    final func loadValue<Value>(as type: Value.Type) -> Value? {
        guard hasValue else { return nil }
        let place = Self.hasRoom(for: type) ? valuePlace : valueBox
        return place.assumingMemoryBound(to: type).pointee
    }

    /// For the end of the object, if there is a value.
    @inline(__always)
    final func destroyValue<Value>(as type: Value.Type) {
        if Self.hasRoom(for: type) {
            valuePlace.assumingMemoryBound(to: type).deinitialize(count: 1)
        } else {
            valueBox.assumingMemoryBound(to: type).deinitialize(count: 1)
            valueBox.deallocate()
        }
    }
}
