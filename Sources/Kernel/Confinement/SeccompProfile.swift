import CKernel
import CSeccomp
import Glibc

/// Why a seccomp profile is not acceptable or could not be compiled.
package struct SeccompError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The part of the profile: an action, a flag, a system call.
    package let subject: String
    /// What is wrong with it.
    package let reason: String
    /// The error number of libseccomp, or 0.
    package let errno: Int32

    /// Puts an error together; see the properties.
    package init(_ subject: String, _ reason: String, errno: Int32 = 0) {
        self.subject = subject
        self.reason = reason
        self.errno = errno
    }

    package var description: String {
        "seccomp: \(subject): \(reason)" + (errno == 0 ? "" : ": \(String(cString: strerror(errno)))")
    }
}

/// What the kernel does with a system call, see seccomp(2).
package enum SeccompAction: Sendable, Hashable {
    case killProcess
    case killThread
    case trap
    /// Fails with this error number, at most 4095.
    case errno(UInt16)
    /// Tells a tracer, with this message.
    case trace(UInt16)
    case log
    /// Asks whoever holds the filter's listener, see seccomp_unotify(2).
    case notify
    case allow

    /// From the OCI specification's name and its `errnoRet`, EPERM where that is absent.
    ///
    /// - Throws: `SeccompError` for an unknown name, and for an `errnoRet` that is out of range or beside an action that
    ///   takes none.
    package init(name: String, errnoRet: UInt32? = nil) throws(SeccompError) {
        let number = errnoRet ?? UInt32(EPERM)
        switch name {
        case "SCMP_ACT_ERRNO":
            guard number <= 4095 else { throw SeccompError(name, "errnoRet \(number) is above 4095") }
            self = .errno(UInt16(number))
            return
        case "SCMP_ACT_TRACE":
            guard number <= 0xffff else { throw SeccompError(name, "errnoRet \(number) is above 65535") }
            self = .trace(UInt16(number))
            return
        case "SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD": self = .killThread
        case "SCMP_ACT_KILL_PROCESS": self = .killProcess
        case "SCMP_ACT_TRAP": self = .trap
        case "SCMP_ACT_LOG": self = .log
        case "SCMP_ACT_ALLOW": self = .allow
        case "SCMP_ACT_NOTIFY": self = .notify
        default: throw SeccompError("action \(name)", "is not known")
        }
        guard errnoRet == nil else { throw SeccompError(name, "takes no errnoRet") }
    }

    /// SECCOMP_RET_* with its data, which is also libseccomp's number for it.
    package var code: UInt32 {
        switch self {
        case .killProcess: 0x8000_0000
        case .killThread: 0
        case .trap: 0x0003_0000
        case .errno(let number): 0x0005_0000 | UInt32(number)
        case .trace(let message): 0x7ff0_0000 | UInt32(message)
        case .log: 0x7ffc_0000
        case .notify: 0x7fc0_0000
        case .allow: 0x7fff_0000
        }
    }

    /// Whether the call may go on after it, so that a new system call need not be hidden.
    var lets: Bool {
        switch self {
        case .allow, .log, .trace, .notify: true
        case .killProcess, .killThread, .trap, .errno: false
        }
    }
}

