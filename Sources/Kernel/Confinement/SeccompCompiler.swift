import CKernel
import CSeccomp
import Glibc
import Kernel

/// A compiled filter: classic BPF for seccomp(2).
package struct SeccompProgram: Sendable, Equatable {
    /// `struct sock_filter`: 16-bit code, two 8-bit jumps, 32-bit operand, in the machine's byte order.
    package let bytes: [UInt8]
    /// For SECCOMP_SET_MODE_FILTER.
    package let flags: UInt32
    /// Names of the profile that this libseccomp does not know: left out, so that they meet the default action.
    package let skipped: [String]

    package init(bytes: [UInt8], flags: UInt32, skipped: [String] = []) {
        self.bytes = bytes
        self.flags = flags
        self.skipped = skipped
    }

    /// At most 4096 (BPF_MAXINSNS).
    package var instructionCount: Int { bytes.count / 8 }
}

extension SeccompProfile {
    /// Compiles the profile with libseccomp.
    ///
    /// Before libseccomp's code stand a few instructions that answer ENOSYS to system calls newer than every one the
    /// profile names, so that programs fall back to older ones, which a denial would keep them from.
    /// - Throws: `SeccompError` naming the rule, architecture or limit that cannot be had.
    package func compile() throws(SeccompError) -> SeccompProgram {
        guard let context = seccomp_init(defaultAction.code) else {
            throw SeccompError("default action", "libseccomp refuses it", errno: EINVAL)
        }
        defer { seccomp_release(context) }
        var covered = [SeccompArchitecture.native]
        for architecture in architectures where !covered.contains(architecture) {
            let token = architecture.token
            guard token != 0 else {
                throw SeccompError("architecture \(architecture.rawValue)", "this libseccomp does not know it")
            }
            let result = seccomp_arch_add(context, token)
            guard result == 0 || result == -EEXIST else {
                throw SeccompError("architecture \(architecture.rawValue)", "cannot be added", errno: -result)
            }
            covered.append(architecture)
        }
        // A binary tree by number: the depth of a check grows with the logarithm of the number of rules.
        let result = seccomp_attr_set(context, SCMP_FLTATR_CTL_OPTIMIZE, 2)
        guard result == 0 else { throw SeccompError("optimization", "cannot be set", errno: -result) }
        var skipped: [String] = []
        for rule in rules {
            for name in rule.names where try !Self.add(rule, name, to: context, unless: defaultAction) {
                skipped.append(name)
            }
        }
        var bytes = Self.newerCallsStub(self, covered)
        bytes += try Self.export(context)
        guard bytes.count / 8 <= 4096 else {
            throw SeccompError("program", "has \(bytes.count / 8) instructions, at most 4096: give fewer conditions")
        }
        return SeccompProgram(bytes: bytes, flags: flags.rawValue, skipped: skipped)
    }

    /// Adds a rule for one system call.
    ///
    /// - Returns: false when no architecture has a call of that name.
    private static func add(
        _ rule: SeccompRule, _ name: String, to context: scmp_filter_ctx, unless defaultAction: SeccompAction
    ) throws(SeccompError) -> Bool {
        // libseccomp refuses a rule that says the same as the default.
        if rule.action == defaultAction { return true }
        let number = seccomp_syscall_resolve_name(name)
        if number == __NR_SCMP_ERROR { return false }
        let indexes = rule.comparisons.map(\.index)
        let alternatives = Set(indexes).count != indexes.count
        let groups = alternatives ? rule.comparisons.map { [$0] } : [rule.comparisons]
        for group in groups {
            let conditions = group.map { comparison in
                scmp_arg_cmp(
                    arg: comparison.index, op: comparison.operation.kernel, datum_a: comparison.value,
                    datum_b: comparison.valueTwo)
            }
            let result = seccomp_rule_add_array(
                context, rule.action.code, number, UInt32(conditions.count), conditions)
            // An equal rule given twice is no error.
            guard result == 0 || result == -EEXIST else {
                throw SeccompError("rule for \(name)", "libseccomp refuses it", errno: -result)
            }
        }
        return true
    }

    private static func export(_ context: scmp_filter_ctx) throws(SeccompError) -> [UInt8] {
        do throws(KernelError) {
            let file = OwnedFD(adopting: try systemCall("memfd_create") { memfd_create("seccomp", 1) })
            let result = seccomp_export_bpf(context, file.raw)
            guard result == 0 else { throw KernelError("seccomp_export_bpf", errno: -result) }
            try systemCall("lseek") { lseek(file.raw, 0, SEEK_SET) }
            return try file.readAll(limit: 1 << 20, subject: "seccomp program")
        } catch {
            throw SeccompError("program", "\(error.operation) failed", errno: error.errno)
        }
    }

    /// Code that returns ENOSYS for numbers above the highest one that the profile names, per architecture.
    private static func newerCallsStub(_ profile: SeccompProfile, _ covered: [SeccompArchitecture]) -> [UInt8] {
        let missing = SeccompAction.errno(UInt16(ENOSYS))
        guard !profile.defaultAction.lets, profile.defaultAction != missing else { return [] }
        func highest(_ architecture: SeccompArchitecture) -> UInt32? {
            var highest: Int32 = -1
            for rule in profile.rules {
                for name in rule.names {
                    highest = max(highest, seccomp_syscall_resolve_name_arch(architecture.token, name))
                }
            }
            return highest < 0 ? nil : UInt32(highest)
        }
        var code: [Instruction] = []
        for architecture in covered where architecture != .x32 {
            guard let limit = highest(architecture) else { continue }
            var body = [Instruction(0x20, 0)]  // load the number
            if architecture == .x8664 {
                // x32 has the same architecture word and a high bit in its numbers.
                let bit: UInt32 = 0x4000_0000
                let other = covered.contains(.x32) ? highest(.x32) : nil
                body.append(Instruction(0x35, bit, 0, other == nil ? 0 : 2))
                if let other {
                    body.append(Instruction(0x25, other, 2, 0))
                    body.append(Instruction(0x05, 2))
                } else {
                    body[1] = Instruction(0x35, bit, 2, 0)
                }
            }
            body.append(Instruction(0x25, limit, 0, 1))
            body.append(Instruction(0x06, missing.code))
            code.append(Instruction(0x20, 4))  // load the architecture
            code.append(Instruction(0x15, architecture.token, 0, UInt8(body.count)))
            code += body
        }
        return code.flatMap(\.bytes)
    }
}

/// One instruction of classic BPF, see linux/filter.h.
private struct Instruction {
    let code: UInt16
    let operand: UInt32
    let ifTrue: UInt8
    let ifFalse: UInt8

    init(_ code: UInt16, _ operand: UInt32, _ ifTrue: UInt8 = 0, _ ifFalse: UInt8 = 0) {
        self.code = code
        self.operand = operand
        self.ifTrue = ifTrue
        self.ifFalse = ifFalse
    }

    var bytes: [UInt8] {
        [UInt8(code & 255), UInt8(code >> 8), ifTrue, ifFalse]
            + [0, 8, 16, 24].map { UInt8(truncatingIfNeeded: operand >> $0) }
    }
}

extension SeccompComparison.Operation {
    fileprivate var kernel: scmp_compare {
        switch self {
        case .notEqual: SCMP_CMP_NE
        case .less: SCMP_CMP_LT
        case .lessOrEqual: SCMP_CMP_LE
        case .equal: SCMP_CMP_EQ
        case .greaterOrEqual: SCMP_CMP_GE
        case .greater: SCMP_CMP_GT
        case .maskedEqual: SCMP_CMP_MASKED_EQ
        }
    }
}
