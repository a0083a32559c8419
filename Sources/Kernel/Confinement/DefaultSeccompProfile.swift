import Glibc

/// The filter that a container gets when nothing else is said.
///
/// It means what Docker's default means: what is not listed fails with EPERM; some calls depend on capabilities; the
/// socket families of AF_ALG and AF_VSOCK, new namespaces by clone, and odd personalities are denied. io_uring,
/// userfaultfd and the keyring calls are not allowed at all, because their bugs reach across containers.
package enum DefaultSeccompProfile {
    /// Builds the profile.
    ///
    /// - Parameters:
    ///   - capabilities: what the container's first process is granted (its bounding set): it opens the calls that are
    ///     useless or refused by the kernel without them.
    ///   - architecture: the machine's; 32-bit programs of the same machine are covered too.
    package static func profile(
        capabilities: CapabilitySet, architecture: SeccompArchitecture = .native
    ) -> SeccompProfile {
        var allowed: [[String]] = [
            files, transfer, events, memory, processes, signals, time, identity, interprocess, network, machine,
            callsOf(architecture),
        ]
        for gate in gates where capabilities.contains(gate.capability) { allowed.append(gate.names) }
        var rules = allowed.map { SeccompRule($0, .allow) }
        rules += socketRules
        rules += personalities.map {
            SeccompRule(["personality"], .allow, when: [SeccompComparison(unchecked: 0, .equal, $0)])
        }
        if !capabilities.contains(Capability.sysAdmin) {
            rules += cloneRules(architecture)
        }
        return SeccompProfile(
            defaultAction: .errno(UInt16(EPERM)), architectures: compatible(architecture), rules: rules)
    }

    /// Calls that a capability opens. Without the capability the kernel refuses most of them anyway; the filter keeps
    /// their code out of reach.
    private static let gates: [(capability: Capability, names: [String])] = [
        (.dacReadSearch, ["open_by_handle_at"]),
        (.sysModule, ["delete_module", "finit_module", "init_module"]),
        (.sysRawIO, ["ioperm", "iopl"]),
        (.sysChroot, ["chroot"]),
        (
            .sysPtrace,
            ["kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace"]
        ),
        (.sysPacct, ["acct"]),
        (
            .sysAdmin,
            [
                "bpf", "clone", "clone3", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick", "lookup_dcookie",
                "lsm_get_self_attr", "lsm_list_modules", "lsm_set_self_attr", "mount", "mount_setattr", "move_mount",
                "open_tree", "perf_event_open", "quotactl", "quotactl_fd", "setdomainname", "sethostname", "setns",
                "syslog", "umount", "umount2", "unshare",
            ]
        ),
        (.sysBoot, ["reboot"]),
        (.sysNice, ["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
        (.sysTime, ["clock_settime", "clock_settime64", "settimeofday", "stime"]),
        (.sysTTYConfig, ["vhangup"]),
        (.syslog, ["syslog"]),
        (.perfmon, ["perf_event_open"]),
        (.bpf, ["bpf"]),
    ]

    /// Every socket family but 38 (AF_ALG, whose kernel code was a way out of containers) and 40 (AF_VSOCK, which
    /// reaches the hypervisor).
    private static let socketRules: [SeccompRule] = [
        SeccompRule(["socket"], .allow, when: [SeccompComparison(unchecked: 0, .less, 38)]),
        SeccompRule(["socket"], .allow, when: [SeccompComparison(unchecked: 0, .equal, 39)]),
        SeccompRule(["socket"], .allow, when: [SeccompComparison(unchecked: 0, .greater, 40)]),
    ]

    /// PER_LINUX, PER_LINUX32, both with UNAME26, and the question for the present one.
    private static let personalities: [UInt64] = [0, 8, 0x20000, 0x20008, 0xffff_ffff]

    /// All CLONE_NEW… flags that clone(2) takes: mount, cgroup, uts, ipc, user, pid and network namespaces.
    private static let namespaceFlags: UInt64 = 0x7e02_0000

    /// Threads and processes, but no namespaces. clone3's flags lie in memory, where a filter cannot read: it is said
    /// not to exist, so that the C library takes clone.
    private static func cloneRules(_ architecture: SeccompArchitecture) -> [SeccompRule] {
        let swapped = architecture == .s390 || architecture == .s390x
        let noNamespaces = SeccompComparison(unchecked: swapped ? 1 : 0, .maskedEqual, namespaceFlags, 0)
        return [
            SeccompRule(["clone"], .allow, when: [noNamespaces]),
            SeccompRule(["clone3"], .errno(UInt16(ENOSYS))),
        ]
    }

    /// Calls that only some machines have.
    private static func callsOf(_ architecture: SeccompArchitecture) -> [String] {
        switch architecture {
        case .x8664, .x32: ["arch_prctl", "modify_ldt"]
        case .x86: ["modify_ldt"]
        case .arm, .aarch64:
            ["arm_fadvise64_64", "arm_sync_file_range", "breakpoint", "cacheflush", "set_tls", "sync_file_range2"]
        case .ppc64le: ["swapcontext", "sync_file_range2"]
        case .s390, .s390x: ["s390_pci_mmio_read", "s390_pci_mmio_write", "s390_runtime_instr"]
        case .riscv64: ["riscv_flush_icache"]
        default: []
        }
    }

    /// The other calling conventions of the same machine.
    private static func compatible(_ architecture: SeccompArchitecture) -> [SeccompArchitecture] {
        switch architecture {
        case .x8664: [.x8664, .x86, .x32]
        case .aarch64: [.aarch64, .arm]
        case .s390x: [.s390x, .s390]
        case .mips64: [.mips64, .mips, .mips64n32]
        case .mipsel64: [.mipsel64, .mipsel, .mipsel64n32]
        default: [architecture]
        }
    }
}
