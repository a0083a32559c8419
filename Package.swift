// swift-tools-version: 6.2
// The package of Martlet. Targets are listed in the order of the layers (docs/architecture.md):
// a target imports lower layers; Tests/RepositoryTests checks it.
import PackageDescription

/// CI turns warnings in our own targets into errors; dependencies are left alone.
let strict = Context.environment["CI"] != nil

let settings: [SwiftSetting] =
    [
        .enableUpcomingFeature("ExistentialAny"),
        .enableUpcomingFeature("MemberImportVisibility"),
        // So that the linker can put them in order.
        .unsafeFlags(["-Xfrontend", "-function-sections"], .when(configuration: .release)),
    ] + (strict ? [.treatAllWarnings(as: .error)] : [])

/// The small programs start in under a millisecond because nothing is loaded at run time, and because what they execute
/// first lies side by side: scripts/startuporder.sh.
let fullyStatic: [LinkerSetting] = [
    .unsafeFlags(["-static-executable", "-use-ld=lld"]),
    .unsafeFlags(
        [
            "-Xlinker", "--symbol-ordering-file=\(Context.packageDirectory)/scripts/startup.order", "-Xlinker",
            "--no-warn-symbol-ordering",
        ], .when(configuration: .release)),
]
// The runtime protects its own program before anything else is done in it: CShims/CProtect.
let protected: [LinkerSetting] = fullyStatic + [.unsafeFlags(["-Xlinker", "--entry=martlet_runtime_start"])]

/// The command line starts for every call, and it is the daemons' program: packed, its 170,000 relative relocations take a
/// hundredth of the bytes (DT_RELR, glibc 2.36).
let packedRelocations: [LinkerSetting] = [
    .unsafeFlags(["-use-ld=lld", "-Xlinker", "-z", "-Xlinker", "pack-relative-relocs"])
]

func shim(_ name: String) -> Target {
    .target(name: name, path: "CShims/\(name)")
}

func system(_ name: String, _ pkgConfig: String, apt: String) -> Target {
    .systemLibrary(name: name, path: "CShims/\(name)", pkgConfig: pkgConfig, providers: [.apt([apt])])
}

func layer(_ folder: String, _ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(
        name: name, dependencies: dependencies, path: "Sources/\(folder)/\(name)", swiftSettings: settings)
}

func plugin(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .target(name: name, dependencies: dependencies, path: "plugins/\(name)", swiftSettings: settings)
}

/// The program of a plugin's library.
func pluginProgram(_ name: String, _ library: String) -> Target {
    .executableTarget(
        name: name, dependencies: ["CStart", "CNIPlugin", .byName(name: library)], path: "plugins/\(name)",
        swiftSettings: settings, linkerSettings: fullyStatic)
}

func program(
    _ name: String, _ dependencies: [Target.Dependency], linker: [LinkerSetting]? = nil
) -> Target {
    .executableTarget(
        name: name, dependencies: dependencies, path: "Sources/Programs/\(name)",
        swiftSettings: settings, linkerSettings: linker)
}

func tests(
    _ name: String, _ dependencies: [Target.Dependency], resources: [Resource]? = nil, exclude: [String] = []
) -> Target {
    .testTarget(
        name: name, dependencies: dependencies, path: "Tests/\(name)", exclude: exclude, resources: resources,
        swiftSettings: settings)
}

let nio: [Target.Dependency] = [
    .product(name: "NIOCore", package: "swift-nio"),
    .product(name: "NIOPosix", package: "swift-nio"),
    .product(name: "NIOHTTP1", package: "swift-nio"),
]
let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")

