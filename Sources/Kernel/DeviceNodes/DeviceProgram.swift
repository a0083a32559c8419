import CKernel
import Glibc
import Kernel

/// A device policy as an eBPF program of type BPF_PROG_TYPE_CGROUP_DEVICE: what a cgroup v2 has in place of
/// `devices.allow`.
///
/// The kernel calls it with `struct bpf_cgroup_dev_ctx {access_type, major, minor}` (linux/bpf.h) and takes 0 for
/// EPERM.
/// Where several programs are attached to a cgroup and its parents, all of them must allow.
package struct DeviceProgram: Sendable, Equatable {
    /// `struct bpf_insn`, as little-endian words: opcode, registers, offset, immediate.
    package let instructions: [UInt64]

    /// The most instructions that a program of ours may have; also the verifier's limit without privileges.
    package static let maximumInstructions = 4096

    /// The name by which we know our own program among those attached to a cgroup.
    package static let name = "martlet_devices"

    /// Translates a policy. Rules are tested from the last to the first; each allows or denies the kinds of access it
    /// names, and what none decided falls to the default.
    package init(_ policy: DevicePolicy) {
        var code = Assembler()
        if !policy.exceptions.isEmpty {
            code.loadContext()
            for rule in policy.exceptions.reversed() { code.test(rule) }
        }
        code.finish(allow: policy.allowsByDefault)
        instructions = code.words
    }

    /// Loads the program into the kernel.
    ///
    /// - Throws: `KernelError` of bpf(2): EPERM without CAP_BPF or CAP_SYS_ADMIN, E2BIG over `maximumInstructions`.
    package func load() throws(KernelError) -> OwnedFD {
        guard instructions.count <= Self.maximumInstructions else {
            throw KernelError(
                "bpf(PROG_LOAD)", "device rules", errno: E2BIG,
                hint: "\(instructions.count) instructions, at most \(Self.maximumInstructions): give fewer rules")
        }
        var attributes = bpf_attr()
        attributes.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE.rawValue
        attributes.insn_cnt = UInt32(instructions.count)
        withUnsafeMutableBytes(of: &attributes.prog_name) { $0.copyBytes(from: Self.name.utf8) }
        let result = instructions.withUnsafeBytes { words in
            // No helper is called, so any licence text does.
            "Apache-2.0".withCString { licence in
                attributes.insns = UInt64(UInt(bitPattern: words.baseAddress))
                attributes.license = UInt64(UInt(bitPattern: licence))
                return ck_bpf(Int32(BPF_PROG_LOAD.rawValue), &attributes, UInt32(MemoryLayout<bpf_attr>.size))
            }
        }
        guard result >= 0 else { throw KernelError("bpf(PROG_LOAD)", "device rules", errno: errno) }
        return OwnedFD(adopting: Int32(result))
    }

    /// Makes the program ours on a cgroup: in place of an earlier one, atomically, and beside those of others.
    ///
    /// - Parameter cgroup: a descriptor of the cgroup v2 directory.
    /// - Throws: `KernelError` of bpf(2).
    package func attach(to cgroup: borrowing OwnedFD) throws(KernelError) {
        let program = try load()
        let previous = try Self.attached(to: cgroup)
        var attributes = bpf_attr()
        attributes.target_fd = UInt32(cgroup.raw)
        attributes.attach_bpf_fd = UInt32(program.raw)
        attributes.attach_type = BPF_CGROUP_DEVICE.rawValue
        attributes.attach_flags = UInt32(BPF_F_ALLOW_MULTI)
        switch consume previous {
        case .some(let old):
            attributes.attach_flags |= UInt32(BPF_F_REPLACE)
            attributes.replace_bpf_fd = UInt32(old.raw)
            try Self.call(BPF_PROG_ATTACH, &attributes)
        case .none:
            try Self.call(BPF_PROG_ATTACH, &attributes)
        }
    }

    /// Takes our program off a cgroup, if it has one.
    package static func detach(from cgroup: borrowing OwnedFD) throws(KernelError) {
        guard let old = try attached(to: cgroup) else { return }
        var attributes = bpf_attr()
        attributes.target_fd = UInt32(cgroup.raw)
        attributes.attach_bpf_fd = UInt32(old.raw)
        attributes.attach_type = BPF_CGROUP_DEVICE.rawValue
        try call(BPF_PROG_DETACH, &attributes)
    }

    /// Our program on a cgroup, or nil. Others' programs are told apart by name.
    package static func attached(to cgroup: borrowing OwnedFD) throws(KernelError) -> OwnedFD? {
        var identifiers = [UInt32](repeating: 0, count: 64)
        var attributes = bpf_attr()
        attributes.query.target_fd = UInt32(cgroup.raw)
        attributes.query.attach_type = BPF_CGROUP_DEVICE.rawValue
        attributes.query.prog_cnt = UInt32(identifiers.count)
        let result = identifiers.withUnsafeMutableBytes { buffer in
            attributes.query.prog_ids = UInt64(UInt(bitPattern: buffer.baseAddress))
            return ck_bpf(Int32(BPF_PROG_QUERY.rawValue), &attributes, UInt32(MemoryLayout<bpf_attr>.size))
        }
        guard result >= 0 else { throw KernelError("bpf(PROG_QUERY)", "device programs", errno: errno) }
        for identifier in identifiers.prefix(Int(attributes.query.prog_cnt)) {
            var request = bpf_attr()
            request.prog_id = identifier
            let raw = ck_bpf(Int32(BPF_PROG_GET_FD_BY_ID.rawValue), &request, UInt32(MemoryLayout<bpf_attr>.size))
            if raw < 0 && errno == ENOENT { continue }
            guard raw >= 0 else { throw KernelError("bpf(PROG_GET_FD_BY_ID)", "program \(identifier)", errno: errno) }
            let program = OwnedFD(adopting: Int32(raw))
            if try programName(program) == name { return program }
        }
        return nil
    }

    private static func programName(_ program: borrowing OwnedFD) throws(KernelError) -> String {
        var information = bpf_prog_info()
        var attributes = bpf_attr()
        attributes.info.bpf_fd = UInt32(program.raw)
        attributes.info.info_len = UInt32(MemoryLayout<bpf_prog_info>.size)
        let result = withUnsafeMutableBytes(of: &information) { buffer in
            attributes.info.info = UInt64(UInt(bitPattern: buffer.baseAddress))
            return ck_bpf(Int32(BPF_OBJ_GET_INFO_BY_FD.rawValue), &attributes, UInt32(MemoryLayout<bpf_attr>.size))
        }
        guard result >= 0 else { throw KernelError("bpf(OBJ_GET_INFO_BY_FD)", "device program", errno: errno) }
        return withUnsafeBytes(of: &information.name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }

    private static func call(_ command: bpf_cmd, _ attributes: inout bpf_attr) throws(KernelError) {
        guard ck_bpf(Int32(command.rawValue), &attributes, UInt32(MemoryLayout<bpf_attr>.size)) >= 0 else {
            let name = command == BPF_PROG_ATTACH ? "bpf(PROG_ATTACH)" : "bpf(PROG_DETACH)"
            throw KernelError(name, "device program", errno: errno)
        }
    }
}

/// Writes eBPF instructions; see the kernel's Documentation/bpf/standardization/instruction-set.rst.
private struct Assembler {
    var words: [UInt64] = []

    // r1 context, r2 device type, r3 kinds of access not decided yet, r4 major, r5 minor, r6 scratch, r0 result.
    private static let context: UInt8 = 1
    private static let device: UInt8 = 2
    private static let access: UInt8 = 3
    private static let major: UInt8 = 4
    private static let minor: UInt8 = 5
    private static let scratch: UInt8 = 6

    private mutating func emit(
        _ opcode: UInt8, _ destination: UInt8, _ source: UInt8 = 0, offset: Int16 = 0, _ immediate: UInt32 = 0
    ) {
        words.append(
            UInt64(opcode) | UInt64(destination) << 8 | UInt64(source) << 12
                | UInt64(UInt16(bitPattern: offset)) << 16 | UInt64(immediate) << 32)
    }

    /// Reads the three words of the context and takes the first apart: access << 16 | type.
    mutating func loadContext() {
        emit(0x61, Self.device, Self.context, offset: 0)
        emit(0xbc, Self.access, Self.device)
        emit(0x74, Self.access, 0, 16)
        emit(0x54, Self.device, 0, 0xffff)
        emit(0x61, Self.major, Self.context, offset: 4)
        emit(0x61, Self.minor, Self.context, offset: 8)
    }

    /// One rule: where the device matches, decides the rule's kinds of access; else goes on behind itself.
    mutating func test(_ rule: DeviceRule) {
        var body = Assembler()
        if rule.allow {
            // r3 &= ~access; if nothing is left to decide, return 1
            body.emit(0x54, Self.access, 0, ~UInt32(rule.access.rawValue))
            body.emit(0x56, Self.access, 0, offset: 2, 0)
            body.emit(0xb4, 0, 0, 1)
        } else {
            // if r3 has a kind of access that is denied, return 0
            body.emit(0xbc, Self.scratch, Self.access)
            body.emit(0x54, Self.scratch, 0, UInt32(rule.access.rawValue))
            body.emit(0x16, Self.scratch, 0, offset: 2, 0)
            body.emit(0xb4, 0, 0, 0)
        }
        body.emit(0x95, 0)
        var tests: [(register: UInt8, value: UInt32)] = [(Self.device, rule.device == .block ? 1 : 2)]
        if let major = rule.major { tests.append((Self.major, major)) }
        if let minor = rule.minor { tests.append((Self.minor, minor)) }
        for (index, test) in tests.enumerated() {
            let behind = tests.count - index - 1 + body.words.count
            emit(0x56, test.register, 0, offset: Int16(behind), test.value)
        }
        words += body.words
    }

    mutating func finish(allow: Bool) {
        emit(0xb4, 0, 0, allow ? 1 : 0)
        emit(0x95, 0)
    }
}
