import Glibc

/// Reads tar: v7, ustar, star, pax and GNU, with GNU's and pax's sparse files.
///
/// Written here, though libarchive reads tar too, because its names cannot be trusted to stay what they are: in a UTF-8
/// locale it composes the names of pax headers to normalization form C, so that two files of an image become one, its
/// result depends on the process's locale, and it keeps sparse maps of any length in memory. Where readers differ
/// (bodies of links, global headers) this one does what Go's archive/tar does, which wrote most images.
/// Memory is bounded by `ImageLimits.headerBytes` and `sparseSegments`.
final class TarReader {
    private let source: any ByteSource
    private let limits: ImageLimits
    private let needsEndMark: Bool
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 128 << 10, alignment: 16)
    /// What is read but not used yet.
    private var filled = 0..<0
    /// Stored bytes of the present entry's body that are still to be read, and the padding after them.
    private var remaining: UInt64 = 0
    private var padding: UInt64 = 0
    private var segments: [TarEntry.Segment] = []
    private var ended = false

    /// - Parameter needsEndMark: refuse a stream that ends without the two blocks of zeros, as one that was cut off at
    ///   the end of an entry does. What is checked by digest needs no mark.
    init(_ source: any ByteSource, limits: ImageLimits, needsEndMark: Bool) {
        self.source = source
        self.limits = limits
        self.needsEndMark = needsEndMark
    }

    deinit { buffer.deallocate() }

    /// The next entry, the rest of the present one's body passed over; nil at the end.
    func next() throws -> TarEntry? {
        try skip(remaining + padding)
        remaining = 0
        padding = 0
        var extended = TarExtendedHeader(limits: limits)
        var longName: [UInt8]?
        var longTarget: [UInt8]?
        var headers = 0
        while let header = try nextHeader() {
            switch header.typeFlag {
            case UInt8(ascii: "x"), UInt8(ascii: "X"):
                extended = try TarExtendedHeader(metadata(header), limits: limits)
            case UInt8(ascii: "g"):
                try checkGlobal(TarExtendedHeader(metadata(header), limits: limits))
            case UInt8(ascii: "L"): longName = try longText(header)
            case UInt8(ascii: "K"): longTarget = try longText(header)
            default:
                var entry = try Self.entry(header)
                if let path = extended.path { entry.path = path }
                if let target = extended.target { entry.target = target }
                if let longName { entry.path = longName }
                if let longTarget { entry.target = longTarget }
                return try finish(entry, header, extended)
            }
            headers += 1
            guard headers <= 8 else {
                throw ImageError(.invalidArchive, "an entry has more than 8 extended headers")
            }
        }
        guard headers == 0 else { throw truncated() }
        return nil
    }

    /// Hands over the present entry's data, piece by piece, with its place in the file; holes are left out. The pieces
    /// are valid during the call.
    func forEachPiece(_ body: (UInt64, UnsafeRawBufferPointer) throws -> Void) throws {
        for segment in segments {
            var offset = segment.offset
            var rest = segment.count
            while rest > 0 {
                guard try fill() else { throw truncated() }
                let count = Int(min(UInt64(filled.count), rest))
                let piece = UnsafeRawBufferPointer(
                    rebasing: buffer[filled.lowerBound..<(filled.lowerBound + count)])
                filled = (filled.lowerBound + count)..<filled.upperBound
                remaining -= UInt64(count)
                rest -= UInt64(count)
                try body(offset, piece)
                offset += UInt64(count)
            }
        }
        segments = []
    }

    /// Reads what comes after the end mark, so that digests cover the whole stream.
    func drain() throws {
        filled = 0..<0
        try source.drain()
    }
}

extension TarReader {
    private func truncated() -> ImageError {
        ImageError(.invalidArchive, "the tar archive is truncated")
    }

    /// The next header block that is intact; nil at the end mark or the end of the stream.
    private func nextHeader() throws -> TarHeader? {
        if ended { return nil }
        guard let bytes = try block() else {
            guard !needsEndMark else { throw truncated() }
            ended = true
            return nil
        }
        let header = TarHeader(bytes)
        if header.isZero {
            if let second = try block(), !TarHeader(second).isZero {
                throw ImageError(.invalidArchive, "the tar archive goes on after a single block of zeros")
            }
            ended = true
            return nil
        }
        guard header.isIntact else {
            throw ImageError(.invalidArchive, "this is no tar archive, or it is damaged: a header's check sum is wrong")
        }
        return header
    }

    /// One block; nil when the stream ends before it.
    private func block() throws -> [UInt8]? {
        guard try fill() else { return nil }
        return try take(TarHeader.size)
    }

    /// Makes sure that there is something in the buffer; false at the end of the stream.
    private func fill() throws -> Bool {
        if !filled.isEmpty { return true }
        filled = 0..<(try source.read(into: buffer))
        return !filled.isEmpty
    }

