import CSeccomp
import Confinement
import Glibc
import Testing

private let allow: UInt32 = 0x7fff_0000
private let refused: UInt32 = 0x0005_0001
private let absent: UInt32 = 0x0005_0026

private func number(_ name: String) -> UInt32 { UInt32(bitPattern: seccomp_syscall_resolve_name(name)) }

@Suite struct SeccompProfileTests {
    @Test func aRuleHoldsAndTheRestMeetsTheDefault() throws {
        let program = try SeccompProfile(
            defaultAction: .allow, rules: [SeccompRule(["chmod", "fchmod"], .errno(13))]
        ).compile()
        for name in ["chmod", "fchmod"] {
            #expect(run(program, SystemCall(number: number(name), architecture: SystemCall.x8664)) == 0x0005_000d)
        }
        #expect(run(program, SystemCall(number: number("chown"), architecture: SystemCall.x8664)) == allow)
    }

    @Test func conditionsOnSeveralArgumentsMustAllHold() throws {
        let program = try SeccompProfile(
            defaultAction: .allow,
            rules: [
                SeccompRule(
                    ["kill"], .errno(1),
                    when: [
                        try SeccompComparison(index: 0, .greater, 1), try SeccompComparison(index: 1, .equal, 9),
                    ])
            ]
        ).compile()
        func answer(_ pid: UInt64, _ signal: UInt64) -> UInt32? {
            run(program, SystemCall(number: number("kill"), architecture: SystemCall.x8664, arguments: [pid, signal]))
        }
        #expect(answer(7, 9) == refused)
        #expect(answer(1, 9) == allow)
        #expect(answer(7, 15) == allow)
    }

    @Test func conditionsOnOneArgumentAreAlternatives() throws {
        let program = try SeccompProfile(
            defaultAction: .allow,
            rules: [
                SeccompRule(
                    ["socket"], .errno(1),
                    when: [try SeccompComparison(index: 0, .equal, 38), try SeccompComparison(index: 0, .equal, 40)])
            ]
        ).compile()
        for (family, expected) in [(38, refused), (39, allow), (40, refused)] as [(UInt64, UInt32)] {
            let call = SystemCall(number: number("socket"), architecture: SystemCall.x8664, arguments: [family])
            #expect(run(program, call) == expected)
        }
    }

    @Test(arguments: SeccompComparison.Operation.allCases)
    func everyOperatorComparesAllSixtyFourBits(operation: SeccompComparison.Operation) throws {
        let value: UInt64 = 0x1_0000_0005
        let program = try SeccompProfile(
            defaultAction: .allow,
            rules: [SeccompRule(["dup"], .errno(1), when: [try SeccompComparison(index: 0, operation, value, 5)])]
        ).compile()
        for argument in [4, 5, 6, value - 1, value, value + 1, 0x2_0000_0005, 0x2_0000_0000] as [UInt64] {
            let matches =
                switch operation {
                case .notEqual: argument != value
                case .less: argument < value
                case .lessOrEqual: argument <= value
                case .equal: argument == value
                case .greaterOrEqual: argument >= value
                case .greater: argument > value
                case .maskedEqual: argument & value == 5
                }
            let call = SystemCall(number: number("dup"), architecture: SystemCall.x8664, arguments: [argument])
            #expect(run(program, call) == (matches ? refused : allow), "\(operation) \(argument)")
        }
    }

    @Test func unknownNamesAreSkippedAndListed() throws {
        let program = try SeccompProfile(
            defaultAction: .allow, rules: [SeccompRule(["chmod", "make_coffee"], .errno(1))]
        ).compile()
        #expect(program.skipped == ["make_coffee"])
        #expect(run(program, SystemCall(number: number("chmod"), architecture: SystemCall.x8664)) == refused)
    }

