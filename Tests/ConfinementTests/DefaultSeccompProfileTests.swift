import CSeccomp
import Confinement
import Glibc
import Testing

private let allow: UInt32 = 0x7fff_0000
private let refused: UInt32 = 0x0005_0001
private let absent: UInt32 = 0x0005_0026

/// Calls that no capability opens: the profile lists what is allowed, this lists what is not.
private let never: Set<String> = [
    // Work that the kernel does beside the process, out of the filter's sight, and the keyrings, which no namespace parts.
    "io_uring_enter", "io_uring_register", "io_uring_setup", "userfaultfd", "add_key", "keyctl", "request_key",
    // The whole machine's.
    "kexec_file_load", "kexec_load", "pivot_root", "swapoff", "swapon", "nfsservctl", "_sysctl", "sysfs", "ustat",
    "uselib", "migrate_pages", "move_pages",
    // Old or never made.
    "afs_syscall", "bdflush", "break", "create_module", "ftime", "get_kernel_syms", "getpmsg", "gtty", "idle", "lock",
    "mpx", "nice", "oldfstat", "oldlstat", "oldolduname", "oldstat", "olduname", "prof", "profil", "putpmsg",
    "query_module", "readdir", "security", "sgetmask", "sigaction", "signal", "sigpending", "sigsuspend", "ssetmask",
    "stty", "tuxcall", "ulimit", "vm86", "vm86old", "vserver",
]

/// Calls that any one of some capabilities opens, by the capabilities' numbers.
private let gated: [String: [Int]] = [
    "open_by_handle_at": [2], "delete_module": [16], "finit_module": [16], "init_module": [16], "ioperm": [17],
    "iopl": [17], "chroot": [18], "kcmp": [19], "pidfd_getfd": [19], "process_madvise": [19], "acct": [20],
    "bpf": [21, 39], "clone3": [21], "fanotify_init": [21], "fsconfig": [21], "fsmount": [21], "fsopen": [21],
    "fspick": [21], "lookup_dcookie": [21], "mount": [21], "mount_setattr": [21], "move_mount": [21],
    "open_tree": [21], "perf_event_open": [21, 38], "quotactl": [21], "quotactl_fd": [21], "setdomainname": [21],
    "sethostname": [21], "setns": [21], "syslog": [21, 34], "umount": [21], "umount2": [21], "unshare": [21],
    "reboot": [22], "get_mempolicy": [23], "mbind": [23], "set_mempolicy": [23], "set_mempolicy_home_node": [23],
    "clock_settime": [25], "clock_settime64": [25], "settimeofday": [25], "stime": [25], "vhangup": [26],
]

/// Calls whose arguments decide.
private let conditional: Set<String> = ["clone", "socket", "personality"]

@Suite struct DefaultSeccompProfileTests {
    /// No capability, the default ones, each gating one alone, and all.
    static let capabilitySets: [CapabilitySet] =
        [[], .containerDefaults, CapabilitySet(Capability.all)]
        + Set(gated.values.joined()).sorted().map { CapabilitySet(rawValue: 1 << UInt64($0)) }

    @Test(arguments: capabilitySets) func everyKnownCallMeetsItsAction(capabilities: CapabilitySet) throws {
        let program = try DefaultSeccompProfile.profile(capabilities: capabilities).compile()
        for (architecture, tag) in [(SeccompArchitecture.x8664, SystemCall.x8664), (.x86, SystemCall.i386)] {
            var seen = 0
            for (number, name) in Self.calls(architecture.token) where !conditional.contains(name) {
                seen += 1
                var expected = never.contains(name) ? refused : allow
                if let gates = gated[name] {
                    let open = gates.contains { capabilities.rawValue >> UInt64($0) & 1 == 1 }
                    expected = open ? allow : name == "clone3" ? absent : refused
                }
                let answer = run(program, SystemCall(number: number, architecture: tag))
                #expect(answer == expected, "\(name) (\(architecture)) with \(capabilities.names)")
            }
            #expect(seen > 340)
        }
    }

    @Test func theX32ConventionIsFilteredToo() throws {
        let program = try DefaultSeccompProfile.profile(capabilities: .containerDefaults).compile()
        for (number, name) in Self.calls(SeccompArchitecture.x32.token) where !conditional.contains(name) {
            var expected = never.contains(name) || gated[name] != nil ? refused : allow
            if name == "clone3" { expected = absent }
            if gated[name] == [18] { expected = allow }  // chroot, which the default set opens
            #expect(run(program, SystemCall(number: number, architecture: SystemCall.x8664)) == expected, "\(name)")
        }
    }