/// A calling convention that a profile covers, by the OCI specification's name.
package enum SeccompArchitecture: String, Sendable, Hashable, CaseIterable {
    case x86 = "SCMP_ARCH_X86"
    case x8664 = "SCMP_ARCH_X86_64"
    case x32 = "SCMP_ARCH_X32"
    case arm = "SCMP_ARCH_ARM"
    case aarch64 = "SCMP_ARCH_AARCH64"
    case mips = "SCMP_ARCH_MIPS"
    case mips64 = "SCMP_ARCH_MIPS64"
    case mips64n32 = "SCMP_ARCH_MIPS64N32"
    case mipsel = "SCMP_ARCH_MIPSEL"
    case mipsel64 = "SCMP_ARCH_MIPSEL64"
    case mipsel64n32 = "SCMP_ARCH_MIPSEL64N32"
    case ppc = "SCMP_ARCH_PPC"
    case ppc64 = "SCMP_ARCH_PPC64"
    case ppc64le = "SCMP_ARCH_PPC64LE"
    case s390 = "SCMP_ARCH_S390"
    case s390x = "SCMP_ARCH_S390X"
    case parisc = "SCMP_ARCH_PARISC"
    case parisc64 = "SCMP_ARCH_PARISC64"
    case riscv64 = "SCMP_ARCH_RISCV64"
    case loongarch64 = "SCMP_ARCH_LOONGARCH64"
    case m68k = "SCMP_ARCH_M68K"
    case sh = "SCMP_ARCH_SH"
    case sheb = "SCMP_ARCH_SHEB"

    /// - Throws: `SeccompError` for a name that this program does not know.
    package init(name: String) throws(SeccompError) {
        guard let known = SeccompArchitecture(rawValue: name) else {
            throw SeccompError("architecture \(name)", "is not known")
        }
        self = known
    }

    /// The one this program is compiled for.
    package static var native: SeccompArchitecture {
        #if arch(x86_64)
            .x8664
        #elseif arch(arm64)
            .aarch64
        #else
            #error("name the architecture here")
        #endif
    }

    /// AUDIT_ARCH_*, and libseccomp's own number for x32; 0 when this libseccomp does not know it.
    package var token: UInt32 { seccomp_arch_resolve_name(String(rawValue.dropFirst(10)).lowercased()) }
}

/// Flags of seccomp(2)'s SECCOMP_SET_MODE_FILTER.
package struct SeccompFlags: OptionSet, Sendable, Hashable {
    package let rawValue: UInt32

    package init(rawValue: UInt32) { self.rawValue = rawValue }

    /// SECCOMP_FILTER_FLAG_TSYNC: all threads of the process.
    package static let synchronizeThreads = SeccompFlags(rawValue: 1)
    /// SECCOMP_FILTER_FLAG_LOG: what is not allowed goes to the audit log.
    package static let log = SeccompFlags(rawValue: 2)
    /// Leaves speculative store bypass alone; the default, because the mitigation costs more than it protects here.
    package static let allowSpeculation = SeccompFlags(rawValue: 4)
    /// SECCOMP_FILTER_FLAG_NEW_LISTENER: no name in the specification; a profile that notifies is loaded with it.
    package static let newListener = SeccompFlags(rawValue: 8)
    /// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: once an agent has read a notification, only a fatal signal interrupts the
    /// call that waits for its answer. Linux 5.19.
    package static let waitKillable = SeccompFlags(rawValue: 32)

    /// The names that are understood, in the specification's spelling; TSYNC is not in it, but other runtimes take it.
    package static let names: [(name: String, flag: SeccompFlags)] = [
        ("SECCOMP_FILTER_FLAG_LOG", .log), ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", .allowSpeculation),
        ("SECCOMP_FILTER_FLAG_TSYNC", .synchronizeThreads),
        ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", .waitKillable),
    ]

    /// Whether the running kernel takes these flags. Nothing is loaded: without a program the call fails, with EFAULT
    /// when the flags are known.
    package var isSupported: Bool {
        let flags = contains(.waitKillable) ? union(.newListener) : self
        return ck_seccomp(UInt32(CK_SECCOMP_SET_MODE_FILTER), flags.rawValue, nil) == -1 && errno == EFAULT
    }

    /// From the OCI specification's names; nil (no list at all) is `allowSpeculation`, an empty list is no flag.
    ///
    /// - Throws: `SeccompError` for an unknown flag, and for one that the running kernel does not know.
    package init(names: [String]?) throws(SeccompError) {
        guard let names else {
            self = .allowSpeculation
            return
        }
        var flags: SeccompFlags = []
        for name in names {
            guard let known = Self.names.first(where: { $0.name == name }) else {
                throw SeccompError("flag \(name)", "is not known")
            }
            guard known.flag != .waitKillable || known.flag.isSupported else {
                throw SeccompError("flag \(name)", "this kernel does not know it: it came with Linux 5.19")
            }
            flags.insert(known.flag)
        }
        self = flags
    }
}

