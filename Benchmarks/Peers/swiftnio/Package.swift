// swift-tools-version: 6.3
import PackageDescription

let package = Package(
    name: "peer-swift-nio",
    dependencies: [.package(url: "https://github.com/apple/swift-nio", from: "2.80.0")],
    targets: [
        .executableTarget(
            name: "peer",
            dependencies: [
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
            ], swiftSettings: [.swiftLanguageMode(.v6)])
    ])
