import JSON
import MasterCore
import Model

/// What lists say of a container in words.
enum ContainerText {
    /// Its program and arguments in one line; an argument with blanks in quotes.
    static func command(_ spec: ContainerSpec) -> String {
        let words = (spec.entrypoint ?? []) + (spec.command ?? [])
        guard let program = words.first else { return "" }
        return words.dropFirst().reduce(program) { line, word in
            line + (word.contains(" ") ? " '\(word)'" : " \(word)")
        }
    }

    static func networkMode(_ container: ContainerSummary) -> String {
        switch container.network {
        case .bridge, .host, .none: container.network.rawValue
        case .attached: container.networks.first?.name ?? "none"
        case .container: "container:\(container.networkOf)"
        }
    }

    /// `Up 2 minutes (healthy)`, `Exited (0) 3 seconds ago`, …
    static func status(_ container: ContainerSummary, now: Timestamp) -> String {
        if container.unreachableSince != nil { return "Host Down" }
        let status = container.container
        func ago(_ time: Timestamp?) -> String { duration(now - (time ?? now)) }
        switch container.state {
        case .created: return "Created"
        case .removing: return "Removal In Progress"
        case .dead: return "Dead"
        case .exited: return "Exited (\(status.exitCode ?? 0)) \(ago(status.finishedAt)) ago"
        case .restarting: return "Restarting (\(status.exitCode ?? 0)) \(ago(status.finishedAt)) ago"
        case .paused: return "Up \(ago(status.startedAt)) (Paused)"
        case .running:
            let health =
                switch status.health {
                case .none: ""
                case .starting: " (health: starting)"
                case .healthy, .unhealthy: " (\(status.health.rawValue))"
                }
            return "Up \(ago(status.startedAt))\(health)"
        }
    }

    /// A span of time in words, `5 seconds`, `About a minute`, `3 weeks`, as people read it beside Docker's.
    static func duration(_ nanoseconds: Int64) -> String {
        let seconds = max(0, nanoseconds) / 1_000_000_000
        let minutes = seconds / 60
        // To the nearest hour.
        let hours = (seconds + 1800) / 3600
        switch true {
        case seconds < 1: return "Less than a second"
        case seconds == 1: return "1 second"
        case seconds < 60: return "\(seconds) seconds"
        case minutes == 1: return "About a minute"
        case minutes < 60: return "\(minutes) minutes"
        case hours == 1: return "About an hour"
        case hours < 48: return "\(hours) hours"
        case hours < 24 * 14: return "\(hours / 24) days"
        case hours < 24 * 60: return "\(hours / 24 / 7) weeks"
        case hours < 24 * 365 * 2: return "\(hours / 24 / 30) months"
        default: return "\(seconds / 3600 / 24 / 365) years"
        }
    }
}
