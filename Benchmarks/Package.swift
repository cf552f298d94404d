// swift-tools-version: 6.3
import Foundation
import PackageDescription

// A separate package, so that packages that depend on swift-gevent never build the benchmarks.

// As in the root manifest: a loop without its header is left out, and the same two variables override that.
func isWanted(_ variable: String, header: String) -> Bool {
    if let wanted = Context.environment[variable], ["0", "1"].contains(wanted) { return wanted == "1" }
    let paths = [
        Context.environment["C_INCLUDE_PATH"] ?? "", Context.environment["CPATH"] ?? "",
        "/usr/local/include", "/usr/include",
    ]
    return paths.joined(separator: ":").split(separator: ":").contains {
        FileManager.default.fileExists(atPath: "\($0)/\(header)")
    }
}

/// The loops besides epoll: the product, and the corresponding C program.
let loops: [(product: String, plain: String, library: String)] =
    (isWanted("GEVENT_WITH_LIBEV", header: "ev.h") ? [("GeventLibev", "CPlainLibev", "ev")] : [])
    + (isWanted("GEVENT_WITH_LIBUV", header: "uv.h") ? [("GeventLibuv", "CPlainLibuv", "uv")] : [])

let gevent: [Target.Dependency] =
    loops.map { .product(name: $0.product, package: "swift-gevent") } + [
        .product(name: "Gevent", package: "swift-gevent"),
        .product(name: "GeventNet", package: "swift-gevent"),
    ]

let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
]

let package = Package(
    name: "Benchmarks",
    products: [
        .executable(name: "run-case", targets: ["run-case"]),
        .executable(name: "load", targets: ["load"]),
    ],
    dependencies: [
        .package(name: "swift-gevent", path: "..")
    ],
    targets: [
        // The table of cases, and the program that runs one of them in its own process.
        .target(
            name: "BenchmarkCases",
            dependencies: gevent + loops.map { .target(name: $0.plain) } + ["CLoad", "CMeasure", "CPlainLoops"],
            path: "BenchmarkCases",
            swiftSettings: settings),
        .executableTarget(
            name: "run-case",
            dependencies: gevent + ["BenchmarkCases", "CCountAllocations", "CCountInstructions"],
            path: "programs/run-case",
            swiftSettings: settings),
        .executableTarget(name: "load", dependencies: ["CLoad"], path: "programs/load"),
        .target(name: "CMeasure", path: "CMeasure"),
        .target(name: "CCountAllocations", path: "CCountAllocations"),
        .target(name: "CCountInstructions", path: "CCountInstructions"),
        .target(name: "CLoad", dependencies: ["CMeasure"], path: "CLoad"),
        .target(name: "CPlainLoops", path: "CPlainLoops"),
    ]
        + loops.map { loop in
            .target(
                name: loop.plain, dependencies: ["CPlainLoops"], path: loop.plain,
                linkerSettings: [.linkedLibrary(loop.library)])
        })
