// swift-tools-version: 6.2
// The targets and their order are docs/architecture.md's; Tests/TidyTests keeps the imports pointing downwards.
import PackageDescription

let strict: [SwiftSetting] = [
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("ExistentialAny"),
]
let strictC: [CSetting] = [.treatAllWarnings(as: .error)]
let argumentParser = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")

func library(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: strict)
}

// Tests handle memory by address throughout: marking each use would say nothing.
let testing = Array(strict.dropFirst())

func tests(_ name: String, _ dependencies: [Target.Dependency], resources: [Resource] = []) -> Target {
    .testTarget(name: name, dependencies: dependencies, resources: resources, swiftSettings: testing)
}

let package = Package(
    name: "turntable",
    products: [
        .executable(name: "turntable", targets: ["turntable"])
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2")
    ],
    targets: [
        .target(
            name: "CTurntableLinux", path: "CShims/CTurntableLinux", cSettings: strictC, linkerSettings: [.linkedLibrary("xxhash")]),
        library("TurntableCore"),
        library("TurntableLinux", ["TurntableCore", "CTurntableLinux"]),
        .target(
            name: "CTurntableBlock", path: "CShims/CTurntableBlock", cSettings: strictC, linkerSettings: [.linkedLibrary("devmapper")]),
        .target(name: "CTurntableLVM", path: "CShims/CTurntableLVM", cSettings: strictC, linkerSettings: [.linkedLibrary("lvm2cmd")]),
        library("BlockDelta", ["TurntableCore", "TurntableLinux", "CTurntableLinux", "CTurntableBlock"]),
        .executableTarget(name: "turntable-lvm-helper", dependencies: ["CTurntableLVM"], swiftSettings: strict),
        .executableTarget(
            name: "turntable-disk", dependencies: ["TurntableCore", "TurntableLinux", "BlockDelta", argumentParser], swiftSettings: strict),
        library("WireFormat", ["TurntableCore"]),
        library("Transport", ["TurntableCore", "TurntableLinux", "WireFormat"]),
        library("TransportTCP", ["TurntableCore", "WireFormat", "Transport", "TurntableLinux", "CTurntableLinux"]),
        library("MigrationEngine", ["TurntableCore", "TurntableLinux", "WireFormat", "Transport"]),
        library("Hypervisors", ["TurntableCore", "TurntableLinux", "MigrationEngine", "CTurntableLinux"]),
        library("ControlShim", ["TurntableCore", "TurntableLinux", "MigrationEngine", "CTurntableLinux"]),
        .executableTarget(
            name: "turntable",
            dependencies: [
                "TurntableCore", "TurntableLinux", "WireFormat", "Transport", "TransportTCP", "MigrationEngine", "Hypervisors",
                "ControlShim",
                argumentParser,
            ],
            swiftSettings: strict),
        .executableTarget(
            name: "turntable-lightpath", dependencies: ["CTurntableLinux", argumentParser], path: "perf/lightpath",
            exclude: ["README.md", "check"], swiftSettings: strict),
        .executableTarget(
            name: "turntable-scan-benchmark", dependencies: ["TurntableCore", "TurntableLinux"], path: "perf/bench/scan",
            swiftSettings: strict),
        .target(name: "TestSupport", dependencies: ["TurntableCore", "TurntableLinux"], path: "Tests/TestSupport", swiftSettings: testing),
        tests("TurntableCoreTests", ["TestSupport", "TurntableCore"]),
        tests("WireFormatTests", ["TestSupport", "TurntableCore", "WireFormat"]),
        tests("HypervisorsTests", ["TestSupport", "TurntableCore", "TurntableLinux", "WireFormat", "MigrationEngine", "Hypervisors"]),
        tests("TidyTests", []),
        tests("BlockDeltaTests", ["TestSupport", "TurntableCore", "TurntableLinux", "BlockDelta"]),
        tests("MigrationEngineTests", ["TestSupport", "TurntableCore", "TurntableLinux", "WireFormat", "Transport", "MigrationEngine"]),
        tests(
            "ConformanceTests",
            ["TestSupport", "TurntableCore", "TurntableLinux", "WireFormat", "Transport", "TransportTCP", "CTurntableLinux"]),
    ],
    swiftLanguageModes: [.v6]
)