/// One condition on an argument of a system call.
package struct SeccompComparison: Sendable, Hashable {
    /// How the argument is compared.
    package enum Operation: String, Sendable, Hashable, CaseIterable {
        case notEqual = "SCMP_CMP_NE"
        case less = "SCMP_CMP_LT"
        case lessOrEqual = "SCMP_CMP_LE"
        case equal = "SCMP_CMP_EQ"
        case greaterOrEqual = "SCMP_CMP_GE"
        case greater = "SCMP_CMP_GT"
        /// `argument & value == valueTwo`.
        case maskedEqual = "SCMP_CMP_MASKED_EQ"

        /// - Throws: `SeccompError` for a name that is none of these.
        package init(name: String) throws(SeccompError) {
            guard let known = Operation(rawValue: name) else {
                throw SeccompError("operator \(name)", "is not known")
            }
            self = known
        }
    }

    /// 0 to 5.
    package let index: UInt32
    /// How it is compared.
    package let operation: Operation
    /// With what; for `maskedEqual`, the mask.
    package let value: UInt64
    /// Used by `maskedEqual` only.
    package let valueTwo: UInt64

    /// - Throws: `SeccompError` for an index above 5.
    package init(index: UInt32, _ operation: Operation, _ value: UInt64, _ valueTwo: UInt64 = 0) throws(SeccompError) {
        guard index <= 5 else {
            throw SeccompError("argument index \(index)", "a system call has the arguments 0 to 5")
        }
        self.init(unchecked: index, operation, value, valueTwo)
    }

    init(unchecked index: UInt32, _ operation: Operation, _ value: UInt64, _ valueTwo: UInt64 = 0) {
        self.index = index
        self.operation = operation
        self.value = value
        self.valueTwo = valueTwo
    }
}

/// What happens to some system calls.
package struct SeccompRule: Sendable, Hashable {
    /// System calls.
    package var names: [String]
    /// What happens to them.
    package var action: SeccompAction
    /// All must hold; but conditions on the same argument are alternatives, as in other OCI runtimes.
    package var comparisons: [SeccompComparison]

    /// A rule for these calls.
    package init(_ names: [String], _ action: SeccompAction, when comparisons: [SeccompComparison] = []) {
        self.names = names
        self.action = action
        self.comparisons = comparisons
    }
}

/// A filter of system calls as a configuration describes it.
package struct SeccompProfile: Sendable, Equatable {
    /// For what no rule names.
    package var defaultAction: SeccompAction
    /// Beside the native one, which is always covered.
    package var architectures: [SeccompArchitecture]
    /// How the kernel loads it.
    package var flags: SeccompFlags
    /// Of rules without conditions for one call the first holds, and it outdoes those with conditions; two with the
    /// same conditions and other actions are an error when compiled.
    package var rules: [SeccompRule]

    /// A profile of these parts; it is checked when it is compiled.
    package init(
        defaultAction: SeccompAction, architectures: [SeccompArchitecture] = [],
        flags: SeccompFlags = .allowSpeculation, rules: [SeccompRule]
    ) {
        self.defaultAction = defaultAction
        self.architectures = architectures
        self.flags = flags
        self.rules = rules
    }

    /// Whether some call is answered by the holder of a listener.
    package var notifies: Bool { defaultAction == .notify || rules.contains { $0.action == .notify } }

    /// What seccomp(2) gets.
    ///
    /// Loading for all threads is left out where there is a listener: the kernel cannot report both, and a process that
    /// becomes a container has one thread.
    /// - Throws: `SeccompError` for a flag that makes no sense in this profile.
    package func loadFlags() throws(SeccompError) -> UInt32 {
        guard !flags.contains(.waitKillable) || notifies else {
            throw SeccompError("flag SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "needs a rule with SCMP_ACT_NOTIFY")
        }
        return notifies ? flags.subtracting(.synchronizeThreads).union(.newListener).rawValue : flags.rawValue
    }
}
