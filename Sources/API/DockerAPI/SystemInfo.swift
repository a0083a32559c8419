import Glibc
import JSON
import Kernel
import Master
import MasterCore
import Model
import Wire

/// What `/info` says: one engine that has all nodes' processors, memory and containers.
struct SystemInfo {
    let cluster: ClusterView
    let counts: ClusterCounts
    let nodes: [NodeView]
    let listeners: Int
    let version: APIVersion
    private let machine = Machine()

    init(cluster: ClusterView, counts: ClusterCounts, nodes: [NodeView], listeners: Int, version: APIVersion) {
        self.cluster = cluster
        self.counts = counts
        self.nodes = nodes.sorted { $0.node.name < $1.node.name }
        self.listeners = listeners
        self.version = version
    }

    var json: JSONValue {
        var members: JSONObject = [
            "ID": .string(cluster.id), "Name": .string(machine.name), "ServerVersion": .string(Version.number),
            "Containers": .integer(Int64(counts.containers.all)),
            "ContainersRunning": .integer(Int64(counts.containers.running)),
            "ContainersPaused": .integer(Int64(counts.containers.paused)),
            "ContainersStopped": .integer(Int64(counts.containers.stopped)),
            "Images": .integer(Int64(counts.images)), "SystemTime": .string(Timestamp.now().description),
        ]
        addMachines(&members)
        addAbilities(&members)
        addSettings(&members)
        addSwarm(&members)
        addOlderMembers(&members)
        return .object(members)
    }

    // MARK: Parts

    private func addMachines(_ members: inout JSONObject) {
        let facts = nodes.map(\.node)
        members["NCPU"] = .integer(cluster.capacity.cpu / 1_000_000_000)
        members["MemTotal"] = .integer(cluster.capacity.memory)
        members["OSType"] = "linux"
        members["OperatingSystem"] = .string(Self.common(facts.compactMap(\.operatingSystem), or: "linux"))
        members["OSVersion"] = ""
        members["KernelVersion"] = .string(Self.common(facts.map(\.kernelVersion), or: machine.release))
        members["Architecture"] = .string(
            Self.common(facts.map { Machine.architecture($0.platform.architecture) }, or: machine.architecture))
        members["CgroupDriver"] = "cgroupfs"
        members["CgroupVersion"] = .string(Self.common(facts.compactMap(\.cgroupVersion).map(String.init), or: "2"))
        members["Labels"] = []
        members["Warnings"] = .array(nodes.compactMap { $0.warning.map { .string($0) } })
    }

    /// What all nodes say, or each of the different things that they say.
    private static func common(_ texts: [String], or other: String) -> String {
        texts.isEmpty ? other : Set(texts).sorted().joined(separator: ", ")
    }

    private func addAbilities(_ members: inout JSONObject) {
        for ability in [
            "MemoryLimit", "SwapLimit", "CpuCfsPeriod", "CpuCfsQuota", "CPUShares", "CPUSet", "PidsLimit",
            "IPv4Forwarding", "LiveRestoreEnabled",
        ] { members[ability] = true }
        for inability in ["OomKillDisable", "Debug", "ExperimentalBuild"] { members[inability] = false }
        members["NFd"] = .integer(0)
        members["NGoroutines"] = .integer(0)
        members["NEventsListener"] = .integer(Int64(listeners))
        var security: [JSONValue] = ["name=seccomp,profile=builtin"]
        if nodes.contains(where: { $0.node.cgroupVersion == 2 }) { security.append("name=cgroupns") }
        members["SecurityOptions"] = .array(security)
        members["Plugins"] = .object([
            "Volume": ["local"], "Network": ["bridge", "host", "null"], "Authorization": .null, "Log": ["json-file"],
        ])
    }

    private func addSettings(_ members: inout JSONObject) {
        members["Driver"] = "overlay2"
        members["DriverStatus"] = [["Supports d_type", "true"], ["Native Overlay Diff", "true"]]
        members["DockerRootDir"] = "/var/lib/martlet"
        members["LoggingDriver"] = "json-file"
        members["IndexServerAddress"] = "https://index.docker.io/v1/"
        members["RegistryConfig"] = .object([
            "InsecureRegistryCIDRs": ["127.0.0.0/8"], "Mirrors": [],
            "IndexConfigs": .object([
                "docker.io": .object(["Name": "docker.io", "Mirrors": [], "Secure": true, "Official": true])
            ]),
        ])
        members["GenericResources"] = .null
        for proxy in ["HttpProxy", "HttpsProxy", "NoProxy"] { members[proxy] = "" }
        members["Runtimes"] = .object([
            "runc": .object(["path": "martlet-runtime"]), "martlet": .object(["path": "martlet-runtime"]),
        ])
        members["DefaultRuntime"] = "runc"
        members["InitBinary"] = "martlet-shim"
        members["Isolation"] = ""
        for commit in ["ContainerdCommit", "RuncCommit", "InitCommit"] {
            members[commit] = .object(version < .v1_49 ? ["ID": "", "Expected": ""] : ["ID": ""])
        }
        members["DefaultAddressPools"] = [
            .object(["Base": "172.16.0.0/12", "Size": 16]), .object(["Base": "192.168.0.0/16", "Size": 20]),
        ]
        if version >= .v1_44 { members["CDISpecDirs"] = [] }
        if version >= .v1_50 { members["DiscoveredDevices"] = [] }
    }

    /// Swarm mode, which is not served, and what Swarm classic says of its nodes.
    private func addSwarm(_ members: inout JSONObject) {
        members["Swarm"] = .object([
            "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "",
            "RemoteManagers": .null,
        ])
        var rows: [(String, String)] = [
            ("Role", "primary"), ("Strategy", PlacementStrategy.spread.rawValue),
            ("Filters", "health, port, containerslots, dependency, affinity, constraint, whitelist"),
            ("Nodes", "\(nodes.count)"),
        ]
        for node in nodes { rows += node.rows(counts) }
        members["SystemStatus"] = .array(rows.map { [.string($0.0), .string($0.1)] })
    }

    private func addOlderMembers(_ members: inout JSONObject) {
        if version < .v1_50 {
            members["BridgeNfIptables"] = true
            members["BridgeNfIp6tables"] = true
        }
        if version < .v1_52 { members["KernelMemoryTCP"] = false }
        if version < .v1_42 { members["KernelMemory"] = false }
        guard version < .v1_49 else { return }
        if var registries = members["RegistryConfig"]?.objectValue {
            registries["AllowNondistributableArtifactsCIDRs"] = []
            registries["AllowNondistributableArtifactsHostnames"] = []
            members["RegistryConfig"] = .object(registries)
        }
    }
}

/// The master's own machine.
struct Machine {
    let name: String
    let release: String
    /// As uname(2) has it: `x86_64`.
    let architecture: String

    init() {
        var names = utsname()
        _ = uname(&names)
        name = Self.text(&names.nodename)
        release = Self.text(&names.release)
        architecture = Self.text(&names.machine)
    }

    /// `amd64`, `arm64`.
    var platform: String {
        switch architecture {
        case "x86_64": "amd64"
        case "aarch64": "arm64"
        default: architecture
        }
    }

    /// uname's word for that of image platforms.
    static func architecture(_ platform: String) -> String {
        switch platform {
        case "amd64": "x86_64"
        case "arm64": "aarch64"
        default: platform
        }
    }

    private static func text<Field>(_ field: inout Field) -> String {
        // The kernel ends the text with a zero byte within the field.
        withUnsafeBytes(of: &field) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
}