    @Test func rulesThatContradictEachOtherAreRefusedByName() throws {
        let condition = [try SeccompComparison(index: 0, .equal, 7)]
        let profile = SeccompProfile(
            defaultAction: .errno(1),
            rules: [SeccompRule(["dup2"], .errno(5), when: condition), SeccompRule(["dup2"], .allow, when: condition)])
        let error = #expect(throws: SeccompError.self) { try profile.compile() }
        #expect(error.map { "\($0)".contains("dup2") } == true)
        let twice = SeccompProfile(
            defaultAction: .errno(1),
            rules: [SeccompRule(["dup2"], .allow, when: condition), SeccompRule(["dup2"], .allow)])
        #expect(throws: Never.self) { try twice.compile() }
    }

    @Test func callsNewerThanTheProfileDoNotExist() throws {
        let rules = [SeccompRule(["read", "openat2"], .allow)]
        let program = try SeccompProfile(defaultAction: .errno(1), rules: rules).compile()
        let newest = number("openat2")
        #expect(run(program, SystemCall(number: newest, architecture: SystemCall.x8664)) == allow)
        #expect(run(program, SystemCall(number: newest - 1, architecture: SystemCall.x8664)) == refused)
        #expect(run(program, SystemCall(number: newest + 1, architecture: SystemCall.x8664)) == absent)
        // A profile that lets the rest through, and one that answers ENOSYS anyway, need no such help.
        for action in [SeccompAction.allow, .log, .errno(UInt16(ENOSYS))] {
            let other = try SeccompProfile(defaultAction: action, rules: [SeccompRule(["read"], .errno(5))]).compile()
            #expect(run(other, SystemCall(number: 1000, architecture: SystemCall.x8664)) == action.code)
        }
    }

    @Test func eachCallingConventionHasItsOwnNumbers() throws {
        let program = try SeccompProfile(
            defaultAction: .errno(1), architectures: [.x8664, .x86, .x32], rules: [SeccompRule(["getpid"], .allow)]
        ).compile()
        #expect(run(program, SystemCall(number: 39, architecture: SystemCall.x8664)) == allow)
        #expect(run(program, SystemCall(number: 20, architecture: SystemCall.i386)) == allow)
        #expect(run(program, SystemCall(number: 19, architecture: SystemCall.i386)) == refused)
        #expect(run(program, SystemCall(number: 21, architecture: SystemCall.i386)) == absent)
        #expect(run(program, SystemCall(number: 0x4000_0027, architecture: SystemCall.x8664)) == allow)
        #expect(run(program, SystemCall(number: 0x4000_0026, architecture: SystemCall.x8664)) == refused)
        #expect(run(program, SystemCall(number: 0x4000_0028, architecture: SystemCall.x8664)) == absent)
    }

    @Test func aCallingConventionThatIsNotCoveredKills() throws {
        let program = try SeccompProfile(defaultAction: .allow, rules: [SeccompRule(["getpid"], .errno(1))]).compile()
        #expect(run(program, SystemCall(number: 20, architecture: SystemCall.i386)) == 0)
        let strict = try SeccompProfile(defaultAction: .errno(1), rules: [SeccompRule(["getpid"], .allow)]).compile()
        #expect(run(strict, SystemCall(number: 39, architecture: SystemCall.x8664)) == allow)
        #expect(run(strict, SystemCall(number: 20, architecture: SystemCall.i386)) == 0)
        // x32 numbers on a kernel for x86-64 alone.
        #expect(run(strict, SystemCall(number: 0x4000_0027, architecture: SystemCall.x8664)) == 0)
    }

