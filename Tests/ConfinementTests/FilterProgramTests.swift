import CSeccomp
import Glibc
import Testing

@testable import Confinement

/// A generator that repeats, so that a failure does.
private struct Seeded: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var word = (state ^ (state >> 30)) &* 0xbf58_476d_1ce4_e5b9
        word = (word ^ (word >> 27)) &* 0x94d0_49bb_1331_11eb
        return word ^ (word >> 31)
    }
}

/// libseccomp's own programs are the measure: a shortened one answers every call alike.
@Suite struct FilterProgramTests {
    private static let actions: [UInt32] = [
        0x7fff_0000, 0x0005_0001, 0x0005_0026, 0x8000_0000, 0x7ffc_0000, 0x0003_0000,
    ]

    /// What libseccomp makes of random rules for this machine's calling convention.
    private static func libseccomps(_ random: inout Seeded, rules: Int) throws -> [UInt8] {
        let standard = actions.randomElement(using: &random) ?? 0
        let context = try #require(seccomp_init(standard))
        defer { seccomp_release(context) }
        _ = seccomp_attr_set(context, SCMP_FLTATR_CTL_OPTIMIZE, 2)
        for _ in 0..<rules {
            guard let action = actions.filter({ $0 != standard }).randomElement(using: &random) else { continue }
            var conditions: [scmp_arg_cmp] = []
            if Int.random(in: 0..<20, using: &random) == 0 {
                let operators = [
                    SCMP_CMP_NE, SCMP_CMP_LT, SCMP_CMP_LE, SCMP_CMP_EQ, SCMP_CMP_GE, SCMP_CMP_GT, SCMP_CMP_MASKED_EQ,
                ]
                for index in 0..<UInt32.random(in: 1...2, using: &random) {
                    conditions.append(
                        scmp_arg_cmp(
                            arg: index, op: operators.randomElement(using: &random) ?? SCMP_CMP_EQ,
                            datum_a: UInt64.random(in: 0...7, using: &random) << 30,
                            datum_b: UInt64.random(in: 0...7, using: &random) << 30))
                }
            }
            // Neighbours mostly have one answer. A rule that another one contradicts is refused, and left out.
            let first = Int32.random(in: 0...460, using: &random)
            for number in first..<first + Int32.random(in: 1...20, using: &random) {
                _ = seccomp_rule_add_array(context, action, number, UInt32(conditions.count), conditions)
            }
        }
        let file = try #require(tmpfile())
        defer { fclose(file) }
        try #require(seccomp_export_bpf(context, fileno(file)) == 0)
        rewind(file)
        var bytes = [UInt8](repeating: 0, count: 1 << 16)
        bytes.removeLast(bytes.count - fread(&bytes, 1, bytes.count, file))
        return bytes
    }

    @Test(arguments: [0, 1, 3, 20, 100, 400], 1...8)
    func aShortenedProgramAnswersEveryCallAsBefore(rules: Int, seed: UInt64) throws {
        var random = Seeded(state: seed &* 1000 &+ UInt64(rules))
        let original = try Self.libseccomps(&random, rules: rules)
        guard let program = FilterProgram(bytes: original)?.shortened(for: SystemCall.x8664, isChecked: false) else {
            // Nothing is gained with a handful of rules, nor with many that have conditions.
            #expect(rules != 20 && rules != 100)
            return
        }
        #expect(program.bytes.count < original.count)
        let (before, after) = (
            SeccompProgram(bytes: original, flags: 0), SeccompProgram(bytes: program.bytes, flags: 0)
        )
        for architecture: UInt32 in [SystemCall.x8664, SystemCall.i386, 0xc000_00b7, 0] {
            for number in Array<UInt32>(0...490) + [
                0x3fff_ffff, 0x4000_0000, 0x4000_0027, 0x7fff_ffff, 0xffff_fffe, 0xffff_ffff,
            ] {
                for _ in 0..<3 {
                    let arguments = (0..<3).map { _ in UInt64.random(in: 0...7, using: &random) << 30 }
                    let call = SystemCall(number: number, architecture: architecture, arguments: arguments)
                    #expect(run(before, call) == run(after, call), "\(call)")
                }
            }
        }
    }

    @Test func neighboursWithOneAnswerAreOneRange() throws {
        let program = try SeccompProfile(
            defaultAction: .errno(1), rules: [SeccompRule(["read", "write", "open", "close", "stat", "fstat"], .allow)]
        ).compile()
        // Architecture, number, ENOSYS behind the newest, and 0 to 5.
        #expect(program.instructionCount <= 12)
    }

    @Test func aProgramThatComputesIsLeftAsItIs() throws {
        // The number's lowest bit decides.
        let masked: [FilterInstruction] = [
            FilterInstruction(.load, 0), FilterInstruction(.and, 1), FilterInstruction(.jumpIfEqual, 1, 0, 1),
            FilterInstruction(.answer, 0x7fff_0000), FilterInstruction(.answer, 0), FilterInstruction(.answer, 0),
        ]
        #expect(FilterProgram(masked).shortened(for: SystemCall.x8664, isChecked: true) == nil)
        // BPF_TAX, which libseccomp never writes.
        #expect(FilterProgram(bytes: [7, 0, 0, 0, 0, 0, 0, 0]) == nil)
    }
}
