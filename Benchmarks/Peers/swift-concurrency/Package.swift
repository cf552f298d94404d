// swift-tools-version: 6.3
import PackageDescription

let package = Package(
    name: "peer-swift-concurrency",
    targets: [.executableTarget(name: "peer", swiftSettings: [.swiftLanguageMode(.v6)])])
