import Confinement
import JSON
import Kernel
import OCISpec

extension Verb {
    static let features = Verb(
        name: "features", usage: "", summary: "print what this runtime supports, as JSON", flags: { [] }
    ) { call in
        try call.arguments.require("features", atLeast: 0, atMost: 0)
        print(String(decoding: Features.json.serialized(pretty: true), as: UTF8.self))
        return 0
    }
}

/// The features document of the OCI runtime specification.
enum Features {
    static var json: JSONValue {
        [
            "ociVersionMin": .string(Validation.lowestVersion), "ociVersionMax": .string(Validation.highestVersion),
            "hooks": list([
                "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
            ]),
            "mountOptions": list(MountOptions.knownNames),
            "linux": [
                "namespaces": list(NamespaceSpec.Kind.allCases.map(\.rawValue).sorted()),
                "capabilities": list(CapabilitySet.known().names),
                "cgroup": [
                    "v1": true, "v2": true, "systemd": true, "systemdUser": false, "rdma": true,
                ],
                "seccomp": seccomp,
                // What the runtime does where the kernel has it; a container that asks in vain is refused.
                "apparmor": ["enabled": true], "selinux": ["enabled": true],
                "intelRdt": ["enabled": true, "schemata": true, "monitoring": true],
                "memoryPolicy": [
                    "modes": list(MemoryPolicy.Mode.allCases.map(\.rawValue).sorted()),
                    "flags": list(MemoryPolicy.flagNames),
                ],
                "mountExtensions": ["idmap": ["enabled": true]], "netDevices": ["enabled": true],
            ],
            "annotations": annotations, "potentiallyUnsafeConfigAnnotations": [],
        ]
    }

    private static var annotations: JSONValue {
        var object = JSONObject()
        object["org.martlet.version"] = .string(Version.number)
        if let version = SeccompProfile.libraryVersion {
            object["io.github.seccomp.libseccomp.version"] = .string(version)
        }
        // Under runc's names, for engines that look there.
        object["org.opencontainers.runc.checkpoint.enabled"] = "false"
        return .object(object)
    }

    private static var seccomp: JSONValue {
        [
            "enabled": true,
            "actions": list([
                "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
                "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
            ]),
            "operators": list(SeccompComparison.Operation.allCases.map(\.rawValue).sorted()),
            "archs": list(SeccompArchitecture.allCases.filter { $0.token != 0 }.map(\.rawValue).sorted()),
            "knownFlags": list(SeccompFlags.names.map(\.name)),
            "supportedFlags": list(SeccompFlags.names.filter(\.flag.isSupported).map(\.name)),
        ]
    }

    private static func list(_ texts: [String]) -> JSONValue { .array(texts.map { .string($0) }) }
}
