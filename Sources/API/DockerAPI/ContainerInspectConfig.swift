import JSON
import Model
import Wire

/// Config of an inspected container: what belongs to it wherever it runs.
extension ContainerInspect {
    var config: JSONValue {
        let volumes = spec.mounts.filter(\.isAnonymous).map(\.target).sorted()
        var object: JSONObject = [
            "Hostname": .string(view.network == .host ? view.nodeName : view.hostname),
            "Domainname": .string(view.pod.domainname), "User": .string(spec.user),
            "AttachStdin": .bool(spec.stdinOnce), "AttachStdout": true, "AttachStderr": true,
        ]
        if view.network == .container || view.pod.namespaces.uts == .node { object["Hostname"] = "" }
        if !spec.exposedPorts.isEmpty { object["ExposedPorts"] = .set(spec.exposedPorts) }
        object["Tty"] = .bool(spec.terminal)
        object["OpenStdin"] = .bool(spec.stdin)
        object["StdinOnce"] = .bool(spec.stdinOnce)
        object["Env"] = .listOrNull(spec.environment)
        object["Cmd"] = .listOrNull(spec.command ?? [])
        if let check = spec.healthCheck { object["Healthcheck"] = Self.healthCheck(check) }
        object["Image"] = .string(spec.image)
        object["Volumes"] = volumes.isEmpty ? .null : .set(volumes)
        object["WorkingDir"] = .string(spec.workingDirectory)
        object["Entrypoint"] = .listOrNull(spec.entrypoint ?? [])
        if view.network == .none { object["NetworkDisabled"] = true }
        if version < .v1_52, let mac = view.pod.attachments.first?.mac {
            object["MacAddress"] = .string(mac)
        }
        if version < .v1_52 { object["OnBuild"] = JSONValue.null }
        object["Labels"] = .texts(view.labels)
        if !spec.stopSignal.isEmpty { object["StopSignal"] = .string(spec.stopSignal) }
        if spec.stopGrace != 10 { object["StopTimeout"] = .integer(Int64(spec.stopGrace)) }
        return .object(object)
    }

    private static func healthCheck(_ check: HealthCheck) -> JSONValue {
        var test: [String]
        switch check.probe {
        case .command(let words):
            let isText = words.count == 3 && Array(words.prefix(2)) == CreateTranslation.shell
            test = isText ? ["CMD-SHELL", words[2]] : ["CMD"] + words
        // Docker knows no probe without a command; it is shown for people.
        case .tcp(let port): test = ["TCP", "\(port)"]
        case .http(let port, let path): test = ["HTTP", "\(port)", path]
        }
        var object: JSONObject = ["Test": .list(test)]
        let times = [
            ("Interval", check.interval), ("Timeout", check.timeout), ("StartPeriod", check.startPeriod),
            ("StartInterval", check.startInterval),
        ]
        for case (let name, let seconds?) in times where seconds > 0 {
            object[name] = .integer(Int64(seconds) * 1_000_000_000)
        }
        if let retries = check.retries { object["Retries"] = .integer(Int64(retries)) }
        return .object(object)
    }
}
