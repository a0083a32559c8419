import JSON
import Model

/// Docker's form of a seccomp profile, which has conditions on the rules, in the OCI specification's form, which has
/// none.
enum SeccompText {
    /// The kernel's names of the architectures that images name.
    private static let machines = [
        "amd64": ["amd64", "x86", "x32"], "arm64": ["arm64", "arm"], "arm": ["arm"], "386": ["x86"],
        "ppc64le": ["ppc64le"], "s390x": ["s390x", "s390"], "riscv64": ["riscv64"],
    ]

    /// - Parameters:
    ///   - text: the profile's JSON.
    ///   - capabilities: what the container has.
    ///   - architecture: of the image, in the OCI specification's words.
    /// - Throws: `DockerError` 400 for what is no profile.
    static func translate(_ text: String, capabilities: Set<String>, architecture: String) throws -> String {
        do {
            let reader = JSONReader(try JSONValue.parse(text, limits: JSONLimits(bytes: 1 << 20)))
            var profile = JSONObject()
            profile["defaultAction"] = .string(try reader.string("defaultAction"))
            for key in ["defaultErrnoRet", "flags", "listenerPath", "listenerMetadata"] {
                if let value = try reader.optional(key) { profile[key] = value.value }
            }
            var architectures = try reader.optionalStrings("architectures") ?? []
            try reader.forEach("archMap") { (entry) throws(JSONError) in
                let name = try entry.string("architecture")
                guard own(architecture).contains(where: { name == "SCMP_ARCH_\($0)" }) else { return }
                architectures.append(name)
                architectures += try entry.optionalStrings("subArchitectures") ?? []
            }
            profile["architectures"] = .array(architectures.map { .string($0) })
            profile["syscalls"] = .array(
                try reader.map("syscalls") { (rule) throws(JSONError) -> JSONValue? in
                    try applies(rule, capabilities, architecture) ? try self.rule(rule) : nil
                }.compactMap(\.self))
            return String(decoding: JSONValue.object(profile).serialized(), as: UTF8.self)
        } catch {
            throw DockerError.badRequest("Decoding seccomp profile failed: \(error)")
        }
    }

    private static func own(_ architecture: String) -> [String] {
        switch architecture {
        case "amd64": ["X86_64"]
        case "arm64": ["AARCH64"]
        default: [architecture.uppercased()]
        }
    }

    private static func rule(_ rule: JSONReader) throws(JSONError) -> JSONValue {
        var result = JSONObject()
        // Of old there was one `name`.
        let names = if let all = try rule.optionalStrings("names") { all } else { [try rule.string("name")] }
        result["names"] = .array(names.map { .string($0) })
        result["action"] = .string(try rule.string("action"))
        for key in ["errnoRet", "args"] {
            if let value = try rule.optional(key) { result[key] = value.value }
        }
        return .object(result)
    }

    /// Whether the rule's conditions hold: of `includes` all, of `excludes` none. A least kernel is always there: none
    /// older than 4.8 is written in profiles.
    private static func applies(
        _ rule: JSONReader, _ capabilities: Set<String>, _ architecture: String
    ) throws(JSONError) -> Bool {
        let machine = Set(machines[architecture] ?? [architecture])
        if let includes = try rule.optionalObject("includes") {
            let arches = try includes.optionalStrings("arches") ?? []
            let wanted = try includes.optionalStrings("caps") ?? []
            guard arches.isEmpty || arches.contains(where: machine.contains),
                wanted.allSatisfy(capabilities.contains)
            else { return false }
        }
        if let excludes = try rule.optionalObject("excludes") {
            let arches = try excludes.optionalStrings("arches") ?? []
            let refused = try excludes.optionalStrings("caps") ?? []
            if arches.contains(where: machine.contains) || refused.contains(where: capabilities.contains) {
                return false
            }
            if try excludes.optionalString("minKernel") != nil { return false }
        }
        return true
    }
}
