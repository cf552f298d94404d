// swift-tools-version: 6.3
import PackageDescription

let package = Package(
    name: "epoll-libuv",
    dependencies: [.package(url: "https://github.com/swift-gevent/swift-gevent", from: "0.1.0")],
    targets: [
        .executableTarget(
            name: "epoll-libuv",
            dependencies: [
                .product(name: "Gevent", package: "swift-gevent"),
                .product(name: "GeventLibuv", package: "swift-gevent"),
            ])
    ])
