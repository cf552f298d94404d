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
    name: "GeventExamples",
    dependencies: [
        .package(path: "../Gevent"),
        .package(path: "../GeventEpoll"),
        .package(path: "../GeventNet"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.5.0"),
    ],
    targets: [
        .executableTarget(
            name: "gevent-hello",
            dependencies: [
                .product(name: "Gevent", package: "Gevent"), .product(name: "GeventEpoll", package: "GeventEpoll"),
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ], swiftSettings: settings),
        .executableTarget(
            name: "echo-server",
            dependencies: [
                .product(name: "Gevent", package: "Gevent"), .product(name: "GeventEpoll", package: "GeventEpoll"),
                .product(name: "GeventNet", package: "GeventNet"),
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ], swiftSettings: settings),
        .executableTarget(
            name: "gevent-demo",
            dependencies: [
                .product(name: "Gevent", package: "Gevent"), .product(name: "GeventEpoll", package: "GeventEpoll"),
                .product(name: "GeventNet", package: "GeventNet"),
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ], swiftSettings: settings),
        .executableTarget(
            name: "gevent-info",
            dependencies: [
                .product(name: "Gevent", package: "Gevent"), .product(name: "GeventEpoll", package: "GeventEpoll"),
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ], swiftSettings: settings),
    ])
