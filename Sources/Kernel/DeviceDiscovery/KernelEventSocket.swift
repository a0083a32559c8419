import CKernel
import Glibc
import Kernel

/// A change of devices that the kernel tells of, see NETLINK_KOBJECT_UEVENT in netlink(7).
package struct KernelEvent: Sendable, Equatable {
    /// `add`, `remove`, `change`, `bind`, `unbind`, …
    package let action: String
    /// Below /sys: `/devices/pci0000:00/0000:00:02.0`.
    package let path: String
    /// `pci`, `drm`, …
    package let subsystem: String
    /// All that it says, `KEY` to value.
    package let properties: [String: String]

    /// Reads `action@path`, NUL, `KEY=value`, NUL, …; nil for anything else, what udev sends to its own listeners included.
    package init?(_ bytes: some Collection<UInt8>) {
        guard bytes.count <= KernelEventSocket.limit else { return nil }
        let parts = bytes.split(separator: 0)
        guard let head = parts.first, let at = head.firstIndex(of: UInt8(ascii: "@")) else { return nil }
        let action = String(decoding: head[..<at], as: UTF8.self)
        guard !action.isEmpty, action.utf8.allSatisfy({ (97...122).contains($0) }) else { return nil }
        var properties: [String: String] = [:]
        for part in parts.dropFirst() {
            guard let equals = part.firstIndex(of: UInt8(ascii: "=")) else { continue }
            let value = part[part.index(after: equals)...]
            properties[String(decoding: part[..<equals], as: UTF8.self)] = String(decoding: value, as: UTF8.self)
        }
        self.action = action
        path = String(decoding: head[head.index(after: at)...], as: UTF8.self)
        subsystem = properties["SUBSYSTEM"] ?? ""
        self.properties = properties
    }

    /// Whether GPUs may have come, gone or changed: a PCI device, a node of the graphics layer or a driver came or went,
    /// or a graphics driver gave a device up (WEDGED). A monitor that was plugged in is none of it.
    package var mayChangeDevices: Bool {
        switch subsystem {
        case "pci": ["add", "remove", "bind", "unbind"].contains(action)
        case "drm", "kfd": ["add", "remove"].contains(action) || properties["WEDGED"] != nil
        case "module":
            ["/module/nvidia", "/module/nvidia_uvm", "/module/amdgpu", "/module/i915", "/module/xe"].contains(path)
        default: false
        }
    }
}

/// Receives what the kernel tells of devices. It needs no privilege.
package struct KernelEventSocket: ~Copyable, Sendable {
    private let socket: OwnedFD

    /// Most bytes of a message; the kernel's own bound is 2 KiB of properties and the path.
    package static let limit = 8192
    /// Room for what comes while nobody looks: a few thousand messages.
    private static let bufferBytes: Int32 = 4 << 20
    // netlink(7): the protocol, and the group to which the kernel speaks; group 2 is udev's.
    private static let protocolNumber: Int32 = 15
    private static let kernelGroup: UInt32 = 1

    /// Begins to listen.
    package init() throws(KernelError) {
        let type = Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
        let socket = OwnedFD(
            adopting: try systemCall("socket", "kernel events") {
                Glibc.socket(Int32(CK_AF_NETLINK), type, Self.protocolNumber)
            })
        let raw = socket.raw
        var bytes = Self.bufferBytes
        // Refused without privilege: then less fits, and more is lost, which is noticed.
        if setsockopt(raw, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, 4) != 0 {
            setsockopt(raw, SOL_SOCKET, SO_RCVBUF, &bytes, 4)
        }
        var address = Address(family: UInt16(CK_AF_NETLINK), groups: Self.kernelGroup)
        try systemCall("bind", "kernel events") {
            withUnsafePointer(to: &address) {
                // SAFETY: Address has the layout of the kernel's struct sockaddr_nl.
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    bind(raw, $0, socklen_t(MemoryLayout<Address>.size))
                }
            }
        }
        self.socket = socket
    }

    /// For poll(2); valid as long as this value lives.
    package var descriptor: Int32 { socket.raw }

    /// A second descriptor of the same socket, close-on-exec.
    package borrowing func duplicate() throws(KernelError) -> OwnedFD { try socket.duplicate() }

    /// The next event; nil: there is none now. What is no event is passed over.
    ///
    /// - Throws: ENOBUFS when some were lost: whoever listens has to look at the devices themselves.
    package borrowing func next() throws(KernelError) -> KernelEvent? {
        var buffer = [UInt8](repeating: 0, count: Self.limit)
        let raw = socket.raw
        // Others may fill the queue too; the caller gets its turn.
        for _ in 0..<1024 {
            var sender = Address(family: 0, groups: 0)
            var length = socklen_t(MemoryLayout<Address>.size)
            let count: Int
            do throws(KernelError) {
                count = try systemCall("recvfrom", "kernel events") {
                    buffer.withUnsafeMutableBytes { bytes in
                        withUnsafeMutablePointer(to: &sender) {
                            // SAFETY: as above; the kernel writes at most `length` bytes.
                            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                                recvfrom(raw, bytes.baseAddress, bytes.count, Int32(MSG_DONTWAIT), $0, &length)
                            }
                        }
                    }
                }
            } catch {
                if error.errno == EAGAIN { return nil }
                throw error
            }
            // Root's processes can send here too; the kernel's port is 0.
            guard sender.port == 0, let event = KernelEvent(buffer[..<count]) else { continue }
            return event
        }
        return nil
    }

    /// struct sockaddr_nl.
    private struct Address {
        var family: UInt16
        var padding: UInt16 = 0
        var port: UInt32 = 0
        var groups: UInt32
    }
}
