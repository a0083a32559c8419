extension Admission {
    /// Checks one container and fills in its name, its image's digest and the kernel's spelling of capabilities.
    func container(
        _ container: inout ContainerSpec, of pod: PodSpec, at path: String, images: ImageResolver
    ) throws(AdmissionError) {
        if container.name.isEmpty { container.name = "main" }
        try name(container.name, at: "\(path).name")
        try labels(container.labels, at: "\(path).labels")
        try program(container, at: path)
        try environment(container.environment, at: "\(path).environment")
        try mounts(container.mounts, at: "\(path).mounts")
        try capabilities(&container, at: path)
        try confinement(container, at: path)
        try limits(container.limits, at: "\(path).limits")
        try resourceLimits(container.rlimits, at: "\(path).rlimits")
        try devices(container.devices, at: "\(path).devices")
        try deviceClaims(container.deviceClaims, at: "\(path).deviceClaims")
        try sysctls(container.sysctls, of: pod, at: "\(path).sysctls")
        try node(container, at: path)
        try surroundings(container, at: path)
        if let check = container.healthCheck {
            try healthCheck(check, network: pod.network, at: "\(path).healthCheck")
        }
        // The last: a wrong spec is wrong with or without its image.
        try image(&container, at: "\(path).image", images: images)
    }

    private func image(
        _ container: inout ContainerSpec, at path: String, images: ImageResolver
    ) throws(AdmissionError) {
        try text(container.image, atMost: 512, "the image's name", at: path)
        guard !container.image.isEmpty else { throw AdmissionError(path, "an image is wanted") }
        let name = ImageName(container.image)
        guard name != nil || ImageName.isDigest(container.image) else {
            throw AdmissionError(
                path, "\(Self.quoted(container.image)) is no image name: write name[:tag] or name@sha256:…")
        }
        guard let resolved = images(container.image) else {
            throw AdmissionError(
                path,
                "no node has the image \(name.map { "\($0)" } ?? container.image); fetch it with "
                    + "`martlet pull`, or bring it with `martlet image load` or `martlet image import`",
                kind: .unknownImage)
        }
        container.imageDigest = resolved.digest
    }

    private func program(_ container: ContainerSpec, at path: String) throws(AdmissionError) {
        for (field, words) in [("entrypoint", container.entrypoint), ("command", container.command)] {
            guard let words else { continue }
            try bounded(words.count, 4096, "words", at: "\(path).\(field)")
            for (index, word) in words.enumerated() {
                try text(word, atMost: 128 << 10, "the word", at: "\(path).\(field)[\(index)]")
            }
        }
        if let first = container.entrypoint?.first, first.isEmpty {
            throw AdmissionError("\(path).entrypoint[0]", "the program's name is empty")
        }
        try text(container.user, atMost: 256, "the user", at: "\(path).user")
        try text(container.workingDirectory, atMost: 4096, "the path", at: "\(path).workingDirectory")
        if !container.workingDirectory.isEmpty, !container.workingDirectory.hasPrefix("/") {
            throw AdmissionError(
                "\(path).workingDirectory",
                "\(Self.quoted(container.workingDirectory)) is not absolute: begin it with '/'")
        }
        if !container.stopSignal.isEmpty, SignalName(container.stopSignal) == nil {
            throw AdmissionError("\(path).stopSignal", "there is no signal \(Self.quoted(container.stopSignal))")
        }
        try range(container.stopGrace, 0...86_400, at: "\(path).stopGrace")
    }

    private func environment(_ entries: [String], at path: String) throws(AdmissionError) {
        try bounded(entries.count, 4096, "variables", at: path)
        for (index, entry) in entries.enumerated() {
            try text(entry, atMost: 128 << 10, "the variable", at: "\(path)[\(index)]")
            guard let equals = entry.firstIndex(of: "="), equals != entry.startIndex else {
                throw AdmissionError("\(path)[\(index)]", "\(Self.quoted(entry)) is not KEY=value")
            }
        }
    }

    /// Brings capability names into the kernel's form: `CAP_NET_ADMIN`, or `ALL`.
    private func capabilities(_ container: inout ContainerSpec, at path: String) throws(AdmissionError) {
        container.capabilitiesAdded = try Self.capabilities(
            container.capabilitiesAdded, at: "\(path).capabilitiesAdded")
        container.capabilitiesDropped = try Self.capabilities(
            container.capabilitiesDropped, at: "\(path).capabilitiesDropped")
        if !policy.addedCapabilities, !container.capabilitiesAdded.isEmpty {
            throw AdmissionError(
                "\(path).capabilitiesAdded", "added capabilities are not allowed here", kind: .forbidden)
        }
    }

    private static func capabilities(_ names: [String], at path: String) throws(AdmissionError) -> [String] {
        guard names.count <= 64 else { throw AdmissionError(path, "\(names.count) names are more than the 64 allowed") }
        var canonical: [String] = []
        for (index, name) in names.enumerated() {
            var upper = name.uppercased()
            if upper == "ALL" {
                canonical.append(upper)
                continue
            }
            if !upper.hasPrefix("CAP_") { upper = "CAP_" + upper }
            guard Capability.names.contains(upper) else {
                throw AdmissionError("\(path)[\(index)]", "there is no capability \(quoted(name)), see capabilities(7)")
            }
            canonical.append(upper)
        }
        return canonical
    }

    private func confinement(_ container: ContainerSpec, at path: String) throws(AdmissionError) {
        switch container.seccomp {
        case .default: break
        case .unconfined:
            if !policy.unconfinedSeccomp {
                throw AdmissionError(
                    "\(path).seccomp", "running without a seccomp filter is not allowed here", kind: .forbidden)
            }
        case .profile(let json):
            try text(json, atMost: 1 << 20, "the profile", at: "\(path).seccomp.profile.json")
        }
    }

    private func healthCheck(
        _ check: HealthCheck, network: PodSpec.Network, at path: String
    ) throws(AdmissionError) {
        if let interval = check.interval { try range(interval, 1...86_400, at: "\(path).interval") }
        if let timeout = check.timeout { try range(timeout, 1...86_400, at: "\(path).timeout") }
        if let retries = check.retries { try range(retries, 1...1000, at: "\(path).retries") }
        if let period = check.startPeriod { try range(period, 0...86_400, at: "\(path).startPeriod") }
        if let interval = check.startInterval { try range(interval, 1...86_400, at: "\(path).startInterval") }
        switch check.probe {
        case .command(let words):
            guard let first = words.first, !first.isEmpty else {
                throw AdmissionError("\(path).probe.command", "a program is wanted")
            }
            try bounded(words.count, 1024, "words", at: "\(path).probe.command")
            for (index, word) in words.enumerated() {
                try text(word, atMost: 128 << 10, "the word", at: "\(path).probe.command[\(index)]")
            }
        case .tcp(let port):
            try range(port, 1...65535, at: "\(path).probe.tcp.port")
            try reachable(network, at: "\(path).probe.tcp")
        case .http(let port, let urlPath):
            try range(port, 1...65535, at: "\(path).probe.http.port")
            try reachable(network, at: "\(path).probe.http")
            try text(urlPath, atMost: 4096, "the path", at: "\(path).probe.http.path")
            guard urlPath.hasPrefix("/"), urlPath.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else {
                throw AdmissionError(
                    "\(path).probe.http.path",
                    "\(Self.quoted(urlPath)) is no path: begin it with '/', percent-encode the rest")
            }
        }
    }

    private func reachable(_ network: PodSpec.Network, at path: String) throws(AdmissionError) {
        guard network != .none else {
            throw AdmissionError(path, "a pod without a network cannot be reached: use a command")
        }
    }
}

/// The kernel's capabilities, see capabilities(7).
package enum Capability {
    /// All 41 of Linux 5.9 and later, by number.
    package static let names: [String] = [
        "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
        "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST",
        "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO",
        "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE",
        "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE",
        "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
        "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
    ]
}
