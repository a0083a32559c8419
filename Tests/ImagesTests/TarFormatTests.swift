import Glibc
import Kernel
import Testing

@testable import Images

/// Reading and writing tar.
@Suite struct TarFormatTests {
    static func read(
        _ bytes: [UInt8], limits: ImageLimits = .standard, needsEndMark: Bool = true
    ) throws -> [(TarEntry, [UInt8])] {
        let reader = TarReader(MemorySource(bytes), limits: limits, needsEndMark: needsEndMark)
        var result: [(TarEntry, [UInt8])] = []
        while let entry = try reader.next() {
            var data = [UInt8](repeating: 0, count: Int(entry.size))
            try reader.forEachPiece { offset, piece in
                data.replaceSubrange(Int(offset)..<(Int(offset) + piece.count), with: piece)
            }
            result.append((entry, data))
        }
        return result
    }

    static func write(_ entries: [(TarEntry, [UInt8])]) throws -> [UInt8] {
        var bytes: [UInt8] = []
        let writer = TarWriter { bytes += Array($0) }
        for (entry, data) in entries {
            try writer.begin(entry)
            try data.withUnsafeBytes { try writer.write($0) }
        }
        try writer.finish()
        return bytes
    }

    /// A block of a header, its check sum made right.
    static func header(
        _ name: String, type: Character = "0", size: String = "00000000000", edit: (inout [UInt8]) -> Void = { _ in }
    )
        -> [UInt8]
    {
        var block = [UInt8](repeating: 0, count: 512)
        func put(_ text: String, _ offset: Int) {
            block.replaceSubrange(offset..<(offset + text.utf8.count), with: text.utf8)
        }
        put(name, 0)
        put("0000644", 100)
        put("0000000", 108)
        put("0000000", 116)
        put(size, 124)
        put("00000000000", 136)
        put(String(type), 156)
        put("ustar\0" + "00", 257)
        edit(&block)
        for index in 148..<156 { block[index] = 0x20 }
        let digits = String(block.reduce(0) { $0 + Int($1) }, radix: 8)
        put(String(repeating: "0", count: 6 - digits.count) + digits + "\0", 148)
        return block
    }

    static func pax(_ records: String) -> [UInt8] {
        let size = String(records.utf8.count, radix: 8)
        let padded = String(repeating: "0", count: 11 - size.count) + size
        return header("PaxHeader", type: "x", size: padded) + Array(records.utf8)
            + [UInt8](repeating: 0, count: (512 - records.utf8.count % 512) % 512)
    }

    static let end = [UInt8](repeating: 0, count: 1024)

    @Test func whatIsWrittenIsRead() throws {
        let paths = [
            "a", String(repeating: "d/", count: 60) + "file", String(repeating: "x", count: 100),
            String(repeating: "y", count: 101),
            String(repeating: "p", count: 155) + "/" + String(repeating: "n", count: 100), "caf\u{e9}", "cafe\u{301}",
            String(repeating: "long/", count: 500) + "end",
        ]
        var entries: [(TarEntry, [UInt8])] = paths.map { (TarEntry(.regular, Array($0.utf8)), []) }
        entries.append((TarEntry(.regular, [0xff, 0xfe]), []))
        for size in [0, 1, 511, 512, 513, 100_000] {
            var entry = TarEntry(.regular, Array("size\(size)".utf8))
            entry.size = UInt64(size)
            entries.append((entry, (0..<size).map { UInt8(truncatingIfNeeded: $0) }))
        }
        for (seconds, nanoseconds) in [(0, 1), (-1, 0), (-1, 500_000_000), (1 << 35, 0), (1_700_000_000, 123_456_789)]
            as [(Int64, Int64)]
        {
            var entry = TarEntry(.directory, Array("time\(seconds).\(nanoseconds)/".utf8))
            entry.modified = (seconds, nanoseconds)
            entries.append((entry, []))
        }
        var link = TarEntry(.symbolicLink, Array("link".utf8))
        link.target = Array(String(repeating: "../", count: 50).utf8)
        (link.uid, link.gid) = (4_000_000_000, 2_097_152)
        var device = TarEntry(.blockDevice, Array("disk".utf8))
        (device.major, device.minor) = (259, 1_000_000)
        var attributed = TarEntry(.directory, Array("attributed/".utf8))
        attributed.attributes = [
            .init(name: Array("user.a".utf8), value: [0, 10, 61, 255]), .init(name: Array("user.b".utf8), value: []),
        ]
        entries += [(link, []), (device, []), (attributed, []), (TarEntry(.fifo, Array("fifo".utf8)), [])]
        let found = try Self.read(Self.write(entries))
        #expect(found.count == entries.count)
        for (expected, actual) in zip(entries, found) {
            #expect(expected.0 == actual.0 && expected.1 == actual.1, "\(printable(expected.0.path))")
        }
    }

