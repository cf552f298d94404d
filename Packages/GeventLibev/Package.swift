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
    name: "GeventLibev",
    products: [
        .library(name: "GeventLibev", targets: ["GeventLibev"])
    ],
    dependencies: [
        .package(path: "../GeventLoop")
    ],
    targets: [
        .systemLibrary(name: "CLibev"),
        .target(
            name: "GeventLibev",
            dependencies: [
                .product(name: "CGeventSystem", package: "GeventLoop"), "CLibev",
                .product(name: "GeventLoop", package: "GeventLoop"),
            ], swiftSettings: settings),
    ])
