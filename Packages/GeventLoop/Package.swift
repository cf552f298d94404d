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
        .library(name: "CGeventLoop", targets: ["CGeventLoop"]),
        .library(name: "GeventLoop", targets: ["GeventLoop"]),
    ],
    targets: [
        .target(name: "CGeventLoop"),
        .target(name: "GeventLoop", dependencies: ["CGeventLoop"], swiftSettings: settings),
    ])
