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
    name: "GeventLoop",
    products: [
        .library(name: "CGeventSystem", targets: ["CGeventSystem"]),
        .library(name: "GeventLoop", targets: ["GeventLoop"]),
        .library(name: "GeventSettings", targets: ["GeventSettings"]),
    ],
    targets: [
        .target(name: "CGeventSystem"),
        .target(name: "GeventSettings", dependencies: ["CGeventSystem"], swiftSettings: settings),
        .target(name: "GeventLoop", dependencies: ["CGeventSystem", "GeventSettings"], swiftSettings: settings),
    ])
