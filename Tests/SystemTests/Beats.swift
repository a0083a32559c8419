import Glibc
import Kernel
import Testing

/// Containers that write down every moment at which they run, in a folder of the machine where they do. All machines of
/// a fabric have one clock, so that what two of them wrote can be compared.
enum Beat {
    /// What a machine mounts into them.
    static let folder = "/mnt"
    /// Writes the seconds since the boot every 20 ms, without another process; `$0` is its name.
    private static let script = """
        [ -p /pace ] || mkfifo /pace; exec 3<>/pace; read host </etc/hostname
        while :; do read now rest </proc/uptime; echo $now; read -t 0.02 word <&3; done >>/beats/$0.$host
        """

    /// The program, for the end of a command line.
    ///
    /// - Parameter stubborn: it does not heed the signal that stops it.
    static func program(_ name: String, stubborn: Bool = false) -> [String] {
        ["busybox", "sh", "-c", (stubborn ? "trap '' TERM\n" : "trap 'exit 0' TERM\n") + script, name]
    }

    /// The flag that goes before the image.
    static let mount = ["-v", "\(folder):/beats"]

    /// What it wrote without a break on one machine.
    struct Stretch: CustomStringConvertible {
        let machine: String
        let first: Double
        var last: Double

        var description: String { "\(machine) from \(first) to \(last)" }
    }

    /// The first process of such a container.
    struct Process: Hashable, CustomStringConvertible {
        let name: String
        let machine: String
        let pid: pid_t

        var description: String { "\(name)@\(machine):\(pid)" }
    }
}

extension ClusterFabric {
    /// The same clock as that of the containers, in seconds.
    static func uptime() throws -> Double { Double(Proc.uptimeNanoseconds()) / 1e9 }

    /// Gives machines the folder for beats; anew after a reboot.
    func mountBeats(_ machines: [Machine]? = nil) throws {
        for machine in machines ?? nodes {
            try File.makeDirectories("\(machine.folder)/beats")
            try expectSuccess(machine.run(["mount", "--bind", "\(machine.folder)/beats", Beat.folder]))
        }
    }

    /// A service of containers that beat.
    func service(_ name: String, _ flags: [String], stubborn: Bool = false) throws {
        try expectSuccess(
            run(["service", "create", "--name", name] + Beat.mount + flags + Beat.program(name, stubborn: stubborn)))
    }

    /// The containers that run now, as /proc has them, whatever anybody says.
    func beating() throws -> Set<Beat.Process> {
        let machines = nodes + others
        var found: Set<Beat.Process> = []
        for pid in try File.list("/proc").compactMap({ pid_t($0) }) {
            guard let bytes = try? File.read("/proc/\(pid)/cmdline", limit: 4096) else { continue }
            let words = bytes.split(separator: 0, omittingEmptySubsequences: false).dropLast()
                .map { String(decoding: $0, as: UTF8.self) }
            guard words.count == 4, words[2].contains("/beats/"),
                // Not what it starts for a moment itself.
                let status = try? Proc.status(pid), status["NSpid"]?.hasSuffix("\t1") ?? false,
                let groups = try? File.text("/proc/\(pid)/cgroup"),
                let machine = machines.first(where: { groups.contains("/\($0.cgroupParent)/") })
            else { continue }
            found.insert(Beat.Process(name: words[3], machine: machine.name, pid: pid))
        }
        return found
    }

    /// When and where a service of one instance ran, all machines' files together: if two ran at the same time, their
    /// stretches alternate.
    func stretches(of name: String) throws -> [Beat.Stretch] {
        var beats: [(time: Double, machine: String)] = []
        for machine in nodes + others {
            let folder = "\(machine.folder)/beats"
            guard File.exists(folder) else { continue }
            for file in try File.list(folder) where file.hasPrefix("\(name).") {
                let lines = try File.text("\(folder)/\(file)", limit: 64 << 20).split(separator: "\n")
                beats += lines.compactMap { line in Double(line).map { ($0, machine.name) } }
            }
        }
        var stretches: [Beat.Stretch] = []
        for beat in beats.sorted(by: { ($0.time, $0.machine) < ($1.time, $1.machine) }) {
            if let last = stretches.last, last.machine == beat.machine {
                stretches[stretches.count - 1].last = beat.time
            } else {
                stretches.append(Beat.Stretch(machine: beat.machine, first: beat.time, last: beat.time))
            }
        }
        return stretches
    }

    /// Looks every 50 ms at what runs, for so long, or until it says to stop.
    ///
    /// - Parameter look: gets what runs, and the seconds since the beginning; false: it has seen enough.
    /// - Returns: how often it looked.
    @discardableResult
    func watch(_ seconds: Double, _ look: (Set<Beat.Process>, Double) throws -> Bool) throws -> Int {
        let start = try Self.uptime()
        var looks = 0
        while true {
            let time = try Self.uptime() - start
            guard time < seconds else { return looks }
            looks += 1
            guard try look(try beating(), time) else { return looks }
            usleep(50_000)
        }
    }

    /// Waits until containers run where they are expected, by name the names of machines.
    ///
    /// - Parameter always: what has to hold in the meantime.
    /// - Returns: what runs then.
    @discardableResult
    func awaitPlaces(
        _ expected: [String: [String]], sourceLocation: SourceLocation = #_sourceLocation,
        always: (Set<Beat.Process>) -> Bool = { _ in true }
    ) throws -> Set<Beat.Process> {
        var last: Set<Beat.Process> = []
        var isThere = false
        try watch(60) { running, time in
            last = running
            #expect(always(running), "after \(time) s: \(running)", sourceLocation: sourceLocation)
            isThere = expected.allSatisfy { running.places($0.key) == $0.value }
            return !isThere
        }
        let wrong = expected.filter { last.places($0.key) != $0.value }
            .map { "\($0.key) at \(last.places($0.key)), not \($0.value)" }
        let said = isThere ? "" : try martlet("ps", "-a", "--no-trunc").output
        try #require(isThere, "\(wrong.sorted())\n\(said)", sourceLocation: sourceLocation)
        return last
    }

    /// For some seconds nothing begins and nothing ends.
    func expectStill(
        _ seconds: Double, _ expected: Set<Beat.Process>, sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        try watch(seconds) { running, time in
            let (more, less) = (running.subtracting(expected), expected.subtracting(running))
            #expect(
                more.isEmpty && less.isEmpty, "after \(time) s: more \(more), less \(less)",
                sourceLocation: sourceLocation)
            return more.isEmpty && less.isEmpty
        }
    }
}

extension Set<Beat.Process> {
    /// Names of machines on which containers of the name run, sorted; one twice where two do.
    func places(_ name: String) -> [String] { filter { $0.name == name }.map(\.machine).sorted() }
}