    private func take(_ count: Int) throws -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(count)
        while result.count < count {
            guard try fill() else { throw truncated() }
            let end = filled.lowerBound + min(filled.count, count - result.count)
            result.append(contentsOf: buffer[filled.lowerBound..<end])
            filled = end..<filled.upperBound
        }
        return result
    }

    private func skip(_ count: UInt64) throws {
        var rest = count
        while rest > 0 {
            guard try fill() else { throw truncated() }
            let step = Int(min(UInt64(filled.count), rest))
            filled = (filled.lowerBound + step)..<filled.upperBound
            rest -= UInt64(step)
        }
    }

    private static func padding(_ size: UInt64) -> UInt64 { (512 - size % 512) % 512 }

    /// The body of an extended header.
    private func metadata(_ header: TarHeader) throws -> [UInt8] {
        guard let size = header.number(124, 12), size >= 0 else { throw Self.malformed(header, "size") }
        guard size <= limits.headerBytes else {
            throw ImageError(
                .limitExceeded, "an extended header of \(size) bytes is over the \(limits.headerBytes) allowed")
        }
        let bytes = try take(Int(size))
        try skip(Self.padding(UInt64(size)))
        return bytes
    }

    /// GNU's long name or link target.
    private func longText(_ header: TarHeader) throws -> [UInt8] {
        let text = try Array(metadata(header).prefix { $0 != 0 })
        guard !text.isEmpty else { throw ImageError(.invalidArchive, "a GNU long name is empty") }
        return text
    }

    /// Global headers hold comments in practice. Readers do not agree on what else they do, so nothing else may stand
    /// in them.
    private func checkGlobal(_ header: TarExtendedHeader) throws {
        guard header.path == nil, header.target == nil, header.size == nil, !header.sparse.isPresent,
            header.attributes.isEmpty
        else {
            throw ImageError(
                .invalidArchive,
                "a global pax header sets names, sizes or attributes, which readers understand differently")
        }
    }

    private static func malformed(_ header: TarHeader, _ field: String) -> ImageError {
        ImageError(.invalidArchive, "the entry '\(printable(header.path))' has a malformed \(field)")
    }

    /// What the header block alone says.
    private static func entry(_ header: TarHeader) throws -> TarEntry {
        let kind: TarEntry.Kind
        switch header.typeFlag {
        case 0 where header.name.last == UInt8(ascii: "/"): kind = .directory
        case 0, UInt8(ascii: "0"), UInt8(ascii: "7"), UInt8(ascii: "S"): kind = .regular
        case UInt8(ascii: "1"): kind = .hardLink
        case UInt8(ascii: "2"): kind = .symbolicLink
        case UInt8(ascii: "3"): kind = .characterDevice
        case UInt8(ascii: "4"): kind = .blockDevice
        case UInt8(ascii: "5"): kind = .directory
        case UInt8(ascii: "6"): kind = .fifo
        default:
            throw ImageError(
                .unsupported,
                "the entry '\(printable(header.path))' has the tar type '\(printable([header.typeFlag]))', "
                    + "which images do not have")
        }
        var entry = TarEntry(kind, header.path)
        entry.target = header.linkName
        guard let mode = header.number(100, 8), mode >= 0 else { throw malformed(header, "mode") }
        entry.mode = UInt32(mode & 0o7777)
        guard let modified = header.number(136, 12) else { throw malformed(header, "modification time") }
        entry.modified = (modified, 0)
        if kind == .characterDevice || kind == .blockDevice {
            guard let major = header.number(329, 8), let minor = header.number(337, 8),
                (0..<4096).contains(major), (0..<(1 << 20)).contains(minor)
            else { throw malformed(header, "device number") }
            entry.major = UInt32(major)
            entry.minor = UInt32(minor)
        }
        return entry
    }

    /// Puts header and extended header together and gets ready to read the body.
    private func finish(_ base: TarEntry, _ header: TarHeader, _ extended: TarExtendedHeader) throws -> TarEntry {
        var entry = base
        guard let uid = extended.uid.map(Int64.init) ?? header.number(108, 8), (0..<Int64(UInt32.max)).contains(uid)
        else { throw Self.malformed(header, "user id") }
        guard let gid = extended.gid.map(Int64.init) ?? header.number(116, 8), (0..<Int64(UInt32.max)).contains(gid)
        else { throw Self.malformed(header, "group id") }
        guard let size = extended.size ?? header.number(124, 12).flatMap(UInt64.init(exactly:)), size < 1 << 62 else {
            throw Self.malformed(header, "size")
        }
        entry.uid = UInt32(uid)
        entry.gid = UInt32(gid)
        if let modified = extended.modified { entry.modified = modified }
        entry.attributes = extended.attributes
        segments = []
        guard entry.kind == .regular else { return entry }
        remaining = size
        padding = Self.padding(size)
        entry.size = size
        try readSparse(&entry, header, extended.sparse)
        guard entry.size <= limits.layerBytes else {
            throw ImageError(
                .limitExceeded,
                "the file '\(printable(entry.path))' has \(entry.size) bytes, over the \(limits.layerBytes) allowed")
        }
        segments = entry.segments ?? [TarEntry.Segment(offset: 0, count: size)]
        return entry
    }
}

