import Agent
import ArgumentParser
import Cgroups
import Glibc
import Kernel
import Networking

struct Doctor: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor", abstract: "Explain what this machine offers, lacks and has taken.")
    @OptionGroup var place: PlaceOptions
    @OptionGroup var node: NodeOptions
    @OptionGroup var format: FormatOptions

    enum Verdict: String { case good, warning, bad }

    struct Finding: Encodable {
        let subject: String
        let verdict: String
        let text: String
    }

    func run() async throws {
        var table = Table("Subject", "Verdict", "Finding")
        var bad = false
        for (subject, examine) in examinations {
            let (verdict, text) = examine()
            bad = bad || verdict == .bad
            try table.add(
                Finding(subject: subject, verdict: verdict.rawValue, text: text), subject, verdict.rawValue, text)
        }
        try table.print(format)
        if bad { throw CommandFailure("this machine cannot run pods as it is: see what is bad above") }
    }

    private var examinations: [(String, () -> (Verdict, String))] {
        [
            ("user", user), ("kernel", kernel), ("cgroups", cgroups), ("overlayfs", overlay),
            ("namespaces", namespaces),
            ("capabilities", capabilities), ("programs", programs), ("network", network), ("disk", disk),
            ("daemons", daemons),
        ]
    }

    private func user() -> (Verdict, String) {
        geteuid() == 0 ? (.good, "root") : (.bad, "user \(geteuid()): run as root or with sudo")
    }

    private func kernel() -> (Verdict, String) {
        guard let release = try? File.text("/proc/sys/kernel/osrelease") else { return (.bad, "/proc is not mounted") }
        let numbers = release.split(whereSeparator: { !$0.isNumber }).prefix(2).compactMap { Int($0) }
        guard numbers.count == 2 else { return (.warning, "'\(release)' names no version; 5.15 or later is needed") }
        let fits = (numbers[0], numbers[1]) >= (5, 15)
        return fits ? (.good, release) : (.bad, "\(release): 5.15 or later is needed")
    }

    private func cgroups() -> (Verdict, String) {
        do {
            let layout = try CgroupLayout.detect()
            let wanted: [CgroupController] = [.cpu, .memory, .pids]
            let missing = wanted.filter { layout.home(of: $0) == nil }
            guard missing.isEmpty else {
                return (
                    .warning,
                    "no controller \(missing.map { "\($0)" }.joined(separator: ", ")): its limits will be refused"
                )
            }
            let versions = Set(wanted.compactMap { layout.home(of: $0)?.version })
            let kind = versions == [.v2] ? "pure v2" : layout.unified == nil ? "v1" : "hybrid"
            return (.good, "\(kind): every limit can be applied")
        } catch {
            return (.bad, "\(error)")
        }
    }

    private func overlay() -> (Verdict, String) {
        let known = (try? File.text("/proc/filesystems"))?.contains("overlay") ?? false
        return known ? (.good, "present") : (.bad, "the kernel does not know overlayfs: `modprobe overlay`")
    }

    private func namespaces() -> (Verdict, String) {
        let missing = ["mnt", "net", "pid", "ipc", "uts"].filter { !File.exists("/proc/self/ns/\($0)") }
        return missing.isEmpty ? (.good, "all") : (.bad, "the kernel lacks: \(missing.joined(separator: ", "))")
    }

    private func capabilities() -> (Verdict, String) {
        guard let text = try? Proc.status(getpid())?["CapEff"], let set = UInt64(text, radix: 16) else {
            return (.warning, "cannot be read")
        }
        // Bits of linux/capability.h.
        let needed = [
            ("SYS_ADMIN", 21), ("NET_ADMIN", 12), ("SYS_CHROOT", 18), ("MKNOD", 27), ("SETUID", 7), ("SETGID", 6),
        ]
        let missing = needed.filter { set & 1 << $0.1 == 0 }.map(\.0)
        if !missing.isEmpty { return (.bad, "root lacks \(missing.joined(separator: ", "))") }
        if set & 1 << 24 == 0 {
            return (.warning, "root lacks SYS_RESOURCE: rlimits cannot be raised above the hard limits")
        }
        return (.good, "all that is needed")
    }

    private func programs() -> (Verdict, String) {
        do {
            let names = ["martlet-shim", "martlet-runtime", "martlet-overlay", "portmap"]
            return (.good, try names.map { try SmallProgram.find($0) }.joined(separator: ", "))
        } catch {
            return (.bad, "\(error)")
        }
    }

    private func network() -> (Verdict, String) {
        do {
            let conflicts = try BridgeNetwork(node.agentConfiguration(place).network).conflicts()
            return conflicts.isEmpty
                ? (.good, "bridge \(node.bridge), subnet \(node.subnet)")
                : (.bad, conflicts.map(\.description).joined(separator: "; "))
        } catch {
            return (.bad, "\(error)")
        }
    }

    private func disk() -> (Verdict, String) {
        var path = place.dataDir
        while !File.exists(path), let slash = path.lastIndex(of: "/"), slash != path.startIndex {
            path = String(path[..<slash])
        }
        var info = statvfs()
        guard statvfs(path.isEmpty ? "/" : path, &info) == 0 else {
            return (.warning, "\(path): \(String(errno: errno))")
        }
        let free = Int64(info.f_bavail) * Int64(info.f_frsize)
        return (free < 1 << 30 ? .warning : .good, "\(ByteSize.text(free)) free for \(place.dataDir)")
    }

    private func daemons() -> (Verdict, String) {
        let running = DaemonRole.allCases.compactMap { role in
            place.runningDaemon(role).map { "\(role.rawValue) (process \($0))" }
        }
        return (.good, running.isEmpty ? "none runs" : running.joined(separator: ", "))
    }
}
