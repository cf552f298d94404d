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
                .product(name: "GeventCore", package: "Gevent"), .product(name: "GeventDiagnostics", package: "Gevent"),
                .product(name: "GeventIO", package: "Gevent"),
            ], swiftSettings: settings)
    ])
