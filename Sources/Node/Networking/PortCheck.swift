import CKernel
import CNISpec
import Glibc
import Kernel

/// Whether a port of this machine can be published, and who has it otherwise.
enum PortCheck {
    /// Tries to bind the port for a moment, where it names no address in each family.
    ///
    /// - Parameter hasV6: whether one without an address is published at the machine's IPv6 addresses too.
    /// - Throws: `NetworkError` with who listens there, as far as /proc tells.
    static func requireFree(_ mapping: PortMapping, hasV6: Bool = false) throws(NetworkError) {
        if let address = mapping.hostAddress { return try requireFree(mapping, at: address) }
        try requireFree(mapping, at: IPAddress(.v4, 0))
        if hasV6 { try requireFree(mapping, at: IPAddress(.v6, 0)) }
    }

    private static func requireFree(_ mapping: PortMapping, at address: IPAddress) throws(NetworkError) {
        let host = address.family == .v4 ? "\(address)" : "[\(address)]"
        let place =
            address == IPAddress(.v4, 0) ? "port \(mapping.hostPort)" : "port \(host):\(mapping.hostPort)"
        let number = bindOnce(mapping, address)
        switch number {
        case 0: return
        case EADDRINUSE:
            let owner = owner(of: mapping).map { " by \($0)" } ?? ""
            throw NetworkError(
                .portTaken,
                "\(place)/\(mapping.transport.rawValue) is in use\(owner); stop that or publish another port")
        case EADDRNOTAVAIL:
            throw NetworkError(.configuration, "\(address) is no address of this machine; publish on one that is")
        default:
            throw NetworkError(.failed, "cannot publish \(place): \(String(errno: number))")
        }
    }

    /// The error number of bind(2), or 0.
    private static func bindOnce(_ mapping: PortMapping, _ address: IPAddress) -> Int32 {
        let stream = mapping.transport != .udp
        let type = stream ? Int32(SOCK_STREAM.rawValue) : Int32(SOCK_DGRAM.rawValue)
        let protocolNumber: Int32 = mapping.transport == .sctp ? 132 : 0
        let isFour = address.family == .v4
        let raw = socket(isFour ? AF_INET : AF_INET6, type | Int32(SOCK_CLOEXEC.rawValue), protocolNumber)
        // A kernel without SCTP has nobody who listens on it.
        if raw < 0 { return mapping.transport == .sctp ? 0 : errno }
        defer { close(raw) }
        if stream {
            // Connections that linger in TIME_WAIT do not hold a port.
            var on: Int32 = 1
            setsockopt(raw, SOL_SOCKET, SO_REUSEADDR, &on, socklen_t(MemoryLayout<Int32>.size))
        }
        let result: Int32
        if isFour {
            var name = sockaddr_in()
            name.sin_family = sa_family_t(AF_INET)
            name.sin_port = mapping.hostPort.bigEndian
            name.sin_addr.s_addr = UInt32(address.value).bigEndian
            result = bind(raw, to: &name)
        } else {
            // Who listens at IPv4 addresses only is no hindrance.
            var on: Int32 = 1
            setsockopt(raw, Int32(IPPROTO_IPV6), IPV6_V6ONLY, &on, socklen_t(MemoryLayout<Int32>.size))
            var name = sockaddr_in6()
            name.sin6_family = sa_family_t(AF_INET6)
            name.sin6_port = mapping.hostPort.bigEndian
            withUnsafeMutableBytes(of: &name.sin6_addr) { $0.copyBytes(from: address.bytes) }
            result = bind(raw, to: &name)
        }
        return result == 0 ? 0 : errno
    }

    private static func bind<Name>(_ raw: Int32, to name: inout Name) -> Int32 {
        withUnsafePointer(to: &name) {
            // SAFETY: both kinds of names begin as sockaddr does, and the length is the name's own.
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.bind(raw, $0, socklen_t(MemoryLayout<Name>.size))
            }
        }
    }

    /// `nginx (process 123)`, when a process that we may look into listens on the port.
    private static func owner(of mapping: PortMapping) -> String? {
        let name = mapping.transport.rawValue
        for table in [name, name + "6"] {
            guard let text = try? File.text("/proc/thread-self/net/\(table)", limit: 16 << 20),
                let inode = parse(sockets: text, port: mapping.hostPort, stream: mapping.transport == .tcp)
            else { continue }
            return process(with: inode)
        }
        return nil
    }

    /// The inode of the first socket bound to a port in /proc/net/tcp or udp; of stream sockets only listening ones.
    static func parse(sockets text: String, port: UInt16, stream: Bool) -> UInt64? {
        for line in text.split(separator: "\n").dropFirst() {
            let fields = line.split(separator: " ")
            guard fields.count >= 10, let number = fields[1].split(separator: ":").last,
                UInt16(number, radix: 16) == port, !stream || fields[3] == "0A"
            else { continue }
            return UInt64(fields[9])
        }
        return nil
    }

    private static func process(with inode: UInt64) -> String? {
        let wanted = "socket:[\(inode)]"
        for pid in (try? File.list("/proc")) ?? [] where UInt32(pid) != nil {
            for descriptor in (try? File.list("/proc/\(pid)/fd")) ?? [] {
                var buffer = [CChar](repeating: 0, count: 64)
                let count = readlink("/proc/\(pid)/fd/\(descriptor)", &buffer, buffer.count)
                guard count > 0 else { continue }
                let target = String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
                guard target == wanted else { continue }
                let name = (try? File.text("/proc/\(pid)/comm", limit: 64)) ?? "an unnamed program"
                return "\(name) (process \(pid))"
            }
        }
        return nil
    }
}
