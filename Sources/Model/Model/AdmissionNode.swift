import CNISpec

/// What of a container reaches beyond it: its node's devices and namespaces, and those of other containers.
extension Admission {
    /// Rights over the node.
    func node(_ container: ContainerSpec, at path: String) throws(AdmissionError) {
        if container.privileged, !policy.privileged {
            throw AdmissionError("\(path).privileged", "privileged containers are not allowed here", kind: .forbidden)
        }
        try bounded(container.deviceRules.count, 256, "rules", at: "\(path).deviceRules")
        if !container.deviceRules.isEmpty, !policy.devices {
            throw AdmissionError("\(path).deviceRules", "devices of the node are not allowed here", kind: .forbidden)
        }
        for (index, rule) in container.deviceRules.enumerated() where DeviceRuleText(rule) == nil {
            throw AdmissionError(
                "\(path).deviceRules[\(index)]", "\(Self.quoted(rule)) is no rule: write it as 'c 10:229 rwm'")
        }
        if let score = container.oomScoreAdjust {
            try range(score, -1000...1000, at: "\(path).oomScoreAdjust")
            if score < 0, !policy.oomProtection {
                throw AdmissionError("\(path).oomScoreAdjust", "less than 0 is not allowed here", kind: .forbidden)
            }
        }
        for (field, paths) in [("maskedPaths", container.maskedPaths), ("readOnlyPaths", container.readOnlyPaths)] {
            guard let paths else { continue }
            guard policy.chosenPaths else {
                throw AdmissionError(
                    "\(path).\(field)", "other paths than the usual are not allowed here", kind: .forbidden)
            }
            try bounded(paths.count, 1024, "paths", at: "\(path).\(field)")
            for (index, masked) in paths.enumerated() {
                try text(masked, atMost: 4096, "the path", at: "\(path).\(field)[\(index)]")
                guard masked.hasPrefix("/"), Self.isCleanPath(masked) else {
                    throw AdmissionError(
                        "\(path).\(field)[\(index)]", "\(Self.quoted(masked)) is no absolute path without '.' and '..'")
                }
            }
        }
    }

    /// Groups, annotations, exposed ports and the log.
    func surroundings(_ container: ContainerSpec, at path: String) throws(AdmissionError) {
        try bounded(container.groups.count, 1024, "groups", at: "\(path).groups")
        for (index, group) in container.groups.enumerated() {
            try text(group, atMost: 256, "the group", at: "\(path).groups[\(index)]")
            if group.isEmpty { throw AdmissionError("\(path).groups[\(index)]", "is empty") }
        }
        try bounded(container.annotations.count, 1024, "annotations", at: "\(path).annotations")
        for (key, value) in container.annotations.sorted(by: { $0.key < $1.key }) {
            try text(key, atMost: 256, "the key", at: "\(path).annotations")
            try text(value, atMost: 64 << 10, "the value of \(key)", at: "\(path).annotations")
            if key.isEmpty { throw AdmissionError("\(path).annotations", "a key is empty") }
        }
        try bounded(container.exposedPorts.count, 65_536, "ports", at: "\(path).exposedPorts")
        for (index, port) in container.exposedPorts.enumerated() where !Self.isExposedPort(port) {
            throw AdmissionError(
                "\(path).exposedPorts[\(index)]", "\(Self.quoted(port)) is no port: write it as 80/tcp")
        }
        if let bytes = container.logging.maximumBytes, !((1 << 10)...(1 << 40)).contains(bytes) {
            throw AdmissionError("\(path).logging.maximumBytes", "\(bytes) bytes are not between 1 KiB and 1 TiB")
        }
        if let files = container.logging.maximumFiles { try range(files, 1...1000, at: "\(path).logging.maximumFiles") }
    }

    private static func isExposedPort(_ text: String) -> Bool {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, let port = Int(parts[0]), (1...65535).contains(port) else { return false }
        return PortMapping.Transport(rawValue: String(parts[1])) != nil
    }

    /// Which namespaces are shared, with whom; that such a container is there is for others to see.
    func namespaces(_ pod: PodSpec, kind: Workload.Kind, at path: String) throws(AdmissionError) {
        let shared = pod.namespaces
        let all = [
            ("pid", shared.pid), ("ipc", shared.ipc), ("uts", shared.uts), ("cgroup", shared.cgroup),
            ("network", shared.network),
        ]
        for (name, source) in all {
            let here = "\(path).namespaces.\(name)"
            switch source {
            case .own: break
            case .node:
                if name == "network" { throw AdmissionError(here, "say the pod's network is 'host' instead") }
                guard policy.hostNamespaces else {
                    throw AdmissionError(here, "namespaces of the node are not allowed here", kind: .forbidden)
                }
            case .container(let ref):
                try text(ref, atMost: 256, "the name", at: "\(here).container")
                if ref.isEmpty { throw AdmissionError("\(here).container", "is empty") }
                guard kind == .container else {
                    throw AdmissionError(
                        here, "a service's instances run on many nodes and cannot share another container's namespaces",
                        kind: .unsupported)
                }
            }
        }
        let isShared = if case .container = shared.network { true } else { false }
        guard isShared == (pod.network == .container) else {
            throw AdmissionError(
                "\(path).namespaces.network", "names a container if, and only if, the pod's network is 'container'")
        }
        if isShared, !pod.attachments.isEmpty {
            throw AdmissionError("\(path).attachments", "do not go with the network of another container")
        }
    }

