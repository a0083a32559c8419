import JSON
import ShimProtocol
import Testing

private let create = ShimCreate(
    container: "c1", start: 2, bundle: "/b", terminal: true, stdin: true, stdinOnce: false, logPath: "/l",
    logMaxBytes: 1 << 20, logMaxFiles: 3, exitPath: "/e", cgroups: ["/sys/fs/cgroup/memory/x"])
private let exec = ShimExec(
    container: "c1", execID: "e1", process: ["args": ["true"], "cwd": "/"], terminal: false, stdin: true,
    deadlineSeconds: 30)
private let time = Timestamp(nanoseconds: 1_700_000_000_000_000_001)

@Suite struct ShimProtocolTests {
    @Test(
        arguments: [
            .hello, .state, .create(create), .start(container: "c1"),
            .signal(container: "c1", signal: 15, all: true), .pause(container: "c1"), .resume(container: "c1"),
            .delete(container: "c1", force: true), .exec(exec),
            .attach(ShimAttach(container: "c1", stdin: true, stdout: true, stderr: false)),
            .resize(container: "c1", columns: 80, rows: 24), .events, .shutdown,
            .lease(ShimLease(container: "c1", until: 5000, signal: 15, grace: 10_000)), .release(container: "c1"),
        ] as [ShimRequest])
    func everyRequestRoundTrips(_ request: ShimRequest) throws {
        let bytes = try JSONCoding.encode(request)
        #expect(try JSONCoding.decode(ShimRequest.self, from: bytes, strict: true) == request)
        #expect(try JSONValue.parse(bytes)["op"] == .string(request.operation))
    }

    @Test func theFormOnTheWireIsFixed() throws {
        func text(_ value: some Encodable) throws -> String {
            String(decoding: try JSONCoding.encode(value, sortedKeys: true), as: UTF8.self)
        }
        #expect(try text(ShimRequest.start(container: "c1")) == #"{"container":"c1","op":"start"}"#)
        #expect(
            try text(ShimRequest.create(ShimCreate(container: "c1", start: 1, bundle: "/b", exitPath: "/e")))
                == #"{"bundle":"/b","cgroups":[],"container":"c1","exitPath":"/e","op":"create","start":1,"#
                + #""stdin":false,"terminal":false}"#)
        let record = ExitRecord(
            container: "c1", start: 1, pid: 7, exitCode: 137, signal: 9, oomKilled: true, startedAt: time,
            finishedAt: time)
        #expect(
            try text(record)
                == #"{"container":"c1","exitCode":137,"finishedAt":"2023-11-14T22:13:20.000000001Z","#
                + #""oomKilled":true,"pid":7,"signal":9,"start":1,"startedAt":"2023-11-14T22:13:20.000000001Z"}"#)
        #expect(try text(ShimResponse(version: 1)) == #"{"ok":true,"version":1}"#)
        #expect(
            try text(ShimRequest.lease(ShimLease(container: "c1", until: 5000, signal: 15, grace: 10_000)))
                == #"{"container":"c1","grace":10000,"op":"lease","signal":15,"until":5000}"#)
        #expect(try text(ShimRequest.release(container: "c1")) == #"{"container":"c1","op":"release"}"#)
        #expect(try text(ShimResponse(features: [ShimProtocol.leases])) == #"{"features":["leases"],"ok":true}"#)
        // Agents know the end of a lease by it.
        #expect(ExitRecord.leaseRanOut == "its lease ran out")
    }

