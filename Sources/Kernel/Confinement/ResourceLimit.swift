import Glibc
import Kernel

/// Why a resource limit is not acceptable.
package struct ResourceLimitError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The limit's name, as it was given.
    package let name: String
    /// What is wrong with it.
    package let reason: String

    package var description: String { "resource limit \(name): \(reason)" }
}

/// A soft and hard limit of setrlimit(2).
package struct ResourceLimit: Sendable, Equatable {
    /// `RLIMIT_NOFILE`.
    package let name: String
    /// The number for prlimit(2).
    package let resource: Int32
    /// `UInt64.max` is no limit.
    package let soft: UInt64
    /// As `soft`, and at least as much.
    package let hard: UInt64

    /// - Throws: `ResourceLimitError` for a name Linux does not have, and for a soft limit above the hard one.
    package init(name: String, soft: UInt64, hard: UInt64) throws(ResourceLimitError) {
        guard let resource = Self.names.firstIndex(of: name) else {
            throw ResourceLimitError(
                name: name, reason: "is none of Linux's: use one of " + Self.names.joined(separator: ", "))
        }
        guard soft <= hard else {
            throw ResourceLimitError(name: name, reason: "the soft limit \(soft) is above the hard limit \(hard)")
        }
        self.name = name
        self.resource = Int32(resource)
        self.soft = soft
        self.hard = hard
    }

    /// The text of an error when the kernel refused this limit.
    ///
    /// - Parameter errno: of prlimit(2).
    package func refusal(errno number: Int32) -> String {
        let wanted = "resource limit \(name) (soft \(Self.text(soft)), hard \(Self.text(hard)))"
        guard number == EPERM else { return "\(wanted): \(String(errno: number))" }
        return "\(wanted): \(String(errno: number)): raising a hard limit needs CAP_SYS_RESOURCE, which this process "
            + "lacks, and RLIMIT_NOFILE cannot pass /proc/sys/fs/nr_open: ask for at most \(currentHardText)"
    }

    private var currentHardText: String {
        var limits = rlimit()
        return getrlimit(resource, &limits) == 0
            ? Self.text(UInt64(limits.rlim_max)) : "the present hard limit"
    }

    private static func text(_ value: UInt64) -> String { value == .max ? "unlimited" : String(value) }

    /// The place of each is its number in asm-generic/resource.h, which x86, ARM, RISC-V, POWER and S/390 share.
    package static let names = [
        "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_CORE", "RLIMIT_RSS", "RLIMIT_NPROC",
        "RLIMIT_NOFILE", "RLIMIT_MEMLOCK", "RLIMIT_AS", "RLIMIT_LOCKS", "RLIMIT_SIGPENDING", "RLIMIT_MSGQUEUE",
        "RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_RTTIME",
    ]
}
