import CKernel
import Glibc
import Kernel

/// Descriptors that a service manager gave us for the container's program, see sd_listen_fds(3): from 3 on.
struct SocketActivation {
    /// 0 without any.
    let count: Int32
    /// What tells the program about them, which is the first of its pid namespace.
    let environment: [String]

    /// From the environment, when that is meant for this process.
    init() {
        func text(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }
        guard let given = text("LISTEN_FDS").flatMap({ Int32($0) }), given > 0,
            text("LISTEN_PID").flatMap({ pid_t($0) }) == getpid()
        else {
            count = 0
            environment = []
            return
        }
        count = given
        let names = text("LISTEN_FDNAMES").map { ["LISTEN_FDNAMES=\($0)"] } ?? []
        environment = ["LISTEN_FDS=\(given)", "LISTEN_PID=1"] + names
    }
}

/// The descriptors from 3 on that the caller's program gets.
enum PassedDescriptors {
    static let most: Int32 = 1024

    /// `--preserve-fds N`, behind those of socket activation.
    ///
    /// - Returns: how many there are from 3 on, all together.
    /// - Throws: `RuntimeError` for one that is not open, so that none of ours takes its place.
    static func count(_ arguments: Arguments, after activated: Int32 = 0) throws -> Int32 {
        var added: Int32 = 0
        if let text = arguments.value("preserve-fds") {
            guard let number = Int32(text), number >= 0 else {
                throw RuntimeError("--preserve-fds: '\(text)' is no count")
            }
            added = number
        }
        guard activated <= most, added <= most - activated else {
            throw RuntimeError("--preserve-fds: more than \(most) descriptors, with those of LISTEN_FDS")
        }
        for number in 3..<(3 + activated + added) {
            let flags = ck_fcntl(number, F_GETFD, 0)
            // All that we opened ourselves closes on execve; nothing that came through one does.
            guard flags >= 0, flags & FD_CLOEXEC == 0 else {
                throw RuntimeError("--preserve-fds: descriptor \(number) is not open")
            }
        }
        return activated + added
    }
}