    @Test(arguments: [(2, true), (16, true), (37, true), (38, false), (39, true), (40, false), (41, true), (44, true)])
    func socketFamiliesThatReachTheKernelOrTheHypervisorAreRefused(family: Int, allowed: Bool) throws {
        for capabilities in [CapabilitySet.containerDefaults, CapabilitySet(Capability.all)] {
            let program = try DefaultSeccompProfile.profile(capabilities: capabilities).compile()
            for (number, architecture) in [(41, SystemCall.x8664), (359, SystemCall.i386)] as [(UInt32, UInt32)] {
                let call = SystemCall(number: number, architecture: architecture, arguments: [UInt64(family)])
                #expect(run(program, call) == (allowed ? allow : refused))
            }
        }
    }

    @Test func personalitiesThatWeakenAProcessAreRefused() throws {
        let program = try DefaultSeccompProfile.profile(capabilities: .containerDefaults).compile()
        let good: Set<UInt64> = [0, 8, 0x20000, 0x20008, 0xffff_ffff]
        // ADDR_NO_RANDOMIZE, READ_IMPLIES_EXEC, PER_SVR4 and their like.
        for value in Array(good) + [1, 0x40000, 0x40_0000, 0x20001, 0x1_0000_0000, UInt64.max] {
            let call = SystemCall(number: 135, architecture: SystemCall.x8664, arguments: [value])
            #expect(run(program, call) == (good.contains(value) ? allow : refused), "\(value)")
        }
    }

    @Test(arguments: [0x2000_0000, 0x4000_0000, 0x1000_0000, 0x0800_0000, 0x0400_0000, 0x0200_0000, 0x0002_0000])
    func cloneMakesNoNamespaceWithoutSysAdmin(flag: Int) throws {
        let without = try DefaultSeccompProfile.profile(capabilities: .containerDefaults).compile()
        let with = try DefaultSeccompProfile.profile(capabilities: CapabilitySet([Capability.sysAdmin])).compile()
        for (number, architecture) in [(56, SystemCall.x8664), (120, SystemCall.i386)] as [(UInt32, UInt32)] {
            var call = SystemCall(number: number, architecture: architecture, arguments: [UInt64(flag) | 17])
            #expect(run(without, call) == refused)
            #expect(run(with, call) == allow)
            call.arguments = [0x3d_0f00]  // a thread
            #expect(run(without, call) == allow)
        }
    }

    @Test func callsNobodyKnowsYetDoNotExist() throws {
        let program = try DefaultSeccompProfile.profile(capabilities: .containerDefaults).compile()
        #expect(run(program, SystemCall(number: 900, architecture: SystemCall.x8664)) == absent)
        #expect(run(program, SystemCall(number: 900, architecture: SystemCall.i386)) == absent)
    }

    @Test func theProgramFitsTheKernelWithAllCapabilities() throws {
        let program = try DefaultSeccompProfile.profile(capabilities: CapabilitySet(Capability.all)).compile()
        #expect(program.instructionCount <= 4096)
        #expect(program.flags == 4)
    }

    @Test func onlyNamesThatThisLibseccompDoesNotKnowAreSkipped() throws {
        let program = try DefaultSeccompProfile.profile(capabilities: CapabilitySet(Capability.all)).compile()
        for name in program.skipped { #expect(seccomp_syscall_resolve_name(name) == -1, "\(name)") }
        #expect(program.skipped.count < 20)
    }

    @Test func noCallIsListedTwice() {
        let rules = DefaultSeccompProfile.profile(capabilities: []).rules
        let names = rules.filter { $0.comparisons.isEmpty }.flatMap(\.names)
        #expect(Set(names).count == names.count)
        for rule in rules { #expect(rule.names == rule.names.sorted()) }
    }

    /// Every call of an architecture that libseccomp can name.
    private static func calls(_ token: UInt32) -> [(UInt32, String)] {
        let base: Int32 = token == SeccompArchitecture.x32.token ? 0x4000_0000 : 0
        return (base..<base + 600).compactMap { number in
            guard let text = seccomp_syscall_resolve_num_arch(token, number) else { return nil }
            defer { free(text) }
            return (UInt32(number), String(cString: text))
        }
    }
}
