import CDISpec
import CNISpec

extension Admission {
    /// A container's limits: in bounds, and in order among themselves.
    package func limits(_ limits: Limits, at path: String) throws(AdmissionError) {
        let smallest: Int64 = 6 << 20
        if limits.cpu != 0, !(10_000_000...1_000_000_000_000).contains(limits.cpu) {
            throw AdmissionError(
                "\(path).cpu", "\(limits.cpu) nano-cores are not between 0.01 and 1000 cores (0: no limit)")
        }
        if let memory = limits.memory, memory < smallest {
            throw AdmissionError("\(path).memory", "\(memory) bytes are less than the least limit, 6 MiB")
        }
        if let swap = limits.memorySwap, swap != -1 {
            guard let memory = limits.memory else {
                throw AdmissionError("\(path).memorySwap", "a limit of memory plus swap needs one of memory too")
            }
            guard swap >= memory else {
                throw AdmissionError(
                    "\(path).memorySwap", "\(swap) bytes of memory plus swap are less than the \(memory) of memory")
            }
        }
        if let reservation = limits.memoryReservation {
            guard reservation >= smallest else {
                throw AdmissionError("\(path).memoryReservation", "\(reservation) bytes are less than 6 MiB")
            }
            if let memory = limits.memory, reservation > memory {
                throw AdmissionError(
                    "\(path).memoryReservation", "\(reservation) bytes are more than the limit, \(memory)")
            }
        }
        if let pids = limits.pids, !(1...4_194_304).contains(pids) {
            throw AdmissionError("\(path).pids", "\(pids) is not between 1 and 4194304")
        }
        if let shares = limits.cpuShares, !(2...262_144).contains(shares) {
            throw AdmissionError("\(path).cpuShares", "\(shares) is not between 2 and 262144")
        }
        try processors(limits, at: path)
        try pinning(limits, at: path)
        try hugepages(limits.hugepages, at: "\(path).hugepages")
        if let swappiness = limits.swappiness, !(0...100).contains(swappiness) {
            throw AdmissionError("\(path).swappiness", "\(swappiness) is not between 0 and 100")
        }
        if let weight = limits.blockWeight, !(10...1000).contains(weight) {
            throw AdmissionError("\(path).blockWeight", "\(weight) is not between 10 and 1000")
        }
        if limits.disableOOMKill, limits.memory == nil {
            throw AdmissionError(
                "\(path).disableOOMKill", "needs a limit of memory: without one the whole node would run out of it")
        }
        if let shared = limits.sharedMemory, !(4096...(1 << 44)).contains(shared) {
            throw AdmissionError("\(path).sharedMemory", "\(shared) bytes are not between 4096 and 16 TiB")
        }
    }

    private func processors(_ limits: Limits, at path: String) throws(AdmissionError) {
        if let period = limits.cpuPeriod, !(1000...1_000_000).contains(period) {
            throw AdmissionError("\(path).cpuPeriod", "\(period) is not between 1000 and 1000000 microseconds")
        }
        let quotas: ClosedRange<Int64> = 1000...(1 << 40)
        if let quota = limits.cpuQuota, !quotas.contains(quota) {
            throw AdmissionError(
                "\(path).cpuQuota",
                "\(quota) is not between \(quotas.lowerBound) and \(quotas.upperBound) microseconds")
        }
        for (field, list) in [("cpus", limits.cpus), ("memoryNodes", limits.memoryNodes)] {
            guard let list else { continue }
            guard (1...1024).contains(list.utf8.count), ProcessorSet(list: list) != nil else {
                throw AdmissionError(
                    "\(path).\(field)", "\(Self.quoted(list)) is no list of numbers: write it as 0-3,7")
            }
        }
    }

