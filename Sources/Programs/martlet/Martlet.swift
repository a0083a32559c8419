import ArgumentParser
import Client
import Glibc
import JSON
import Kernel
import Wire

/// The command line: `martlet VERB` for daily work, `martlet NOUN VERB` for the rest.
@main
struct Martlet: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "martlet",
        abstract: "Runs containers and services on a cluster of Linux machines.",
        discussion: """
            Exit codes: 0 done; 1 failed; 64 the command line was wrong; `run`, `exec` and `attach` end with the \
            container's own code, or 125 when Martlet failed, 126 when the program could not be executed, 127 when \
            it was not found.
            """,
        version: "martlet \(Version.number)",
        groupedSubcommands: [
            CommandGroup(
                name: "Containers",
                subcommands: [
                    Run.self, Create.self, PS.self, Logs.self, Exec.self, Attach.self, Copy.self, Wait.self, Start.self,
                    Stop.self, Restart.self, Kill.self, Pause.self, Unpause.self, Remove.self, Inspect.self, Stats.self,
                    Top.self, Events.self,
                ]),
            CommandGroup(name: "Services", subcommands: [Service.self]),
            CommandGroup(
                name: "Images and volumes", subcommands: [Images.self, ImageCommand.self, VolumeCommand.self]),
            CommandGroup(
                name: "Cluster",
                subcommands: [
                    Up.self, Down.self, MasterCommand.self, AgentCommand.self, NodeCommand.self, Doctor.self,
                    VersionCommand.self, Completion.self,
                ]),
        ])

    static func main() async {
        // A peer that went away is an error of its call, not the end of the program.
        signal(SIGPIPE, SIG_IGN)
        do {
            var command = try parseAsRoot()
            if var asynchronous = command as? any AsyncParsableCommand {
                try await asynchronous.run()
            } else {
                try command.run()
            }
        } catch let error as CommandFailure {
            if !error.message.isEmpty { Output.error("martlet: \(error.message)") }
            Glibc.exit(error.code)
        } catch  where isOurs(error) {
            Output.error("martlet: \(error)")
            Glibc.exit(1)
        } catch {
            exit(withError: error)
        }
    }

    /// ArgumentParser's own errors and requests for help go back to it.
    private static func isOurs(_ error: any Error) -> Bool {
        !(error is ValidationError) && !(error is ExitCode) && !(error is CleanExit)
            && !String(reflecting: type(of: error)).hasPrefix("ArgumentParser.")
    }
}

/// Ends the program with a sentence and a code.
struct CommandFailure: Error, CustomStringConvertible {
    let message: String
    var code: Int32 = 1

    init(_ message: String, code: Int32 = 1) {
        self.message = message
        self.code = code
    }

    var description: String { message }
}

struct VersionCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "version", abstract: "Show the versions of this program and of the master.")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var format: FormatOptions

    func run() async throws {
        let server = try await connection.cluster.version()
        var table = Table("Part", "Version", "API", "Cluster")
        try table.add(["version": Version.number], "client", Version.number, Version.api, "")
        try table.add(server, "master", server.version, server.api, server.clusterID)
        try table.print(format)
    }
}

struct Completion: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Print a completion script for bash or zsh.",
        discussion: "Example: martlet completion bash >/etc/bash_completion.d/martlet")
    @Argument(help: "bash or zsh.") var shell: String

    func run() throws {
        guard shell == "bash" || shell == "zsh" else {
            throw ValidationError("there is completion for bash and zsh, not for '\(shell)'")
        }
        Output.line(Martlet.completionScript(for: shell == "bash" ? .bash : .zsh))
    }
}
