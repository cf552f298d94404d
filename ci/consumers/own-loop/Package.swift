// swift-tools-version: 6.3
import PackageDescription

let package = Package(
    name: "own-loop",
    dependencies: [.package(url: "https://github.com/swift-gevent/swift-gevent", from: "0.1.0")],
    targets: [
        .target(name: "CPollLoop"),
        .target(name: "PollLoop", dependencies: ["CPollLoop", .product(name: "Gevent", package: "swift-gevent")]),
        .executableTarget(
            name: "own-loop",
            dependencies: [
                "PollLoop",
                .product(name: "Gevent", package: "swift-gevent"),
                .product(name: "GeventTesting", package: "swift-gevent"),
            ]),
    ])
