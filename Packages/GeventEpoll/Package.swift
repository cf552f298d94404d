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
    name: "GeventEpoll",
    products: [
        .library(name: "GeventEpoll", targets: ["GeventEpoll"])
    ],
    dependencies: [
        .package(path: "../GeventLoop")
    ],
    targets: [
        .target(name: "CGeventEpoll", dependencies: [.product(name: "CGeventLoop", package: "GeventLoop")]),
        .target(
            name: "GeventEpoll", dependencies: ["CGeventEpoll", .product(name: "GeventLoop", package: "GeventLoop")],
            swiftSettings: settings),
    ])
