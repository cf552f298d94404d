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
    name: "GeventEpoll",
    products: [
        .library(name: "GeventEpoll", targets: ["GeventEpoll"])
    ],
    dependencies: [
        .package(path: "../GeventLoop")
    ],
    targets: [
        .target(
            name: "GeventEpoll",
            dependencies: [
                .product(name: "CGeventSystem", package: "GeventLoop"),
                .product(name: "GeventLoop", package: "GeventLoop"),
            ],
            swiftSettings: settings)
    ])
