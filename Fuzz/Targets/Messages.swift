import CStage
import Glibc
import JSON
import ShimProtocol
import StreamFrames

@testable import Cgroups
@testable import ContainerRuntime
@testable import Kernel

extension FuzzTarget {
    static let dbus = FuzzTarget(
        name: "dbus", longest: 2048,
        seeds: {
            [
                DBusMessage(.call, serial: 1, path: "/", member: "Ping").encoded(),
                DBusMessage(
                    .signal, serial: 9, path: "/a/b", interface: "x.y", member: "M", errorName: "e.f", replySerial: 3,
                    destination: "d.e",
                    body: [
                        .byte(1), .boolean(true), .int32(-2), .uint64(3), .double(0.5), .string("text"),
                        .signature("a(sv)"), .objectPath("/o"), .variant(.variant(.uint32(7))),
                        .array(of: "(sv)", [.structure([.string("k"), .variant(.array(of: "y", [.byte(1)]))])]),
                    ]
                ).encoded(),
            ]
        }
    ) { input in
        var rest = input
        var before = rest.count
        while let message = try? DBusMessage.take(from: &rest) {
            expect(rest.count <= before - 16 && input.suffix(rest.count) == rest[...], "a message is taken off")
            before = rest.count
            guard message.serial != 0, message.body.allSatisfy(\.isWritable) else { continue }
            var written = message.encoded()
            guard let again = try? DBusMessage.take(from: &written) else { return expect(false, "ours is understood") }
            expect(written.isEmpty && again.encoded() == message.encoded(), "a message is read as it is written")
        }
    }

    /// A datagram of rtnetlink.
    static let netlink = FuzzTarget(
        name: "netlink", longest: 1024,
        seeds: {
            var request = RouteRequest(16, flags: 2, header: RouteRequest.link(index: 3))
            request.put(3, bytes("eth0") + [0])
            request.put(4, [1, 0, 0, 0])
            let error = [UInt8](of: Int32(-22)) + request.encoded(1).prefix(16)
            return [request.encoded(1), RouteRequest(2, flags: 0x200, header: error).encoded(1)]
        }
    ) { input in
        var total = 0
        try? RouteSocket.messages(in: input[...], answering: 1, "a link") { _, _, payload in
            total += payload.count + 16
            for length in [0, 16, 20] {
                let answer = RouteAnswer(payload: payload, headerLength: length)
                for (type, value) in answer.attributes {
                    expect(
                        (0..<0x4000).contains(type) && value.count <= payload.count, "an attribute is of the message")
                    _ = answer.text(type)
                    _ = RouteAnswer.attributes(value)
                }
            }
        }
        expect(total <= input.count, "messages do not overlap")
    }

    /// What comes on a shim's socket, and what others read of a shim.
    static let shim = FuzzTarget(
        name: "shim", longest: 4096,
        seeds: {
            let requests: [ShimRequest] = [
                .hello, .create(ShimCreate(container: "c", start: 1, bundle: "/b", logPath: "/l", exitPath: "/e")),
                .signal(container: "c", signal: 9, all: true), .delete(container: "c", force: true),
                .exec(ShimExec(container: "c", execID: "e", process: ["args": ["a"]])),
                .attach(ShimAttach(container: "c")),
                .resize(container: "c", columns: 80, rows: 24),
            ]
            let controls = requests.compactMap { try? JSONCoding.encode($0) }
            let time = Timestamp(nanoseconds: 1_700_000_000_000_000_000)
            let exit = ExitRecord(
                container: "c", start: 1, pid: 5, exitCode: 137, signal: 9, startedAt: time, finishedAt: time)
            let state = ShimContainerState(
                container: "c", start: 1, status: .stopped, pid: 5, createdAt: time, exit: exit)
            let answers: [[UInt8]] = [
                (try? JSONCoding.encode(ShimResponse(version: 1, containers: [state]))) ?? [],
                (try? JSONCoding.encode(ShimEvent(.exited, at: time, container: state))) ?? [],
                (try? JSONCoding.encode(exit)) ?? [],
            ]
            var line: [UInt8] = []
            LogRecord(time: time, stream: .stderr, isPartial: true, bytes: bytes("text")[...]).append(to: &line)
            let frames: [Frame] = [
                .stdin([1, 2]), .end(0), .resize(columns: 80, rows: 24), .signal(15), .exit(3), .error("e"),
            ]
            return controls.map { Frame.control($0).encoded() } + [frames.flatMap { $0.encoded() }] + controls + answers
                + [line.dropLast()]
        }
    ) { input in
        expectFrames(input)
        expectMessage(ShimRequest.self, input)
        expectMessage(ShimResponse.self, input)
        expectMessage(ShimEvent.self, input)
        expectMessage(ExitRecord.self, input)
        if let record = LogRecord(line: input[...]), !record.bytes.contains(10) {
            var line: [UInt8] = []
            record.append(to: &line)
            expect(LogRecord(line: line.dropLast()) == record, "a line of a log is read as it is written")
        }
    }

