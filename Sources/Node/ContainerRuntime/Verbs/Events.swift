import CKernel
import Cgroups
import Glibc
import JSON
import Kernel
import OCISpec

extension Verb {
    static let events = Verb(
        name: "events", usage: "[command options] <container-id>",
        summary: "print what a container uses, and when it runs out of memory",
        flags: {
            [
                Flag("interval", value: "TIME", help: "between two lines: 500ms, 5s (default), 1m30s"),
                Flag("stats", help: "print one line and end"),
            ]
        }
    ) { call in
        try call.arguments.require("events", atLeast: 1, atMost: 1)
        let id = try call.containerID()
        let record = try call.store.require(id)
        let interval = try GoDuration.milliseconds(call.arguments.value("interval") ?? "5s")
        guard try call.store.status(record) != .stopped else {
            throw RuntimeError("container with id \(id) is not running")
        }
        let events = EventLines(id: id, manager: record.cgroup.manager)
        if call.arguments.has("stats") {
            try events.printStats()
            return 0
        }
        try events.follow(SharedFD(try call.store.openProcess(record)), every: interval, log: call.log)
        return 0
    }
}

/// Times as Go writes them, which is what callers of runc write.
enum GoDuration {
    /// - Parameter text: numbers with units: `ns`, `us`, `ms`, `s`, `m`, `h`; fractions are fine.
    /// - Returns: whole milliseconds, at least 1 and at most 24 days.
    /// - Throws: `RuntimeError` for what is none, or not above zero.
    static func milliseconds(_ text: String) throws -> Int {
        let units = ["ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1, "s": 1e3, "m": 6e4, "h": 3.6e6]
        var rest = Substring(text)
        var sum = 0.0
        while !rest.isEmpty {
            let digits = rest.prefix { $0.isASCII && $0.isNumber || $0 == "." }
            rest = rest.dropFirst(digits.count)
            let unit = rest.prefix { !($0.isASCII && $0.isNumber) && $0 != "." }
            rest = rest.dropFirst(unit.count)
            guard let number = Double(String(digits)), let factor = units[String(unit)] else {
                throw RuntimeError("--interval: '\(text)' is no time such as 500ms, 5s or 1m30s")
            }
            sum += number * factor
        }
        guard sum > 0 else { throw RuntimeError("--interval: duration interval must be greater than 0") }
        return Int(min(max(sum, 1), Double(Int32.max)))
    }
}

/// The lines of `events`, as runc writes them.
struct EventLines {
    let id: ContainerID
    let manager: CgroupManager

    func printStats() throws {
        try write("stats", StatsDocument.of(try manager.stats(), CpusetFiles(manager).json))
    }

    /// Prints until the container's first process has ended.
    func follow(_ process: SharedFD, every interval: Int, log: RuntimeLog) throws {
        var memory = try OutOfMemoryWatch(manager)
        var next = Self.now() + interval
        while true {
            var polls = [
                pollfd(fd: memory?.descriptor ?? -1, events: Int16(POLLIN), revents: 0),
                pollfd(fd: process.raw, events: Int16(POLLIN), revents: 0),
            ]
            try systemCall("poll") { poll(&polls, 2, Int32(clamping: max(0, next - Self.now()))) }
            let hasEnded = polls[1].revents != 0
            let count = memory?.newEvents(isReady: polls[0].revents != 0, areLast: hasEnded)
            for _ in 0..<(count ?? 0) { try write("oom", nil) }
            if hasEnded { return }
            guard Self.now() >= next else { continue }
            next += interval
            let stats: CgroupStats
            do throws(CgroupError) {
                stats = try manager.stats()
            } catch {
                log.write(.warning, "\(error)")
                continue
            }
            try write("stats", StatsDocument.of(stats, CpusetFiles(manager).json))
        }
    }

    private func write(_ type: String, _ data: JSONValue?) throws {
        var object: JSONObject = ["type": .string(type), "id": .string(id.description)]
        if let data { object["data"] = data }
        try Descriptor.writeAll(1, JSONValue.object(object).serialized() + [10], subject: "standard output")
    }

