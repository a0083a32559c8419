import AgentCore
import CNISpec
import Cgroups
import Glibc
import Kernel
import Logging
import Model
import Networking
import ShimProtocol
import Wire

/// Ends what an agent left running on its node, without an agent: for `martlet down`.
package struct Teardown: Sendable {
    private let configuration: AgentConfiguration
    private let logger: Logger

    package init(_ configuration: AgentConfiguration, logger: Logger) {
        self.configuration = configuration
        self.logger = logger
    }

    /// Stops all pods through their shims, each with its own signal and grace, and ends the shims. What the cluster
    /// wants of them is untouched: the next agent finds them exited and starts what shall run. Secrets go from memory.
    ///
    /// - Returns: a sentence for each pod that could not be stopped.
    package func stopPods() async throws -> [String] {
        let paths = configuration.paths
        guard File.exists(paths.tasks) else { return [] }
        let records = try TaskStore(paths: paths).load(logger).records
        var problems = await withTaskGroup(of: String?.self) { group in
            for record in records { group.addTask { await stop(record, paths.task(record.assignment.task)) } }
            var problems: [String] = []
            for await problem in group { problems += problem.map { [$0] } ?? [] }
            return problems
        }
        do {
            try Mounts.detachAll(below: [paths.secrets])
            try Tree.remove(paths.secrets)
        } catch {
            problems.append("secrets stay in memory: \(error)")
        }
        return problems
    }

    private func stop(_ record: TaskRecord, _ paths: TaskPaths) async -> String? {
        let shim = ShimClient(socket: paths.shimSocket)
        do {
            let containers = try await shim.call(.state).containers ?? []
            for container in containers where container.status.isAlive {
                if container.status == .paused { try await shim.call(.resume(container: container.container)) }
                let spec = record.assignment.pod.containers.first
                let signal = spec.map(\.stopSignal).flatMap { SignalName($0) }?.number ?? Int(SIGTERM)
                try await shim.call(.signal(container: container.container, signal: Int32(signal), all: false))
                if try await !ends(shim, within: .seconds(spec?.stopGrace ?? 10)) {
                    try await shim.call(.signal(container: container.container, signal: SIGKILL, all: true))
                    guard try await ends(shim, within: .seconds(10)) else {
                        return "\(record.assignment.instanceName) does not end: a process of it may hang in the kernel"
                    }
                }
            }
            for container in try await shim.call(.state).containers ?? [] {
                // The shim alone knows how it ended, and the next agent shall read it.
                guard let why = container.recordError else { continue }
                return "the exit of \(record.assignment.instanceName) is not on the disk yet, so its shim stays "
                    + "(\(why)): free some space and repeat"
            }
            try await shim.call(.shutdown)
            return try await isGone(paths) ? nil : "the shim of \(record.assignment.instanceName) does not end"
        } catch let error as ShimError where error.kind == .unreachable {
            // No shim: nothing of this pod runs.
            return nil
        } catch {
            return "\(record.assignment.instanceName): \(error)"
        }
    }

    /// Waits until a shim that was told to end has taken its socket away, the last thing that it does.
    private func isGone(_ paths: TaskPaths) async throws -> Bool {
        let deadline = ContinuousClock.now + .seconds(10)
        while File.exists(paths.shimSocket) {
            if ContinuousClock.now >= deadline { return false }
            try await Task.sleep(for: .milliseconds(5))
        }
        return true
    }

    private func ends(_ shim: ShimClient, within limit: Duration) async throws -> Bool {
        let deadline = ContinuousClock.now + limit
        while true {
            if try await !(shim.call(.state).containers ?? []).contains(where: { $0.status.isAlive }) { return true }
            if ContinuousClock.now >= deadline { return false }
            try await Task.sleep(for: .milliseconds(25))
        }
    }

    /// Kills and removes everything: processes, network, mounts, cgroups, the agent's files; nothing else that lies in
    /// its folders. Blocks.
    ///
    /// - Returns: a sentence for each thing that could not be removed.
    package func removeEverything() -> [String] {
        var problems: [String] = []
        func attempt(_ body: () throws -> Void) {
            do { try body() } catch { problems.append("\(error)") }
        }
        attempt { try killAll() }
        let configuration = configuration
        attempt {
            problems += UserNetworks(configuration.network, prefix: Model.Network.devicePrefix).removeLeftovers()
            problems += CNINetworks(configuration.network, directory: nil).removeLeftovers()
            problems += OverlayNetworks(
                configuration.network, underlay: IPAddress(.v4, 0x7f00_0001), cryptography: .nodes
            ).removeLeftovers()
        }
        attempt { problems += try network().removeLeftovers() }
        attempt { try NodeDevices.withdraw(configuration) }
        attempt { try Mounts.detachAll(below: configuration.paths.everything) }
        attempt {
            let layout = try CgroupLayout.detect()
            try CgroupManager(layout: layout, path: "/\(configuration.cgroupParent)").delete()
        }
        for path in configuration.paths.everything { attempt { try Tree.remove(path) } }
        return problems
    }

    private func killAll() throws {
        let layout = try CgroupLayout.detect()
        let parent = try CgroupManager(layout: layout, path: "/\(configuration.cgroupParent)")
        if parent.exists() { try parent.kill() }
    }

    private func network() throws -> BridgeNetwork {
        try BridgeNetwork(configuration.network)
    }
}

extension AgentConfiguration {
    /// The network that this node's pods are on.
    package var network: BridgeNetworkConfiguration {
        var network = BridgeNetworkConfiguration(dataDirectory: dataDirectory, runDirectory: runDirectory)
        network.bridge = bridge
        network.subnet = subnet
        network.overlayProgram = overlayProgram
        network.portmapProgram = portmapProgram
        if !pluginDirectories.isEmpty { network.pluginDirectories = pluginDirectories }
        return network
    }
}
