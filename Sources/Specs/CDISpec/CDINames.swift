/// Vendor and class of devices: `vendor.com/class`.
package struct CDIKind: Sendable, Hashable, CustomStringConvertible {
    package let vendor: String
    package let className: String

    /// - Returns: nil when `text` is no kind: `CDINames.kindRule` says what is.
    package init?(_ text: String) {
        guard text.utf8.count <= 512 else { return nil }
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, CDINames.isVendor(parts[0]), CDINames.isClass(parts[1]) else { return nil }
        vendor = String(parts[0])
        className = String(parts[1])
    }

    package var description: String { "\(vendor)/\(className)" }
}

/// A device's whole name: `vendor.com/class=name`.
package struct CDIName: Sendable, Hashable, Comparable, CustomStringConvertible {
    package let kind: CDIKind
    package let device: String

    init(kind: CDIKind, device: String) {
        self.kind = kind
        self.device = device
    }

    /// - Returns: nil when `text` is no device's whole name; a path never is.
    package init?(_ text: String) {
        guard text.utf8.count <= 1024, let equals = text.utf8.firstIndex(of: UInt8(ascii: "=")),
            let kind = CDIKind(String(text[..<equals]))
        else { return nil }
        let device = text[text.utf8.index(after: equals)...]
        guard CDINames.isDevice(device) else { return nil }
        self.kind = kind
        self.device = String(device)
    }

    package var description: String { "\(kind)=\(device)" }

    package static func < (left: CDIName, right: CDIName) -> Bool {
        left.description.utf8.lexicographicallyPrecedes(right.description.utf8)
    }
}

/// The rules for names in specifications.
package enum CDINames {
    static let kindRule =
        "write it as vendor.com/class: letters, digits, '_', '-' and '.', a letter first and a letter or digit last, "
        + "at most 253 and 63 characters"
    static let deviceRule =
        "it has letters, digits, '_', '-', '.' and ':', a letter or digit first and last, and at most 253 characters"

    /// A series of labels between dots. More than a DNS name, as the reference implementation has it: also `_` and
    /// capital letters.
    package static func isVendor(_ text: some StringProtocol) -> Bool {
        text.utf8.count <= 253 && text.utf8.first.map(isLetter) == true && isWord(text, also: "_-.")
            && !text.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false).contains {
                $0.isEmpty || $0.count > 63
            }
    }

    package static func isClass(_ text: some StringProtocol) -> Bool {
        text.utf8.count <= 63 && text.utf8.first.map(isLetter) == true && isWord(text, also: "_-.")
    }

    package static func isDevice(_ text: some StringProtocol) -> Bool {
        text.utf8.count <= 253 && isWord(text, also: "_-.:")
    }

    static func beginsWithDigit(_ text: String) -> Bool { text.utf8.first.map(isDigit) == true }

    /// An annotation's key, as Kubernetes has it: a name of at most 63 characters, with a DNS subdomain and `/` before
    /// it or not.
    static func isAnnotationKey(_ text: String) -> Bool {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard let name = parts.last, parts.count <= 2, name.utf8.count <= 63, isWord(name, also: "_-.") else {
            return false
        }
        guard parts.count == 2 else { return true }
        return parts[0].utf8.count <= 253
            && parts[0].split(separator: ".", omittingEmptySubsequences: false).allSatisfy { isWord($0, also: "-") }
    }

    /// A network device's name: 1 to 15 bytes that the kernel takes (dev_valid_name), no control characters.
    static func isInterface(_ text: String) -> Bool {
        guard (1...15).contains(text.utf8.count), text != ".", text != ".." else { return false }
        return text.utf8.allSatisfy { $0 > 32 && $0 != 127 && $0 != UInt8(ascii: "/") && $0 != UInt8(ascii: ":") }
    }

    /// Letters and digits at both ends, and `also` between.
    private static func isWord(_ text: some StringProtocol, also: String) -> Bool {
        let bytes = Array(text.utf8)
        guard let first = bytes.first, let last = bytes.last, isAlphanumeric(first), isAlphanumeric(last) else {
            return false
        }
        return bytes.allSatisfy { isAlphanumeric($0) || also.utf8.contains($0) }
    }

    private static func isAlphanumeric(_ byte: UInt8) -> Bool { isLetter(byte) || isDigit(byte) }
    private static func isDigit(_ byte: UInt8) -> Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }
    private static func isLetter(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20)
    }
}
