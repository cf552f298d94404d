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
        .library(name: "CGeventSystem", targets: ["CGeventSystem"]),
        .library(name: "GeventSettings", targets: ["GeventSettings"]),
        .library(name: "GeventLoop", targets: ["GeventLoop"]),
    ],
    targets: [
        .target(name: "CGeventSystem"),
        .target(name: "GeventSettings", dependencies: ["CGeventSystem"], swiftSettings: settings),
        .target(name: "GeventLoop", dependencies: ["CGeventSystem", "GeventSettings"], swiftSettings: settings),
    ])
