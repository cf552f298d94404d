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
    name: "GeventTesting",
    products: [
        .library(name: "GeventTesting", targets: ["GeventTesting"])
    ],
    dependencies: [
        .package(path: "../Gevent"),
        .package(path: "../GeventLoop"),
    ],
    targets: [
        .target(
            name: "GeventTesting",
            dependencies: [
                .product(name: "CGeventSystem", package: "GeventLoop"),
                .product(name: "Gevent", package: "Gevent"), .product(name: "GeventLoop", package: "GeventLoop"),
            ],
            swiftSettings: settings)
    ])
