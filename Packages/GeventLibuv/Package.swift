// swift-tools-version: 6.3
import PackageDescription

// A thin manifest, to build this package alone. The root manifest declares the same targets, and is what others depend
// on; ci/check-manifests keeps the two in agreement.

let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
]

let package = Package(
    name: "GeventLibuv",
    products: [
        .library(name: "GeventLibuv", targets: ["GeventLibuv"])
    ],
    dependencies: [
        .package(path: "../GeventLoop")
    ],
    targets: [
        .systemLibrary(name: "CLibuv"),
        .target(name: "CGeventLibuv", dependencies: ["CLibuv"]),
        .target(
            name: "GeventLibuv",
            dependencies: [
                "CGeventLibuv", "CLibuv", .product(name: "CGeventSystem", package: "GeventLoop"),
                .product(name: "GeventLoop", package: "GeventLoop"),
            ],
            swiftSettings: settings),
    ])
