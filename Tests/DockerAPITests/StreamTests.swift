import Client
import HTTPService
import Hummingbird
import JSON
import Logging
import Model
import NIOCore
import NIOHTTP1
import StreamFrames
import Testing
import Wire

@testable import DockerAPI

@Suite struct DetachKeyTests {
    @Test func theUsualKeysAreControlPAndControlQ() throws {
        var keys = try DetachKeys("")
        let (passed, left) = keys.pass([97, 16, 17, 98])
        #expect(passed == [97])
        #expect(left)
    }

    @Test func keysAreFoundAcrossPieces() throws {
        var keys = try DetachKeys("ctrl-a,a,b")
        #expect(keys.pass([120, 1]) == ([120], false))
        #expect(keys.pass([97]) == ([], false))
        #expect(keys.pass([98]) == ([], true))
    }

    @Test func whatLooksLikeTheBeginningIsPassedOn() throws {
        var keys = try DetachKeys("a,a,b")
        // The third a may still begin the keys.
        #expect(keys.pass(Array("aaa".utf8)) == (Array("a".utf8), false))
        #expect(keys.pass(Array("b".utf8)) == ([], true))
        var other = try DetachKeys("")
        #expect(other.pass([16]) == ([], false))
        #expect(other.pass([16, 65]) == ([16, 16, 65], false))
    }

    @Test(arguments: [("ctrl-@", 0), ("ctrl-[", 27), ("ctrl-_", 31), ("ctrl-z", 26), ("~", 126)])
    func keysHaveNames(name: String, byte: UInt8) throws {
        var keys = try DetachKeys(name)
        #expect(keys.pass([byte]).left)
    }

    @Test(arguments: ["ctrl-", "ctrl-!", "ctrl-A", "ctrl-ab", "ab", ",", "a,", "alt-x"])
    func otherNamesAreRefused(text: String) {
        #expect(throws: DockerError.self) { try DetachKeys(text) }
    }
}

@Suite struct DockerFrames {
    @Test func framesOfLogsAreTranslatedWhereverTheyAreCut() throws {
        let ours = Frame.stdout(Array("out\n".utf8)).encoded() + Frame.stderr(Array("err\n".utf8)).encoded()
        for cut in 0...ours.count {
            var translation = LogTranslation(isMultiplexed: true)
            var bytes = Array(buffer: try translation.take(ByteBuffer(bytes: ours[..<cut])))
            bytes += Array(buffer: try translation.take(ByteBuffer(bytes: ours[cut...])))
            #expect(
                bytes == [1, 0, 0, 0, 0, 0, 0, 4] + Array("out\n".utf8) + [2, 0, 0, 0, 0, 0, 0, 4] + Array("err\n".utf8)
            )
        }
    }

    @Test func terminalsHaveNoFrames() throws {
        var translation = LogTranslation(isMultiplexed: false)
        let bytes = try translation.take(ByteBuffer(bytes: Frame.stdout(Array("x".utf8)).encoded()))
        #expect(Array(buffer: bytes) == Array("x".utf8))
    }
}

@Suite struct WebSocketFrames {
    /// A frame as a client sends it.
    private func masked(_ first: UInt8, _ payload: [UInt8], mask: [UInt8] = [1, 2, 3, 4]) -> [UInt8] {
        var bytes = [first]
        switch payload.count {
        case 0...125: bytes.append(0x80 | UInt8(payload.count))
        case 126...65535: bytes += [0x80 | 126] + WebSocketFrame.bigEndian(UInt64(payload.count), 2)
        default: bytes += [0x80 | 127] + WebSocketFrame.bigEndian(UInt64(payload.count), 8)
        }
        return bytes + mask + payload.enumerated().map { $1 ^ mask[$0 & 3] }
    }

    @Test(arguments: [0, 1, 125, 126, 65535, 65536]) func payloadsOfAllLengthsAreRead(count: Int) throws {
        let payload = (0..<count).map { UInt8(truncatingIfNeeded: $0) }
        let bytes = masked(0x82, payload)
        var decoder = WebSocketDecoder()
        decoder.append(ByteBuffer(bytes: bytes[..<(bytes.count / 2)]))
        #expect(try decoder.next() == nil)
        decoder.append(ByteBuffer(bytes: bytes[(bytes.count / 2)...]))
        #expect(try decoder.next() == WebSocketFrame(.binary, payload))
        #expect(try decoder.next() == nil)
    }

    @Test func severalFramesMayComeAtOnce() throws {
        var decoder = WebSocketDecoder()
        decoder.append(ByteBuffer(bytes: masked(0x81, [65]) + masked(0x89, [66])))
        #expect(try decoder.next() == WebSocketFrame(.text, [65]))
        #expect(try decoder.next() == WebSocketFrame(.ping, [66]))
    }

    @Test(
        arguments: [
            [0x82, 0x01, 65],  // no mask
            [0xC2, 0x80],  // reserved bit
            [0x83, 0x80],  // reserved opcode
            [0x09, 0x80],  // a control frame in pieces
            [0x89, 0xFE],  // a long control frame
        ] as [[UInt8]])
    func whatTheStandardForbidsIsRefused(bytes: [UInt8]) {
        var decoder = WebSocketDecoder()
        decoder.append(ByteBuffer(bytes: bytes + [0, 0, 0, 0, 0, 0]))
        #expect(throws: WebSocketError(status: .protocolError)) { try decoder.next() }
    }

