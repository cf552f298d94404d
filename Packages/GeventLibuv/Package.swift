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
    name: "GeventLibuv",
    products: [
        .library(name: "GeventLibuv", targets: ["GeventLibuv"])
    ],
    dependencies: [
        .package(path: "../GeventLoop")
    ],
    targets: [
        .systemLibrary(name: "CLibuv"),
        .target(
            name: "GeventLibuv",
            dependencies: [
                .product(name: "CGeventSystem", package: "GeventLoop"), "CLibuv",
                .product(name: "GeventLoop", package: "GeventLoop"),
            ], swiftSettings: settings),
    ])