    @Test func anUnknownOperationIsRefusedByNameAndUnknownFieldsAreIgnored() throws {
        let error = #expect(throws: JSONError.self) {
            try JSONCoding.decode(ShimRequest.self, from: Array(#"{"op":"teleport"}"#.utf8))
        }
        #expect(error?.description == "$.op: this shim has no operation \"teleport\"")
        let control = #expect(throws: JSONError.self) {
            try JSONCoding.decode(ShimRequest.self, from: Array("{\"op\":\"\u{7f}\"}".utf8))
        }
        #expect(control?.description == #"$.op: this shim has no operation "\u007f""#)
        let request = try JSONCoding.decode(
            ShimRequest.self, from: Array(#"{"op":"delete","container":"c","later":[1]}"#.utf8))
        #expect(request == .delete(container: "c", force: false))
    }

    @Test(arguments: [
        (ShimLease(container: "c", until: 1, signal: 15, grace: 0), nil),
        (ShimLease(container: "c", until: 1000 + ShimLease.longest, signal: 64, grace: ShimLease.longest), nil),
        (ShimLease(container: "c", until: 1, signal: 0, grace: 0), "0 is no signal; 1 to 64 are"),
        (ShimLease(container: "c", until: 1, signal: 65, grace: 0), "65 is no signal; 1 to 64 are"),
        (
            ShimLease(container: "c", until: 1, signal: 15, grace: -1),
            "the grace of container c, -1 ms, is out of range: 0 to 366 days"
        ),
        (
            ShimLease(container: "c", until: -1, signal: 15, grace: 0),
            "the lease of container c until -1 is out of range: 366 days from now at most"
        ),
        (
            ShimLease(container: "c", until: Int64.max, signal: 15, grace: 0),
            "the lease of container c until \(Int64.max) is out of range: 366 days from now at most"
        ),
    ])
    func aLeaseHasBounds(_ lease: ShimLease, _ refusal: String?) {
        #expect(lease.refusal(now: 1000) == refusal)
    }

    @Test func aReaderKeepsUpWithEventsItDoesNotKnow() throws {
        let event = try JSONCoding.decode(
            ShimEvent.self, from: Array(#"{"event":"checkpointed","at":"2026-01-01T00:00:00Z","x":1}"#.utf8))
        #expect(event.event == ShimEvent.Kind(rawValue: "checkpointed"))
    }

    @Test func statesRoundTrip() throws {
        let state = ShimContainerState(
            container: "c1", start: 1, status: .stopped, pid: 7, createdAt: time, startedAt: time,
            exit: ExitRecord(
                container: "c1", start: 1, pid: 7, exitCode: 0, startedAt: time, finishedAt: time, reason: "r"),
            leaseUntil: 5000, logLinesLost: 3, recordError: "full")
        let response = ShimResponse(
            containers: [state], execs: [ShimExecState(container: "c1", execID: "e", pid: 8, startedAt: time)])
        #expect(try JSONCoding.decode(ShimResponse.self, from: JSONCoding.encode(response), strict: true) == response)
        let event = ShimEvent(.exited, at: time, container: state)
        #expect(try JSONCoding.decode(ShimEvent.self, from: JSONCoding.encode(event), strict: true) == event)
    }
}

@Suite struct ShimOptionsTests {
    @Test func theCommandLineRoundTrips() throws {
        let options = ShimOptions(
            socket: "/s/shim.sock", runtime: "/bin/runtime", runtimeRoot: "/r", taskID: "t1", pidFile: "/p",
            cgroup: "martlet/shims", readyFD: 3)
        #expect(try ShimOptions(arguments: options.arguments) == options)
        let least = ShimOptions(socket: "/s", runtime: "/r", runtimeRoot: "/d", taskID: "t")
        #expect(try ShimOptions(arguments: least.arguments.reversed().chunkedPairs()) == least)
    }

    @Test(arguments: [
        ([], "option --socket is missing"), (["--socket"], "option --socket needs a value"),
        (["--socket", ""], "option --socket needs a value"), (["--color", "red"], "option --color is not known"),
        (["--socket", "/s", "--socket", "/t"], "option --socket is there twice"),
        (["--socket", "s"], "--socket s is not an absolute path"),
        (
            ["--socket", "/s", "--runtime", "/r", "--runtime-root", "/d", "--task-id", "t", "--ready-fd", "2"],
            "--ready-fd 2 is not a descriptor above 2"
        ),
    ])
    func aWrongCommandLineIsRefusedInASentence(_ arguments: [String], _ text: String) {
        let error = #expect(throws: ShimOptionsError.self) { try ShimOptions(arguments: arguments) }
        #expect(error?.description == text)
    }
}

extension [String] {
    /// Turns `value name value name` back into `name value name value`.
    fileprivate func chunkedPairs() -> [String] {
        stride(from: 0, to: count, by: 2).flatMap { [self[$0 + 1], self[$0]] }
    }
}

@Suite struct LogRecordTests {
    private func text(_ record: LogRecord) -> String {
        var bytes: [UInt8] = []
        record.append(to: &bytes)
        return String(decoding: bytes, as: UTF8.self)
    }

    @Test func aRecordIsOneLine() {
        let record = LogRecord(time: time, stream: .stderr, isPartial: false, bytes: Array("a b".utf8)[...])
        #expect(text(record) == "2023-11-14T22:13:20.000000001Z stderr F a b\n")
    }

    @Test(arguments: ["", " ", "F", "x y z", "\u{0}\u{ff}"], [true, false])
    func recordsRoundTrip(_ content: String, _ isPartial: Bool) {
        let record = LogRecord(time: time, stream: .stdout, isPartial: isPartial, bytes: Array(content.utf8)[...])
        #expect(LogRecord(line: Array(text(record).utf8).dropLast()) == record)
        #expect(text(record).utf8.count - content.utf8.count <= LogRecord.prefixLimit)
    }

    @Test(arguments: [
        "", "x", "2023-11-14T22:13:20Z", "2023-11-14T22:13:20Z stdout", "2023-11-14T22:13:20Z stdout F",
        "2023-11-14T22:13:20Z stdlog F x", "2023-11-14T22:13:20Z stdout X x", "2023-11-14 stdout F x",
    ])
    func tornLinesAreNoRecords(_ line: String) {
        #expect(LogRecord(line: Array(line.utf8)[...]) == nil)
    }
}
