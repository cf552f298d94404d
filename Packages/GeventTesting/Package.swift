// swift-tools-version: 6.3
// ci/manifests wrote this file from the Package.swift of the repository.
import PackageDescription

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
        .target(name: "CGeventTesting"),
        .target(
            name: "GeventTesting",
            dependencies: [
                "CGeventTesting", .product(name: "Gevent", package: "Gevent"),
                .product(name: "GeventLoop", package: "GeventLoop"),
            ], swiftSettings: settings),
    ])
