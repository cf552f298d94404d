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
    name: "GeventLoop",
    products: [
        .library(name: "CGeventLoop", targets: ["CGeventLoop"]),
        .library(name: "GeventLoop", targets: ["GeventLoop"]),
    ],
    targets: [
        .target(name: "CGeventLoop"),
        .target(name: "GeventLoop", dependencies: ["CGeventLoop"], swiftSettings: settings),
    ])
