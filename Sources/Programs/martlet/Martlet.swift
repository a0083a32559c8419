import ArgumentParser
import Client
import Glibc
import JSON
import Kernel
import Wire

/// The command line: `martlet VERB` for daily work, `martlet NOUN VERB` for the rest.
///
/// Every command gives its name in its configuration. One that the parser has to derive from the type costs each start a
/// walk over all conformances of the program, a fifth of a millisecond.
@main
struct Martlet: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "martlet",
        abstract: "Runs containers and services on a cluster of Linux machines.",
        discussion: """
            Exit codes: 0 done; 1 failed; 64 the command line was wrong; `run`, `exec` and `attach` end with the \
            program's own code, or 125 when Martlet failed (or the command line was wrong), 126 when the program could \
            not be executed, 127 when it was not found.
            """,
        version: "martlet \(Version.number)",
        groupedSubcommands: [
            CommandGroup(
                name: "Containers",
                subcommands: [
                    Run.self, Create.self, PS.self, Logs.self, Exec.self, Attach.self, Copy.self, Diff.self,
                    Export.self, Commit.self, Wait.self, Start.self,
                    Stop.self, Restart.self, Kill.self, Pause.self, Unpause.self, Update.self, Rename.self, Remove.self,
                    Inspect.self, Stats.self,
                    Top.self, Events.self,
                ]),
            CommandGroup(name: "Services", subcommands: [Service.self]),
            CommandGroup(
                name: "Images, volumes and networks",
                subcommands: [
                    Images.self, Pull.self, Push.self, Login.self, Logout.self, Tag.self, ImageCommand.self,
                    VolumeCommand.self, NetworkCommand.self,
                ]),
            CommandGroup(name: "Secrets and configs", subcommands: [SecretCommand.self, ConfigCommand.self]),
            CommandGroup(
                name: "Cluster",
                subcommands: [
                    Up.self, Down.self, MasterCommand.self, AgentCommand.self, ClusterCommand.self, TokenCommand.self,
                    NodeCommand.self, DeviceCommand.self, Doctor.self,
                    VersionCommand.self, Completion.self,
                ]),
        ])

    static func main() async {
        // A peer that went away is an error of its call, not the end of the program.
        signal(SIGPIPE, SIG_IGN)
        openStandardStreams()
        do {
            var command = try parseAsRoot()
            if var asynchronous = command as? any AsyncParsableCommand {
                try await asynchronous.run()
            } else {
                try command.run()
            }
        } catch let error as CommandFailure {
            end(error)
        } catch  where isOurs(error) {
            end(CommandFailure(Explanation.sentence(error)))
        } catch  where exitCode(for: error) == .validationFailure {
            end(Explanation.usage(error))
        } catch {
            // What was asked for: help, the version.
            exit(withError: error)
        }
    }

    /// A standard stream that the caller has closed must not become a socket of ours, which would get our output.
    private static func openStandardStreams() {
        for descriptor: Int32 in 0...2 where fcntl(descriptor, F_GETFD) == -1 {
            // The lowest free number is this one.
            _ = Glibc.open("/dev/null", O_RDWR)
        }
    }

    private static func end(_ failure: CommandFailure) -> Never {
        if !failure.message.isEmpty { Output.error("martlet: \(failure.message)") }
        Glibc.exit(failure.code)
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
        var table = Table("Part", "Version", "API", "Cluster", key: 1)
        try table.add(["version": Version.number, "api": Version.api], "client", Version.number, Version.api, "")
        do {
            let server = try await connection.cluster.version()
            try table.add(server, "master", server.version, server.api, server.clusterID)
        } catch {
            // Without a master this program still has a version.
            try table.print(format)
            throw error
        }
        try table.print(format)
    }
}

struct Completion: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "completion", abstract: "Print a completion script for bash or zsh.",
        discussion: "Example: martlet completion bash >/etc/bash_completion.d/martlet")
    @Argument(help: "bash or zsh.") var shell: String

    func run() throws {
        guard shell == "bash" || shell == "zsh" else {
            throw ValidationError("there is completion for bash and zsh, not for '\(shell)'")
        }
        Output.line(Martlet.completionScript(for: shell == "bash" ? .bash : .zsh))
    }
}
