import CKernel
import Glibc

/// What /proc/<pid>/stat says about a process, see proc_pid_stat(5).
package struct ProcessStat: Sendable, Equatable {
    /// Its number in the reader's pid namespace.
    package let pid: pid_t
    /// At most 15 bytes; the process chooses it.
    package let command: String
    /// `R`, `S`, `D`, `Z`, `X`, `T`, …
    package let state: Character
    package let parent: pid_t
    package let userTicks: UInt64
    package let systemTicks: UInt64
    package let threads: Int
    /// Clock ticks after boot: with the pid it names a process for as long as the machine runs.
    package let startTime: UInt64
    /// Pages.
    package let residentPages: UInt64

    /// True when it has ended and waits to be reaped.
    package var hasEnded: Bool { state == "Z" || state == "X" || state == "x" }
}

/// Facts from procfs.
package enum Proc {
    /// - Returns: nil when there is no such process.
    package static func stat(_ pid: pid_t) throws(KernelError) -> ProcessStat? {
        let path = "/proc/\(pid)/stat"
        let bytes: [UInt8]
        do throws(KernelError) {
            bytes = try File.read(path, limit: 16384)
        } catch {
            if error.errno == ENOENT || error.errno == ESRCH { return nil }
            throw error
        }
        guard let result = parse(stat: bytes) else { throw KernelError("parse", path, errno: EPROTO) }
        return result
    }

    /// Parses a stat line; the command may contain blanks and parentheses, so the last `)` ends it.
    package static func parse(stat bytes: [UInt8]) -> ProcessStat? {
        guard let open = bytes.firstIndex(of: UInt8(ascii: "(")), let close = bytes.lastIndex(of: UInt8(ascii: ")")),
            open < close, open > 0
        else { return nil }
        // fields[0] is field 3 of the manual page.
        let fields = bytes[(close + 1)...].split(whereSeparator: { $0 == 32 || $0 == 10 })
        guard fields.count >= 22, let state = fields[0].first else { return nil }
        func number<Number: FixedWidthInteger>(_ field: ArraySlice<UInt8>) -> Number? {
            Number(String(decoding: field, as: UTF8.self))
        }
        guard let pid: pid_t = number(bytes[..<(open - 1)]), let parent: pid_t = number(fields[1]),
            let user: UInt64 = number(fields[11]), let system: UInt64 = number(fields[12]),
            let threads: Int = number(fields[17]), let start: UInt64 = number(fields[19]),
            let resident: UInt64 = number(fields[21])
        else { return nil }
        return ProcessStat(
            pid: pid, command: String(decoding: bytes[(open + 1)..<close], as: UTF8.self),
            state: Character(Unicode.Scalar(state)), parent: parent, userTicks: user, systemTicks: system,
            threads: threads, startTime: start, residentPages: resident)
    }

    /// The fields of /proc/<pid>/status, `Name` to value; nil when there is no such process.
    package static func status(_ pid: pid_t) throws(KernelError) -> [String: String]? {
        let text: String
        do throws(KernelError) {
            text = try File.text("/proc/\(pid)/status", limit: 65536)
        } catch {
            if error.errno == ENOENT || error.errno == ESRCH { return nil }
            throw error
        }
        var fields: [String: String] = [:]
        for line in text.split(separator: "\n") {
            guard let colon = line.firstIndex(of: ":") else { continue }
            let value = line[line.index(after: colon)...]
            fields[String(line[..<colon])] = String(value.drop { $0 == "\t" || $0 == " " })
        }
        return fields
    }

    /// The children of a process (of all its threads); empty when it is gone. Needs CONFIG_PROC_CHILDREN.
    package static func children(_ pid: pid_t) throws(KernelError) -> [pid_t] {
        let tasks: [String]
        do throws(KernelError) {
            tasks = try File.list("/proc/\(pid)/task")
        } catch {
            if error.errno == ENOENT || error.errno == ESRCH { return [] }
            throw error
        }
        var result: [pid_t] = []
        for task in tasks {
            guard let text = try? File.text("/proc/\(pid)/task/\(task)/children") else { continue }
            result += text.split(separator: " ").compactMap { pid_t($0) }
        }
        return result
    }

    /// The kernel's random name of this boot, 36 characters.
    package static func bootID() throws(KernelError) -> String {
        try File.text("/proc/sys/kernel/random/boot_id", limit: 128)
    }

    /// Time since boot including suspension, in nanoseconds (CLOCK_BOOTTIME).
    package static func uptimeNanoseconds() -> Int64 {
        var time = timespec()
        // It fails for a clock that is not there only; this one is since Linux 2.6.39.
        clock_gettime(CLOCK_BOOTTIME, &time)
        return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
    }

    /// A descriptor of the process that has this pid now; nil when there is none.
    package static func open(_ pid: pid_t) throws(KernelError) -> OwnedFD? {
        do throws(KernelError) {
            return OwnedFD(
                adopting: Int32(try systemCall("pidfd_open", "process \(pid)") { ck_pidfd_open(pid, 0) }))
        } catch {
            if error.errno == ESRCH { return nil }
            throw error
        }
    }

    /// A descriptor of the very process that had this pid and start time; nil when it has ended (reaped or not) or the
    /// number belongs to another one by now.
    package static func open(_ pid: pid_t, startedAt start: UInt64) throws(KernelError) -> OwnedFD? {
        // The descriptor first: what is true of the number afterwards is true of the descriptor's process.
        guard let process = try open(pid) else { return nil }
        guard let stat = try stat(pid), stat.startTime == start, !stat.hasEnded else { return nil }
        return process
    }
}
