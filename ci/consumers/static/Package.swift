// swift-tools-version: 6.3
import PackageDescription

let package = Package(
    name: "static",
    dependencies: [.package(url: "https://github.com/swift-gevent/swift-gevent", from: "0.1.0")],
    targets: [
        .executableTarget(
            name: "static",
            dependencies: [
                .product(name: "Gevent", package: "swift-gevent"),
                .product(name: "GeventLoops", package: "swift-gevent"),
            ])
    ])
