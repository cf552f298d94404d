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
    name: "Gevent",
    products: [
        .library(name: "GeventCore", targets: ["GeventCore"]),
        .library(name: "GeventDiagnostics", targets: ["GeventDiagnostics"]),
        .library(name: "GeventIO", targets: ["GeventIO"]),
        .library(name: "Gevent", targets: ["Gevent"]),
    ],
    dependencies: [
        .package(path: "../GeventLoop")
    ],
    targets: [
        .target(name: "CGevent", dependencies: [.product(name: "CGeventSystem", package: "GeventLoop")]),
        .target(
            name: "GeventCore",
            dependencies: [
                "CGevent", .product(name: "CGeventSystem", package: "GeventLoop"),
                .product(name: "GeventLoop", package: "GeventLoop"),
                .product(name: "GeventSettings", package: "GeventLoop"),
            ], swiftSettings: settings),
        .target(
            name: "GeventOS",
            dependencies: ["CGevent", .product(name: "CGeventSystem", package: "GeventLoop"), "GeventCore"],
            swiftSettings: settings),
        .target(
            name: "GeventDiagnostics",
            dependencies: ["CGevent", .product(name: "CGeventSystem", package: "GeventLoop"), "GeventCore"],
            swiftSettings: settings),
        .target(name: "GeventIO", dependencies: ["GeventCore"], swiftSettings: settings),
        .target(
            name: "Gevent",
            dependencies: [
                "GeventCore", "GeventDiagnostics", "GeventIO", .product(name: "GeventLoop", package: "GeventLoop"),
                "GeventOS",
            ], swiftSettings: settings),
    ])