    /// Processors of its own are whole ones, and the cluster chooses them.
    private func pinning(_ limits: Limits, at path: String) throws(AdmissionError) {
        guard limits.pinning != nil else { return }
        guard limits.cpu > 0, limits.cpu % 1_000_000_000 == 0 else {
            let given = limits.cpu == 0 ? "no number of processors was" : "\(limits.cpu) nano-cores were"
            throw AdmissionError(
                "\(path).cpu", "\(given) given: processors of one's own (pinning) are whole ones, 1 or more")
        }
        let others: [(String, Bool)] = [
            ("cpus", limits.cpus != nil), ("memoryNodes", limits.memoryNodes != nil),
            ("cpuQuota", limits.cpuQuota != nil), ("cpuPeriod", limits.cpuPeriod != nil),
        ]
        if let other = others.first(where: \.1)?.0 {
            throw AdmissionError(
                "\(path).\(other)", "goes without pinning, which chooses the processors: leave one of them out")
        }
    }

    /// Huge pages: known sizes, whole pages.
    private func hugepages(_ pools: [String: Int64], at path: String) throws(AdmissionError) {
        try bounded(pools.count, HugepageSize.most, "sizes", at: path)
        for (size, bytes) in pools.sorted(by: { $0.key < $1.key }) {
            guard let page = HugepageSize.bytes(size) else {
                throw AdmissionError(path, "\(Self.quoted(size)) is no size of huge pages: write it as 2m or 1g")
            }
            guard (1...(1 << 50)).contains(bytes), bytes % page == 0 else {
                throw AdmissionError(
                    "\(path).\(size)", "\(bytes) bytes are not 1 or more whole pages of \(size), up to 1 PiB")
            }
        }
    }

    /// Limits of setrlimit(2), each at most once, soft at most hard.
    func resourceLimits(_ limits: [RLimit], at path: String) throws(AdmissionError) {
        let known: Set = [
            "as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
            "rtprio", "rttime", "sigpending", "stack",
        ]
        var seen: Set<String> = []
        for (index, limit) in limits.enumerated() {
            guard known.contains(limit.name) else {
                throw AdmissionError(
                    "\(path)[\(index)].name", "there is no limit \(Self.quoted(limit.name)), see getrlimit(2)")
            }
            guard seen.insert(limit.name).inserted else {
                throw AdmissionError("\(path)[\(index)].name", "the limit \(limit.name) is given twice")
            }
            guard limit.soft <= limit.hard else {
                throw AdmissionError(
                    "\(path)[\(index)]", "the soft limit \(limit.soft) is more than the hard one, \(limit.hard)")
            }
        }
    }

    /// Only what belongs to the pod's own namespaces; the rest would change the whole node.
    func sysctls(_ settings: [String: String], of pod: PodSpec, at path: String) throws(AdmissionError) {
        try bounded(settings.count, 256, "settings", at: path)
        for (name, value) in settings.sorted(by: { $0.key < $1.key }) {
            try text(value, atMost: 4096, "the value of \(Self.quoted(name))", at: path)
            let wellFormed = name.utf8.allSatisfy {
                Self.isAlphanumeric($0) || $0 == UInt8(ascii: ".") || $0 == UInt8(ascii: "_") || $0 == UInt8(ascii: "-")
            }
            guard wellFormed, !name.contains(".."), !name.hasSuffix(".") else {
                throw AdmissionError(
                    path, "\(Self.quoted(name)) is no sysctl name: write it with '.', as net.core.somaxconn")
            }
            if name.hasPrefix("net.") {
                guard pod.network != .host, pod.network != .container else {
                    throw AdmissionError(
                        path, "\(name) would change the network of others: it needs a network of the pod's own")
                }
            } else if Self.namespacedSysctls.contains(name) || name.hasPrefix("fs.mqueue.") {
                guard pod.namespaces.ipc == .own else {
                    throw AdmissionError(
                        path, "\(name) would change the IPC namespace of others: it needs one of the pod's own")
                }
            } else if name == "kernel.domainname" {
                guard pod.namespaces.uts == .own else {
                    throw AdmissionError(path, "\(name) would change the names of others")
                }
            } else {
                throw AdmissionError(path, "\(name) belongs to the whole node, not to a container")
            }
        }
    }

    private static let namespacedSysctls: Set = [
        "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
        "kernel.shmmni", "kernel.shm_rmid_forced",
    ]

