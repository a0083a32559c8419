import DeviceDiscovery
import Glibc
import Kernel
import NVMLReport
import Synchronization

/// What came of asking NVML.
package enum NVMLOutcome: Sendable, Equatable {
    case inventory(NVMLInventory)
    /// There is no library, in words: a machine without NVIDIA's driver. No error.
    case absent(String)
    case trouble(NVMLTrouble)
}

/// Why NVML says nothing.
package struct NVMLTrouble: Error, Sendable, Equatable, CustomStringConvertible {
    package enum Kind: Sendable, Equatable {
        /// It did not answer in time and was ended.
        case hung
        /// It did not end either: it waits in the kernel, inside the driver.
        case stuck
        /// The helper ended by a signal or without a word.
        case crashed
        /// The library or the driver refused.
        case refused(NVMLFailure.Reason)
        /// What the helper wrote is none of its lines, or too much.
        case garbled
        /// The helper could not be started.
        case notStarted
    }

    package let kind: Kind
    /// What failed, why, and what to do next.
    package let description: String

    package init(_ kind: Kind, _ description: String) {
        self.kind = kind
        self.description = description
    }
}

/// Runs martlet-nvml, which is what loads NVML, and bounds what it can do to its caller: time, output, and that a process
/// that cannot be killed is left behind instead of waited for.
package final class NVMLHelper: Sendable {
    private let program: String
    private let roots: DeviceRoots
    private let environment: [String]
    private let timeoutMilliseconds: Int
    private let endMilliseconds: Int
    /// Helpers that did not end when they were killed. While there is one no other is started: it would get stuck too, and
    /// processes in the driver keep it from being reset.
    private let left = Mutex<LeftHelper?>(nil)

    /// - Parameters:
    ///   - program: martlet-nvml's path.
    ///   - environment: of its environment, beside what it always has; nothing is inherited.
    ///   - timeoutMilliseconds: for one inventory. A driver that was not in use initialises every GPU first, which takes
    ///     seconds each.
    ///   - endMilliseconds: for its end after it was killed.
    package init(
        program: String, roots: DeviceRoots = DeviceRoots(), environment: [String] = [],
        timeoutMilliseconds: Int = 60_000, endMilliseconds: Int = 5000
    ) {
        self.program = program
        self.roots = roots
        // Swift would catch a crash of the driver's library and write pages about it; how it ended is all that is wanted.
        self.environment = ["SWIFT_BACKTRACE=enable=no"] + environment
        self.timeoutMilliseconds = timeoutMilliseconds
        self.endMilliseconds = endMilliseconds
    }

    /// Asks once; blocks the calling thread for at most both times together.
    package func inventory() -> NVMLOutcome {
        do throws(NVMLTrouble) {
            let run = try start("inventory", [])
            let deadline = HelperRun.now() + Int64(timeoutMilliseconds)
            var line: [UInt8]?
            while true {
                switch run.next(until: deadline) {
                case .line(let bytes):
                    guard line == nil else {
                        throw end(run, NVMLTrouble(.garbled, "\(program) wrote more than a line"))
                    }
                    line = bytes
                case .ended(let status): return try outcome(line, status, run)
                case .tooLong: throw end(run, Self.tooLong(program))
                case .late: throw end(run, late("to tell what GPUs there are"))
                case .woken: continue
                case .failed(let error): throw end(run, NVMLTrouble(.crashed, "\(error)"))
                }
            }
        } catch {
            return NVMLOutcome(error)
        }
    }

    /// Starts it in a session of its own.
    func start(_ verb: String, _ options: [String]) throws(NVMLTrouble) -> HelperRun {
        if let pid = left.withLock({ $0.checked() }) {
            throw NVMLTrouble(
                .stuck,
                "process \(pid) of an earlier call still waits in NVIDIA's driver and cannot be killed: "
                    + "see dmesg; a reset of the GPU or a reboot ends it")
        }
        let arguments = [verb] + options + roots.libraries.flatMap { ["--library", $0] }
        do throws(KernelError) {
            return HelperRun(try Program(program, arguments, environment: environment).start(), name: program)
        } catch {
            throw NVMLTrouble(.notStarted, "\(program) cannot be started: \(error)")
        }
    }

    /// Ends it and says why. When it does not end, that is what is said.
    func end(_ run: HelperRun, _ trouble: NVMLTrouble) -> NVMLTrouble {
        if run.end(within: endMilliseconds) { return trouble }
        left.withLock { $0 = LeftHelper(run) }
        return NVMLTrouble(
            .stuck,
            "\(trouble); process \(run.pid) cannot be killed, since it waits in NVIDIA's driver: "
                + "see dmesg; a reset of the GPU or a reboot ends it")
    }

    /// Milliseconds without a line after which a watch counts as hung.
    func silence(intervals: Int, of interval: Int) -> Int64 { Int64(timeoutMilliseconds + intervals * interval) }

    func late(_ what: String) -> NVMLTrouble {
        NVMLTrouble(
            .hung, "NVIDIA's driver took more than \(timeoutMilliseconds) ms \(what), and was given up: see dmesg")
    }

    static func tooLong(_ program: String) -> NVMLTrouble {
        NVMLTrouble(.garbled, "\(program) wrote a line of more than \(NVMLLine.limit) bytes")
    }

    /// What a helper that ended by itself has said.
    func outcome(_ line: [UInt8]?, _ status: ExitStatus, _ run: HelperRun) throws(NVMLTrouble) -> NVMLOutcome {
        let parsed: NVMLLine?
        do {
            parsed = try line.map { try NVMLLine($0) }
        } catch {
            throw NVMLTrouble(
                .garbled, "\(program) wrote what is no line of its protocol: \(error): are both of one version?")
        }
        switch (parsed, status) {
        case (.failure(let failure), .exited(1)): throw Self.trouble(failure)
        case (.inventory(let inventory), .exited(0)): return .inventory(inventory)
        default: throw crash(status, run)
        }
    }

    static func trouble(_ failure: NVMLFailure) -> NVMLTrouble {
        NVMLTrouble(.refused(failure.reason), failure.message)
    }

    func crash(_ status: ExitStatus, _ run: HelperRun) -> NVMLTrouble {
        let how =
            switch status {
            case .signaled(let number): "was ended by signal \(number)"
            case .exited(let code): "ended with status \(code)"
            }
        let words = run.errorText
        return NVMLTrouble(
            .crashed,
            "\(program) \(how) while it spoke with NVIDIA's driver\(words.isEmpty ? "" : ": \(words)"): "
                + "see dmesg, and whether nvidia-smi works")
    }
}

extension NVMLOutcome {
    /// No library is no trouble.
    init(_ trouble: NVMLTrouble) {
        self = trouble.kind == .refused(.libraryMissing) ? .absent(trouble.description) : .trouble(trouble)
    }
}

/// A helper that was killed and did not end.
private struct LeftHelper: Sendable {
    let run: HelperRun
    init(_ run: HelperRun) { self.run = run }
}

extension LeftHelper? {
    /// Its process number, and nil once it has ended.
    fileprivate mutating func checked() -> pid_t? {
        guard let helper = self else { return nil }
        if helper.run.end(within: 0) {
            self = nil
            return nil
        }
        return helper.run.pid
    }
}
