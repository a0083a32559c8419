import CKernel
import CNISpec
import Glibc
import Kernel

/// Whether a port of this machine can be published, and who has it otherwise.
enum PortCheck {
    /// Tries to bind the port for a moment.
    ///
    /// - Throws: `NetworkError` with who listens there, as far as /proc tells.
    static func requireFree(_ mapping: PortMapping) throws(NetworkError) {
        let address = mapping.hostAddress ?? IPAddress(.v4, 0)
        let place = address.isUnspecified ? "port \(mapping.hostPort)" : "port \(address):\(mapping.hostPort)"
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
        let raw = socket(AF_INET, type | Int32(SOCK_CLOEXEC.rawValue), protocolNumber)
        // A kernel without SCTP has nobody who listens on it.
        if raw < 0 { return mapping.transport == .sctp ? 0 : errno }
        defer { close(raw) }
        if stream {
            // Connections that linger in TIME_WAIT do not hold a port.
            var on: Int32 = 1
            setsockopt(raw, SOL_SOCKET, SO_REUSEADDR, &on, socklen_t(MemoryLayout<Int32>.size))
        }
        var name = sockaddr_in()
        name.sin_family = sa_family_t(AF_INET)
        name.sin_port = mapping.hostPort.bigEndian
        name.sin_addr.s_addr = UInt32(address.value).bigEndian
        let result = withUnsafePointer(to: &name) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(raw, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        return result == 0 ? 0 : errno
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
