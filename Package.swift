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
let crypto = Target.Dependency.product(name: "Crypto", package: "swift-crypto")
let asn1 = Target.Dependency.product(name: "SwiftASN1", package: "swift-asn1")

func library(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: strict)
}

// Whole memories are filled and compared, in the laboratory on an emulated processor.
let fast: SwiftSetting = .unsafeFlags(["-O"])

// Tests handle memory by address throughout: marking each use would say nothing.
let testing = Array(strict.dropFirst())

func tests(_ name: String, _ dependencies: [Target.Dependency], resources: [Resource] = []) -> Target {
    .testTarget(name: name, dependencies: dependencies, resources: resources, swiftSettings: testing)
}

let package = Package(
    name: "turntable",
    products: [
        .executable(name: "turntable", targets: ["turntable"]),
        .executable(name: "turntable-orchestrator", targets: ["turntable-orchestrator"]),
        .executable(name: "turntable-gateway", targets: ["turntable-gateway"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        // Exactly this one: CTurntableCipher calls into what it builds.
        .package(url: "https://github.com/apple/swift-crypto", exact: "4.5.2"),
        .package(url: "https://github.com/apple/swift-certificates", from: "1.21.1"),
        .package(url: "https://github.com/apple/swift-asn1", from: "1.7.4"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
        // The orchestrator's only: `turntable` and its tests build without them.
        .package(url: "https://github.com/apple/swift-http-types", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1"),
        .package(url: "https://github.com/swift-server/async-http-client", from: "1.37.0"),
        .package(url: "https://github.com/vapor/jwt-kit", from: "5.7.1"),
    ],
    targets: [
        .target(
            name: "CTurntableLinux", path: "CShims/CTurntableLinux", cSettings: strictC, linkerSettings: [.linkedLibrary("xxhash")]),
        .target(name: "CTurntableCipher", dependencies: [crypto], path: "CShims/CTurntableCipher", cSettings: strictC),
        .target(
            name: "CTurntableVerbs", path: "CShims/CTurntableVerbs", cSettings: strictC, linkerSettings: [.linkedLibrary("dl")]),
        .target(name: "CTurntableFibers", path: "CShims/CTurntableFibers", cSettings: strictC),
        library("TurntableCore"),
        library("TurntableLinux", ["TurntableCore", "CTurntableLinux"]),
        .target(
            name: "CTurntableBlock", path: "CShims/CTurntableBlock", cSettings: strictC, linkerSettings: [.linkedLibrary("devmapper")]),
        .target(name: "CTurntableLVM", path: "CShims/CTurntableLVM", cSettings: strictC, linkerSettings: [.linkedLibrary("lvm2cmd")]),
        .target(name: "CTurntableNBD", path: "CShims/CTurntableNBD", cSettings: strictC, linkerSettings: [.linkedLibrary("nbd")]),
        library("BlockDelta", ["TurntableCore", "TurntableLinux", "CTurntableLinux", "CTurntableBlock"]),
        .executableTarget(name: "turntable-lvm-helper", dependencies: ["CTurntableLVM"], swiftSettings: strict),
        library("WireFormat", ["TurntableCore"]),
        library("Transport", ["TurntableCore", "TurntableLinux", "WireFormat"]),
        library(
            "Protection",
            [
                "TurntableCore", "TurntableLinux", "WireFormat", "CTurntableCipher", crypto, asn1,
                .product(name: "X509", package: "swift-certificates"),
            ]),
        library(
            "TransportTCP",
            [
                "TurntableCore", "WireFormat", "Transport", "TurntableLinux", "CTurntableLinux", "Protection", asn1,
                .product(name: "X509", package: "swift-certificates"), .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"), .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ]),
        library(
            "TransportVerbs",
            ["TurntableCore", "WireFormat", "Transport", "TransportTCP", "TurntableLinux", "Protection", "CTurntableVerbs"]),
        library("Capability", ["TurntableCore", "TurntableLinux", "Protection", crypto]),
        library("LinkElement", ["TurntableCore", "TurntableLinux", "CTurntableLinux", "WireFormat", "Protection", "TransportTCP", "Capability", crypto]),
        library("XLLine", ["TurntableCore", "TurntableLinux", "WireFormat", "Transport"]),
        library("XenStream", ["TurntableCore", "TurntableLinux", "WireFormat", "Transport"]),
        library("MigrationEngine", ["TurntableCore", "TurntableLinux", "WireFormat", "Transport", "Protection"]),
        library("Hypervisors", ["TurntableCore", "TurntableLinux", "WireFormat", "MigrationEngine", "CTurntableLinux", "CTurntableNBD"]),
        .target(
            name: "CTurntableXen", path: "CShims/CTurntableXen", cSettings: strictC,
            linkerSettings: ["xenctrl", "xenguest", "xenforeignmemory", "xenstore"].map { .linkedLibrary($0) }),
        library(
            "XenAdapter", ["TurntableCore", "TurntableLinux", "WireFormat", "MigrationEngine", "CTurntableXen"]),
        library("XenMove", ["TurntableCore", "TurntableLinux", "WireFormat", "Transport", "MigrationEngine", "XLLine"]),
        .target(
            name: "CTurntableLibxl", path: "CShims/CTurntableLibxl", cSettings: strictC,
            linkerSettings: ["xenlight", "xentoollog"].map { .linkedLibrary($0) }),
        .executableTarget(
            name: "turntable-xen", dependencies: ["TurntableCore", "TurntableLinux", "WireFormat", "MigrationEngine", "XenMove", "CTurntableLibxl"],
            swiftSettings: strict),
        .executableTarget(
            name: "turntable-xen-helper",
            dependencies: [
                "TurntableCore", "TurntableLinux", "WireFormat", "Transport", "TransportTCP", "Protection", "MigrationEngine", "XenAdapter",
                "XenStream", "XenMove", "BlockDelta", "CTurntableXen",
            ],
            swiftSettings: strict),
        library("Endpoint", ["TurntableCore", "TurntableLinux", "WireFormat", "Protection"]),
        .executableTarget(
            name: "turntable-gateway", dependencies: ["Endpoint", "Protection", "TurntableCore", "TurntableLinux", argumentParser],
            swiftSettings: strict),
        library("ControlShim", ["TurntableCore", "TurntableLinux", "MigrationEngine", "CTurntableLinux"]),
        .executableTarget(
            name: "turntable",
            dependencies: [
                "TurntableCore", "TurntableLinux", "WireFormat", "Transport", "TransportTCP", "TransportVerbs", "MigrationEngine",
                "Hypervisors", "ControlShim", "Protection", "BlockDelta", "Endpoint", "Capability", "XLLine", "XenMove", "LinkElement", crypto,
                argumentParser,
            ],
            swiftSettings: strict),
        library("Lightpaths", ["TurntableCore", "TurntableLinux"]),
        library(
            "Orchestration",
            [
                "TurntableCore", "TurntableLinux", "Protection", "Capability", "Lightpaths",
                .product(name: "GRDB", package: "GRDB.swift"), .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "HummingbirdTLS", package: "hummingbird"), .product(name: "AsyncHTTPClient", package: "async-http-client"),
                .product(name: "Logging", package: "swift-log"), .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"), .product(name: "NIOSSL", package: "swift-nio-ssl"),
                .product(name: "HTTPTypes", package: "swift-http-types"), .product(name: "X509", package: "swift-certificates"), asn1, crypto,
                .product(name: "JWTKit", package: "jwt-kit"),
            ]),
        .executableTarget(
            name: "turntable-orchestrator",
            dependencies: ["Orchestration", "Protection", "TurntableCore", "TurntableLinux", argumentParser, .product(name: "Logging", package: "swift-log")],
            swiftSettings: strict),
        .executableTarget(
            name: "turntable-lightpath", dependencies: ["CTurntableLinux", argumentParser], path: "perf/lightpath",
            exclude: ["README.md", "check"], swiftSettings: strict),
        .executableTarget(
            name: "turntable-scan-benchmark", dependencies: ["TurntableCore", "TurntableLinux"], path: "perf/bench/scan",
            swiftSettings: strict),
        .executableTarget(
            name: "turntable-stream-benchmark",
            dependencies: ["TurntableCore", "TurntableLinux", "WireFormat", "Transport", "TransportTCP", "TransportVerbs", "Protection", argumentParser],
            path: "perf/bench/stream", swiftSettings: testing),
        .target(
            name: "Simulation",
            dependencies: ["TurntableCore", "TurntableLinux", "WireFormat", "Transport", "MigrationEngine", "CTurntableFibers"],
            swiftSettings: testing),
        .executableTarget(
            name: "turntable-simulate", dependencies: ["Simulation", "TurntableCore", "TurntableLinux", argumentParser], path: "perf/simulate",
            swiftSettings: testing),
        .target(
            name: "TestSupport", dependencies: ["TurntableCore", "TurntableLinux", "Protection"], path: "Tests/TestSupport",
            swiftSettings: testing + [fast]),
        tests("TurntableCoreTests", ["TestSupport", "TurntableCore"]),
        tests("WireFormatTests", ["TestSupport", "TurntableCore", "WireFormat"]),
        tests("HypervisorsTests", ["TestSupport", "TurntableCore", "TurntableLinux", "WireFormat", "MigrationEngine", "Hypervisors"]),
        tests("XenAdapterTests", ["TestSupport", "TurntableCore", "TurntableLinux", "WireFormat", "XenAdapter"]),
        tests("CapabilityTests", ["TestSupport", "TurntableCore", "Protection", "Capability", crypto]),
        tests("ProtectionTests", ["TestSupport", "TurntableCore", "WireFormat", "Protection", crypto]),
        tests(
            "OrchestrationTests",
            [
                "TestSupport", "TurntableCore", "TurntableLinux", "Lightpaths", "Orchestration", "Protection", "Capability", crypto,
                .product(name: "AsyncHTTPClient", package: "async-http-client"),
                .product(name: "Logging", package: "swift-log"), .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"), .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "HTTPTypes", package: "swift-http-types"),
            ]),
        tests("EndpointTests", ["TestSupport", "TurntableCore", "TurntableLinux", "WireFormat", "Protection", "Endpoint"]),
        tests("LightpathsTests", ["TestSupport", "TurntableCore", "TurntableLinux", "Lightpaths"]),
        tests("TidyTests", []),
        tests("SimulationTests", ["Simulation", "turntable-simulate"]),
        tests("BlockDeltaTests", ["TestSupport", "TurntableCore", "TurntableLinux", "BlockDelta"]),
        tests("MigrationEngineTests", ["TestSupport", "TurntableCore", "TurntableLinux", "WireFormat", "Transport", "MigrationEngine"]),
        tests(
            "ConformanceTests",
            [
                "TestSupport", "TurntableCore", "TurntableLinux", "WireFormat", "Transport", "TransportTCP", "TransportVerbs", "Protection",
                "Capability", "LinkElement", "CTurntableLinux", "CTurntableVerbs", crypto,
            ]),
        tests("XLLineTests", ["TestSupport", "TurntableCore", "TurntableLinux", "WireFormat", "Transport", "TransportTCP", "Protection", "XLLine"]),
        tests("XenMoveTests", ["TestSupport", "TurntableCore", "TurntableLinux", "WireFormat", "MigrationEngine", "XenMove"]),
        tests("XenStreamTests", ["TestSupport", "TurntableCore", "TurntableLinux", "WireFormat", "Transport", "TransportTCP", "Protection", "XenStream"]),
        tests("TransportVerbsTests", ["TestSupport", "TurntableCore", "WireFormat", "TransportVerbs"]),
    ],
    swiftLanguageModes: [.v6]
)
