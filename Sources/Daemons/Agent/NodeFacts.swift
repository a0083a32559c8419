import CKernel
import Glibc
import JSON
import Kernel
import Model
import Wire

/// What this machine is and has. All functions block.
struct NodeFacts: Sendable {
    let configuration: AgentConfiguration

    /// The node as it registers.
    func node(_ identity: NodeIdentity, features: [String]) throws -> Node {
        var names = utsname()
        try systemCall("uname") { uname(&names) }
        let release = Self.text(&names.release)
        let machine = Self.text(&names.machine)
        let hostName = Self.text(&names.nodename)
        return Node(
            id: identity.node, name: configuration.nodeName.isEmpty ? hostName : configuration.nodeName,
            labels: configuration.labels, platform: Platform(os: "linux", architecture: Self.architecture(machine)),
            features: features, capacity: try capacity(),
            address: configuration.address.isEmpty ? Self.ownAddress() : configuration.address,
            streamEndpoint: "unix:\(configuration.paths.socket)", agentVersion: Version.number,
            kernelVersion: release, bootID: try Proc.bootID(), createdAt: Timestamp.now())
    }

    /// Discovered, less what is reserved; nothing is negative.
    private func capacity() throws -> Resources {
        let cores = max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN)))
        var memory: Int64 = 0
        for line in try File.text("/proc/meminfo").split(separator: "\n") where line.hasPrefix("MemTotal:") {
            memory = (line.split(separator: " ").dropFirst().first.flatMap { Int64($0) } ?? 0) << 10
        }
        var disk = statfs()
        try systemCall("statfs", configuration.dataDirectory) { statfs(configuration.dataDirectory, &disk) }
        let all = Resources(
            cpu: Int64(cores) * 1_000_000_000, memory: memory, disk: Int64(disk.f_blocks) * Int64(disk.f_bsize))
        let free = all - configuration.reserved
        return Resources(cpu: max(0, free.cpu), memory: max(0, free.memory), disk: max(0, free.disk))
    }

    static func architecture(_ machine: String) -> String {
        switch machine {
        case "x86_64": "amd64"
        case "aarch64": "arm64"
        default: machine
        }
    }

    /// The address that packets to the outside carry; nothing is sent. Without a route, loopback.
    private static func ownAddress() -> String {
        let raw = socket(AF_INET, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard raw >= 0 else { return "127.0.0.1" }
        let probe = OwnedFD(adopting: raw)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(9).bigEndian
        inet_pton(AF_INET, "192.0.2.1", &address.sin_addr)
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let number = probe.raw
        let answered = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(number, $0, length) == 0 && getsockname(number, $0, &length) == 0
            }
        }
        var text = [CChar](repeating: 0, count: Int(INET_ADDRSTRLEN))
        guard answered, inet_ntop(AF_INET, &address.sin_addr, &text, socklen_t(INET_ADDRSTRLEN)) != nil else {
            return "127.0.0.1"
        }
        return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    private static func text<Field>(_ field: inout Field) -> String {
        withUnsafeBytes(of: &field) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
}
