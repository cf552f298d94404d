// swift-tools-version: 6.3
import PackageDescription

let package = Package(
    name: "core-only",
    dependencies: [.package(url: "https://github.com/swift-gevent/swift-gevent", from: "0.1.0")],
    targets: [
        .executableTarget(
            name: "core-only",
            dependencies: [.product(name: "Gevent", package: "swift-gevent")])
    ])
