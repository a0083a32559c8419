import Glibc
import Kernel

/// What a network device has carried since it was made.
package struct InterfaceCounters: Sendable, Equatable {
    package let name: String
    package let receivedBytes: UInt64
    package let receivedPackets: UInt64
    package let receiveErrors: UInt64
    package let receiveDrops: UInt64
    package let sentBytes: UInt64
    package let sentPackets: UInt64
    package let sendErrors: UInt64
    package let sendDrops: UInt64

    /// The devices in the network namespace of a process, without `lo`; none when the process is gone.
    ///
    /// - Throws: `KernelError`, also when the kernel's table is not understood (EPROTO).
    package static func of(process pid: pid_t) throws(KernelError) -> [InterfaceCounters] {
        let path = "/proc/\(pid)/net/dev"
        let text: String
        do throws(KernelError) {
            text = try File.text(path, limit: 4 << 20)
        } catch {
            // A zombie has no namespace any more: EINVAL.
            if [ENOENT, ESRCH, EINVAL].contains(error.errno) { return [] }
            throw error
        }
        guard let counters = parse(text) else { throw KernelError("parse", path, errno: EPROTO) }
        return counters.filter { $0.name != "lo" }
    }

    /// Reads /proc/net/dev, see proc_pid_net(5): two lines of headings, then `name: 8 numbers received, 8 sent`. Nil
    /// when it is something else.
    package static func parse(_ text: String) -> [InterfaceCounters]? {
        let lines = text.split(separator: "\n")
        guard lines.count >= 2, lines[0].contains("|") else { return nil }
        var result: [InterfaceCounters] = []
        for line in lines.dropFirst(2) {
            guard let colon = line.lastIndex(of: ":") else { return nil }
            let numbers = line[line.index(after: colon)...].split(separator: " ").compactMap { UInt64($0) }
            guard numbers.count >= 16 else { return nil }
            result.append(
                InterfaceCounters(
                    name: String(line[..<colon].drop { $0 == " " }), receivedBytes: numbers[0],
                    receivedPackets: numbers[1], receiveErrors: numbers[2], receiveDrops: numbers[3],
                    sentBytes: numbers[8], sentPackets: numbers[9], sendErrors: numbers[10], sendDrops: numbers[11]))
        }
        return result
    }
}
