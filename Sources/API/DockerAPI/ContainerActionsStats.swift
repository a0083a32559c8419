import Client
import HTTPService
import Hummingbird
import JSON
import Master
import MasterCore
import Model
import NIOCore
import NIOHTTP1
import Wire

/// `docker stats`: samples from the container's node in Docker's shape. One that does not run gives zeros.
extension DockerAPI {
    func stats(_ call: DockerCall) async throws -> Response {
        let view = try await container(call.id)
        let machine = try await machine(of: view)
        guard call.query.flag("stream", or: true) else {
            let first = try await sample(view)
            guard !call.query.flag("one-shot"), first != nil else {
                return .json(text: StatsText(view, machine, call.version).write(first, after: nil))
            }
            try await Task.sleep(for: .seconds(1))
            return .json(text: StatsText(view, machine, call.version).write(try await sample(view), after: first))
        }
        let (subject, version) = (Subject.current, call.version)
        return .dockerLines(call.context) { writer in
            try await Subject.$current.withValue(subject) {
                var last: ContainerStats?
                var next = ContinuousClock.now
                while let present = try await self.present(view.id) {
                    let sample = try await self.sample(present)
                    var text = StatsText(present, machine, version).write(sample, after: last)
                    try await writer.write(bytes: text.readBytes(length: text.readableBytes) ?? [])
                    last = sample
                    next += .seconds(1)
                    try await Task.sleep(until: next, clock: .continuous)
                }
            }
        }
    }

    /// nil: it was removed.
    private func present(_ id: ContainerID) async throws -> ContainerView? {
        do {
            guard case .container(let view) = try await master.query(.container(id.text)) else { return nil }
            return view
        } catch let problem where problem.code == .notFound {
            return nil
        }
    }

    /// nil: it does not run.
    private func sample(_ view: ContainerView) async throws -> ContainerStats? {
        guard view.status.isLive, view.container.start > 0, view.unreachableSince == nil else { return nil }
        do {
            let (streams, task) = try await streams(of: view)
            return try await streams.json(ContainerStats.self, .GET, NodeStreams.path(task, "stats"))
        } catch let error as APIError where error.status == 409 || error.status == 404 {
            return nil
        } catch let error as DockerError where error.status == 409 || error.status == 404 {
            return nil
        }
    }

    private func machine(of view: ContainerView) async throws -> Resources {
        guard let id = view.node, case .node(let node) = try await master.query(.node(id.text)) else {
            return Resources()
        }
        return node.node.capacity
    }
}

/// Writes a sample, see ContainerStatsResponse in Moby's swagger.
struct StatsText {
    private let view: ContainerView
    private let machine: Resources
    private let version: APIVersion
    private var processors: Int64 { max(1, (machine.cpu + 500_000_000) / 1_000_000_000) }

    init(_ view: ContainerView, _ machine: Resources, _ version: APIVersion) {
        self.view = view
        self.machine = machine
        self.version = version
    }

    /// - Parameters:
    ///   - stats: nil: it does not run.
    ///   - before: the sample that it is compared with.
    func write(_ stats: ContainerStats?, after before: ContainerStats?) -> ByteBuffer {
        var text = JSONText()
        text.object { text in
            text.member("read", stats?.time.description ?? Self.never)
            text.member("preread", before?.time.description ?? Self.never)
            text.object("pids_stats") { text in
                guard let stats else { return }
                text.member("current", stats.pids)
                if let limit = stats.pidsLimit { text.member("limit", limit) }
            }
            blocks(stats, in: &text)
            text.member("num_procs", Int64(0))
            text.object("storage_stats") { _ in }
            text.object("cpu_stats") { processors(stats, in: &$0) }
            text.object("precpu_stats") { processors(before, in: &$0) }
            text.object("memory_stats") { text in
                guard let stats else { return }
                // What can be dropped is not counted, so that there is nothing for clients to take off.
                text.member("usage", stats.memoryUsage)
                text.object("stats") { text in
                    text.member("inactive_file", Int64(0))
                    text.member("total_inactive_file", Int64(0))
                }
                text.member("limit", stats.memoryLimit ?? machine.memory)
            }
            text.member("name", "/\(view.name)")
            text.member("id", view.id.text)
            if version >= .v1_52 { text.member("os_type", "linux") }
            if let stats { network(stats, in: &text) }
        }
        return text.take()
    }

    private static let never = "0001-01-01T00:00:00Z"

    private func blocks(_ stats: ContainerStats?, in text: inout JSONText) {
        text.object("blkio_stats") { text in
            guard let stats else {
                text.null("io_service_bytes_recursive")
                return
            }
            text.list("io_service_bytes_recursive") { text in
                for (operation, bytes) in [("read", stats.blockRead), ("write", stats.blockWritten)] {
                    text.object { text in
                        // All devices together.
                        text.member("major", Int64(0))
                        text.member("minor", Int64(0))
                        text.member("op", operation)
                        text.member("value", bytes)
                    }
                }
            }
        }
    }

    private func processors(_ stats: ContainerStats?, in text: inout JSONText) {
        text.object("cpu_usage") { text in
            text.member("total_usage", stats?.cpuTotal ?? 0)
            text.member("usage_in_kernelmode", stats?.cpuSystem ?? 0)
            text.member("usage_in_usermode", stats?.cpuUser ?? 0)
        }
        if let stats {
            // What all processors together could have done since the container was made: clients look at differences.
            text.member("system_cpu_usage", max(0, stats.time - view.createdAt) &* processors)
            text.member("online_cpus", processors)
        }
        text.object("throttling_data") { text in
            text.member("periods", Int64(0))
            text.member("throttled_periods", stats?.throttledPeriods ?? 0)
            text.member("throttled_time", stats?.throttledTime ?? 0)
        }
    }

    private func network(_ stats: ContainerStats, in text: inout JSONText) {
        guard [.bridge, .attached].contains(view.network), let interfaces = stats.interfaces else { return }
        text.object("networks") { text in
            for interface in interfaces {
                text.member(named: interface.name) { text in
                    text.object { text in
                        text.member("rx_bytes", interface.received.bytes)
                        text.member("rx_packets", interface.received.packets)
                        text.member("rx_errors", interface.received.errors)
                        text.member("rx_dropped", interface.received.dropped)
                        text.member("tx_bytes", interface.sent.bytes)
                        text.member("tx_packets", interface.sent.packets)
                        text.member("tx_errors", interface.sent.errors)
                        text.member("tx_dropped", interface.sent.dropped)
                    }
                }
            }
        }
    }
}