    /// Devices of the node: `/dev/x[:/dev/y[:rwm]]` or `vendor.com/class=name`. Which of the latter there are its node
    /// knows alone.
    func devices(_ devices: [String], at path: String) throws(AdmissionError) {
        try bounded(devices.count, 256, "devices", at: path)
        if !devices.isEmpty, !policy.devices {
            throw AdmissionError(path, "devices of the node are not allowed here", kind: .forbidden)
        }
        var targets: Set<Substring> = []
        for (index, device) in devices.enumerated() {
            if CDIName(device) != nil {
                guard targets.insert(Substring(device)).inserted else {
                    throw AdmissionError("\(path)[\(index)]", "\(device) is given twice")
                }
                continue
            }
            let parts = device.split(separator: ":", omittingEmptySubsequences: false)
            let paths = parts.prefix(2)
            let rights = parts.count == 3 ? parts[2] : "rwm"
            guard parts.count <= 3, device.utf8.count <= 4096, !device.utf8.contains(0),
                paths.allSatisfy({ $0.hasPrefix("/dev/") && Self.isCleanPath(String($0)) && !$0.hasSuffix("/") }),
                !rights.isEmpty, Set(rights).count == rights.count, rights.allSatisfy({ "rwm".contains($0) })
            else {
                throw AdmissionError(
                    "\(path)[\(index)]",
                    "\(Self.quoted(device)) is no device: write /dev/x[:/dev/y[:rwm]] or vendor.com/class=name")
            }
            guard targets.insert(paths[paths.endIndex - 1]).inserted else {
                throw AdmissionError("\(path)[\(index)]", "\(paths[paths.endIndex - 1]) is given twice")
            }
        }
    }
}

extension Admission {
    /// Published ports: in range, with a network to publish from, and not against each other.
    func ports(_ ports: [PortMapping], network: PodSpec.Network, at path: String) throws(AdmissionError) {
        try bounded(ports.count, 1024, "ports", at: path)
        guard ports.isEmpty || network == .bridge || network == .attached else {
            throw AdmissionError(
                path,
                "ports are published from a bridge, not from \(network.rawValue)"
                    + (network == .host ? ": the container has the node's own ports already" : ""))
        }
        for (index, port) in ports.enumerated() {
            let here = "\(path)[\(index)]"
            try range(port.containerPort, 1...65535, at: "\(here).containerPort")
            try range(port.hostPort, 0...65535, at: "\(here).hostPort")
            try range(port.hostPortEnd, 0...65535, at: "\(here).hostPortEnd")
            let hostPorts = port.hostPort...max(port.hostPort, port.hostPortEnd)
            if port.transport == .udp, let number = [4788, 4789].first(where: { hostPorts.contains($0) }) {
                throw AdmissionError(
                    here, "the node's port \(number)/udp is that of overlay networks between nodes: publish another")
            }
            guard port.hostPortEnd >= port.hostPort, port.hostPort != 0 || port.hostPortEnd == 0 else {
                throw AdmissionError(here, "\(port.hostPort)-\(port.hostPortEnd) is no range of ports")
            }
            try hostAddress(port.hostAddress, at: "\(here).hostAddress")
            if port.hostPort != 0, port.hostPort == port.hostPortEnd,
                ports[..<index].contains(where: {
                    $0.hostPort == port.hostPort && $0.hostPortEnd == port.hostPortEnd && $0.transport == port.transport
                        && PortMapping.meet($0.hostAddress, port.hostAddress)
                })
            {
                throw AdmissionError(here, "the node's port \(port.hostPort)/\(port.transport.rawValue) is given twice")
            }
        }
    }

    /// Where a port is published: at an address that a node can have and the kernel forwards for.
    private func hostAddress(_ text: String, at path: String) throws(AdmissionError) {
        if text.isEmpty { return }
        guard let address = IPAddress(text) else {
            throw AdmissionError(
                path, "\(Self.quoted(text)) is no IPv4 or IPv6 address: leave it out to publish at all addresses")
        }
        guard !address.isMulticast, address != IPAddress(.v4, 0xffff_ffff) else {
            throw AdmissionError(path, "\(address) is no address of one node: choose another")
        }
        guard address.family == .v6 else { return }
        if address.isLoopback {
            throw AdmissionError(
                path, "the kernel forwards nothing for \(address): publish at 127.0.0.1 or another address of the node")
        }
        if address.isLinkLocal {
            throw AdmissionError(
                path, "\(address) is of one link and names no node: publish at another address, or at ::")
        }
        if address.value >> 32 == 0xffff {
            throw AdmissionError(path, "\(address) is in no packet: write it as an IPv4 address")
        }
    }

