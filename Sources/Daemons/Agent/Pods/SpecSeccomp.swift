import AgentCore
import Confinement
import JSON
import Model
import OCISpec

extension SpecBuilder {
    /// The filter of system calls that the user chose; nil for none.
    func seccomp(_ capabilities: CapabilitySet) throws(ExecutorFailure) -> SeccompSpec? {
        switch container.seccomp {
        case .unconfined: return nil
        case .default where container.privileged: return nil
        case .default: return SeccompSpec(DefaultSeccompProfile.profile(capabilities: capabilities))
        case .profile(let json):
            let profile: SeccompSpec
            do throws(JSONError) {
                profile = try SeccompSpec(parsing: Array(json.utf8))
            } catch {
                throw ExecutorFailure("the seccomp profile of the container is not one: \(error)")
            }
            // The runtime would connect, as root, to whatever socket of the node the profile names.
            let asks =
                profile.defaultAction == "SCMP_ACT_NOTIFY"
                || profile.syscalls.contains { $0.action == "SCMP_ACT_NOTIFY" }
            guard !asks, (profile.listenerPath ?? "").isEmpty else {
                throw ExecutorFailure(
                    "the seccomp profile of the container asks an agent (SCMP_ACT_NOTIFY, listenerPath), which is not "
                        + "supported in a cluster: use SCMP_ACT_ERRNO or SCMP_ACT_ALLOW")
            }
            return profile
        }
    }
}

extension SeccompSpec {
    /// A profile in the form of the OCI specification.
    init(_ profile: SeccompProfile) {
        let (action, number) = Self.text(profile.defaultAction)
        self.init(defaultAction: action)
        defaultErrnoRet = number
        architectures = profile.architectures.map(\.rawValue)
        syscalls = profile.rules.map { rule in
            let (action, number) = Self.text(rule.action)
            return SyscallRule(
                names: rule.names, action: action, errnoRet: number,
                args: rule.comparisons.map {
                    SyscallArgument(
                        index: $0.index, value: $0.value, valueTwo: $0.valueTwo, op: $0.operation.rawValue)
                })
        }
    }

    private static func text(_ action: SeccompAction) -> (name: String, number: UInt32?) {
        switch action {
        case .killProcess: ("SCMP_ACT_KILL_PROCESS", nil)
        case .killThread: ("SCMP_ACT_KILL_THREAD", nil)
        case .trap: ("SCMP_ACT_TRAP", nil)
        case .errno(let number): ("SCMP_ACT_ERRNO", UInt32(number))
        case .trace(let message): ("SCMP_ACT_TRACE", UInt32(message))
        case .log: ("SCMP_ACT_LOG", nil)
        case .notify: ("SCMP_ACT_NOTIFY", nil)
        case .allow: ("SCMP_ACT_ALLOW", nil)
        }
    }
}
