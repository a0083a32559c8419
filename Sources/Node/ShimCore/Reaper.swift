import Glibc
import Kernel

/// Reaps all children: the runtimes we start, and what they leave to us as the sub-reaper.
final class Reaper {
    private var handlers: [pid_t: (ExitStatus) -> Void] = [:]
    /// Processes that ended before anybody knew what they were: a container's process may end before its runtime has.
    private var unclaimed: [pid_t: (status: ExitStatus, number: Int)] = [:]
    private var foreign = 0
    /// How many children have been reaped.
    private(set) var reaped = 0

    /// Calls `handler` when the child ends; at once if it has ended already.
    ///
    /// - Parameter moment: `reaped` at a time when the child was not there yet. An earlier end is that of another
    ///   process with the same number.
    func watch(_ pid: pid_t, since moment: Int, _ handler: @escaping (ExitStatus) -> Void) {
        if let end = unclaimed.removeValue(forKey: pid), end.number >= moment { return handler(end.status) }
        handlers[pid] = handler
    }

    /// Whether a child has not been reaped, so that its number is its own.
    func isWatched(_ pid: pid_t) -> Bool { handlers[pid] != nil }

    /// From here on, unknown children may get a handler later.
    func beginForeignChildren() { foreign += 1 }

    func endForeignChildren() {
        foreign -= 1
        if foreign == 0 { unclaimed = [:] }
    }

    /// Reaps all that have ended; called for every SIGCHLD.
    func reap() {
        while true {
            var status: Int32 = 0
            let pid = waitpid(-1, &status, WNOHANG)
            if pid < 0, errno == EINTR { continue }
            guard pid > 0 else { return }
            let ended = ExitStatus(waitStatus: status)
            if let handler = handlers.removeValue(forKey: pid) {
                handler(ended)
            } else if foreign > 0 {
                unclaimed[pid] = (ended, reaped)
            }
            reaped += 1
        }
    }
}

extension ExitStatus {
    /// From wait(2)'s status of a process that has ended.
    init(waitStatus status: Int32) {
        let signal = status & 0x7F
        self = signal == 0 ? .exited(status >> 8 & 0xFF) : .signaled(signal)
    }

    /// The signal that ended it.
    var signal: Int32? { if case .signaled(let number) = self { number } else { nil } }
}
