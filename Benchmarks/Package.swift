// swift-tools-version: 6.1
import Foundation
import PackageDescription

// A package of its own, so that nobody who depends on swift-gevent ever fetches what measures it. The benchmark plugin
// finds targets that are direct children of this folder.

// As in the package that is measured: a loop whose library is not installed is left out.
let libraries = [("ev", "GeventLibev"), ("uv", "GeventLibuv")].filter { library, _ in
    FileManager.default.fileExists(atPath: "/usr/include/\(library).h")
}
let otherLoops = libraries.map { _, product in Target.Dependency.product(name: product, package: "swift-gevent") }

let package = Package(
    name: "Benchmarks",
    dependencies: [
        .package(name: "swift-gevent", path: ".."),
        // Without its default traits it needs no jemalloc.
        .package(url: "https://github.com/ordo-one/benchmark", from: "1.38.0", traits: []),
    ],
    targets: [
        .executableTarget(
            name: "CoreBenchmarks",
            dependencies: [
                .product(name: "Gevent", package: "swift-gevent"),
                .product(name: "GeventTesting", package: "swift-gevent"),
                .product(name: "Benchmark", package: "benchmark"),
            ],
            path: "CoreBenchmarks",
            swiftSettings: [.swiftLanguageMode(.v6)],
            plugins: [.plugin(name: "BenchmarkPlugin", package: "benchmark")]),
        .target(
            name: "CPlainLoops", path: "CPlainLoops",
            linkerSettings: libraries.map { library, _ in .linkedLibrary(library) }),
        .executableTarget(
            name: "PollCost",
            dependencies: ["CPlainLoops", .product(name: "Gevent", package: "swift-gevent")] + otherLoops,
            path: "PollCost",
            swiftSettings: [.swiftLanguageMode(.v6)]
                + libraries.map { library, _ in .define("HAS_LIB\(library.uppercased())") }),
    ])
