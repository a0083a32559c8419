import JSON

/// A version of the CNI specification that this host speaks.
package enum CNIVersion: String, Sendable, CaseIterable, Comparable {
    case v0_3_0 = "0.3.0"
    case v0_3_1 = "0.3.1"
    case v0_4_0 = "0.4.0"
    case v1_0_0 = "1.0.0"
    case v1_1_0 = "1.1.0"

    /// What we write into lists of our own.
    package static let current = CNIVersion.v1_0_0

    package static func < (left: CNIVersion, right: CNIVersion) -> Bool { left.order < right.order }
    private var order: Int { Self.allCases.firstIndex(of: self) ?? 0 }

    /// CHECK came with 0.4.0.
    package var hasCheck: Bool { self >= .v0_4_0 }
    /// Addresses named their own family until 1.0.0.
    var hasAddressVersion: Bool { self < .v1_0_0 }
}

/// The rules for the words that end up in paths, environments and device names.
package enum CNINames {
    /// Most bytes of a network's name or a container's id; both become parts of one file name.
    package static let longest = 100

    /// A network's name or a container's id: letters, digits, `_`, `.` and `-`, a letter or digit first.
    package static func isName(_ text: String) -> Bool {
        guard let first = text.utf8.first, text.utf8.count <= longest, isAlphanumeric(first) else { return false }
        return text.utf8.allSatisfy {
            isAlphanumeric($0) || [UInt8(ascii: "_"), UInt8(ascii: "."), UInt8(ascii: "-")].contains($0)
        }
    }

    /// A plugin's type: a name of a file, never a path. So a configuration cannot run what is outside the plugin
    /// directories (CVE-2021-20206).
    package static func isPluginType(_ text: String) -> Bool { isName(text) }

    /// A network device's name: 1 to 15 bytes that the kernel takes, without a path's specials.
    package static func isInterface(_ text: String) -> Bool {
        guard (1...15).contains(text.utf8.count), text != ".", text != ".." else { return false }
        return text.utf8.allSatisfy { $0 > 32 && $0 < 127 && $0 != UInt8(ascii: "/") && $0 != UInt8(ascii: ":") }
    }

    /// A capability's or an argument's key: what `CNI_ARGS` can carry.
    package static func isArgumentKey(_ text: String) -> Bool { isName(text) }

    /// An argument's value: printable, without the `;` that separates arguments.
    package static func isArgumentValue(_ text: String) -> Bool {
        text.utf8.count <= 1024 && text.utf8.allSatisfy { $0 >= 32 && $0 != 127 && $0 != UInt8(ascii: ";") }
    }

    /// One word of a resolv.conf.
    static func isWord(_ text: String) -> Bool {
        (1...256).contains(text.utf8.count) && text.utf8.allSatisfy { $0 > 32 && $0 < 127 }
    }

    private static func isAlphanumeric(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"):
            true
        default: false
        }
    }
}

/// Bounds of what is read from configuration and plugins.
package enum CNILimits {
    /// Bytes of a configuration list or of what a plugin prints.
    package static let bytes = 1 << 20
    /// Plugins in a list.
    package static let plugins = 32
    /// Interfaces and addresses in a result, each.
    package static let endpoints = 256
    /// Routes in a result.
    package static let routes = 4096
    /// Name servers, search domains, options, aliases and ranges of addresses, each.
    package static let words = 64
    /// Port mappings of a container.
    package static let portMappings = 4096

    package static let json = JSONLimits(bytes: bytes, depth: 32, stringBytes: 64 << 10)
}

extension JSONReader {
    /// The address here.
    package func address() throws(JSONError) -> IPAddress {
        let text = try string()
        guard let address = IPAddress(text) else {
            throw error(.type, "\(JSONPathElement.quoted(text)) is no IP address")
        }
        return address
    }

    /// The address with prefix here.
    package func cidr() throws(JSONError) -> CIDR {
        let text = try string()
        guard let cidr = CIDR(text) else {
            throw error(.type, "\(JSONPathElement.quoted(text)) is no address with prefix, such as 10.1.2.3/24")
        }
        return cidr
    }

    /// The hardware address here.
    package func mac() throws(JSONError) -> MACAddress {
        let text = try string()
        guard let mac = MACAddress(text) else {
            throw error(.type, "\(JSONPathElement.quoted(text)) is no hardware address")
        }
        return mac
    }

    /// The version here.
    package func version() throws(JSONError) -> CNIVersion {
        let text = try string()
        guard let version = CNIVersion(rawValue: text) else {
            let known = CNIVersion.allCases.map(\.rawValue).joined(separator: ", ")
            throw error(.type, "CNI version \(JSONPathElement.quoted(text)) is not supported, only \(known)")
        }
        return version
    }

    /// The words of a member that is an array of at most `CNILimits.words`: printable, without spaces, so that nothing
    /// in one can begin another word or line of a resolv.conf; none when it is absent.
    func words(_ key: String) throws(JSONError) -> [String] {
        var words: [String] = []
        for element in try elements(key, atMost: CNILimits.words) {
            let text = try element.string()
            guard CNINames.isWord(text) else {
                throw element.error(.type, "\(JSONPathElement.quoted(text)) does not fit into a resolv.conf")
            }
            words.append(text)
        }
        return words
    }

    /// The elements of a member that is an array of bounded length; none when it is absent.
    package func elements(_ key: String, atMost limit: Int) throws(JSONError) -> [JSONReader] {
        let elements = try optionalArray(key) ?? []
        guard elements.count <= limit else {
            throw error(.tooLarge, key, "\(elements.count) elements are more than the \(limit) allowed")
        }
        return elements
    }
}
