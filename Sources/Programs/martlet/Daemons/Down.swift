import Agent
import ArgumentParser
import CKernel
import Glibc
import Kernel
import Logging

struct Down: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "down", abstract: "End the daemons of this machine and their pods.",
        discussion: "The state stays, and `martlet up` goes on from it; with --all nothing stays.")
    private static let alone =
        "End the pods alone, not the daemons: what a service manager does after it has ended these."
    @OptionGroup var place: PlaceOptions
    @Flag(help: ArgumentHelp(alone)) var pods = false
    @Flag(help: "Remove everything: pods, images, volumes, the store, the bridge and its rules.") var all = false

    func validate() throws {
        guard !pods || !all else { throw ValidationError("--pods and --all exclude each other") }
    }

    func run() async throws {
        try requireRoot("down")
        guard File.exists(place.runDir) || File.exists(place.dataDir) else {
            Output.line("Nothing to end: neither \(place.runDir) nor \(place.dataDir) exists.")
            return
        }
        if all { try place.refuseWhatIsNotOurs() }
        if !pods { for role in DaemonRole.allCases { try await end(role) } }
        guard let node = try NodeOptions.remembered(in: place) else {
            // No agent has been here, so there are no pods; whose the usual bridge and cgroups are is not known.
            if all { try removeFiles() }
            return
        }
        let teardown = Teardown(node.agentConfiguration(place), logger: Logger(label: "martlet.down"))
        var problems: [String] = []
        if !all {
            problems = try await teardown.stopPods()
        } else {
            // Whatever goes wrong in stopping is settled by killing.
            _ = try? await teardown.stopPods()
            problems = teardown.removeEverything()
        }
        guard problems.isEmpty else {
            throw CommandFailure("not everything could be ended: \(problems.joined(separator: "; "))")
        }
        if all { try removeFiles() }
    }

    private func removeFiles() throws {
        for folder in try place.removeFiles() { Output.line("\(folder) stays: there are other files in it.") }
    }

    /// SIGTERM, and SIGKILL after ten seconds. What a daemon left in the run directory stays, its pid file and perhaps its
    /// sockets: another may be starting there now, and takes it over.
    private func end(_ role: DaemonRole) async throws {
        guard let pid = place.runningDaemon(role), let process = try Proc.open(pid) else { return }
        // Looked at again now that the number cannot change its owner.
        guard place.runningDaemon(role) == pid else { return }
        for (signal, patience) in [(SIGTERM, 10.0), (SIGKILL, 10.0)] {
            ck_pidfd_send_signal(process.raw, signal)
            let deadline = ContinuousClock.now + .seconds(patience)
            while ContinuousClock.now < deadline {
                if place.runningDaemon(role) == nil { return }
                try await Task.sleep(for: .milliseconds(10))
            }
        }
        throw CommandFailure("`martlet \(role.rawValue)`, process \(pid), does not end")
    }
}
