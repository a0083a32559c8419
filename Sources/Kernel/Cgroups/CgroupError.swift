import Kernel

/// Why a control group could not be made, limited, frozen, emptied or removed.
package struct CgroupError: Error, Sendable, Equatable, CustomStringConvertible {
    package enum Kind: Sendable, Equatable {
        /// The path of the group is not acceptable.
        case invalidPath
        /// A value is out of range or contradicts another.
        case invalidValue
        /// This kind of hierarchy has no such limit.
        case unsupported
        /// No hierarchy of this host has the controller.
        case controllerAbsent
        /// The kernel refused a step.
        case refused
        /// The group has processes, sub-groups or is frozen.
        case busy
        /// The group did not come to the wanted state in time.
        case timedOut
    }

    package let kind: Kind
    /// `memory`, `cgroup` for what belongs to no controller.
    package let controller: String
    /// The file, directory or field.
    package let subject: String
    package let reason: String
    /// The error number, or 0 where no system call failed.
    package let errno: Int32
    /// What to do next; may be empty.
    package let hint: String

    package init(
        _ kind: Kind, controller: String = "cgroup", _ subject: String, _ reason: String, errno: Int32 = 0,
        hint: String = ""
    ) {
        self.kind = kind
        self.controller = controller
        self.subject = subject
        self.reason = reason
        self.errno = errno
        self.hint = hint
    }

    package var description: String {
        let name = controller == "cgroup" ? "cgroup" : "cgroup controller \(controller)"
        let number = errno == 0 ? "" : ": \(String(errno: errno))"
        return "\(name): \(subject): \(reason)\(number)" + (hint.isEmpty ? "" : " (\(hint))")
    }
}

/// Something that was asked for and holds only in part, for the log.
package struct CgroupNotice: Sendable, Equatable, CustomStringConvertible {
    package enum Kind: Sendable, Equatable {
        /// The kernel does not account swap: memory is limited, memory and swap together are not.
        case swapAccountingAbsent
        /// The field has no effect in today's kernels.
        case ignored
    }

    package let kind: Kind
    package let controller: String
    /// The field of the specification, such as `memory.swap`.
    package let field: String
    package let reason: String

    package var description: String { "cgroup controller \(controller): \(field): \(reason)" }
}