    @Test func lengthsBeyondTheLimitAreRefusedFromTheHeader() {
        var decoder = WebSocketDecoder()
        decoder.append(ByteBuffer(bytes: [0x82, 0xFF] + WebSocketFrame.bigEndian(1 << 40, 8)))
        #expect(throws: WebSocketError(status: .tooLarge)) { try decoder.next() }
    }

    @Test func serversSendWithoutMask() {
        #expect(WebSocketFrame(.binary, [1, 2]).encoded() == [0x82, 2, 1, 2])
        #expect(WebSocketFrame(.text, Array(repeating: 0, count: 300)).encoded().prefix(4) == [0x81, 126, 1, 44])
    }
}

@Suite struct PathModes {
    /// What stat(2) says, and the bits of Go's that Docker has for it.
    private static let pairs: [(UInt32, UInt32)] = [
        (0o100644, 0o644), (0o041777, 0x8010_01FF), (0o120777, 0x0800_01FF), (0o104755, 0x0080_01ED),
        (0o102755, 0x0040_01ED), (0o020666, 0x0420_01B6), (0o010600, 0x0200_0180), (0o140600, 0x0100_0180),
    ]

    @Test func bitsAreGosOwn() {
        for (kernel, docker) in Self.pairs { #expect(DockerPathStat.mode(kernel) == docker) }
    }
}

@Suite struct ExecMemory {
    private func session(_ id: String, bytes: Int = 0) throws -> ExecSession {
        ExecSession(
            id: id, container: ContainerID("c"),
            request: ExecRequest(command: ["sh", String(repeating: "x", count: bytes)]), keys: try DetachKeys(""))
    }

    @Test func onlyOneStartIsLet() throws {
        let session = try session("a")
        try session.claim(size: nil)
        #expect(throws: DockerError.self) { try session.claim(size: nil) }
    }

    @Test func theOldestGoWhenThereAreTooMany() throws {
        let sessions = ExecSessions()
        for number in 0..<(ExecSessions.limit + 10) { try sessions.add(try session("\(number)")) }
        #expect(sessions["0"] == nil)
        #expect(sessions["\(ExecSessions.limit + 9)"] != nil)
    }

    @Test func theirBytesAreBounded() throws {
        let sessions = ExecSessions()
        for number in 0..<100 { try sessions.add(try session("\(number)", bytes: 1 << 20)) }
        #expect(sessions["0"] == nil)
        #expect(sessions["99"] != nil)
    }

    @Test func whatRunsIsKept() throws {
        let sessions = ExecSessions()
        let first = try session("first")
        try first.claim(size: nil)
        try sessions.add(first)
        for number in 0..<(ExecSessions.limit + 10) { try sessions.add(try session("\(number)")) }
        #expect(sessions["first"] != nil)
    }
}

@Suite struct ProgramsInContainers {
    /// With a node that begins every program, and is gone before it ends.
    private func withLostNode(_ work: @escaping @Sendable (DockerBench) async throws -> Void) async throws {
        try await DockerBench.run { bench in
            let node = try await PlayedNode(bench)
            let router = Router(context: ServiceContext.self)
            router.post("/node/v1/tasks/{task}/exec") { request, context in
                try context.takeOver(request, as: RawConnection.framesProtocol) { stream in
                    let started = try JSONCoding.encode(ExecStarted(pid: 7))
                    try await stream.write(
                        Frame.control(started).encoded() + Frame.stdout(Array("begun\n".utf8)).encoded())
                }
            }
            let server = try await HTTPServer.listen(
                on: [.unix(path: "\(bench.place)/run/one.sock", group: nil)], router: router, limits: ServiceLimits(),
                logger: Logger(label: "test"))
            try await bench.create("web")
            _ = try await bench.ask(.POST, "/api/v1/containers/web/start")
            try await node.obey()
            try await withThrowingTaskGroup(of: Void.self) { group in
                defer { group.cancelAll() }
                group.addTask { try await server.run() }
                group.addTask { try await work(bench) }
                try await group.next()
            }
        }
    }

    @Test func theLossOfTheNodeIsToldAndIsNoSuccess() async throws {
        try await withLostNode { bench in
            let body = #"{"AttachStdout":true,"AttachStderr":true,"Cmd":["sh"]}"#
            let made = try await bench.ask(.POST, "/containers/web/exec", body: body)
            let id = try #require(made.json?["Id"]?.stringValue)
            let response = try await bench.client.request(
                .POST, "/exec/\(id)/start", body: .bytes(Array("{}".utf8), contentType: "application/json"))
            let text = String(decoding: try await response.bytes(), as: UTF8.self)
            #expect(text.contains("begun\n") && text.contains("exec \(id) is lost: "), "\(text)")
            let view = try await bench.ask(.GET, "/exec/\(id)/json").json
            #expect(view?["Running"] == false && view?["ExitCode"] == 255)
        }
    }
}
