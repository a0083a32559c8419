import Glibc
import JSON
import Kernel
import ShimProtocol
import StreamFrames

/// A further process in a container.
final class Exec {
    let spec: ShimExec
    let io: ProcessIO
    let pid: pid_t
    private let loop: EventLoop
    private let finished: (Exec) -> Void
    private(set) var state: ShimExecState
    /// Set once it is reaped; its number may then be another's.
    private var isReaped = false
    private var deadline: Int?

    /// A process that the runtime has started; `finished` is called once, when all its output is read.
    init(_ spec: ShimExec, pid: pid_t, io: ProcessIO, loop: EventLoop, finished: @escaping (Exec) -> Void) {
        self.spec = spec
        self.pid = pid
        self.io = io
        self.loop = loop
        self.finished = finished
        state = ShimExecState(
            container: spec.container, execID: spec.execID, pid: pid, startedAt: .now())
        if let seconds = spec.deadlineSeconds {
            deadline = loop.after(milliseconds: Int64(seconds) * 1000) { [unowned self] in killAll() }
        }
    }

    deinit { loop.cancel(deadline) }

    func signal(_ number: Int32) {
        guard !isReaped, (1...64).contains(number) else { return }
        kill(pid, number)
    }

    /// The process and, since runtimes make it a session's leader, those of its process group.
    private func killAll() {
        guard !isReaped else { return }
        kill(pid, SIGKILL)
        kill(-pid, SIGKILL)
    }

    /// The process was reaped.
    func processEnded(_ status: ExitStatus) {
        isReaped = true
        loop.cancel(deadline)
        state.finishedAt = .now()
        io.drain { [self] in
            state.exitCode = status.shellCode
            for connection in io.detachAll() {
                connection.send(.exit(status.shellCode))
                connection.finish()
            }
            finished(self)
        }
    }
}
