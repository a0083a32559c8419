import CKernel
import CNISpec
import Cgroups
import Client
import DeviceDiscovery
import Glibc
import JSON
import Kernel
import Model
import Wire

/// What this machine is and has. All functions block.
struct NodeFacts: Sendable {
    let configuration: AgentConfiguration
    let membership: Membership

    /// The node as it registers.
    func node(_ identity: NodeIdentity, features: [String], overlayKey: String?) throws -> Node {
        var names = utsname()
        try systemCall("uname") { uname(&names) }
        let release = Self.text(&names.release)
        let machine = Self.text(&names.machine)
        let hostName = Self.text(&names.nodename)
        let address = ownAddress()
        let network = networkEndpoint(address)
        let allowed = (try? CgroupLayout.detect())?.allowedProcessors(parent: configuration.cgroupParent)
        let facts = ProcessorFacts(sys: configuration.deviceRoots.sys, allowed: allowed)
        return Node(
            id: identity.node, name: configuration.nodeName.isEmpty ? hostName : configuration.nodeName,
            labels: configuration.labels, platform: Platform(os: "linux", architecture: Self.architecture(machine)),
            features: features, capacity: try capacity(facts), processors: facts.processors,
            address: address, streamEndpoint: masterIsHere ? "unix:\(configuration.paths.socket)" : network,
            contentEndpoint: masterIsHere && membership.settings == nil ? nil : network, overlayKey: overlayKey,
            agentVersion: Version.number,
            kernelVersion: release, operatingSystem: Self.operatingSystem(),
            cgroupVersion: Self.cgroupVersion(), bootID: try Proc.bootID(), createdAt: Timestamp.now())
    }

    /// Discovered, less what is reserved, huge pages beside the other memory; nothing is negative.
    private func capacity(_ facts: ProcessorFacts) throws -> Resources {
        let cores = facts.processors?.cpuCount ?? max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN)))
        var memory: Int64 = 0
        for line in try File.text("/proc/meminfo").split(separator: "\n") where line.hasPrefix("MemTotal:") {
            memory = (line.split(separator: " ").dropFirst().first.flatMap { Int64($0) } ?? 0) << 10
        }
        // What is in a pool of huge pages is no memory for anything else.
        memory = max(0, memory - facts.hugepages.values.reduce(0, +))
        var disk = statfs()
        try systemCall("statfs", configuration.dataDirectory) { statfs(configuration.dataDirectory, &disk) }
        let all = Resources(
            cpu: Int64(cores) * 1_000_000_000, memory: memory, disk: Int64(disk.f_blocks) * Int64(disk.f_bsize))
        let free = all - configuration.reserved
        return Resources(
            cpu: max(0, free.cpu), memory: max(0, free.memory), disk: max(0, free.disk), hugepages: facts.hugepages)
    }

    private static func cgroupVersion() -> Int? {
        guard let layout = try? CgroupLayout.detect() else { return nil }
        return layout.isUnified ? 2 : 1
    }

    /// What os-release(5) calls the system; nil: it says nothing.
    private static func operatingSystem() -> String? {
        for path in ["/etc/os-release", "/usr/lib/os-release"] {
            guard let text = try? File.text(path) else { continue }
            for line in text.split(separator: "\n") where line.hasPrefix("PRETTY_NAME=") {
                let name = line.dropFirst(12).filter { $0 != "\"" && $0 != "'" }
                return name.isEmpty ? nil : String(name.prefix(128))
            }
        }
        return nil
    }

    static func architecture(_ machine: String) -> String {
        switch machine {
        case "x86_64": "amd64"
        case "aarch64": "arm64"
        default: machine
        }
    }

    private var masterIsHere: Bool {
        if case .unix = membership.address { true } else { false }
    }

    private func networkEndpoint(_ address: String) -> String {
        let port = configuration.listen.port
        return address.contains(":") ? "https://[\(address)]:\(port)" : "https://\(address):\(port)"
    }

    /// The address that packets of overlay networks bear; where the node is known by a name only, loopback: other nodes do
    /// not reach it on them then.
    var underlay: IPAddress { IPAddress(ownAddress()) ?? IPAddress(.v4, 0x7f00_0001) }

    /// What the operator says, else what the master's machine is reached by, else the address that packets to the master
    /// (or anywhere outside) carry; nothing is sent. Without a route, loopback.
    private func ownAddress() -> String {
        if !configuration.address.isEmpty { return configuration.address }
        switch membership.address {
        case .unix: return membership.settings?.advertise.first ?? Self.source(towards: "192.0.2.1") ?? "127.0.0.1"
        case .tls(let host, _): return Self.source(towards: host) ?? Self.source(towards: "192.0.2.1") ?? "127.0.0.1"
        }
    }

    private static func source(towards host: String) -> String? {
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_DGRAM.rawValue)
        var found: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(host, "9", &hints, &found) == 0, let found else { return nil }
        defer { freeaddrinfo(found) }
        let info = found.pointee
        let raw = socket(info.ai_family, info.ai_socktype | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard raw >= 0 else { return nil }
        let probe = OwnedFD(adopting: raw)
        guard connect(probe.raw, info.ai_addr, info.ai_addrlen) == 0 else { return nil }
        var address = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let number = probe.raw
        var text = [CChar](repeating: 0, count: Int(NI_MAXHOST))
        let named = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                getsockname(number, $0, &length) == 0
                    && getnameinfo($0, length, &text, socklen_t(text.count), nil, 0, NI_NUMERICHOST) == 0
            }
        }
        return named ? String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self) : nil
    }

    private static func text<Field>(_ field: inout Field) -> String {
        withUnsafeBytes(of: &field) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
}
