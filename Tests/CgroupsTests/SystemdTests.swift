import Cgroups
import Glibc
import Kernel
import Testing

/// The other end of a conversation, which has said everything it is going to say: what it is asked is read afterwards.
private final class ScriptedManager {
    private let far: SharedFD
    private let near: SharedFD
    private var answers: [UInt8]

    init(_ greeting: String = "OK 0123456789abcdef0123456789abcdef\r\n") throws {
        let pair = try UnixSocket.pair(.stream)
        near = SharedFD(try pair.near.duplicate())
        far = SharedFD(try pair.far.duplicate())
        answers = Array(greeting.utf8)
    }

    func reply(to serial: UInt32, _ body: DBusValue...) {
        answers += DBusMessage(.reply, serial: 100 + serial, replySerial: serial, body: body).encoded()
    }

    func fail(_ serial: UInt32, _ name: String, _ text: String = "because") {
        answers += DBusMessage(
            .error, serial: 100 + serial, errorName: name, replySerial: serial, body: [.string(text)]
        ).encoded()
    }

    func jobRemoved(_ number: UInt32, _ result: String, unit: String = "a-b.scope") {
        answers += DBusMessage(
            .signal, serial: 200 + number, path: "/org/freedesktop/systemd1",
            interface: "org.freedesktop.systemd1.Manager", member: "JobRemoved",
            body: [.uint32(number), .objectPath(Self.job(number)), .string(unit), .string(result)]
        ).encoded()
    }

    func say(_ bytes: [UInt8]) { answers += bytes }

    static func job(_ number: UInt32) -> String { "/org/freedesktop/systemd1/job/\(number)" }

    /// Says it all, hangs up, and lets somebody talk to it.
    func connect(isBus: Bool = false) throws -> SystemdConnection {
        try Descriptor.writeAll(far.raw, answers)
        shutdown(far.raw, Int32(SHUT_WR))
        return try SystemdConnection(adopting: OwnedFD(adopting: dup(near.raw)), isBus: isBus)
    }

    /// The greeting and the calls that came.
    func heard() throws -> (greeting: String, calls: [DBusMessage]) {
        shutdown(near.raw, Int32(SHUT_WR))
        var bytes = try Descriptor.readAll(far.raw, limit: 1 << 20)
        let end = Array("BEGIN\r\n".utf8)
        let start = bytes.indices.first { bytes[$0...].starts(with: end) }.map { $0 + end.count } ?? bytes.count
        let greeting = String(decoding: bytes[..<start], as: UTF8.self)
        bytes.removeFirst(start)
        var calls: [DBusMessage] = []
        while let call = try DBusMessage.take(from: &bytes) { calls.append(call) }
        #expect(bytes.isEmpty)
        return (greeting, calls)
    }
}

@Suite struct SystemdTests {
    private let scope: SystemdScope

    init() throws { scope = try SystemdScope(path: "system.slice:a:b", container: "c") }

    @Test func theManagerIsGreetedByUserIdAndAskedForSignals() throws {
        let manager = try ScriptedManager()
        manager.reply(to: 1)
        _ = try manager.connect()
        let (greeting, calls) = try manager.heard()
        let name = String(getuid()).utf8.map { String($0, radix: 16) }.joined()
        #expect(greeting == "\0AUTH EXTERNAL \(name)\r\nBEGIN\r\n")
        #expect(calls.map(\.member) == ["Subscribe"])
        #expect(calls.map(\.destination) == ["org.freedesktop.systemd1"])
        #expect(calls.map(\.path) == ["/org/freedesktop/systemd1"])
        #expect(calls.map(\.interface) == ["org.freedesktop.systemd1.Manager"])
    }

    @Test func aBusIsGreetedFirst() throws {
        let manager = try ScriptedManager()
        manager.reply(to: 1, .string(":1.5"))
        manager.reply(to: 2)
        manager.reply(to: 3)
        _ = try manager.connect(isBus: true)
        let calls = try manager.heard().calls
        #expect(calls.map(\.member) == ["Hello", "AddMatch", "Subscribe"])
        #expect(calls[0].destination == "org.freedesktop.DBus")
        #expect(calls[1].body.first?.text?.contains("member='JobRemoved'") == true)
    }

    @Test(arguments: ["REJECTED EXTERNAL\r\n", "", "OK", String(repeating: "x", count: 9000)])
    func aManagerThatDoesNotLetUsInIsAnError(greeting: String) throws {
        let manager = try ScriptedManager(greeting)
        let error = #expect(throws: CgroupError.self) { try manager.connect() }
        #expect(error?.controller == "systemd")
        // All of it was said before the answer: systemd does not look at what it reads together with BEGIN.
        #expect(try manager.heard().greeting.hasSuffix("BEGIN\r\n"))
    }

