import CStage
import Glibc
import Kernel
import OCISpec

/// The runtime's end of the conversation with a process that is becoming a container's.
struct Supervisor {
    let channel: Channel
    let process: ProcessPlan
    let log: RuntimeLog
    private var hooks = HooksSpec()
    private var netDevices: [LinkTransfer] = []
    /// Whether the child stops where the runtime has something to do.
    private(set) var isNeeded = false
    /// What hooks in the runtime's namespaces read.
    var state = RuntimeState(ociVersion: "", id: "", status: .creating, pid: 0, bundle: "")
    /// Who gets the listener of the process's filter; nil when that asks nobody.
    var listener: SeccompListener?
    /// The main side of the terminal, once the child has sent it.
    private(set) var terminal: SharedFD?

    /// For a container's first process.
    init(channel: Channel, plan: ContainerPlan, log: RuntimeLog) {
        self.init(channel: channel, process: plan.process, log: log)
        hooks = plan.hooks
        netDevices = plan.netDevices
        isNeeded = plan.needsRuntime
    }

    /// For a process that enters a container.
    init(channel: Channel, process: ProcessPlan, log: RuntimeLog) {
        self.channel = channel
        self.process = process
        self.log = log
    }

    /// Sends a message; that nobody is there to read it is found out, with the reason, by `follow`.
    func tell(_ kind: cs_kind, _ text: String = "", descriptors: [Int32] = []) throws {
        do {
            try channel.send(kind, text, descriptors: descriptors)
        } catch let error as KernelError where error.errno == EPIPE || error.errno == ECONNRESET {
            return
        }
    }

    /// The word to go on to the program, without what the runtime ignores.
    func tellToGo(_ kind: cs_kind) throws { try tell(kind, String(cs_ignored_signals(), radix: 16)) }

    /// Answers what the child asks, until it says `kind` (nil: until it is gone from the channel, which means that the
    /// program is being executed).
    ///
    /// - Throws: what the child reports as its failure, or how it ended.
    mutating func follow(_ process: borrowing ChildProcess, until kind: cs_kind?) throws {
        while let message = try channel.receive() {
            switch cs_kind(message.kind) {
            case CS_FAILED: throw RuntimeError(self.process.explain(message))
            case CS_WARNING: log.write(.warning, message.text)
            case CS_TERMINAL: terminal = message.descriptor
            case CS_LISTENER:
                let failure = try listener?.serve(
                    message, on: channel, pidfd: process.pidfd.raw, pid: process.pid, state: state)
                if let failure { throw RuntimeError(self.process.explain(failure)) }
            case CS_HOOKS:
                try NetDevices.move(netDevices, to: process.pid)
                try Hooks.run(hooks.prestart, .prestart, state: state)
                try Hooks.run(hooks.createRuntime, .createRuntime, state: state)
                try tell(CS_HOOKS_DONE)
            default: break
            }
            if let kind, message.kind == kind.rawValue { return }
        }
        if kind != nil { throw Self.unexpectedEnd(process) }
    }

    /// Runs a step that fails when the child has ended meanwhile; then the child's own reason is the better one.
    mutating func explainingEnd(of process: borrowing ChildProcess, _ body: () throws -> Void) throws {
        do {
            try body()
        } catch {
            var gone = pollfd(fd: process.pidfd.raw, events: Int16(POLLIN), revents: 0)
            guard poll(&gone, 1, 0) == 1 else { throw error }
            while let message = try channel.receive() {
                if message.kind == CS_FAILED.rawValue { throw RuntimeError(self.process.explain(message)) }
            }
            throw Self.unexpectedEnd(process)
        }
    }

    private static func unexpectedEnd(_ process: borrowing ChildProcess) -> RuntimeError {
        guard let status = try? process.wait() else { return RuntimeError("the container's process is gone") }
        switch status {
        case .signaled(SIGKILL):
            return RuntimeError(
                "the container's process was killed while it set itself up: is the memory limit too low?")
        case .signaled(let number): return RuntimeError("the container's process was killed by signal \(number)")
        case .exited(let code): return RuntimeError("the container's process ended early with status \(code)")
        }
    }
}
