import Glibc
import Kernel
import OCISpec
import Testing

extension KernelSuite {
    /// What the kernel answers to real calls of a container under `linux.seccomp`.
    @Suite(.serialized) struct RuntimeSeccomp {
        typealias Runtime = RuntimeFixture.Runtime

        private func run(
            _ fixture: RuntimeFixture, _ script: String, _ rules: [SyscallRule],
            default action: String = "SCMP_ACT_ALLOW",
            _ shape: (inout SeccompSpec) -> Void = { _ in }
        ) throws -> RuntimeOutput {
            try fixture.run(script) { spec in
                var profile = SeccompSpec(defaultAction: action)
                profile.syscalls = rules
                shape(&profile)
                spec.linux?.seccomp = profile
            }
        }

        /// `mkdir` of a shell under an action: the status it sees (128 + 31 for SIGSYS), and a part of the message.
        @Test(arguments: Runtime.allCases)
        func `every action does what it says`(_ runtime: Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            let expected: [(action: String, errno: UInt32?, status: String, text: String)] = [
                ("SCMP_ACT_ALLOW", nil, "0", ""), ("SCMP_ACT_LOG", nil, "0", ""),
                ("SCMP_ACT_ERRNO", nil, "1", "Operation not permitted"),
                ("SCMP_ACT_ERRNO", 18, "1", "link"), ("SCMP_ACT_ERRNO", 0, "0", ""),
                // Nobody traces it.
                ("SCMP_ACT_TRACE", nil, "1", "Function not implemented"),
                ("SCMP_ACT_TRACE", 7, "1", "Function not implemented"),
                ("SCMP_ACT_TRAP", nil, "159", ""), ("SCMP_ACT_KILL", nil, "159", ""),
                ("SCMP_ACT_KILL_THREAD", nil, "159", ""), ("SCMP_ACT_KILL_PROCESS", nil, "159", ""),
            ]
            for (action, number, status, text) in expected {
                let rule = SyscallRule(names: ["mkdir", "mkdirat"], action: action, errnoRet: number)
                let output = try run(fixture, "mkdir /tmp/x; echo $?", [rule])
                #expect(output.lines.last == status, "\(action): \(output)")
                #expect(output.stderr.contains(text), "\(action): \(output)")
            }
        }

        @Test(arguments: Runtime.allCases)
        func `rules for one call differ by its arguments`(_ runtime: Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            func socket(_ domain: UInt64, _ number: UInt32) -> SyscallRule {
                SyscallRule(
                    names: ["socket"], action: "SCMP_ACT_ERRNO", errnoRet: number,
                    args: [SyscallArgument(index: 0, value: domain, op: "SCMP_CMP_EQ")])
            }
            // chmod(2)'s mode: no set-user-ID bit; and no mode of 0 to 0o77.
            let mode = SyscallArgument(index: 1, value: 0o4000, valueTwo: 0o4000, op: "SCMP_CMP_MASKED_EQ")
            let low = SyscallArgument(index: 1, value: 0o77, op: "SCMP_CMP_LE")
            let rules = [
                SyscallRule(names: ["chmod"], action: "SCMP_ACT_ERRNO", errnoRet: 18, args: [mode]),
                SyscallRule(names: ["chmod"], action: "SCMP_ACT_ERRNO", errnoRet: 28, args: [low]),
                socket(2, 93), socket(16, 91),
                SyscallRule(names: ["no_such_call_ever"], action: "SCMP_ACT_KILL"),
            ]
            let script = """
                touch /tmp/f
                for mode in 4755 755 077 700; do chmod $mode /tmp/f 2>&1 && echo $mode; done
                """
            let output = try run(fixture, script, rules)
            #expect(output.lines.count == 4, "\(output)")
            #expect(output.lines.first?.contains("link") ?? false, "\(output)")
            #expect(output.lines.dropFirst().first == "755", "\(output)")
            #expect(output.lines.dropFirst(2).first?.contains("No space") ?? false, "\(output)")
            #expect(output.lines.last == "700", "\(output)")
        }

