import Kernel

/// One entry of a tar archive as its headers describe it. Names are bytes: they need not be UTF-8, and Swift strings
/// that are canonically equivalent compare as equal though they name different files.
struct TarEntry: Sendable, Equatable {
    enum Kind: Sendable, Equatable {
        case regular, hardLink, symbolicLink, characterDevice, blockDevice, directory, fifo
    }

    /// A piece of a sparse file that has data, in bytes of the whole file.
    struct Segment: Sendable, Equatable {
        var offset: UInt64
        var count: UInt64
    }

    typealias Attribute = ExtendedAttribute

    var kind: Kind
    /// The name as it stands in the archive.
    var path: [UInt8]
    /// The target of a symbolic link, or the path of what a hard link is another name of.
    var target: [UInt8] = []
    /// Permission bits with setuid, setgid and sticky.
    var mode: UInt32 = 0o644
    var uid: UInt32 = 0
    var gid: UInt32 = 0
    /// The file's length in bytes, holes included.
    var size: UInt64 = 0
    /// Seconds since 1970 and nanoseconds within the second.
    var modified: (seconds: Int64, nanoseconds: Int64) = (0, 0)
    var major: UInt32 = 0
    var minor: UInt32 = 0
    var attributes: [Attribute] = []
    /// Where a sparse file has data; nil for a file without holes.
    var segments: [Segment]?

    init(_ kind: Kind, _ path: [UInt8]) {
        self.kind = kind
        self.path = path
    }

    static func == (left: TarEntry, right: TarEntry) -> Bool {
        left.kind == right.kind && left.path == right.path && left.target == right.target && left.mode == right.mode
            && left.uid == right.uid && left.gid == right.gid && left.size == right.size
            && left.modified == right.modified && left.major == right.major && left.minor == right.minor
            && left.attributes == right.attributes && left.segments == right.segments
    }
}

/// A tar header block, 512 bytes (POSIX.1-2017, pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format").
struct TarHeader {
    static let size = 512
    enum Format { case old, ustar, star, gnu }

    let bytes: [UInt8]
    let format: Format

    init(_ bytes: [UInt8]) {
        self.bytes = bytes
        if bytes[257..<263].elementsEqual([0x75, 0x73, 0x74, 0x61, 0x72, 0]) {
            format = bytes[508..<512].elementsEqual([0x74, 0x61, 0x72, 0]) ? .star : .ustar
        } else if bytes[257..<265].elementsEqual([0x75, 0x73, 0x74, 0x61, 0x72, 0x20, 0x20, 0]) {
            format = .gnu
        } else {
            format = .old
        }
    }

    var isZero: Bool { bytes.allSatisfy { $0 == 0 } }
    var typeFlag: UInt8 { bytes[156] }
    var name: [UInt8] { text(0, 100) }
    var linkName: [UInt8] { text(157, 100) }

    /// The directory part in front of `name`, where the format has one.
    var prefix: [UInt8] {
        switch format {
        case .ustar: text(345, 155)
        case .star: text(345, 131)
        case .old, .gnu: []
        }
    }

    /// Name and prefix together.
    var path: [UInt8] {
        let prefix = prefix
        return prefix.isEmpty ? name : prefix + [UInt8(ascii: "/")] + name
    }

    /// The sum of all bytes with the sum's own field as blanks; some old archives were made with signed bytes.
    var isIntact: Bool {
        guard let expected = Self.number(bytes[148..<156]) else { return false }
        var unsigned: Int64 = 8 * 32
        var signed: Int64 = 8 * 32
        for (index, byte) in bytes.enumerated() where !(148..<156).contains(index) {
            unsigned += Int64(byte)
            signed += Int64(Int8(bitPattern: byte))
        }
        return expected == unsigned || expected == signed
    }

    /// A text field up to its first NUL.
    func text(_ offset: Int, _ count: Int) -> [UInt8] {
        Array(bytes[offset..<(offset + count)].prefix { $0 != 0 })
    }

    /// A number field; nil when it is none.
    func number(_ offset: Int, _ count: Int) -> Int64? { Self.number(bytes[offset..<(offset + count)]) }

    /// Octal digits between blanks and NULs (nothing at all is zero), or, when the first bit is set, a two's complement
    /// number of all the other bits.
    static func number(_ field: ArraySlice<UInt8>) -> Int64? {
        guard let first = field.first else { return 0 }
        if first & 0x80 != 0 {
            var value: Int64 = first & 0x40 != 0 ? -1 : 0
            value = value << 6 | Int64(first & 0x3f)
            for byte in field.dropFirst() {
                let (shifted, overflow) = value.multipliedReportingOverflow(by: 256)
                guard !overflow else { return nil }
                value = shifted | Int64(byte)
            }
            return value
        }
        let digits = field.drop { $0 == 0x20 || $0 == 0 }.prefix { $0 != 0x20 && $0 != 0 }
        let rest = field[digits.endIndex...]
        guard rest.allSatisfy({ $0 == 0x20 || $0 == 0 }) else { return nil }
        var value: Int64 = 0
        for digit in digits {
            guard (0x30...0x37).contains(digit), value < 1 << 60 else { return nil }
            value = value << 3 | Int64(digit - 0x30)
        }
        return value
    }
}
