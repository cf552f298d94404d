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
    name: "Gevent",
    products: [
        .library(name: "Gevent", targets: ["Gevent"])
    ],
    dependencies: [
        .package(path: "../GeventLoop")
    ],
    targets: [
        .target(name: "CGevent", dependencies: [.product(name: "CGeventSystem", package: "GeventLoop")]),
        .target(
            name: "Gevent",
            dependencies: [
                "CGevent", .product(name: "CGeventSystem", package: "GeventLoop"),
                .product(name: "GeventLoop", package: "GeventLoop"),
                .product(name: "GeventSettings", package: "GeventLoop"),
            ],
            swiftSettings: settings),
    ])