    /// Mounts: absolute, unambiguous targets, each once, and sources that make sense.
    func mounts(_ mounts: [Mount], at path: String) throws(AdmissionError) {
        try bounded(mounts.count, 256, "mounts", at: path)
        var targets: Set<String> = []
        for (index, mount) in mounts.enumerated() {
            let here = "\(path)[\(index)]"
            guard mount.target.hasPrefix("/"), mount.target != "/", Self.isCleanPath(mount.target) else {
                throw AdmissionError(
                    "\(here).target", "\(Self.quoted(mount.target)) is no absolute path below '/' without '.' and '..'")
            }
            try text(mount.target, atMost: 4096, "the path", at: "\(here).target")
            guard targets.insert(mount.target).inserted else {
                throw AdmissionError("\(here).target", "\(mount.target) is mounted twice")
            }
            try source(mount.source, at: "\(here).source")
            try ownership(mount, at: here)
            try way(mount, at: here)
        }
    }

    /// Only files that the cluster writes have a mode and an owner of the mount's.
    private func ownership(_ mount: Mount, at path: String) throws(AdmissionError) {
        switch mount.source {
        case .secret, .config: break
        case .bind, .volume, .tmpfs:
            guard mount.mode == nil, mount.uid == nil, mount.gid == nil else {
                throw AdmissionError(path, "mode, uid and gid go only with a secret or config")
            }
        }
        if let mode = mount.mode {
            guard (3...4).contains(mode.utf8.count), Int(mode, radix: 8).map({ (0...0o777).contains($0) }) == true
            else {
                throw AdmissionError(
                    "\(path).mode", "\(Self.quoted(mode)) is no mode of a file: write octal digits from 000 to 0777")
            }
        }
        for (name, id) in [("uid", mount.uid), ("gid", mount.gid)] {
            if let id { try range(id, 0...4_294_967_294, at: "\(path).\(name)") }
        }
    }

    private func source(_ source: Mount.Source, at path: String) throws(AdmissionError) {
        switch source {
        case .bind(let host):
            guard policy.bindMounts else {
                throw AdmissionError("\(path).bind", "paths of the node are not allowed here", kind: .forbidden)
            }
            try text(host, atMost: 4096, "the path", at: "\(path).bind.path")
            guard host == "/" || host.hasPrefix("/") && Self.isCleanPath(host) else {
                throw AdmissionError(
                    "\(path).bind.path", "\(Self.quoted(host)) is no absolute path without '.' and '..'")
            }
        case .volume(let name): try volumeName(name, at: "\(path).volume.name")
        case .secret(let name): try self.name(name, at: "\(path).secret.name")
        case .config(let name): try self.name(name, at: "\(path).config.name")
        case .tmpfs(let size, let mode):
            if let size, !(4096...(1 << 44)).contains(size) {
                throw AdmissionError("\(path).tmpfs.size", "\(size) bytes are not between 4096 and 16 TiB")
            }
            if let mode, !(3...4).contains(mode.utf8.count) || !mode.utf8.allSatisfy({ (0x30...0x37).contains($0) }) {
                throw AdmissionError(
                    "\(path).tmpfs.mode", "\(Self.quoted(mode)) is no mode: write octal digits as 1777")
            }
        }
    }

    /// Whether no component is empty, `.` or `..`; one '/' at the end is fine.
    static func isCleanPath(_ path: String) -> Bool {
        // By bytes, as the kernel reads it: to Swift a slash before U+0301 is a part of another character.
        var parts = path.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false).dropFirst()
        if parts.last?.isEmpty == true { parts = parts.dropLast() }
        return !parts.isEmpty
            && parts.allSatisfy { !$0.isEmpty && !$0.elementsEqual(".".utf8) && !$0.elementsEqual("..".utf8) }
    }
}
