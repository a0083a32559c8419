import Kernel

/// Why a control group could not be made, limited, frozen, emptied or removed.
package struct CgroupError: Error, Sendable, Equatable, CustomStringConvertible {
    /// What sort of failure it is, for callers that act on it.
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

    /// The sort of failure.
    package let kind: Kind
    /// `memory`, `cgroup` for what belongs to no controller.
    package let controller: String
    /// The file, directory or field.
    package let subject: String
    /// What is wrong with it.
    package let reason: String
    /// The error number, or 0 where no system call failed.
    package let errno: Int32
    /// What to do next; may be empty.
    package let hint: String

    /// Puts an error together; see the properties.
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
    /// Why it holds only in part.
    package enum Kind: Sendable, Equatable {
        /// The kernel does not account swap: memory is limited, memory and swap together are not.
        case swapAccountingAbsent
        /// The field has no effect in today's kernels.
        case ignored
        /// The group has no such limit, and what was asked for is none of it: nothing keeps the group from having some.
        case limitAbsent
    }

    /// The sort of shortfall.
    package let kind: Kind
    /// The controller that the field belongs to.
    package let controller: String
    /// The field of the specification, such as `memory.swap`.
    package let field: String
    /// What holds instead, and why.
    package let reason: String

    package var description: String { "cgroup controller \(controller): \(field): \(reason)" }
}
