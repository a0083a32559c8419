import StreamFrames
import Testing

private func decode(_ bytes: [UInt8]) throws -> [Frame] {
    var decoder = FrameDecoder()
    decoder.append(bytes)
    var frames: [Frame] = []
    while let frame = try decoder.next() { frames.append(frame) }
    return frames
}

private func failure(_ bytes: [UInt8]) -> String? {
    do {
        _ = try decode(bytes)
        return nil
    } catch {
        return "\(error)"
    }
}

private let examples: [Frame] = [
    .stdin([]), .stdin([1, 2, 3]), .stdout(Array(0...255)), .stderr([9]), .end(0), .end(2),
    .resize(columns: 258, rows: 3), .signal(15), .exit(0), .exit(-1), .exit(137), .error("no such thing: ä"),
    .control(Array(#"{"op":"hello"}"#.utf8)),
]

@Suite struct StreamFramesTests {
    @Test(
        arguments: [
            (Frame.stdin([0x61]), [0, 0, 0, 0, 0, 0, 0, 1, 0x61]),
            (.stdout([]), [1, 0, 0, 0, 0, 0, 0, 0]),
            (.stderr([1, 2]), [2, 0, 0, 0, 0, 0, 0, 2, 1, 2]),
            (.end(0), [3, 0, 0, 0, 0, 0, 0, 1, 0]),
            (.resize(columns: 0x0102, rows: 0x0304), [4, 0, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4]),
            (.signal(9), [5, 0, 0, 0, 0, 0, 0, 1, 9]),
            (.exit(-2), [6, 0, 0, 0, 0, 0, 0, 4, 0xFF, 0xFF, 0xFF, 0xFE]),
            (.error("é"), [7, 0, 0, 0, 0, 0, 0, 2, 0xC3, 0xA9]),
            (.control([0x7B, 0x7D]), [8, 0, 0, 0, 0, 0, 0, 2, 0x7B, 0x7D]),
        ] as [(Frame, [UInt8])])
    func theWireFormatIsFixed(_ frame: Frame, _ bytes: [UInt8]) throws {
        #expect(frame.encoded() == bytes)
        #expect(try decode(bytes) == [frame])
    }

    @Test(arguments: [1, 2, 3, 7, 8, 9, 100])
    func piecesOfAnySizeMakeTheSameFrames(_ size: Int) throws {
        let bytes = examples.flatMap { $0.encoded() }
        var decoder = FrameDecoder()
        var frames: [Frame] = []
        for start in stride(from: 0, to: bytes.count, by: size) {
            decoder.append(bytes[start..<min(start + size, bytes.count)])
            while let frame = try decoder.next() { frames.append(frame) }
        }
        #expect(frames == examples)
        #expect(decoder.bufferedBytes == 0)
    }

    @Test func longDataBecomesSeveralFrames() throws {
        let data = (0..<200_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        let frames = try decode(Frame.stdout(data).encoded())
        #expect(frames.count == 4)
        let joined = frames.flatMap { if case .stdout(let bytes) = $0 { bytes } else { [UInt8]() } }
        #expect(joined == data)
        #expect(try decode(Frame.stdout(Array(data[..<65536])).encoded()).count == 1)
    }

    @Test func aLongErrorIsCutBetweenCharacters() throws {
        let frames = try decode(Frame.error(String(repeating: "€", count: 30_000)).encoded())
        #expect(frames == [.error(String(repeating: "€", count: 21_845))])
    }

    @Test func theControlLimitIsOneMebibyte() throws {
        let largest = Frame.control([UInt8](repeating: 32, count: 1 << 20))
        #expect(try decode(largest.encoded()) == [largest])
        #expect(failure(Frame.control([UInt8](repeating: 32, count: 1 << 20 + 1)).encoded()) != nil)
    }

    @Test(
        arguments: [
            [9], [255], [8, 1, 0, 0, 0, 0, 0, 0], [8, 0, 0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1, 0, 1],
            [1, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF], [8, 0, 0, 0, 0, 0x10, 0, 1], [3, 0, 0, 0, 0, 0, 0, 0],
            [3, 0, 0, 0, 0, 0, 0, 1, 3], [4, 0, 0, 0, 0, 0, 0, 3], [5, 0, 0, 0, 0, 0, 0, 2], [6, 0, 0, 0, 0, 0, 0, 8],
            [7, 0, 0, 0, 0, 1, 0, 1],
        ] as [[UInt8]])
    func otherBytesAreRefusedFromTheHeaderAlone(_ bytes: [UInt8]) {
        #expect(failure(bytes) != nil)
    }

    @Test func anErrorStays() {
        var decoder = FrameDecoder()
        decoder.append([99])
        #expect(throws: FrameError.self) { try decoder.next() }
        decoder.append(Frame.end(0).encoded())
        #expect(throws: FrameError.self) { try decoder.next() }
        #expect(decoder.bufferedBytes <= Frame.headerLength + 1)
    }

    @Test func invalidTextInAnErrorIsRepaired() throws {
        #expect(try decode([7, 0, 0, 0, 0, 0, 0, 2, 0xFF, 0x41]) == [.error("\u{FFFD}A")])
    }

    @Test func randomBytesNeverCrashTheReader() {
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<2000 {
            var bytes = (0..<Int.random(in: 0...64, using: &generator)).map { _ in
                UInt8.random(in: 0...255, using: &generator)
            }
            if !bytes.isEmpty { bytes[0] %= 10 }
            _ = failure(bytes)
        }
    }
}
