import CKernel
import Confinement
import Glibc
import Kernel
import Testing

/// What a thread under a filter found out. It is written by one thread and read after that was joined.
private final class Observation {
    let program: SeccompProgram
    let body: () -> Void
    var loaded: Int32 = -1

    init(_ program: SeccompProgram, _ body: @escaping () -> Void) {
        self.program = program
        self.body = body
    }
}

/// Runs `body` on a thread of its own that has loaded the filter: filters are a thread's, and go with it.
///
/// - Returns: whether the kernel took the filter.
private func underFilter(_ program: SeccompProgram, _ body: @escaping () -> Void) -> Bool {
    let observation = Observation(program, body)
    var thread = pthread_t()
    let passed = Unmanaged.passRetained(observation)
    let result = pthread_create(
        &thread, nil,
        { context in
            // SAFETY: the pointer was retained for this thread alone.
            guard let context else { return nil }
            let observation = Unmanaged<Observation>.fromOpaque(context).takeRetainedValue()
            observation.program.bytes.withUnsafeBytes { code in
                // struct sock_fprog: a 16-bit count, padding, a pointer.
                var filter = (UInt64(observation.program.instructionCount), UInt64(UInt(bitPattern: code.baseAddress)))
                withUnsafePointer(to: &filter) {
                    _ = ck_prctl(38, 1, 0, 0, 0)  // PR_SET_NO_NEW_PRIVS
                    // PR_SET_SECCOMP with SECCOMP_MODE_FILTER
                    observation.loaded = ck_prctl(22, 2, UInt(bitPattern: $0), 0, 0)
                }
            }
            observation.body()
            return nil
        }, passed.toOpaque())
    guard result == 0 else {
        passed.release()
        return false
    }
    pthread_join(thread, nil)
    return observation.loaded == 0
}

/// The error number of a call, 0 when it succeeded.
private func outcome<Result: SignedInteger>(_ call: () -> Result) -> Int32 {
    let result = call()
    return result < 0 ? errno : 0
}

extension KernelSuite {
    /// The filter as the kernel runs it.
    @Suite(.serialized) struct SeccompFilterTests {
        @Test func theDefaultFilterDeniesWhatReachesOutOfAContainer() throws {
            let program = try DefaultSeccompProfile.profile(capabilities: .containerDefaults).compile()
            var seen: [String: Int32] = [:]
            let loaded = underFilter(program) {
                seen["AF_ALG"] = outcome { socket(38, 5, 0) }
                seen["AF_VSOCK"] = outcome { socket(40, 1, 0) }
                seen["unshare"] = outcome { unshare(Int32(CK_CLONE_NEWUSER)) }
                seen["setns"] = outcome { setns(-1, 0) }
                seen["keyctl"] = outcome { ck_keyctl_join_session(nil) }
                seen["bpf"] = outcome {
                    var attributes = bpf_attr()
                    return ck_bpf(0, &attributes, 0)
                }
                seen["mount"] = outcome { mount("none", "/nowhere", "tmpfs", 0, nil) }
                seen["open_tree"] = outcome { ck_open_tree(-1, "nowhere", 0) }
                seen["pivot_root"] = outcome { ck_pivot_root("/nowhere", "/nowhere") }
                seen["sethostname"] = outcome { sethostname("x", 1 << 20) }
            }
            #expect(loaded)
            for (name, number) in seen { #expect(number == EPERM, "\(name)") }
            #expect(seen.count == 10)
        }

        @Test func aProgramGoesOnAsUsualUnderTheDefaultFilter() throws {
            let program = try DefaultSeccompProfile.profile(capabilities: .containerDefaults).compile()
            var seen: [String: Int32] = [:]
            let loaded = underFilter(program) {
                seen["AF_UNIX"] = outcome {
                    let made = socket(1, 1, 0)
                    close(made)
                    return made
                }
                seen["open"] = outcome {
                    let file = ck_open("/proc/self/status", O_RDONLY, 0)
                    close(file)
                    return file
                }
                seen["memory"] = outcome { mmap(nil, 4096, 3, 0x22, -1, 0) == MAP_FAILED ? -1 : 0 }
                // The C library falls back from clone3, which the filter says does not exist, to clone.
                var pid: pid_t = 0
                seen["spawn"] = withCStrings(["true"]) { arguments in
                    withCStrings([]) { posix_spawn(&pid, "/bin/true", nil, nil, arguments, $0) }
                }
                seen["wait"] = outcome { waitpid(pid, nil, 0) }
            }
            #expect(loaded)
            for (name, number) in seen { #expect(number == 0, "\(name)") }
            #expect(seen.count == 5)
        }

        @Test func aCapabilityOpensItsCalls() throws {
            let program = try DefaultSeccompProfile.profile(capabilities: CapabilitySet([Capability.sysAdmin]))
                .compile()
            var number: Int32 = 0
            #expect(underFilter(program) { number = outcome { mount("none", "/nowhere", "tmpfs", 0, nil) } })
            #expect(number == ENOENT)
        }

        @Test func aRuleReturnsItsErrorNumber() throws {
            let program = try SeccompProfile(
                defaultAction: .allow, rules: [SeccompRule(["mkdir", "mkdirat"], .errno(UInt16(EDOM)))]
            ).compile()
            var number: Int32 = 0
            #expect(underFilter(program) { number = outcome { mkdir("/nowhere/at/all", 0o700) } })
            #expect(number == EDOM)
        }
    }
}
