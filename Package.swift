// swift-tools-version: 6.3
import Foundation
import PackageDescription

// Every target is declared here, by path: a root manifest that used `.package(path:)` could not be depended on by URL.
// ci/manifests writes the manifests of the packages under Packages/ from this one.

let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
]

// libev and libuv are not on every machine, and `swift build` builds every target that the root package declares. So a
// loop whose C header is not there is left out when swift-gevent itself is built, and `swift run gevent-demo` works on
// a machine with nothing but Swift. A package that depends on swift-gevent always finds the products: targets it does
// not use are not built for it, and if it uses one without the header, the compiler says what to install.
//
// GEVENT_WITH_LIBEV and GEVENT_WITH_LIBUV, set to 1 or 0, override what is found here: for headers in a place that only
// the compiler knows, and for cross-compiling. They also help when SwiftPM does not look again: it remembers what a
// manifest said for as long as its text and the environment stay the same, so after installing a header set the
// variable, or run `swift package purge-cache` once.
func isWanted(_ variable: String, header: String) -> Bool {
    switch Context.environment[variable] {
    case "1": return true
    case "0": return false
    default: break
    }
    // Where SwiftPM puts the dependencies of others.
    if Context.packageDirectory.contains("/checkouts/") { return true }
    // Where clang looks by default, and what its own variables add.
    let paths = [
        Context.environment["C_INCLUDE_PATH"] ?? "", Context.environment["CPATH"] ?? "",
        "/usr/local/include", "/usr/include",
    ]
    return paths.joined(separator: ":").split(separator: ":").contains {
        FileManager.default.fileExists(atPath: "\($0)/\(header)")
    }
}

let withLibev = isWanted("GEVENT_WITH_LIBEV", header: "ev.h")
let withLibuv = isWanted("GEVENT_WITH_LIBUV", header: "uv.h")

func source(_ package: String, _ target: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(
        name: target,
        dependencies: dependencies,
        path: "Packages/\(package)/Sources/\(target)",
        swiftSettings: target.hasPrefix("C") ? nil : settings)
}

func systemLibrary(_ package: String, _ target: String) -> Target {
    .systemLibrary(name: target, path: "Packages/\(package)/Sources/\(target)")
}

/// What examples and tests can run on besides epoll: linking a loop is enough.
let otherLoops: [Target.Dependency] = (withLibev ? ["GeventLibev"] : []) + (withLibuv ? ["GeventLibuv"] : [])

func example(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .executableTarget(
        name: name,
        dependencies: dependencies + otherLoops + [.product(name: "ArgumentParser", package: "swift-argument-parser")],
        path: "Packages/GeventExamples/Sources/\(name)",
        swiftSettings: settings)
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(name: name, dependencies: dependencies, swiftSettings: settings)
}

let package = Package(
    name: "swift-gevent",
    products: [
        // Every product that holds the core also links the epoll loop, so a program that depends on one alone runs.
        .library(name: "Gevent", targets: ["Gevent", "GeventEpoll"]),
        .library(name: "GeventNet", targets: ["GeventNet", "GeventEpoll"]),
        .library(name: "GeventTesting", targets: ["GeventTesting", "GeventEpoll"]),
    ],
    dependencies: [
        // Used by the examples only. They are not products, so no consumer ever fetches it.
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.5.0")
    ],
    targets: [
        source("GeventLoop", "CGeventSystem"),
        source("GeventLoop", "GeventSettings", ["CGeventSystem"]),
        source("GeventLoop", "GeventLoop", ["CGeventSystem", "GeventSettings"]),
        source("GeventEpoll", "GeventEpoll", ["CGeventSystem", "GeventLoop"]),
        source("Gevent", "CGevent", ["CGeventSystem"]),
        source("Gevent", "GeventCore", ["CGevent", "CGeventSystem", "GeventLoop", "GeventSettings"]),
        source("Gevent", "GeventOS", ["CGevent", "CGeventSystem", "GeventCore"]),
        source("Gevent", "GeventDiagnostics", ["CGevent", "CGeventSystem", "GeventCore"]),
        source("Gevent", "GeventIO", ["GeventCore"]),
        source("Gevent", "Gevent", ["GeventCore", "GeventDiagnostics", "GeventIO", "GeventLoop", "GeventOS"]),
        source("GeventTesting", "GeventTesting", ["CGeventSystem", "Gevent", "GeventLoop"]),
        source("GeventNet", "GeventNet", ["CGeventSystem", "Gevent", "GeventCore", "GeventDiagnostics", "GeventIO"]),

        example("gevent-hello", ["Gevent", "GeventEpoll"]),
        example("echo-server", ["Gevent", "GeventEpoll", "GeventNet"]),
        example("gevent-demo", ["Gevent", "GeventEpoll", "GeventNet"]),
        example("gevent-info", ["Gevent", "GeventEpoll"]),

        // What several test targets share.
        .target(
            name: "TestSupport",
            dependencies: ["CGevent", "GeventCore", "GeventLoop", "GeventOS", "GeventTesting"],
            path: "Tests/TestSupport",
            swiftSettings: settings),
        tests("GeventLoopTests", ["Gevent", "GeventLoop", "GeventTesting", "GeventEpoll"]),
        tests("GeventEpollTests", ["GeventEpoll", "GeventLoop", "GeventTesting"]),
        // Run once for each loop, which GEVENT_LOOP chooses.
        .target(name: "CCxxExceptions", path: "Tests/CCxxExceptions"),
        tests(
            "GeventTests",
            [
                "CCxxExceptions", "CGevent", "CGeventSystem", "Gevent", "GeventCore", "GeventDiagnostics",
                "GeventEpoll", "GeventOS", "GeventTesting", "TestSupport",
            ] + otherLoops),
        tests(
            "GeventNetTests",
            [
                "CGevent", "Gevent", "GeventCore", "GeventDiagnostics", "GeventOS", "GeventEpoll", "GeventNet",
                "GeventTesting", "TestSupport",
            ] + otherLoops),
        tests("GeventTestingTests", ["GeventLoop", "GeventTesting"]),
    ])

if withLibev {
    package.products.append(.library(name: "GeventLibev", targets: ["GeventLibev"]))
    package.targets += [
        systemLibrary("GeventLibev", "CLibev"),
        source("GeventLibev", "GeventLibev", ["CGeventSystem", "CLibev", "GeventLoop"]),
        tests("GeventLibevTests", ["CLibev", "Gevent", "GeventLibev", "GeventLoop", "GeventTesting", "TestSupport"]),
    ]
}

if withLibuv {
    package.products.append(.library(name: "GeventLibuv", targets: ["GeventLibuv"]))
    package.targets += [
        systemLibrary("GeventLibuv", "CLibuv"),
        source("GeventLibuv", "GeventLibuv", ["CGeventSystem", "CLibuv", "GeventLoop"]),
        tests("GeventLibuvTests", ["CLibuv", "Gevent", "GeventLibuv", "GeventLoop", "GeventTesting", "TestSupport"]),
    ]
}

if withLibev && withLibuv {
    // All three loops, and no API: GEVENT_LOOP chooses.
    package.products.append(.library(name: "GeventLoops", targets: ["GeventLoops"]))
    package.targets.append(source("GeventLoops", "GeventLoops", ["GeventEpoll", "GeventLibev", "GeventLibuv"]))
}
