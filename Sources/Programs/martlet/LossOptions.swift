import ArgumentParser
import Model

/// What becomes of an instance whose node is lost, for the verbs that make workloads.
struct LossOptions: ParsableArguments {
    @Option(help: "Replace an instance when its node has been silent for so long, or never (services: 60s).")
    var replaceAfter: LossTime?
    @Option(help: "Take it for lost, and remove it should its node return, after so long, or never (services: 24h).")
    var giveUpAfter: LossTime?
    @Option(help: "keep-replacement or keep-original: which one stays when the node returns.")
    var onReturn: OnReturnArgument?
    @Option(
        help:
            "keep, or stop-after=TIME: the node ends it when it has been cut off for so long, so that it never runs twice."
    )
    var onDisconnect: OnDisconnectArgument?

    /// What was given, over what there is.
    func policy(over base: LossPolicy?, for kind: Workload.Kind) -> LossPolicy? {
        guard replaceAfter != nil || giveUpAfter != nil || onReturn != nil || onDisconnect != nil else { return base }
        var policy = base ?? .standard(for: kind)
        if let replaceAfter { policy.replaceAfter = replaceAfter.seconds }
        if let giveUpAfter { policy.giveUpAfter = giveUpAfter.seconds }
        if let onReturn { policy.onReturn = onReturn.choice }
        if let onDisconnect { policy.onDisconnect = onDisconnect.choice }
        return policy
    }
}

/// `30s`, `5m`, or `never`.
struct LossTime: ExpressibleByArgument {
    /// nil: never.
    let seconds: Int?

    init?(argument: String) {
        if argument == "never" {
            seconds = nil
        } else if let time = Seconds(argument: argument) {
            seconds = time.whole
        } else {
            return nil
        }
    }
}

struct OnReturnArgument: ExpressibleByArgument {
    let choice: LossPolicy.OnReturn

    init?(argument: String) {
        switch argument {
        case "keep-replacement": choice = .keepReplacement
        case "keep-original": choice = .keepOriginal
        default: return nil
        }
    }
}

struct OnDisconnectArgument: ExpressibleByArgument {
    let choice: LossPolicy.OnDisconnect

    init?(argument: String) {
        if argument == "keep" {
            choice = .keep
        } else if argument.hasPrefix("stop-after="), let time = Seconds(argument: String(argument.dropFirst(11))) {
            choice = .stopAfter(time.whole)
        } else {
            return nil
        }
    }
}