    @Test func numbersAreOctalOrBinary() {
        let cases: [([UInt8], Int64?)] = [
            (Array("0000644\0".utf8), 0o644), (Array("   644 \0".utf8), 0o644), (Array("0000644".utf8), 0o644), ([], 0),
            ([0, 0, 0, 0], 0), (Array("    ".utf8), 0), (Array("8".utf8), nil), (Array("-1".utf8), nil),
            (Array("1 2".utf8), nil),
            (Array("0x10".utf8), nil), ([0x80, 0, 0, 0, 0, 0, 1, 0], 256),
            ([0xff] + [UInt8](repeating: 0xff, count: 11), -1),
            ([0x80, 0, 0, 0, 0x7f] + [UInt8](repeating: 0xff, count: 7), Int64.max),
            ([0x80, 0, 0, 1] + [UInt8](repeating: 0, count: 8), nil),
            ([0x80] + [UInt8](repeating: 0xff, count: 11), nil),
        ]
        for (bytes, expected) in cases { #expect(TarHeader.number(bytes[...]) == expected, "\(bytes)") }
    }

    @Test func paxTimesAreExact() throws {
        let cases: [(String, (Int64, Int64)?)] = [
            ("0", (0, 0)), ("1.5", (1, 500_000_000)), ("-1.5", (-2, 500_000_000)), ("-0.1", (-1, 900_000_000)),
            ("1.1234567899", (1, 123_456_789)), ("1.", (1, 0)), ("", nil),
        ]
        for (text, expected) in cases {
            let time = try TarExtendedHeader.time(Array(text.utf8)[...])
            #expect(time?.seconds == expected?.0 && time?.nanoseconds == expected?.1, "\(text)")
        }
        for text in [".5", "a", "1.a", "1.5.5", "--1", "+1", "99999999999999999999", " 1"] {
            #expect(throws: ImageError.self, "\(text)") { try TarExtendedHeader.time(Array(text.utf8)[...]) }
        }
    }

    @Test func extendedHeadersOverrideTheBlock() throws {
        let body = try Self.records([("path", "long"), ("linkpath", "there"), ("uid", "70000"), ("comment", "nothing")])
        let bytes = Self.pax(body) + Self.header("short", type: "2") + Self.header("next") + Self.end
        let entries = try Self.read(bytes).map(\.0)
        #expect(entries.map { String(decoding: $0.path, as: UTF8.self) } == ["long", "next"])
        #expect(entries[0].target == Array("there".utf8) && entries[0].uid == 70000 && entries[1].uid == 0)
    }

    /// Records with their lengths made right.
    static func records(_ pairs: [(String, String)]) throws -> String {
        pairs.map { key, value in
            let body = 3 + key.utf8.count + value.utf8.count
            let length = body + String(body + String(body).count).count
            return "\(length) \(key)=\(value)\n"
        }.joined()
    }

    @Test(arguments: [
        "5 a=b", "0 a=b\n", "06 a=b\n", "-6 a=b\n", "99 a=b\n", "3 \n", "5 ab\n", "5 =b\n", "a=b\n", "6 a=bc",
        " 6 a=b\n", "6  a=b\n",
        "99999999999999999999 a=b\n", "15 path=a\0bcde\n", "10 uid=-1\n", "18 uid=4294967295\n", "12 size=0x1\n",
        "11 mtime=x\n",
        "28 GNU.sparse.numbytes=1234\n",
    ])
    func aMalformedExtendedHeaderIsRefused(records: String) {
        #expect(throws: ImageError.self) { try Self.read(Self.pax(records) + Self.header("a") + Self.end) }
    }

    @Test(arguments: ["path", "linkpath", "size", "GNU.sparse.major"]) func globalHeadersMaySetNothing(key: String)
        throws
    {
        var bytes = try Self.pax(Self.records([(key, "1")]))
        bytes.replaceSubrange(
            0..<512, with: Self.header("g", type: "g", size: String(decoding: bytes[124..<135], as: UTF8.self)))
        #expect(throws: ImageError.self) { try Self.read(bytes + Self.header("a") + Self.end) }
    }

    @Test func aGlobalCommentIsPassedOver() throws {
        var bytes = try Self.pax(Self.records([("comment", "made by git")]))
        bytes.replaceSubrange(
            0..<512, with: Self.header("g", type: "g", size: String(decoding: bytes[124..<135], as: UTF8.self)))
        #expect(try Self.read(bytes + Self.header("a") + Self.end).count == 1)
    }

    @Test func linksHaveNoBodyWhateverTheirSizeSays() throws {
        for type in ["1", "2", "3", "4", "5", "6"] as [Character] {
            let bytes = Self.header("link", type: type, size: "00000001000") + Self.header("next") + Self.end
            #expect(try Self.read(bytes).map { $0.0.path } == [Array("link".utf8), Array("next".utf8)], "\(type)")
        }
    }

    @Test(arguments: ["M", "V", "D", "N", "Z", "\u{7f}"] as [Character]) func otherTypesAreRefused(_ type: Character) {
        #expect(throws: ImageError.self) { try Self.read(Self.header("a", type: type) + Self.end) }
    }

    @Test func theEndIsTwoBlocksOfZeros() throws {
        let one = Self.header("a")
        #expect(throws: ImageError.self) { try Self.read(one) }
        #expect(try Self.read(one, needsEndMark: false).count == 1)
        #expect(try Self.read(one + Self.end + Self.header("after")).count == 1)
        #expect(try Self.read(Self.end).isEmpty)
        #expect(throws: ImageError.self) { try Self.read([]) }
        #expect(throws: ImageError.self) { try Self.read(one + Array(Self.end[..<512]) + Self.header("b") + Self.end) }
        #expect(throws: ImageError.self) { try Self.read(try Self.pax(Self.records([("path", "x")])) + Self.end) }
    }

    /// No archive, however damaged, is taken for more than it is or ends the process.
    @Test func damageIsAnErrorAndNoCrash() throws {
        var sparse = TarEntry(.regular, Array("f".utf8))
        sparse.size = 600
        var long = TarEntry(.symbolicLink, Array(String(repeating: "n", count: 300).utf8))
        long.target = Array("t".utf8)
        let sound = try Self.write([
            (sparse, [UInt8](repeating: 7, count: 600)), (long, []), (TarEntry(.directory, [0x64]), []),
        ])
        var generator = SplitMix(state: 42)
        for _ in 0..<3000 {
            var bytes = sound
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                bytes[Int.random(in: 0..<bytes.count, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
            }
            if Bool.random(using: &generator) {
                // The check sums of all blocks that look like headers are made right again.
                for start in stride(from: 0, to: bytes.count, by: 512) where bytes[start + 257] == 0x75 {
                    let sum = (0..<512).reduce(0) { $0 + ((148..<156).contains($1) ? 32 : Int(bytes[start + $1])) }
                    let digits = Array(String(sum, radix: 8).utf8)
                    let field = [UInt8](repeating: 0x30, count: 6 - digits.count) + digits + [0, 0x20]
                    bytes.replaceSubrange((start + 148)..<(start + 156), with: field)
                }
            }
            let cut = Bool.random(using: &generator) ? bytes.count : Int.random(in: 0..<bytes.count, using: &generator)
            var limits = ImageLimits()
            limits.layerBytes = 1 << 20
            do {
                let entries = try Self.read(Array(bytes[..<cut]), limits: limits)
                #expect(entries.count <= 16)
            } catch {
                #expect(error is ImageError, "\(error)")
            }
        }
    }
}

/// A generator whose numbers are the same in every run.
struct SplitMix: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}
