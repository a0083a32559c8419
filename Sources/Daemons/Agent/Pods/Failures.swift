import AgentCore
import Cgroups
import Glibc
import Images
import Kernel
import Networking
import Reactor

extension ExecutorFailure {
    /// What the core is told of any error.
    ///
    /// - Parameter doing: what failed, to be read before a colon: `cannot start container web`.
    init(_ error: any Error, _ doing: String) {
        if let failure = error as? ExecutorFailure {
            self = failure
            return
        }
        self.init(
            "\(doing): \(error)", exitCode: Self.exitCode(error), isTransient: Self.isTransient(error))
    }

    /// Whether it may pass by itself.
    static func isTransient(_ error: any Error) -> Bool {
        switch error {
        case let error as KernelError: [ENOSPC, EDQUOT, ENOMEM, EMFILE, ENFILE, EAGAIN].contains(error.errno)
        case let error as CgroupError: [ENOSPC, ENOMEM, EAGAIN].contains(error.errno)
        case let error as ImageError: error.kind == .noSpace || error.kind == .unavailable
        case is BlockingPoolError, is CancellationError: true
        case let error as ShimError: error.kind != .refused || mentionsFullDisk(error.description)
        case let error as NetworkError: error.kind == .failed && mentionsFullDisk(error.description)
        case let error as ProgramError: if case .timeout = error { true } else { false }
        default: false
        }
    }

    /// Errors of other programs come as text only.
    private static func mentionsFullDisk(_ text: String) -> Bool {
        text.lowercased().contains("no space left on device")
    }

    /// 127: there is no such program; 126: it may not be executed. The words are those of all OCI runtimes.
    private static func exitCode(_ error: any Error) -> Int {
        guard let error = error as? ShimError, error.kind == .refused else { return 125 }
        return shellCode(error.description)
    }

    static func shellCode(_ text: String) -> Int {
        let text = text.lowercased()
        if text.contains("executable file not found") || text.contains("exec: ") && text.contains("no such file") {
            return 127
        }
        if text.contains("exec: ") && (text.contains("permission denied") || text.contains("is a directory"))
            || text.contains("exec format error")
        {
            return 126
        }
        return 125
    }
}