let package = Package(
    name: "martlet",
    products: [
        .executable(name: "martlet", targets: ["martlet"]),
        .executable(name: "martlet-runtime", targets: ["martlet-runtime"]),
        .executable(name: "martlet-shim", targets: ["martlet-shim"]),
        .executable(name: "martlet-nvml", targets: ["martlet-nvml"]),
        .executable(name: "martlet-overlay", targets: ["martlet-overlay"]),
        .executable(name: "portmap", targets: ["portmap"]),
        .executable(name: "loopback", targets: ["loopback"]),
        .executable(name: "bandwidth", targets: ["bandwidth"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-extras", from: "1.35.2"),
        .package(url: "https://github.com/apple/swift-http-types", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
        .package(url: "https://github.com/apple/swift-certificates", from: "1.21.1"),
        .package(url: "https://github.com/apple/swift-asn1", from: "1.7.4"),
        .package(url: "https://github.com/swift-server/async-http-client", from: "1.37.0"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
        .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
    ],
    targets: [
        // 0 C
        shim("CKernel"),
        shim("CStage"),
        shim("CProtect"),
        shim("CStart"),
        shim("CNVML"),
        system("CSeccomp", "libseccomp", apt: "libseccomp-dev"),
        system("CCapabilities", "libcap", apt: "libcap-dev"),
        system("CArchive", "libarchive", apt: "libarchive-dev"),
        system("CYAML", "yaml-0.1", apt: "libyaml-dev"),
        system("CNetlink", "libnl-route-3.0", apt: "libnl-route-3-dev"),
        // The kernel's own headers: no package.
        .systemLibrary(name: "CNetfilter", path: "CShims/CNetfilter"),
        // 1 kernel
        layer("Kernel", "Kernel", ["CKernel", "CStage"]),
        layer("Kernel", "Cgroups", ["Kernel", "CKernel", "DeviceNodes"]),
        layer("Kernel", "Confinement", ["Kernel", "CKernel", "CSeccomp", "CCapabilities"]),
        layer("Kernel", "DeviceNodes", ["Kernel", "CKernel"]),
        layer("Kernel", "DeviceDiscovery", ["Kernel", "CKernel"]),
        layer("Kernel", "Netlink", ["Kernel", "CNetlink"]),
        layer("Kernel", "Netfilter", ["Kernel", "Netlink", "CNetlink", "CNetfilter"]),
        // 2 specs
        layer("Specs", "JSON"),
        layer("Specs", "OCISpec", ["JSON"]),
        layer("Specs", "CNISpec", ["JSON"]),
        layer("Specs", "YAML", ["JSON", "CYAML"]),
        layer("Specs", "CDISpec", ["JSON", "OCISpec"]),
        layer("Specs", "NVMLReport", ["JSON"]),
        layer("Specs", "StreamFrames"),
        layer("Specs", "ShimProtocol", ["JSON"]),
        // 3 model
        layer("Model", "Model", ["JSON", "CNISpec", "CDISpec"]),
        layer("Model", "Wire", ["Model", "JSON"]),
        layer("Model", "Scheduling", ["Model"]),
        layer("Model", "Reconcile", ["Model", "JSON"]),
        layer("Model", "MasterCore", ["Model", "Wire", "Scheduling", "Reconcile", "CNISpec", "JSON"]),
        layer("Model", "AgentCore", ["Model", "Wire", "JSON"]),
        // 3 our CNI plugins
        plugin("CNIPlugin", ["Kernel", "CKernel", "CNISpec", "JSON"]),
        plugin("OverlayPlugin", ["CNIPlugin", "PortmapPlugin", "Kernel", "CKernel", "Netlink", "CNISpec", "JSON"]),
        pluginProgram("martlet-overlay", "OverlayPlugin"),
        plugin("PortmapPlugin", ["CNIPlugin", "Kernel", "Netlink", "Netfilter", "CNISpec", "JSON"]),
        pluginProgram("portmap", "PortmapPlugin"),
        plugin("LoopbackPlugin", ["CNIPlugin", "Kernel", "Netlink", "CNISpec", "JSON"]),
        pluginProgram("loopback", "LoopbackPlugin"),
        plugin("BandwidthPlugin", ["CNIPlugin", "Kernel", "CKernel", "Netlink", "CNISpec", "JSON"]),
        pluginProgram("bandwidth", "BandwidthPlugin"),
        // 4 parts: node
        layer(
            "Node", "ContainerRuntime",
            ["Kernel", "CKernel", "CProtect", "CStage", "Cgroups", "Confinement", "DeviceNodes", "OCISpec", "JSON"]),
        layer("Node", "ShimCore", ["Kernel", "CKernel", "Cgroups", "StreamFrames", "ShimProtocol", "JSON"]),
        layer("Node", "NVMLProbe", ["Kernel", "CKernel", "CNVML", "NVMLReport", "JSON"]),
        layer("Node", "Reactor", ["Kernel", "CKernel"]),
        layer(
            "Node", "Devices", ["Kernel", "CKernel", "DeviceDiscovery", "NVMLReport", "CDISpec", "OCISpec", "Reactor"]),
        layer(
            "Node", "Images",
            [
                "Kernel", "CKernel", "CArchive", "JSON", "OCISpec", .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
                .product(name: "AsyncHTTPClient", package: "async-http-client"),
            ] + nio),
        layer(
            "Node", "Networking",
            ["Kernel", "CKernel", "Netlink", "Netfilter", "CNISpec", "CNIPlugin", "PortmapPlugin", "JSON", "Reactor"]),
        layer("Node", "CDI", ["Kernel", "CKernel", "CDISpec", "OCISpec", "JSON", "YAML", "Reactor"]),
        layer("Node", "Volumes", ["Kernel", "CKernel", "JSON"]),
        layer("Node", "Logs", ["Kernel", "CKernel", "ShimProtocol", "JSON", "Reactor"]),
        // 4 parts: cluster
        layer("Cluster", "Storage", ["Kernel", .product(name: "GRDB", package: "GRDB.swift")]),
        layer(
            "Cluster", "ClusterSecurity",
            [
                "Kernel", "JSON", .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "X509", package: "swift-certificates"),
                .product(name: "SwiftASN1", package: "swift-asn1"),
            ]),
        layer(
            "Cluster", "HTTPService",
            nio + [
                "JSON", logging, .product(name: "NIOSSL", package: "swift-nio-ssl"),
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "HTTPTypes", package: "swift-http-types"),
                .product(name: "NIOHTTPTypes", package: "swift-nio-extras"),
                .product(name: "NIOHTTPTypesHTTP1", package: "swift-nio-extras"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ]),
        layer(
            "Cluster", "Client", nio + ["JSON", "StreamFrames", .product(name: "NIOSSL", package: "swift-nio-ssl")]),
        // 5 daemons
        layer(
            "Daemons", "Agent",
            nio + [
                "Kernel", "CKernel", "Cgroups", "Confinement", "DeviceNodes", "JSON", "OCISpec", "StreamFrames",
                "ShimProtocol",
                "Model", "Wire", "AgentCore", "Reactor", "Images", "Networking", "Volumes", "Logs",
                "HTTPService", "Client", "ClusterSecurity", "CNISpec", "CDI", "CDISpec", "DeviceDiscovery", "Devices",
                "NVMLReport",
                logging,
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "HTTPTypes", package: "swift-http-types"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ]),
        layer(
            "Daemons", "Master",
            nio + [
                "JSON", "Model", "Wire", "MasterCore", "Storage", "HTTPService", "Client", "ClusterSecurity", logging,
                "Kernel",
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "HTTPTypes", package: "swift-http-types"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ]),
        // 6 faces
        layer(
            "API", "UnifiedAPI",
            nio + [
                "JSON", "Kernel", "Model", "Wire", "MasterCore", "Master", "HTTPService", "Client", "StreamFrames",
                logging,
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "HTTPTypes", package: "swift-http-types"),
            ]),
        layer(
            "API", "DockerAPI",
            nio + [
                "JSON", "CNISpec", "CDISpec", "Kernel", "Confinement", "Model", "Wire", "MasterCore", "Master",
                "HTTPService", "Client", "StreamFrames",
                logging, .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "HTTPTypes", package: "swift-http-types"),
            ]),
        // 7 programs
        program("martlet-runtime", ["CStart", "ContainerRuntime"], linker: protected),
        program("martlet-shim", ["CStart", "ShimCore"], linker: fullyStatic),
        // It opens a library at run time, which a fully static program cannot.
        program("martlet-nvml", ["NVMLProbe"]),
        program(
            "martlet",
            nio + [
                "Agent", "Master", "UnifiedAPI", "DockerAPI", "Client", "HTTPService", "ClusterSecurity", "Images",
                "Model",
                "Wire", "JSON",
                "StreamFrames",
                "Kernel", "CKernel",
                "Cgroups", "CDI", "Networking", logging,
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "UnixSignals", package: "swift-service-lifecycle"),
            ], linker: packedRelocations),
        // tests
        tests("CgroupsTests", ["Cgroups", "DeviceNodes", "Kernel"]),
        tests("ConfinementTests", ["Confinement", "Kernel", "CSeccomp", "CCapabilities"]),
        tests("DeviceNodesTests", ["DeviceNodes"]),
        tests("DeviceDiscoveryTests", ["DeviceDiscovery", "Kernel"]),
        tests("NVMLReportTests", ["NVMLReport", "JSON"]),
        tests("DevicesTests", ["Devices", "DeviceDiscovery", "NVMLReport", "CDISpec", "OCISpec", "JSON", "Kernel"]),
        tests("ContainerRuntimeTests", ["ContainerRuntime", "Cgroups", "OCISpec", "Kernel", "JSON"]),
        .testTarget(
            name: "RepositoryTests", dependencies: ["Kernel", "JSON"], path: "Tests/RepositoryTests",
            exclude: ["layers.json"], swiftSettings: settings),
        tests("ReactorTests", ["Reactor", "Kernel", "CKernel"]),
        tests("CNISpecTests", ["CNISpec", "JSON"]),
        tests("YAMLTests", ["YAML", "JSON"]),
        tests("CDISpecTests", ["CDISpec", "OCISpec", "JSON"]),
        tests("CDITests", ["CDI", "CDISpec", "OCISpec", "JSON", "Kernel", "Reactor"]),
        tests("NetlinkTests", ["Netlink", "CNetlink", "Kernel"]),
        tests(
            "CNIPluginTests",
            ["CNIPlugin", "OverlayPlugin", "PortmapPlugin", "Netfilter", "CNISpec", "JSON", "Kernel"]),
        tests("BandwidthPluginTests", ["BandwidthPlugin", "CNIPlugin", "CNISpec", "JSON", "Netlink"]),
        tests("NetworkingTests", ["Networking", "Netfilter", "CNISpec", "JSON", "Kernel", "CKernel", "Reactor"]),
        tests("LogsTests", ["Logs", "Reactor", "ShimProtocol", "JSON", "Kernel", "CKernel"]),
        tests("JSONTests", ["JSON"]),
        tests("StreamFramesTests", ["StreamFrames"]),
        tests("ShimProtocolTests", ["ShimProtocol", "JSON"]),
        tests("ModelTests", ["Model", "JSON"]),
        tests("SchedulingTests", ["Scheduling", "Model", "JSON"]),
        tests("ReconcileTests", ["Reconcile", "Model", "JSON"]),
        tests("MasterCoreTests", ["MasterCore", "Model", "Wire", "JSON", "CNISpec"]),
        tests("MasterTests", ["Master", "MasterCore", "Model", "Storage", "Wire", "JSON", "Kernel", logging]),
        tests(
            "UnifiedAPITests",
            nio + [
                "UnifiedAPI", "Master", "HTTPService", "Client", "StreamFrames", "JSON", "Kernel", "Model", "Wire",
                logging,
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "HTTPTypes", package: "swift-http-types"),
            ]),
        tests(
            "DockerAPITests",
            nio + [
                "DockerAPI", "UnifiedAPI", "Master", "MasterCore", "HTTPService", "Client", "StreamFrames", "JSON",
                "Kernel", "Model", "Wire", logging,
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "HTTPTypes", package: "swift-http-types"),
            ]),
        tests("ClusterSecurityTests", ["ClusterSecurity", "JSON", "Kernel"]),
        tests("StorageTests", ["Storage", "Kernel", .product(name: "GRDB", package: "GRDB.swift")]),
        tests(
            "HTTPServiceTests",
            nio + [
                "HTTPService", "ClusterSecurity", "JSON", "Kernel", logging,
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "HTTPTypes", package: "swift-http-types"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ]),
        tests(
            "ClientTests",
            nio + [
                "Client", "HTTPService", "ClusterSecurity", "Kernel", "JSON", "StreamFrames", logging,
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "HTTPTypes", package: "swift-http-types"),
            ]),
        tests("OCISpecTests", ["OCISpec", "JSON"]),
        tests(
            "AgentTests",
            [
                "Agent", "AgentCore", "CDISpec", "Devices", "Model", "Wire", "JSON", "OCISpec", "Confinement",
                "Cgroups", "Images", "Kernel", "Networking", "Reactor", "ShimProtocol", logging,
            ] + nio),
        tests("AgentCoreTests", ["AgentCore", "Model", "Wire", "JSON"]),
        tests("SimulationTests", ["AgentCore", "MasterCore", "Model", "Wire", "JSON"]),
        tests("ImagesTests", nio + ["Images", "Kernel", "JSON", "Reactor"]),
        tests("VolumesTests", ["Volumes", "Kernel", "Reactor"]),
        tests(
            "KernelTests",
            [
                "CKernel", "Kernel", "Cgroups", "Confinement", "DeviceNodes", "JSON", "OCISpec", "CNISpec",
                "StreamFrames",
                "ShimProtocol", "ContainerRuntime", "ShimCore", "Reactor", "Images", "Networking", "Volumes",
                "Netlink", "Netfilter", "CDI", "CDISpec", "ClusterSecurity",
            ]),
        // Sessions and programs, read where they are.
        tests("SystemTests", ["Kernel", "CKernel", "JSON", "Model", "Wire"], exclude: ["docker", "engines"]),
    ],
    swiftLanguageModes: [.v6]
)

// `make fuzz` (scripts/fuzz.sh) builds the parsers alone, with the program that feeds them.
if Context.environment["MARTLET_FUZZ"] != nil {
    let parsers = [
        "CKernel", "CStage", "CProtect", "CSeccomp", "CCapabilities", "Kernel", "Cgroups", "Confinement", "DeviceNodes",
        "JSON", "OCISpec", "CNISpec", "StreamFrames", "ShimProtocol", "ContainerRuntime", "CNIPlugin", "Reactor",
        "Networking", "CNetlink", "CNetfilter", "Netlink", "Netfilter", "OverlayPlugin", "PortmapPlugin",
        "BandwidthPlugin", "CYAML", "YAML", "CDISpec", "CDI",
    ]
    package.dependencies = []
    package.products = []
    package.targets = package.targets.filter { parsers.contains($0.name) }
    package.targets += [
        .target(name: "CFuzzer", path: "Fuzz/CFuzzer"),
        .executableTarget(
            name: "martlet-fuzz", dependencies: (["CFuzzer"] + parsers).map { .byName(name: $0) },
            path: "Fuzz/Targets", swiftSettings: settings, linkerSettings: [.unsafeFlags(["-use-ld=lld"])]),
    ]
}
