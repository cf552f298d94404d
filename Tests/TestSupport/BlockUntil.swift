import Glibc

/// Blocks the calling thread until `condition` holds, or for `seconds`. Returns whether it holds.
///
/// Not `for _ in … where …`, which evaluates the condition until the last round even if it holds at once.
@discardableResult
package func block(forSeconds seconds: Int = 10, until condition: () -> Bool) -> Bool {
    for _ in 0..<seconds * 1000 {
        if condition() { return true }
        usleep(1000)
    }
    return condition()
}
