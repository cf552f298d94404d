import Gevent

let workers = (1...3).map { number in
    spawn {
        try sleep(for: .milliseconds(300 - 100 * number))
        return "worker \(number)"
    }
}
for finished in try joinAll(workers) { print(try finished.get()) }
let late = try withSilentTimeout(.milliseconds(50)) {
    try sleep(for: .seconds(60))
    return "done"
}
print(late ?? "gave up waiting")