extension TarReader {
    /// Fills in `segments`, `size` and the name of a sparse file.
    private func readSparse(
        _ entry: inout TarEntry, _ header: TarHeader, _ sparse: TarExtendedHeader.Sparse
    ) throws {
        var map: [UInt64]
        if header.typeFlag == UInt8(ascii: "S") {
            guard header.format == .gnu, let real = header.number(483, 12).flatMap(UInt64.init(exactly:)) else {
                throw Self.malformed(header, "sparse file size")
            }
            map = try oldSparseMap(header)
            entry.size = real
        } else if sparse.isPresent {
            map = sparse.map
            if sparse.major == 1, sparse.minor == 0 {
                map = try bodySparseMap()
            } else if let major = sparse.major, major != 0 {
                throw ImageError(.unsupported, "the sparse file '\(printable(entry.path))' has a format not known here")
            }
            if let name = sparse.name { entry.path = name }
            guard let real = sparse.realSize else { throw Self.malformed(header, "sparse file size") }
            entry.size = real
        } else {
            return
        }
        entry.segments = try checked(map, size: entry.size, name: entry.path)
    }

    private func checked(_ map: [UInt64], size: UInt64, name: [UInt8]) throws -> [TarEntry.Segment] {
        var segments: [TarEntry.Segment] = []
        var end: UInt64 = 0
        var stored: UInt64 = 0
        var isSound = map.count % 2 == 0
        for index in stride(from: 0, to: map.count - 1, by: 2) where isSound {
            let segment = TarEntry.Segment(offset: map[index], count: map[index + 1])
            let (next, overflow) = segment.offset.addingReportingOverflow(segment.count)
            isSound = !overflow && segment.offset >= end && next <= size
            end = next
            stored &+= segment.count
            if segment.count > 0 { segments.append(segment) }
        }
        guard isSound, stored == remaining else {
            throw ImageError(
                .invalidArchive, "the sparse file '\(printable(name))' has a map that does not fit its data")
        }
        return segments
    }

    /// The map of GNU's old format: four pairs in the header, 21 in each extension block.
    private func oldSparseMap(_ header: TarHeader) throws -> [UInt64] {
        var map: [UInt64] = []
        var block = header
        var offset = 386
        var pairs = 4
        while true {
            for index in 0..<pairs {
                let place = offset + 24 * index
                guard block.bytes[place] != 0 else { break }
                guard let start = block.number(place, 12).flatMap(UInt64.init(exactly:)),
                    let count = block.number(place + 12, 12).flatMap(UInt64.init(exactly:))
                else { throw Self.malformed(header, "sparse map") }
                map += [start, count]
            }
            guard map.count <= 2 * limits.sparseSegments else { throw tooManySegments() }
            guard block.bytes[pairs == 4 ? 482 : 504] != 0 else { return map }
            block = TarHeader(try take(TarHeader.size))
            offset = 0
            pairs = 21
        }
    }

    /// The map of format 1.0: decimal numbers, one a line, at the start of the body, filled up to a block.
    private func bodySparseMap() throws -> [UInt64] {
        let malformed = ImageError(.invalidArchive, "a sparse file has a malformed map")
        var numbers: [UInt64] = []
        var wanted: UInt64 = 1
        var number: UInt64 = 0
        var digits = 0
        while UInt64(numbers.count) < wanted {
            guard remaining >= UInt64(TarHeader.size) else { throw malformed }
            let bytes = try take(TarHeader.size)
            remaining -= UInt64(TarHeader.size)
            for byte in bytes where UInt64(numbers.count) < wanted {
                if byte == 0x0a {
                    guard digits > 0 else { throw malformed }
                    numbers.append(number)
                    if numbers.count == 1 {
                        guard number <= UInt64(limits.sparseSegments) else { throw tooManySegments() }
                        wanted = 1 + 2 * number
                    }
                    number = 0
                    digits = 0
                } else {
                    guard (0x30...0x39).contains(byte), digits < 18 else { throw malformed }
                    number = number * 10 + UInt64(byte - 0x30)
                    digits += 1
                }
            }
        }
        return Array(numbers.dropFirst())
    }

    private func tooManySegments() -> ImageError {
        ImageError(.limitExceeded, "a sparse file has more than \(limits.sparseSegments) segments")
    }
}
