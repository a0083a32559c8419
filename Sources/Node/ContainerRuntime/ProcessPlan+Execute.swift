import CStage
import Confinement
import Glibc
import Kernel
import OCISpec

extension ProcessPlan {
    /// Becomes the program: the last thing a process of ours does. What fails is reported on `socket`.
    ///
    /// - Parameter paths: absolute paths to try in order.
    func execute(_ paths: [String], socket: Int32) -> Never {
        withCStrings(paths) { paths in
            withCStrings(args) { argv in
                withCStrings(env) { envp in
                    withCStrings([cwd] + limits.map(\.name)) { names in
                        let limits = limits.enumerated().map { index, limit in
                            cs_limit(
                                resource: limit.resource, name: names[index + 1], soft: limit.soft, hard: limit.hard)
                        }
                        limits.withUnsafeBufferPointer { limits in
                            (groups ?? []).withUnsafeBufferPointer { groups in
                                filter.withUnsafeBytes { filter -> Void in
                                    var process = request()
                                    process.paths = paths
                                    process.argv = argv
                                    process.envp = envp
                                    process.directory = UnsafePointer(names[0])
                                    process.groups = groups.baseAddress
                                    process.limits = limits.baseAddress
                                    process.limit_count = Int32(limits.count)
                                    process.filter = filter.isEmpty ? nil : filter.baseAddress
                                    process.socket = socket
                                    cs_execute(&process)
                                }
                            }
                        }
                    }
                }
            }
        }
        // Not reached: cs_execute does not return.
        _exit(127)
    }

    /// The fields without pointers.
    private func request() -> cs_process {
        var process = cs_process()
        process.uid = uid
        process.gid = gid
        process.group_count = groups.map { Int32($0.count) } ?? -1
        process.mask = mask.map { Int32($0) } ?? 0o022
        process.set_capabilities = 1
        process.bounding = capabilities.bounding.rawValue
        process.effective = capabilities.effective.rawValue
        process.permitted = capabilities.permitted.rawValue
        process.inheritable = capabilities.inheritable.rawValue
        process.ambient = capabilities.ambient.rawValue
        process.no_new_privileges = noNewPrivileges ? 1 : 0
        process.filter_length = UInt16(clamping: filter.count / 8)
        process.filter_flags = filterFlags
        process.personality = personality ?? -1
        process.keep_descriptors = keptDescriptors
        process.ignored_signals = ignoredSignals
        return process
    }

    /// A reported failure in the user's words: a refused limit is explained with its numbers.
    func explain(_ message: Channel.Message) -> String { Self.explain(message, limits) }

    /// The same for limits that are still a configuration's.
    static func explain(_ message: Channel.Message, limits: [RlimitSpec]) throws -> String {
        explain(message, try limits.map { try ResourceLimit(name: $0.type, soft: $0.soft, hard: $0.hard) })
    }

    private static func explain(_ message: Channel.Message, _ limits: [ResourceLimit]) -> String {
        let prefix = "rlimit "
        if message.text.hasPrefix(prefix),
            let limit = limits.first(where: { $0.name == message.text.dropFirst(prefix.count) })
        {
            return limit.refusal(errno: message.error)
        }
        return message.failure
    }
}