    /// Host name, domain, name servers and further hosts.
    func names(_ pod: PodSpec, at path: String) throws(AdmissionError) {
        let joinsNames = pod.namespaces.uts != .own || pod.network == .container
        for (field, name) in [("hostname", pod.hostname), ("domainname", pod.domainname)] where !name.isEmpty {
            if joinsNames {
                let whose = pod.namespaces.uts == .node ? "the node's" : "another's"
                throw AdmissionError("\(path).\(field)", "a pod with \(whose) names has none of its own: leave it out")
            }
            guard Self.isHostName(name) else {
                throw AdmissionError(
                    "\(path).\(field)",
                    "\(Self.quoted(name)) is no host name: at most 64 letters, digits and '-', in parts parted by '.'")
            }
        }
        let service = pod.nameService
        try bounded(service.servers.count, 16, "name servers", at: "\(path).nameService.servers")
        for (index, server) in service.servers.enumerated() where IPAddress(server) == nil {
            throw AdmissionError("\(path).nameService.servers[\(index)]", "\(Self.quoted(server)) is no address")
        }
        for (field, words) in [("search", service.search), ("options", service.options)] {
            try bounded(words.count, 32, "words", at: "\(path).nameService.\(field)")
            for (index, word) in words.enumerated() where !Self.isWord(word) {
                throw AdmissionError(
                    "\(path).nameService.\(field)[\(index)]", "\(Self.quoted(word)) is no single word")
            }
        }
        try bounded(pod.extraHosts.count, 1024, "hosts", at: "\(path).extraHosts")
        for (index, line) in pod.extraHosts.enumerated() {
            let parts = line.split(separator: ":", maxSplits: 1).map(String.init)
            guard parts.count == 2, Self.isWord(parts[0]), parts[1] == "host-gateway" || IPAddress(parts[1]) != nil
            else {
                throw AdmissionError(
                    "\(path).extraHosts[\(index)]",
                    "\(Self.quoted(line)) is not name:address or name:host-gateway")
            }
        }
    }

    private static func isHostName(_ name: String) -> Bool {
        let labels = name.split(separator: ".", omittingEmptySubsequences: false)
        return name.utf8.count <= 64
            && labels.allSatisfy { label in
                let bytes = Array(label.utf8)
                return (1...63).contains(bytes.count)
                    && bytes.allSatisfy { isAlphanumeric($0) || $0 == UInt8(ascii: "-") }
                    && bytes.first != UInt8(ascii: "-") && bytes.last != UInt8(ascii: "-")
            }
    }

    /// Goes into a file of words parted by blanks, and ends nothing there.
    private static func isWord(_ text: String) -> Bool {
        (1...255).contains(text.utf8.count)
            && text.utf8.allSatisfy { $0 > 32 && $0 < 127 && $0 != UInt8(ascii: "#") && $0 != UInt8(ascii: ";") }
    }

}

/// A rule of the device cgroup as users write it: `c 10:229 rwm`, `b 8:* r`, `a *:* rwm`.
package struct DeviceRuleText: Sendable, Hashable {
    /// `a`, `b` or `c`.
    package var type: String
    /// nil: every one.
    package var major: Int64?
    package var minor: Int64?
    /// Letters of `rwm`.
    package var access: String

    /// nil when it is none.
    package init?(_ text: String) {
        let words = text.split(separator: " ", omittingEmptySubsequences: false).map(String.init)
        guard words.count == 3, ["a", "b", "c"].contains(words[0]), !words[2].isEmpty,
            Set(words[2]).count == words[2].count, words[2].allSatisfy({ "rwm".contains($0) })
        else { return nil }
        let numbers = words[1].split(separator: ":", omittingEmptySubsequences: false)
        guard numbers.count == 2 else { return nil }
        func number(_ text: Substring) -> Int64?? {
            if text == "*" { return .some(nil) }
            guard (1...7).contains(text.utf8.count), text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else {
                return nil
            }
            return Int64(text)
        }
        guard let major = number(numbers[0]), let minor = number(numbers[1]) else { return nil }
        type = words[0]
        self.major = major
        self.minor = minor
        access = words[2]
    }
}
