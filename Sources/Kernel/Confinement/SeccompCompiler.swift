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

    /// Takes a program that was compiled before.
    package init(bytes: [UInt8], flags: UInt32, skipped: [String] = []) {
        self.bytes = bytes
        self.flags = flags
        self.skipped = skipped
    }

    /// At most 4096 (BPF_MAXINSNS).
    package var instructionCount: Int { bytes.count / 8 }
}

extension SeccompProfile {
    /// libseccomp's, such as 2.5.4.
    package static var libraryVersion: String? {
        seccomp_version().map { "\($0.pointee.major).\($0.pointee.minor).\($0.pointee.micro)" }
    }

    /// The most instructions the kernel takes (BPF_MAXINSNS).
    package static let maximumInstructions = 4096

    /// Compiles the profile with libseccomp.
    ///
    /// Each architecture is compiled for itself, which takes libseccomp a third of the time that all together take, and
    /// a few instructions in front lead to the right part. There, system calls newer than every one the profile names
    /// are answered with ENOSYS, so that programs fall back to older ones, which a denial would keep them from.
    /// - Throws: `SeccompError` naming the rule, architecture or limit that cannot be had.
    package func compile() throws(SeccompError) -> SeccompProgram {
        let calls = rules.flatMap { rule in
            rule.names.map { Call(name: $0, number: seccomp_syscall_resolve_name($0), rule: rule) }
        }.filter { $0.number != __NR_SCMP_ERROR }
        var covered = [SeccompArchitecture.native]
        // x32 before the architecture whose word it shares, which would take its calls.
        for architecture in [.x32].filter(architectures.contains) + architectures
        where !covered.contains(architecture) { covered.append(architecture) }
        var parts: [Part] = []
        for architecture in covered {
            let token = architecture.token
            guard token != 0 else {
                throw SeccompError("architecture \(architecture.rawValue)", "this libseccomp does not know it")
            }
            parts.append(
                Part(
                    architecture: architecture, token: token, newest: newest(token, calls),
                    code: try translate(calls, architecture, token)))
        }
        let bytes = Self.joined(parts)
        guard bytes.count / 8 <= Self.maximumInstructions else {
            throw SeccompError(
                "program",
                "has \(bytes.count / 8) instructions, at most \(Self.maximumInstructions) are possible: "
                    + "give fewer conditions or architectures")
        }
        return SeccompProgram(bytes: bytes, flags: try loadFlags(), skipped: unknownCalls)
    }

    /// Names that this libseccomp does not know, in the profile's order.
    var unknownCalls: [String] {
        rules.flatMap(\.names).filter { seccomp_syscall_resolve_name($0) == __NR_SCMP_ERROR }
    }

    /// A system call that a rule names, by its number on the native architecture (negative where it has none there).
    private struct Call {
        let name: String
        let number: Int32
        let rule: SeccompRule
    }

    /// The program of one architecture.
    private struct Part {
        let architecture: SeccompArchitecture
        let token: UInt32
        /// The highest number that is named, or nil when newer calls need no answer of their own.
        let newest: UInt32?
        let code: [UInt8]
    }

    /// The highest number that a rule names on an architecture; nil without any, and where the default action is ENOSYS
    /// or lets calls through.
    private func newest(_ token: UInt32, _ calls: [Call]) -> UInt32? {
        guard !defaultAction.lets, defaultAction != .errno(UInt16(ENOSYS)) else { return nil }
        let highest = calls.reduce(-1) { max($0, seccomp_syscall_resolve_name_arch(token, $1.name)) }
        return highest < 0 ? nil : UInt32(highest)
    }

    /// libseccomp's program for one architecture.
    private func translate(
        _ calls: [Call], _ architecture: SeccompArchitecture, _ token: UInt32
    ) throws(SeccompError) -> [UInt8] {
        guard let context = seccomp_init(defaultAction.code) else {
            throw SeccompError("default action", "libseccomp refuses it", errno: EINVAL)
        }
        defer { seccomp_release(context) }
        if architecture != .native {
            var result = seccomp_arch_add(context, token)
            if result == 0 { result = seccomp_arch_remove(context, SeccompArchitecture.native.token) }
            guard result == 0 else {
                throw SeccompError("architecture \(architecture.rawValue)", "cannot be added", errno: -result)
            }
        }
        // A binary tree by number: the kernel runs the filter for every call once when it is loaded.
        let result = seccomp_attr_set(context, SCMP_FLTATR_CTL_OPTIMIZE, 2)
        guard result == 0 else { throw SeccompError("optimization", "cannot be set", errno: -result) }
        // libseccomp refuses a rule that says the same as the default.
        for call in calls where call.rule.action != defaultAction { try Self.add(call, to: context) }
        return try Self.export(context)
    }

