/// Returns the candidate closest to a misspelt name, or nil if none is close.
package func nearestName(to name: String, in candidates: [String]) -> String? {
    let limit = max(2, name.count / 3)
    return
        candidates
        .map { (name: $0, distance: editDistance($0, name)) }
        // A candidate whose distance equals the length of the name shares nothing with it.
        .filter { $0.distance <= limit && $0.distance < name.count }
        .min { ($0.distance, $0.name) < ($1.distance, $1.name) }?
        .name
}

/// Returns how many characters must be inserted, removed, replaced or swapped with their neighbour to turn one text
/// into the other.
///
/// A swap counts once, because it is the commonest typing error: "libvu" is nearer to "libuv" than to "libev".
func editDistance(_ left: String, _ right: String) -> Int {
    let left = Array(left)
    let right = Array(right)
    // Row i, column j: the distance of the first i characters of `left` from the first j of `right`.
    var table = [[Int]](repeating: Array(0...right.count), count: left.count + 1)
    for i in 0...left.count { table[i][0] = i }
    for i in left.indices {
        for j in right.indices {
            let replaced = table[i][j] + (left[i] == right[j] ? 0 : 1)
            var best = min(replaced, table[i][j + 1] + 1, table[i + 1][j] + 1)
            if i > 0, j > 0, left[i] == right[j - 1], left[i - 1] == right[j] {
                best = min(best, table[i - 1][j - 1] + 1)
            }
            table[i + 1][j + 1] = best
        }
    }
    return table[left.count][right.count]
}
