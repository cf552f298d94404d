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
    name: "GeventNet",
    products: [
        .library(name: "GeventNet", targets: ["GeventNet"])
    ],
    dependencies: [
        .package(path: "../Gevent"),
        .package(path: "../GeventLoop"),
    ],
    targets: [
        .target(
            name: "GeventNet",
            dependencies: [
                .product(name: "CGeventSystem", package: "GeventLoop"), .product(name: "Gevent", package: "Gevent"),
            ],
            swiftSettings: settings)
    ])
