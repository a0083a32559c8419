import ArgumentParser
import Model
import Wire

struct NetworkCheckCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check", abstract: "Say how a node's networks differ from what they should be.",
        discussion: "Ends with 0 when nothing differs, or all of it was mended with --repair, else with 1.")
    @OptionGroup var connection: ConnectionOptions
    @Flag(help: "Mend what differs.") var repair = false
    @Option(help: "text or json.", completion: .list(["text", "json"])) var format = "text"
    @Argument(completion: .nodes) var node: String

    func validate() throws {
        guard ["text", "json"].contains(format) else {
            throw ValidationError("--format takes text or json, not '\(format)'")
        }
    }

    func run() async throws {
        let check: NetworkCheck = try await connection.cluster.send(
            "POST", "\(APIPaths.nodes)/\(escaped(node))/network-check", body: NetworkCheckRequest(repair: repair))
        if format == "json" {
            try Output.json(check)
        } else {
            for difference in check.differences { Output.line(difference) }
        }
        guard check.differences.isEmpty || check.repaired else {
            let number = check.differences.count
            throw CommandFailure(
                "\(number) thing\(number == 1 ? "" : "s") of the networks of \(node) \(number == 1 ? "is" : "are") not as "
                    + "\(number == 1 ? "it" : "they") should be"
                    + (repair ? ", and not all of it could be mended" : ": --repair mends it"))
        }
    }
}