    private static func now() -> Int {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return time.tv_sec * 1000 + time.tv_nsec / 1_000_000
    }
}

/// Learns from the kernel that a group is out of memory: by `cgroup.event_control` in v1, by a change of `memory.events`
/// in v2.
private struct OutOfMemoryWatch {
    private let file: SharedFD
    /// v1: the file that the event is about has to stay open.
    private let control: SharedFD?
    private let manager: CgroupManager
    private var seen: UInt64

    var descriptor: Int32 { file.raw }

    /// nil where the host has no memory controller.
    init?(_ manager: CgroupManager) throws {
        guard let home = manager.layout.home(of: .memory), let directory = manager.directory(of: .memory) else {
            return nil
        }
        self.manager = manager
        seen = try manager.oomKillCount()
        guard home.version == .v1 else {
            control = nil
            file = SharedFD(
                OwnedFD(adopting: try systemCall("inotify_init1") { inotify_init1(Int32(IN_CLOEXEC | IN_NONBLOCK)) }))
            let path = "\(directory)/memory.events"
            let raw = file.raw
            try systemCall("inotify_add_watch", path) { inotify_add_watch(raw, path, UInt32(IN_MODIFY)) }
            return
        }
        file = SharedFD(
            OwnedFD(adopting: try systemCall("eventfd") { eventfd(0, Int32(EFD_CLOEXEC) | Int32(EFD_NONBLOCK)) }))
        let about = SharedFD(try File.open("\(directory)/memory.oom_control", O_RDONLY))
        control = about
        try File.writeControl("\(directory)/cgroup.event_control", "\(file.raw) \(about.raw)")
    }

    /// How often it happened since the last call.
    ///
    /// - Parameters:
    ///   - isReady: the descriptor has something to read.
    ///   - areLast: nobody will ask again. v2 tells of changes at most every 10 ms, so that the one which ended the
    ///     container need not have been told yet.
    mutating func newEvents(isReady: Bool, areLast: Bool) -> UInt64 {
        guard isReady || areLast && control == nil else { return 0 }
        var buffer = [UInt8](repeating: 0, count: 4096)
        let count = read(file.raw, &buffer, buffer.count)
        // In v1 the end of the group is told in the same way.
        guard let now = try? manager.oomKillCount() else { return 0 }
        defer { seen = now }
        if control == nil { return now > seen ? now - seen : 0 }
        return count == 8 ? max(1, now > seen ? now - seen : 0) : 0
    }
}

/// The cpuset of a group, for `events`.
private struct CpusetFiles {
    private let directory: String?
    private let isUnified: Bool

    init(_ manager: CgroupManager) {
        directory = manager.directory(of: .cpuset)
        isUnified = manager.layout.home(of: .cpuset)?.version == .v2
    }

    var json: JSONValue {
        guard let directory else { return [:] }
        var object = JSONObject()
        let suffix = isUnified ? ".effective" : ""
        object["cpus"] = list("\(directory)/cpuset.cpus\(suffix)")
        object["mems"] = list("\(directory)/cpuset.mems\(suffix)")
        let switches = [
            "cpu_exclusive", "mem_hardwall", "mem_exclusive", "memory_migrate", "memory_spread_page",
            "memory_spread_slab",
            "memory_pressure", "sched_load_balance", "sched_relax_domain_level",
        ]
        for name in switches {
            let number = isUnified ? nil : try? Int64(File.text("\(directory)/cpuset.\(name)"))
            object[name] = .integer(number ?? 0)
        }
        return .object(object)
    }

    /// `0-2,5` as numbers; nil for an empty list.
    private func list(_ path: String) -> JSONValue? {
        guard let text = try? File.text(path) else { return nil }
        var numbers: [JSONValue] = []
        for part in text.split(separator: ",") {
            let ends = part.split(separator: "-").compactMap { Int64($0) }
            guard let first = ends.first, let last = ends.last, first <= last, last - first < 65536 else { continue }
            numbers += (first...last).map { .integer($0) }
        }
        return numbers.isEmpty ? nil : .array(numbers)
    }
}