        @Test(arguments: Runtime.allCases)
        func `what no rule names gets the default error`(_ runtime: Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            // All that a shell needs, and no mkdir.
            let names = [
                "read", "write", "open", "openat", "close", "stat", "newfstatat", "fstat", "lstat", "poll", "lseek",
                "mmap",
                "mprotect", "munmap", "brk", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "ioctl", "writev",
                "access",
                "dup", "dup2", "getpid", "getppid", "geteuid", "getuid", "getegid", "getgid", "clone", "clone3", "fork",
                "vfork", "execve", "exit", "exit_group", "wait4", "fcntl", "getcwd", "umask", "arch_prctl", "uname",
                "set_tid_address", "prlimit64", "getrandom", "rseq", "set_robust_list", "futex", "prctl", "chdir",
                "setresuid", "setresgid", "setgroups", "capset", "capget", "close_range", "sendmsg", "recvmsg",
                "statfs",
                "fstatfs", "epoll_ctl", "epoll_pwait", "nanosleep", "madvise", "sigaltstack", "gettid", "tgkill",
                "readlink",
                "readlinkat", "sched_yield", "fchdir", "getdents64", "pread64", "faccessat2", "faccessat", "setsid",
                "eventfd2", "epoll_create1", "pipe2", "mknodat", "sched_getaffinity", "timer_create", "timer_settime",
                "timer_delete", "kill", "setuid", "setgid", "sendto", "recvfrom", "socket", "connect", "clock_gettime",
            ]
            for number in [nil, 18] as [UInt32?] {
                let rule = SyscallRule(names: names, action: "SCMP_ACT_ALLOW")
                let output = try run(fixture, "mkdir /tmp/x; echo $?", [rule], default: "SCMP_ACT_ERRNO") {
                    $0.defaultErrnoRet = number
                }
                #expect(output.lines.last == "1", "\(output)")
                #expect(output.stderr.contains(number == nil ? "Operation not permitted" : "link"), "\(output)")
            }
        }

        @Test func `an error number beside an action that takes none is refused`() throws {
            let fixture = try RuntimeFixture()
            for action in ["SCMP_ACT_ALLOW", "SCMP_ACT_KILL", "SCMP_ACT_NOTIFY", "SCMP_ACT_LOG"] {
                let output = try run(fixture, "true", [SyscallRule(names: ["mkdir"], action: action, errnoRet: 5)]) {
                    $0.listenerPath = "/dev/log"
                }
                #expect(output.code == 1, "\(output)")
                #expect(output.stderr.contains("errnoRet") || output.stderr.contains("listenerPath"), "\(output)")
            }
            let output = try run(fixture, "true", []) { $0.defaultErrnoRet = 5 }
            #expect(output.code == 1 && output.stderr.contains("errnoRet"), "\(output)")
        }

        #if arch(x86_64)
            /// A program of a few instructions, as an ELF file: makes one system call and exits with the error number.
            private func program(_ instructions: [UInt8]) -> [UInt8] {
                func bytes(_ value: UInt64, _ count: Int) -> [UInt8] {
                    (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * UInt64($0))) }
                }
                // neg eax; mov edi, eax; mov eax, 60 (exit); syscall
                let code = instructions + [0xf7, 0xd8, 0x89, 0xc7, 0xb8, 60, 0, 0, 0, 0x0f, 0x05]
                let base: UInt64 = 0x400000
                var file: [UInt8] = [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0] + bytes(0, 8)
                file += bytes(2, 2) + bytes(62, 2) + bytes(1, 4) + bytes(base + 120, 8) + bytes(64, 8) + bytes(0, 8)
                file += bytes(0, 4) + bytes(64, 2) + bytes(56, 2) + bytes(1, 2) + bytes(0, 6)
                file += bytes(1, 4) + bytes(5, 4) + bytes(0, 8) + bytes(base, 8) + bytes(base, 8)
                file += bytes(UInt64(120 + code.count), 8) + bytes(UInt64(120 + code.count), 8) + bytes(0x1000, 8)
                return file + code
            }

            /// Numbers of getpid(2) in three ways to call the kernel of an x86-64 machine.
            @Test(arguments: Runtime.allCases)
            func `calls of sub-architectures are filtered by their own numbers`(_ runtime: Runtime) throws {
                let fixture = try RuntimeFixture(runtime)
                let programs = [
                    ("x8664", program([0xb8, 39, 0, 0, 0, 0x0f, 0x05])),
                    ("x86", program([0xb8, 20, 0, 0, 0, 0xcd, 0x80])),
                    ("x32", program([0xb8, 39, 0, 0, 0x40, 0x0f, 0x05])),
                ]
                func statuses(_ architectures: [String]) throws -> [String] {
                    let rule = SyscallRule(names: ["getpid"], action: "SCMP_ACT_ERRNO", errnoRet: 44)
                    let script = programs.map { "/tmp/\($0.0); echo $?" }.joined(separator: "; ")
                    return try fixture.run(script) { spec in
                        var profile = SeccompSpec(defaultAction: "SCMP_ACT_ALLOW")
                        profile.syscalls = [rule]
                        profile.architectures = architectures
                        spec.linux?.seccomp = profile
                        for (name, content) in programs {
                            let host = "\(fixture.directory)/\(name)"
                            try File.replace(host, with: content, mode: 0o755)
                            spec.mounts.append(
                                MountSpec(destination: "/tmp/\(name)", type: "bind", source: host, options: ["bind"]))
                        }
                    }.lines
                }
                // A convention that is not covered kills the process: SIGSYS.
                #expect(try statuses([]) == ["44", "159", "159"])
                #expect(try statuses(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]) == ["44", "44", "159"])
                #expect(try statuses(["SCMP_ARCH_X86", "SCMP_ARCH_X32"]) == ["44", "44", "44"])
            }
        #endif
    }
}
