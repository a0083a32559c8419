import ArgumentParser

/// What this program says when something failed: one sentence, on the words of the command line.
enum Explanation {
    /// The sentence for an error of a verb. The API names fields; the user gave flags.
    static func sentence(_ error: any Error) -> String {
        let text = "\(error)"
        guard text.hasPrefix("$."), let end = text.firstRange(of: ": ") else { return text }
        let path = text[..<end.lowerBound]
        guard let word = flags.first(where: { path.contains($0.field) })?.word else { return text }
        return "\(word): \(text[end.upperBound...])"
    }

    /// Fields of requests and where they come from; the more special ones first.
    private static let flags: [(field: String, word: String)] = [
        (".limits.memorySwap", "--memory-swap"), (".limits.memoryReservation", "--memory-reservation"),
        (".limits.memory", "--memory"), (".limits.cpuShares", "--cpu-shares"), (".limits.cpuPeriod", "--cpu-period"),
        (".limits.cpuQuota", "--cpu-quota"), (".limits.cpus", "--cpuset-cpus"),
        (".limits.memoryNodes", "--cpuset-mems"), (".limits.cpu", "--cpus"), (".limits.hugepages", "--hugepages"),
        (".limits.pids", "--pids-limit"), (".limits.sharedMemory", "--shm-size"), (".source.tmpfs", "--tmpfs"),
        (".source.secret", "--secret"),
        (".source.config", "--config"), (".mounts", "--volume, --tmpfs, --secret or --config"),
        (".environment", "--env"), (".workingDirectory", "--workdir"),
        (".user", "--user"), (".capabilitiesAdded", "--cap-add"), (".capabilitiesDropped", "--cap-drop"),
        (".seccomp", "--security-opt"), (".devices", "--device"), (".deviceClaims", "--gpus"),
        (".sysctls", "--sysctl"), (".rlimits", "--ulimit"),
        (".stopSignal", "--stop-signal"), (".stopGrace", "--stop-timeout"),
        (".healthCheck.interval", "--health-interval"),
        (".healthCheck.timeout", "--health-timeout"), (".healthCheck.retries", "--health-retries"),
        (".healthCheck.startPeriod", "--health-start-period"), (".healthCheck", "--health-cmd, -tcp or -http"),
        (".entrypoint", "--entrypoint"), (".command", "the command"), (".image", "the image"),
        (".pod.ports", "--publish"), (".pod.network", "--network"), (".pod.hostname", "--hostname"),
        (".pod.restart", "--restart"), (".pod.constraints", "--constraint"), (".labels", "--label"),
        ("etLabels", "the label"),
        ("removeLabels", "the label"),
        (".removeOnExit", "--rm"), (".scale", "--replicas"), (".update.", "--update-*"), (".signal", "--signal"),
        (".grace", "--timeout"), ("$.name", "the name"),
        ("$.subnet", "--subnet"), ("$.gateway", "--gateway"), ("$.range", "--ip-range"),
        ("$.reserved", "--aux-address"), ("$.vni", "--vni"), ("$.isInternal", "--internal"), ("$.options", "--opt"),
        (".address6", "--ip6"), (".address", "--ip"), (".mac", "--mac-address"),
    ]

    /// The sentence for a command line that could not be understood, and the code that goes with it.
    static func usage(_ error: any Error) -> CommandFailure {
        let lines = Martlet.fullMessage(for: error).split(separator: "\n").map(String.init)
        var text = Martlet.message(for: error)
        if !text.contains("': "), let help = lines.first(where: { $0.hasPrefix("Help:") }) {
            // What the flag is for, unless its own parser has said what is wrong: `Help:  -m <memory>  Memory limit.`
            let meaning = help.split(separator: "  ").last.map { String($0).without(ends: " .") } ?? ""
            if !meaning.isEmpty, !meaning.contains("<") { text += " (\(meaning))" }
        }
        let (words, next) = verb(CommandLine.arguments)
        if let next { text = "there is no command '\(next)'" }
        if let first = text.first, text.dropFirst().first?.isLowercase ?? false {
            text = first.lowercased() + text.dropFirst()
        }
        return CommandFailure(
            "\(text.without(ends: " .")); see `\((words + ["--help"]).joined(separator: " "))`", code: code(words))
    }

    /// A program's own code may be 64, so the verbs that hand one on fail with 125 as they always do.
    private static func code(_ verb: [String]) -> Int32 {
        ["run", "exec", "attach"].contains(verb.dropFirst().first) ? 125 : 64
    }

    /// `martlet service create` of the arguments, and the word that should have been the next verb but is none.
    private static func verb(_ arguments: [String]) -> (words: [String], unknown: String?) {
        var words = ["martlet"]
        var place: any ParsableCommand.Type = Martlet.self
        for argument in arguments.dropFirst() {
            let children =
                place.configuration.subcommands + place.configuration.groupedSubcommands.flatMap(\.subcommands)
            let next = children.first {
                $0._commandName == argument || $0.configuration.aliases.contains(argument)
            }
            guard let next else { return (words, children.isEmpty || argument.hasPrefix("-") ? nil : argument) }
            place = next
            words.append(argument)
        }
        return (words, nil)
    }
}

extension String {
    /// Without these characters at its ends.
    func without(ends set: String) -> String {
        var rest = self[...]
        while let first = rest.first, set.contains(first) { rest = rest.dropFirst() }
        while let last = rest.last, set.contains(last) { rest = rest.dropLast() }
        return String(rest)
    }
}
