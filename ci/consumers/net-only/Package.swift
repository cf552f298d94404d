// swift-tools-version: 6.3
import PackageDescription

let package = Package(
    name: "net-only",
    dependencies: [.package(url: "https://github.com/swift-gevent/swift-gevent", from: "0.1.0")],
    targets: [
        .executableTarget(
            name: "net-only",
            dependencies: [.product(name: "GeventNet", package: "swift-gevent")])
    ])
