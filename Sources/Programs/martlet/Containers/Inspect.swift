import ArgumentParser
import Glibc
import JSON
import Model
import Wire

struct Inspect: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect", abstract: "Show everything about containers, as JSON.")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var format: InspectOptions
    @Argument(completion: .containers) var containers: [String]

    func run() async throws {
        try await format.print(containers) { container -> ContainerView in
            try await connection.cluster.get("\(APIPaths.containers)/\(escaped(container))")
        }
    }
}

struct Top: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "top", abstract: "List the processes of a container.")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var format: FormatOptions
    @Argument(completion: .containers) var container: String

    func run() async throws {
        let list: ProcessList = try await connection.cluster.get("\(APIPaths.containers)/\(escaped(container))/top")
        var table = Table()
        table.columns = list.titles
        table.rows = list.processes
        table.objects = list.processes.map { row in
            .object(zip(list.titles, row).reduce(into: .init()) { $0[$1.0] = .string($1.1) })
        }
        try table.print(format)
    }
}

struct Stats: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stats", abstract: "Show what running containers use.",
        discussion: "Example: martlet stats --no-stream")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var format: FormatOptions
    @Flag(help: "Print one sample (over a second) and end.") var noStream = false
    @Argument(completion: .containers) var containers: [String] = []

    func run() async throws {
        let cluster = connection.cluster
        var before: [String: ContainerStats] = [:]
        while true {
            let names = try await names(cluster)
            var pairs: [(now: ContainerStats, earlier: ContainerStats)] = []
            for name in names.sorted() {
                let now: ContainerStats
                do {
                    now = try await cluster.get(
                        "\(APIPaths.containers)/\(escaped(name))/stats", query: [("stream", "false")])
                } catch {
                    // It ended between the listing and the question.
                    if containers.isEmpty { continue }
                    throw error
                }
                if let earlier = before[now.id.text] { pairs.append((now, earlier)) }
                before[now.id.text] = now
            }
            let first = pairs.isEmpty && !names.isEmpty
            if !first {
                let table = try table(pairs)
                if noStream { return try table.print(format) }
                if format.format == "json" {
                    // A stream of documents has one on each line.
                    for object in table.objects { Output.line(String(decoding: object.serialized(), as: UTF8.self)) }
                } else {
                    if isatty(1) == 1 { Output.bytes(Array("\u{1B}[H\u{1B}[J".utf8), to: 1) }
                    try table.print(format)
                }
            }
            try await Task.sleep(for: .seconds(1))
        }
    }

    private func names(_ cluster: ClusterAPI) async throws -> [String] {
        if !containers.isEmpty { return containers }
        let views: [ContainerView] = try await cluster.get(
            APIPaths.containers, query: [("status", "running"), ("status", "paused")])
        return views.map(\.name)
    }

    private func table(_ pairs: [(now: ContainerStats, earlier: ContainerStats)]) throws -> Table {
        var table = Table("Name", "CPU", "Memory", "Limit", "Net in", "Net out", "Block in", "Block out", "Pids")
        for (now, earlier) in pairs {
            let wall = Double(max(1, now.time.nanoseconds - earlier.time.nanoseconds))
            let cpu = Double(now.cpuTotal - earlier.cpuTotal) * 100 / wall
            try table.add(
                now, now.name, cpu.rounded(toPlaces: 1) + "%", ByteSize.text(now.memoryUsage),
                now.memoryLimit.map(ByteSize.text) ?? "none", ByteSize.text(now.networkReceived),
                ByteSize.text(now.networkSent),
                ByteSize.text(now.blockRead), ByteSize.text(now.blockWritten),
                "\(now.pids)" + (now.pidsLimit.map { "/\($0)" } ?? ""))
        }
        // Most clusters have no devices, and a terminal is only so wide.
        guard pairs.contains(where: { $0.now.devices != nil }) else { return table }
        table.columns += ["GPU", "GPU memory"]
        for (row, pair) in pairs.enumerated() {
            let devices = pair.now.devices ?? []
            let busy = devices.map { device in device.utilization.map { "\($0)%" } ?? "?" }
            table.rows[row] += [
                busy.joined(separator: " "),
                devices.isEmpty
                    ? ""
                    : devices.contains { $0.memoryUsage == nil }
                        ? "?" : ByteSize.text(devices.reduce(0) { $0 &+ ($1.memoryUsage ?? 0) }),
            ]
        }
        return table
    }
}
