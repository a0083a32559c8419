import Kernel

/// Writes tar in the POSIX (pax) format: plain ustar headers, with an extended header only in front of entries that need
/// one, so that old readers understand all that they can.
final class TarWriter {
    private let sink: (UnsafeRawBufferPointer) throws -> Void
    /// Bytes of the present entry's body that are still to be written, and the padding after them.
    private var remaining: UInt64 = 0
    private var padding = 0
    /// Bytes written so far.
    private(set) var count: UInt64 = 0

    /// - Parameter sink: takes everything in order.
    init(_ sink: @escaping (UnsafeRawBufferPointer) throws -> Void) { self.sink = sink }

    /// Begins an entry. `size` bytes must follow through `write` for a regular file; `segments` are not looked at.
    func begin(_ entry: TarEntry) throws {
        precondition(remaining == 0, "the body of the entry before is not complete")
        let extended = try Self.extendedRecords(entry)
        if !extended.isEmpty {
            var header = TarEntry(.regular, Array("PaxHeader".utf8))
            header.size = UInt64(extended.count)
            try emit(Self.block(header, typeFlag: UInt8(ascii: "x")))
            try emit(extended + [UInt8](repeating: 0, count: Self.padding(header.size)))
        }
        try emit(Self.block(entry, typeFlag: Self.typeFlag(entry.kind)))
        remaining = entry.kind == .regular ? entry.size : 0
        padding = Self.padding(remaining)
        if remaining == 0 { try endBody() }
    }

    /// Writes a piece of the body. More than the header announced is an error of the caller.
    func write(_ bytes: UnsafeRawBufferPointer) throws {
        precondition(UInt64(bytes.count) <= remaining, "more data than the header announced")
        try sink(bytes)
        count += UInt64(bytes.count)
        remaining -= UInt64(bytes.count)
        if remaining == 0 && !bytes.isEmpty { try endBody() }
    }

    /// Fills up a body whose source turned out shorter than its header said.
    func fillUp() throws {
        let zeros = [UInt8](repeating: 0, count: 64 << 10)
        while remaining > 0 {
            try zeros.withUnsafeBytes { try write(UnsafeRawBufferPointer(rebasing: $0[..<Int(min(remaining, 65536))])) }
        }
    }

    /// A whole regular file.
    func add(_ name: String, _ bytes: [UInt8], mode: UInt32 = 0o644, modified: Int64 = 0) throws {
        var entry = TarEntry(.regular, Array(name.utf8))
        entry.size = UInt64(bytes.count)
        entry.mode = mode
        entry.modified = (modified, 0)
        try begin(entry)
        try bytes.withUnsafeBytes { try write($0) }
    }

    /// Writes the end mark.
    func finish() throws { try emit([UInt8](repeating: 0, count: 2 * TarHeader.size)) }
}

extension TarWriter {
    private func emit(_ bytes: [UInt8]) throws {
        try bytes.withUnsafeBytes { try sink($0) }
        count += UInt64(bytes.count)
    }

    private func endBody() throws {
        if padding > 0 { try emit([UInt8](repeating: 0, count: padding)) }
        padding = 0
    }

    private static func padding(_ size: UInt64) -> Int { Int((512 - size % 512) % 512) }

    private static func typeFlag(_ kind: TarEntry.Kind) -> UInt8 {
        switch kind {
        case .regular: UInt8(ascii: "0")
        case .hardLink: UInt8(ascii: "1")
        case .symbolicLink: UInt8(ascii: "2")
        case .characterDevice: UInt8(ascii: "3")
        case .blockDevice: UInt8(ascii: "4")
        case .directory: UInt8(ascii: "5")
        case .fifo: UInt8(ascii: "6")
        }
    }

    /// Name and prefix for the header block; nil when the path fits neither.
    private static func split(_ path: [UInt8]) -> (prefix: ArraySlice<UInt8>, name: ArraySlice<UInt8>)? {
        if path.count <= 100 { return ([], path[...]) }
        let from = path.count - 101
        guard from < path.count - 1,
            let slash = path[max(from, 1)..<(path.count - 1)].firstIndex(of: UInt8(ascii: "/")),
            slash <= 155
        else { return nil }
        return (path[..<slash], path[(slash + 1)...])
    }