    @Test func whatIsNotKnownIsRefusedByName() {
        func text(_ body: () throws -> Void) -> String {
            do {
                try body()
                return ""
            } catch { return "\(error)" }
        }
        #expect(text { _ = try SeccompAction(name: "SCMP_ACT_DANCE") }.contains("SCMP_ACT_DANCE"))
        #expect(text { _ = try SeccompAction(name: "SCMP_ACT_NOTIFY", errnoRet: 1) }.contains("SCMP_ACT_NOTIFY"))
        #expect(text { _ = try SeccompAction(name: "SCMP_ACT_ALLOW", errnoRet: 1) }.contains("errnoRet"))
        #expect(text { _ = try SeccompAction(name: "SCMP_ACT_ERRNO", errnoRet: 5000) }.contains("5000"))
        #expect(text { _ = try SeccompArchitecture(name: "SCMP_ARCH_Z80") }.contains("SCMP_ARCH_Z80"))
        #expect(text { _ = try SeccompFlags(names: ["SECCOMP_FILTER_FLAG_ODD"]) }.contains("FLAG_ODD"))
        // It belongs to notification: without, the kernel would say no more than "invalid argument".
        let alone = SeccompProfile(defaultAction: .allow, flags: .waitKillable, rules: [])
        #expect(text { _ = try alone.loadFlags() }.contains("WAIT_KILLABLE"))
        #expect(text { _ = try alone.compile() }.contains("SCMP_ACT_NOTIFY"))
        #expect(text { _ = try SeccompComparison.Operation(name: "SCMP_CMP_ISH") }.contains("SCMP_CMP_ISH"))
        #expect(text { _ = try SeccompComparison(index: 6, .equal, 0) }.contains("6"))
    }

    @Test func actionsHaveTheKernelsCodes() throws {
        #expect(try SeccompAction(name: "SCMP_ACT_ERRNO").code == refused)
        #expect(try SeccompAction(name: "SCMP_ACT_ERRNO", errnoRet: 38).code == absent)
        #expect(try SeccompAction(name: "SCMP_ACT_KILL").code == 0)
        #expect(try SeccompAction(name: "SCMP_ACT_KILL_PROCESS").code == 0x8000_0000)
        #expect(try SeccompAction(name: "SCMP_ACT_TRACE", errnoRet: 7).code == 0x7ff0_0007)
        #expect(try SeccompAction(name: "SCMP_ACT_LOG").code == 0x7ffc_0000)
        #expect(try SeccompAction(name: "SCMP_ACT_TRAP").code == 0x0003_0000)
        #expect(try SeccompAction(name: "SCMP_ACT_NOTIFY").code == 0x7fc0_0000)
    }

    @Test func aProfileThatNotifiesIsLoadedWithAListenerAndNotForAllThreads() throws {
        let quiet = SeccompProfile(defaultAction: .allow, flags: [.synchronizeThreads, .log], rules: [])
        #expect(try !quiet.notifies && quiet.loadFlags() == 3)
        var asking = quiet
        asking.rules = [SeccompRule(["mkdir"], .notify)]
        #expect(try asking.notifies && asking.loadFlags() == 10)
        #expect(try asking.compile().flags == 10)
        asking.flags = .waitKillable
        #expect(try asking.loadFlags() == 40)
        let all = SeccompProfile(defaultAction: .notify, rules: [SeccompRule(["read"], .allow)])
        #expect(try all.notifies && all.loadFlags() == 12)
        // New calls are the agent's business too: none is answered with ENOSYS on the way.
        #expect(run(try all.compile(), SystemCall(number: 0, architecture: SystemCall.x8664)) == allow)
        #expect(run(try all.compile(), SystemCall(number: 460, architecture: SystemCall.x8664)) == 0x7fc0_0000)
    }

    @Test func flagsAreOursWhenNoneAreGivenAndNoneWhenTheListIsEmpty() throws {
        #expect(try SeccompFlags(names: nil).rawValue == 4)
        #expect(try SeccompFlags(names: []).rawValue == 0)
        #expect(try SeccompFlags(names: ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"]).rawValue == 3)
    }

    @Test func everyArchitectureIsKnownToLibseccompOrRefusedByName() {
        let late: Set<SeccompArchitecture> = [.loongarch64, .m68k, .sh, .sheb]
        for architecture in SeccompArchitecture.allCases where architecture.token == 0 {
            #expect(late.contains(architecture), "\(architecture)")
            let profile = SeccompProfile(defaultAction: .allow, architectures: [architecture], rules: [])
            #expect(throws: SeccompError("architecture \(architecture.rawValue)", "this libseccomp does not know it")) {
                try profile.compile()
            }
        }
    }
}