    /// The channel between the runtime and a container's process, descriptors on sockets, and `READY=` of a container.
    static let stage = FuzzTarget(
        name: "stage", longest: 2048,
        seeds: {
            func message(_ kind: cs_kind, _ text: String) -> [UInt8] {
                [UInt8](of: kind.rawValue) + [UInt8](of: Int32(2)) + [UInt8](of: UInt32(text.utf8.count))
                    + [UInt8](of: UInt32(0)) + bytes(text) + [UInt8](repeating: 0, count: 1000 - text.utf8.count)
            }
            return [
                [0] + message(CS_FAILED, "mount /x"), [1] + message(CS_TERMINAL, ""), [2] + bytes("/dev/pts/3"),
                [0] + bytes("STATUS=x\nREADY=1\nMAINPID=7\n"),
            ]
        }
    ) { input in
        guard let head = input.first, input.count > 1 else { return }
        let message = Array(input.dropFirst())
        // Whatever came along is closed again.
        let before = Descriptor.openCount
        do {
            let descriptors = [Int32](repeating: 0, count: Int(head & 3))
            try expectChannel(message, descriptors)
            try expectReadiness(message)
        } catch {
            expect(false, "sockets work: \(error)")
        }
        expect(Descriptor.openCount == before, "no descriptor is left open")
    }
}

private func expectFrames(_ input: [UInt8]) {
    var whole = FrameDecoder()
    whole.append(input)
    var pieces = FrameDecoder()
    var rest = input[...]
    var read = 0
    while true {
        let frame: Frame?
        do { frame = try whole.next() } catch { return expectSentence(error) }
        guard let frame else { break }
        var same: Frame?
        do {
            same = try pieces.next()
            while same == nil, let byte = rest.popFirst() {
                pieces.append([byte])
                same = try pieces.next()
            }
        } catch {
            return expect(false, "pieces are understood as the whole is")
        }
        expect(same == frame, "a frame is the same in pieces")
        read = input.count - rest.count
        if case .error = frame { continue }
        let written = frame.encoded()
        expect(input[..<read].suffix(written.count) == written[...], "a frame is written as it was read")
        if case .control(let json) = frame { expectMessage(ShimRequest.self, json) }
    }
    expect(whole.bufferedBytes <= input.count - read, "no more is held than came")
}

/// What is understood is written so that it is understood the same.
private func expectMessage<Message: Codable & Equatable>(_: Message.Type, _ input: [UInt8]) {
    let message: Message
    do {
        message = try JSONCoding.decode(Message.self, from: input)
    } catch {
        return expectSentence(error)
    }
    guard let written = try? JSONCoding.encode(message) else { return expect(false, "a message can be written") }
    expect((try? JSONCoding.decode(Message.self, from: written)) == message, "a message is read as it is written")
}

private func expectChannel(_ message: [UInt8], _ descriptors: [Int32]) throws {
    let sockets = try UnixSocket.pair(.packets)
    try UnixSocket.send(sockets.far.raw, message, descriptors: descriptors)
    if let received = try? Channel(socket: sockets.near.raw).receive() {
        expect(message.count == MemoryLayout<cs_message>.size, "messages have one size")
        expect(received.text.utf8.count <= 3 * Int(CS_TEXT_SIZE), "a text has an end")
        expect(descriptors.count <= 1, "one descriptor at most comes along")
    }
    try UnixSocket.send(sockets.far.raw, message, descriptors: descriptors)
    // More descriptors than are asked for make it fail.
    guard let (received, files) = try? UnixSocket.receive(sockets.near.raw, limit: 4096, maximumDescriptors: 1) else {
        return expect(descriptors.count > 1, "a message comes")
    }
    expect(received == message && files.count == descriptors.count, "a message comes as it was sent")
}

/// Nothing of what a container says reaches the service manager but one line `READY=`.
private func expectReadiness(_ message: [UInt8]) throws {
    let container = try UnixSocket.pair(.packets)
    let manager = try UnixSocket.pair(.packets)
    try UnixSocket.send(container.far.raw, message)
    let relay = NotifyRelay(
        container: SharedFD(try container.near.duplicate()), host: SharedFD(try manager.near.duplicate()))
    guard try relay.relay(main: 5) else { return }
    let ready = try UnixSocket.receive(manager.far.raw, limit: 8192).bytes
    expect(ready.starts(with: bytes("READY=")) && ready.firstIndex(of: 10) == ready.count - 1, "one line is passed on")
    expect(try UnixSocket.receive(manager.far.raw, limit: 64).bytes == bytes("MAINPID=5\n"), "whom to watch is ours")
}

extension Descriptor {
    /// How many of the first numbers are open.
    fileprivate static var openCount: Int { (0..<64).count { fcntl(Int32($0), F_GETFD) >= 0 } }
}

extension DBusValue {
    /// Of the types that we write: those of 16 bits, descriptors and dictionaries are only read.
    fileprivate var isWritable: Bool {
        switch self {
        case .array(let element, let elements):
            !element.utf8.contains { bytes("nqh{").contains($0) } && elements.allSatisfy(\.isWritable)
        case .structure(let fields): fields.allSatisfy(\.isWritable)
        case .variant(let value): value.isWritable
        case .string(let text), .objectPath(let text), .signature(let text): !text.utf8.contains(0xEF)
        default: true
        }
    }
}