    private static let octalLimit: UInt64 = 1 << 33

    /// What the header block cannot hold, as pax records.
    private static func extendedRecords(_ entry: TarEntry) throws -> [UInt8] {
        var records: [UInt8] = []
        if split(entry.path) == nil || !entry.path.allSatisfy({ $0 < 0x80 }) {
            append("path", entry.path, to: &records)
        }
        if entry.target.count > 100 || !entry.target.allSatisfy({ $0 < 0x80 }) {
            append("linkpath", entry.target, to: &records)
        }
        if entry.kind == .regular, entry.size >= octalLimit {
            append("size", Array("\(entry.size)".utf8), to: &records)
        }
        if entry.uid >= 1 << 21 { append("uid", Array("\(entry.uid)".utf8), to: &records) }
        if entry.gid >= 1 << 21 { append("gid", Array("\(entry.gid)".utf8), to: &records) }
        let (seconds, nanoseconds) = entry.modified
        if nanoseconds != 0 || seconds < 0 || seconds >= octalLimit {
            append("mtime", Array(timeText(seconds, nanoseconds).utf8), to: &records)
        }
        for attribute in entry.attributes {
            append("SCHILY.xattr.\(String(decoding: attribute.name, as: UTF8.self))", attribute.value, to: &records)
        }
        return records
    }

    private static func timeText(_ seconds: Int64, _ nanoseconds: Int64) -> String {
        var (whole, fraction) = (seconds, nanoseconds)
        if whole < 0 && fraction > 0 {
            whole += 1
            fraction = 1_000_000_000 - fraction
        }
        let sign = whole == 0 && seconds < 0 ? "-" : ""
        let digits = String(fraction)
        return "\(sign)\(whole)." + String(repeating: "0", count: 9 - digits.count) + digits
    }

    /// Appends `<length> <key>=<value>\n`; the length counts its own digits.
    private static func append(_ key: String, _ value: [UInt8], to records: inout [UInt8]) {
        let body = 3 + key.utf8.count + value.count
        var length = body + String(body).utf8.count
        length = body + String(length).utf8.count
        records += Array("\(length) \(key)=".utf8) + value + [0x0a]
    }

    private static func block(_ entry: TarEntry, typeFlag: UInt8) -> [UInt8] {
        var block = [UInt8](repeating: 0, count: TarHeader.size)
        func put(_ bytes: some Collection<UInt8>, _ offset: Int, _ room: Int) {
            for (index, byte) in bytes.prefix(room).enumerated() { block[offset + index] = byte }
        }
        func octal(_ value: UInt64, _ offset: Int, _ room: Int) {
            let digits = String(value, radix: 8)
            guard digits.utf8.count < room else { return }
            put((String(repeating: "0", count: room - 1 - digits.utf8.count) + digits).utf8, offset, room - 1)
        }
        let (prefix, name) = split(entry.path) ?? ([], entry.path.suffix(100))
        put(name, 0, 100)
        octal(UInt64(entry.mode & 0o7777), 100, 8)
        octal(entry.uid < 1 << 21 ? UInt64(entry.uid) : 0, 108, 8)
        octal(entry.gid < 1 << 21 ? UInt64(entry.gid) : 0, 116, 8)
        octal(entry.kind == .regular && entry.size < octalLimit ? entry.size : 0, 124, 12)
        let seconds = entry.modified.seconds
        octal(seconds >= 0 && seconds < octalLimit ? UInt64(seconds) : 0, 136, 12)
        block[156] = typeFlag
        put(entry.target, 157, 100)
        put([0x75, 0x73, 0x74, 0x61, 0x72, 0, 0x30, 0x30], 257, 8)
        if entry.kind == .characterDevice || entry.kind == .blockDevice {
            octal(UInt64(entry.major), 329, 8)
            octal(UInt64(entry.minor), 337, 8)
        }
        put(prefix, 345, 155)
        let sum = block.reduce(8 * 32) { $0 + UInt64($1) }
        octal(sum, 148, 7)
        block[155] = 0x20
        return block
    }
}
