// swift-tools-version: 6.1
import PackageDescription

// Every target is declared here, by path: a root manifest that used `.package(path:)` could not be depended on by URL.
// Each package under Packages/ also has a thin manifest of its own; ci/check-manifests keeps the two sets in agreement.

let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
]

func source(_ package: String, _ target: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(
        name: target,
        dependencies: dependencies,
        path: "Packages/\(package)/Sources/\(target)",
        swiftSettings: target.hasPrefix("C") ? nil : settings)
}

func example(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .executableTarget(
        name: name,
        dependencies: dependencies + [.product(name: "ArgumentParser", package: "swift-argument-parser")],
        path: "Packages/GeventExamples/Sources/\(name)",
        swiftSettings: settings)
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(name: name, dependencies: dependencies, swiftSettings: settings)
}

let package = Package(
    name: "swift-gevent",
    products: [
        // The core with the epoll loop linked in: nothing to install, nothing to configure.
        .library(name: "Gevent", targets: ["Gevent", "GeventEpoll"]),
        .library(name: "GeventNet", targets: ["GeventNet"]),
        .library(name: "GeventTesting", targets: ["GeventTesting"]),
    ],
    dependencies: [
        // Used by the examples only. They are not products, so no consumer ever fetches it.
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.5.0")
    ],
    targets: [
        source("GeventLoop", "CGeventLoop"),
        source("GeventLoop", "GeventLoop", ["CGeventLoop"]),
        source("GeventEpoll", "CGeventEpoll", ["CGeventLoop"]),
        source("GeventEpoll", "GeventEpoll", ["CGeventEpoll", "GeventLoop"]),
        source("Gevent", "CGevent"),
        source("Gevent", "Gevent", ["CGevent", "GeventLoop"]),
        source("GeventTesting", "CGeventTesting"),
        source("GeventTesting", "GeventTesting", ["CGeventTesting", "Gevent", "GeventLoop"]),
        source("GeventNet", "CGeventNet"),
        source("GeventNet", "GeventNet", ["CGeventNet", "Gevent"]),

        example("gevent-hello", ["Gevent", "GeventEpoll"]),
        example("echo-server", ["Gevent", "GeventEpoll", "GeventNet"]),
        example("gevent-demo", ["Gevent", "GeventEpoll", "GeventNet"]),
        example("gevent-info", ["Gevent", "GeventEpoll"]),

        tests("GeventLoopTests", ["GeventLoop", "GeventTesting", "GeventEpoll"]),
        tests("GeventEpollTests", ["GeventEpoll", "GeventLoop", "GeventTesting"]),
        tests("GeventTests", ["CGevent", "Gevent", "GeventEpoll", "GeventTesting"]),
        tests("GeventNetTests", ["Gevent", "GeventEpoll", "GeventNet", "GeventTesting"]),
        tests("GeventTestingTests", ["GeventLoop", "GeventTesting"]),
    ])