    @Test func aScopeIsStartedWithItsProcessAndAwaited() throws {
        let manager = try ScriptedManager()
        manager.reply(to: 1)
        manager.jobRemoved(6, "failed", unit: "other.service")
        manager.reply(to: 2, .objectPath(ScriptedManager.job(7)))
        manager.jobRemoved(7, "done")
        try scope.start(
            try manager.connect(), pid: 4711, description: "a container",
            properties: [SystemdProperty("KillSignal", .int32(15))])
        let call = try #require(try manager.heard().calls.last)
        #expect(call.member == "StartTransientUnit")
        func property(_ name: String, _ value: DBusValue) -> DBusValue { .structure([.string(name), .variant(value)]) }
        #expect(
            call.body == [
                .string("a-b.scope"), .string("replace"),
                .array(
                    of: "(sv)",
                    [
                        property("Description", .string("a container")), property("Slice", .string("system.slice")),
                        property("Delegate", .boolean(true)), property("PIDs", .array(of: "u", [.uint32(4711)])),
                        property("MemoryAccounting", .boolean(true)), property("CPUAccounting", .boolean(true)),
                        property("IOAccounting", .boolean(true)), property("TasksAccounting", .boolean(true)),
                        property("DefaultDependencies", .boolean(false)), property("KillSignal", .int32(15)),
                    ]), .array(of: "(sa(sv))", []),
            ])
    }

    @Test func aJobThatEndsBeforeItsCallIsAnsweredCountsToo() throws {
        let manager = try ScriptedManager()
        manager.reply(to: 1)
        manager.jobRemoved(7, "done")
        manager.reply(to: 2, .objectPath(ScriptedManager.job(7)))
        try scope.start(try manager.connect(), pid: 1, description: "x")
    }

    @Test func whatKillsAGroupAsOneIsTheScopesPolicyWhereSystemdHasOne() throws {
        var limits = CgroupResources()
        #expect(SystemdScope.OOMPolicy(limits) == nil)
        limits.unified = [CgroupResources.Unified(file: "memory.oom.group", value: "0")]
        #expect(SystemdScope.OOMPolicy(limits) == .continue)
        limits.unified = [CgroupResources.Unified(file: "memory.oom.group", value: "1")]
        #expect(SystemdScope.OOMPolicy(limits) == .kill)
        let manager = try ScriptedManager()
        manager.reply(to: 1)
        manager.fail(
            2, "org.freedesktop.DBus.Error.PropertyReadOnly", "Cannot set property OOMPolicy, or unknown property.")
        manager.reply(to: 3, .objectPath(ScriptedManager.job(7)))
        manager.jobRemoved(7, "done")
        try scope.start(try manager.connect(), pid: 1, description: "x", oomPolicy: .kill)
        let calls = try manager.heard().calls.filter { $0.member == "StartTransientUnit" }
        func names(_ call: DBusMessage) -> [String] {
            guard call.body.count == 4, case .array(_, let entries) = call.body[2] else { return [] }
            return entries.compactMap {
                guard case .structure(let members) = $0 else { return nil }
                return members.first?.text
            }
        }
        try #require(calls.count == 2)
        #expect(names(calls[0]).contains("OOMPolicy"))
        #expect(names(calls[1]) == names(calls[0]).filter { $0 != "OOMPolicy" })
    }

    @Test func aScopeThatDoesNotStartIsAnErrorThatNamesIt() throws {
        let manager = try ScriptedManager()
        manager.reply(to: 1)
        manager.reply(to: 2, .objectPath(ScriptedManager.job(7)))
        manager.jobRemoved(7, "failed")
        manager.reply(to: 3)
        let systemd = try manager.connect()
        let error = #expect(throws: CgroupError.self) { try scope.start(systemd, pid: 1, description: "x") }
        #expect(error?.subject == "a-b.scope")
        #expect(error.map { "\($0)".contains("failed") } == true)
        #expect(try manager.heard().calls.last?.member == "ResetFailedUnit")
    }

    @Test func aFailedScopeOfTheSameNameIsForgottenOnce() throws {
        let exists = "org.freedesktop.systemd1.UnitExists"
        var manager = try ScriptedManager()
        manager.reply(to: 1)
        manager.fail(2, exists)
        manager.reply(to: 3)
        manager.reply(to: 4, .objectPath(ScriptedManager.job(8)))
        manager.jobRemoved(8, "done")
        try scope.start(try manager.connect(), pid: 1, description: "x")
        #expect(
            try manager.heard().calls.map(\.member) == [
                "Subscribe", "StartTransientUnit", "ResetFailedUnit", "StartTransientUnit",
            ])
        manager = try ScriptedManager()
        manager.reply(to: 1)
        manager.fail(2, exists)
        manager.fail(3, "org.freedesktop.systemd1.NoSuchUnit")
        manager.fail(4, exists, "Unit a-b.scope already exists.")
        let systemd = try manager.connect()
        let error = #expect(throws: CgroupError.self) { try scope.start(systemd, pid: 1, description: "x") }
        #expect(error.map { "\($0)".contains("already exists") } == true)
    }

    @Test func aScopeIsStoppedAndForgotten() throws {
        var manager = try ScriptedManager()
        manager.reply(to: 1)
        manager.reply(to: 2, .objectPath(ScriptedManager.job(9)))
        manager.jobRemoved(9, "done")
        manager.fail(3, "org.freedesktop.systemd1.NoSuchUnit")
        try scope.stop(try manager.connect())
        #expect(try manager.heard().calls.dropFirst().map(\.member) == ["StopUnit", "ResetFailedUnit"])
        manager = try ScriptedManager()
        manager.reply(to: 1)
        manager.fail(2, "org.freedesktop.systemd1.NoSuchUnit")
        try scope.stop(try manager.connect())
        manager = try ScriptedManager()
        manager.reply(to: 1)
        manager.fail(2, "org.freedesktop.DBus.Error.AccessDenied")
        let systemd = try manager.connect()
        #expect(throws: CgroupError.self) { try scope.stop(systemd) }
    }

    @Test func propertiesAreChangedUntilTheScopeEnds() throws {
        let manager = try ScriptedManager()
        manager.reply(to: 1)
        manager.reply(to: 2)
        try scope.set(try manager.connect(), [SystemdProperty("TasksMax", .uint64(5))])
        let call = try #require(try manager.heard().calls.last)
        #expect(call.member == "SetUnitProperties")
        #expect(
            call.body == [
                .string("a-b.scope"), .boolean(true),
                .array(of: "(sv)", [.structure([.string("TasksMax"), .variant(.uint64(5))])]),
            ])
    }

    @Test func aConnectionThatBreaksAndNonsenseAreErrors() throws {
        var manager = try ScriptedManager()
        manager.reply(to: 1)
        var systemd = try manager.connect()
        #expect(throws: CgroupError.self) { try scope.stop(systemd) }
        manager = try ScriptedManager()
        manager.reply(to: 1)
        manager.say(Array("nonsense, and more of it\r\n".utf8))
        systemd = try manager.connect()
        let error = #expect(throws: CgroupError.self) { try scope.stop(systemd) }
        #expect(error?.controller == "systemd")
    }

    // MARK: Names

    @Test(
        arguments: [
            (nil, "system.slice", "martlet-c.scope", "/system.slice/martlet-c.scope"),
            ("", "system.slice", "martlet-c.scope", "/system.slice/martlet-c.scope"),
            ("machine.slice:libpod:x", "machine.slice", "libpod-x.scope", "/machine.slice/libpod-x.scope"),
            (":docker:x", "system.slice", "docker-x.scope", "/system.slice/docker-x.scope"),
            ("-.slice:a:x", "-.slice", "a-x.scope", "/a-x.scope"),
            ("a.slice::x", "a.slice", "x.scope", "/a.slice/x.scope"),
            (
                "kube-pods-p1.slice:cri:x", "kube-pods-p1.slice", "cri-x.scope",
                "/kube.slice/kube-pods.slice/kube-pods-p1.slice/cri-x.scope"
            ),
        ] as [(String?, String, String, String)])
    func aPathNamesSlicePrefixAndName(path: String?, slice: String, unit: String, place: String) throws {
        let scope = try SystemdScope(path: path, container: "c")
        #expect(scope.slice == slice)
        #expect(scope.unit == unit)
        #expect(scope.path == place)
    }

    @Test(
        arguments: [
            "/a/b", "a:b", "a:b:c", "a.slice:b:c:d", "a.slice:b:", "a.slice:b:c.slice", "a/b.slice:c:d", "-a.slice:b:c",
            "a--b.slice:b:c", ".slice:a:b", "a.slice:../x:y", "a.slice:b:c d", "a.slice:b:\u{e4}",
        ])
    func otherPathsAreRefused(path: String) {
        let error = #expect(throws: CgroupError.self) { try SystemdScope(path: path, container: "c") }
        #expect(error?.kind == .invalidPath)
    }

    // MARK: Properties

    @Test(
        arguments: [
            ("KillSignal", "15", "KillSignal", .int32(15)),
            ("TimeoutStopUSec", "uint64 10", "TimeoutStopUSec", .uint64(10)),
            ("TimeoutStopSec", "uint64 10", "TimeoutStopUSec", .uint64(10_000_000)),
            ("TimeoutStopSec", "1.5", "TimeoutStopUSec", .uint64(1_500_000)),
            ("CollectMode", "'inactive-or-failed'", "CollectMode", .string("inactive-or-failed")),
            ("SendSIGHUP", "true", "SendSIGHUP", .boolean(true)),
            (
                "Before", "['a.service', \"b.service\"]", "Before",
                .array(of: "s", [.string("a.service"), .string("b.service")])
            ),
        ] as [(String, String, String, DBusValue)])
    func annotationsBecomeProperties(name: String, text: String, property: String, value: DBusValue) throws {
        #expect(try SystemdProperty(annotation: name, text) == SystemdProperty(property, value))
    }

    @Test(
        arguments: [
            ("KillSignal", ""), ("KillSignal", "x"), ("KillSignal", "uint64 -1"), ("Kill Signal", "1"), ("K", "1"),
            ("TimeoutStopSec", "'x'"), ("TimeoutStopSec", "-1"), ("Before", "[a]"), ("Before", "['a"), ("A", "'a'b'"),
            ("TimeoutStopSec", "uint64 18446744073709551615"),
        ])
    func annotationsThatAreNoneAreRefused(name: String, text: String) {
        let error = #expect(throws: CgroupError.self) { try SystemdProperty(annotation: name, text) }
        #expect(error?.kind == .invalidValue)
    }

    @Test func systemdIsToldWhatTheFilesSay() throws {
        let tree = try ControlTree.unified([
            "memory.max": "1000\n", "memory.swap.max": "max\n", "memory.low": "0\n", "memory.high": "900\n",
            "pids.max": "max\n", "cpu.weight": "59\n", "cpu.max": "10000 30000\n", "cpuset.cpus": "0-2,9\n",
            "cpuset.mems": "0\n",
        ])
        var change = CgroupResources()
        #expect(tree.manager.unitProperties(of: change) == [], "what nobody changed is not told")
        change.memory.limit = 1000
        change.pidsLimit = -1
        change.cpu.shares = 512
        change.cpu.quota = 10_000
        change.cpu.cpus = "0-2,9"
        change.unified = [CgroupResources.Unified(file: "memory.high", value: "900")]
        let properties = tree.manager.unitProperties(of: change)
        let expected = [
            SystemdProperty("MemoryMax", .uint64(1000)), SystemdProperty("MemorySwapMax", .uint64(.max)),
            SystemdProperty("MemoryLow", .uint64(0)), SystemdProperty("MemoryHigh", .uint64(900)),
            SystemdProperty("TasksMax", .uint64(.max)), SystemdProperty("CPUWeight", .uint64(59)),
            SystemdProperty("CPUQuotaPeriodUSec", .uint64(30_000)),
            SystemdProperty("CPUQuotaPerSecUSec", .uint64(340_000)),
            SystemdProperty("AllowedCPUs", .array(of: "y", [.byte(7), .byte(2)])),
        ]
        #expect(properties == expected)
    }

    @Test(arguments: ["1 18446744073709551615", "18446744073709551615 1", "9223372036854 1", "1 0", "max", "x y"])
    func aQuotaThatNoKernelWritesIsNoCrash(quota: String) throws {
        let tree = try ControlTree.unified(["cpu.max": quota + "\n"])
        var change = CgroupResources()
        change.cpu.quota = 1
        let properties = tree.manager.unitProperties(of: change)
        #expect(properties.isEmpty || properties.map(\.name) == ["CPUQuotaPeriodUSec", "CPUQuotaPerSecUSec"])
    }

    @Test(
        arguments: [
            (["io.weight": "default 250\n8:0 30\n"], 250), (["io.bfq.weight": "60\n", "io.weight": "default 1\n"], 60),
            (["io.bfq.weight": "default 1000\n"], 10_000), (["io.bfq.weight": "default 136\n8:0 2\n"], 496), ([:], nil),
        ] as [([String: String], UInt64?)])
    func weightsOfDisksAreTold(files: [String: String], expected: UInt64?) throws {
        let tree = try ControlTree.unified(files)
        var change = CgroupResources()
        #expect(tree.manager.unitProperties(of: change) == [])
        change.blockIO.weight = 500
        #expect(
            tree.manager.unitProperties(of: change)
                == (expected.map { [SystemdProperty("IOWeight", .uint64($0))] } ?? []))
    }

    @Test func listsOfProcessorsBecomeBits() {
        #expect(CgroupManager.mask("0") == [1])
        #expect(CgroupManager.mask("0-7,8") == [0xff, 1])
        #expect(CgroupManager.mask("") == [])
        for list in ["a", "3-1", "-1", "1-2-3", "0-99999999"] { #expect(CgroupManager.mask(list) == nil, "\(list)") }
    }
}
