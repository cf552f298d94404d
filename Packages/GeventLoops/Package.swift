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
    name: "GeventLoops",
    products: [
        .library(name: "GeventLoops", targets: ["GeventLoops"])
    ],
    dependencies: [
        .package(path: "../GeventEpoll"),
        .package(path: "../GeventLibev"),
        .package(path: "../GeventLibuv"),
    ],
    targets: [
        .target(
            name: "GeventLoops",
            dependencies: [
                .product(name: "GeventEpoll", package: "GeventEpoll"),
                .product(name: "GeventLibev", package: "GeventLibev"),
                .product(name: "GeventLibuv", package: "GeventLibuv"),
            ], swiftSettings: settings)
    ])