    private static func add(_ call: Call, to context: scmp_filter_ctx) throws(SeccompError) {
        let comparisons = call.rule.comparisons
        let alternatives = comparisons.count > 1 && Set(comparisons.map(\.index)).count != comparisons.count
        let groups = alternatives ? comparisons.map { [$0] } : [comparisons]
        for group in groups {
            let conditions = group.map { comparison in
                scmp_arg_cmp(
                    arg: comparison.index, op: comparison.operation.kernel, datum_a: comparison.value,
                    datum_b: comparison.valueTwo)
            }
            let result = seccomp_rule_add_array(
                context, call.rule.action.code, call.number, UInt32(conditions.count), conditions)
            guard result != -EEXIST else {
                throw SeccompError("rule for \(call.name)", "another rule with the same conditions says otherwise")
            }
            guard result == 0 else {
                throw SeccompError("rule for \(call.name)", "libseccomp refuses it", errno: -result)
            }
        }
    }

    private static func export(_ context: scmp_filter_ctx) throws(SeccompError) -> [UInt8] {
        do throws(KernelError) {
            // Close-on-exec.
            let file = OwnedFD(adopting: try systemCall("memfd_create") { memfd_create("seccomp", 1) })
            let result = seccomp_export_bpf(context, file.raw)
            guard result == 0 else { throw KernelError("seccomp_export_bpf", errno: -result) }
            try systemCall("lseek") { lseek(file.raw, 0, SEEK_SET) }
            return try file.readAll(limit: 1 << 20, subject: "seccomp program")
        } catch {
            throw SeccompError("program", "\(error.operation) failed", errno: error.errno)
        }
    }

    /// Puts the parts behind one another: the native one first, which also answers for architectures that are not
    /// covered, as libseccomp does.
    private static func joined(_ parts: [Part]) -> [UInt8] {
        let blocks = parts.enumerated().map { index, part in
            let whole = (part.newest.map { limit in newerCalls(than: limit, part) } ?? []).flatMap(\.bytes) + part.code
            // x32 calls say x86-64.
            let token = part.architecture == .x32 ? SeccompArchitecture.x8664.token : part.token
            return FilterProgram(bytes: whole)?.shortened(for: token, isChecked: index > 0)?.bytes ?? whole
        }
        if blocks.count == 1 { return blocks[0] }
        var starts = [0]
        for block in blocks { starts.append(starts[starts.count - 1] + block.count / 8) }
        // Three words for each other part; x32 has the native architecture word and a bit in its numbers.
        var dispatch: [FilterInstruction] = []
        let length = parts.dropFirst().reduce(0) { $0 + ($1.architecture == .x32 ? 5 : 3) }
        for (index, part) in parts.enumerated().dropFirst() {
            dispatch.append(FilterInstruction(.load, 4))
            if part.architecture == .x32 {
                dispatch.append(FilterInstruction(.jumpIfEqual, SeccompArchitecture.x8664.token, 0, 3))
                dispatch.append(FilterInstruction(.load, 0))
                dispatch.append(FilterInstruction(.jumpIfGreaterOrEqual, x32Bit, 0, 1))
            } else {
                dispatch.append(FilterInstruction(.jumpIfEqual, part.token, 0, 1))
            }
            let distance = length - dispatch.count - 1 + starts[index]
            dispatch.append(FilterInstruction(.jump, UInt32(distance)))
        }
        return dispatch.flatMap(\.bytes) + blocks.joined()
    }

    private static let x32Bit: UInt32 = 0x4000_0000

    /// Code that returns ENOSYS above a number.
    private static func newerCalls(than limit: UInt32, _ part: Part) -> [FilterInstruction] {
        // The native part also sees what is not covered; libseccomp's code behind deals with that.
        var code = [
            FilterInstruction(.load, 4),
            FilterInstruction(.jumpIfEqual, part.token, 0, 3),
        ]
        if part.architecture == .x32 { code = [] }
        code.append(FilterInstruction(.load, 0))
        if part.architecture == .x8664 {
            code[1] = FilterInstruction(.jumpIfEqual, part.token, 0, 4)
            code.append(FilterInstruction(.jumpIfGreaterOrEqual, x32Bit, 2, 0))
        }
        code.append(FilterInstruction(.jumpIfGreater, limit, 0, 1))
        code.append(FilterInstruction(.answer, SeccompAction.errno(UInt16(ENOSYS)).code))
        return code
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
