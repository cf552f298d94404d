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
        .library(name: "Gevent", targets: ["Gevent"])
    ],
    dependencies: [
        .package(path: "../GeventLoop")
    ],
    targets: [
        .target(name: "CGevent"),
        .target(
            name: "Gevent", dependencies: ["CGevent", .product(name: "GeventLoop", package: "GeventLoop")],
            swiftSettings: settings),
    ])
