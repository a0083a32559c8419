import AgentCore
import JSON
import Kernel
import Model

/// What preparation has made of a task: `DATA/tasks/<task>/pod.json`, written when all of it is there.
struct PodFile: Sendable, Codable, Equatable {
    /// What is needed of the image's configuration to start containers from it.
    struct Image: Sendable, Codable, Equatable {
        var digest: String
        var entrypoint: [String]?
        var command: [String]?
        /// `KEY=value`.
        var environment: [String]
        var workingDirectory: String
        var user: String
        var stopSignal: String
    }

    /// Something of the host that is mounted into the container.
    struct HostMount: Sendable, Codable, Equatable {
        /// Where it can be found safely: below the task's own directory or a volume's.
        var source: String
        var target: String
        var readOnly: Bool
        /// How it is mounted; nil: as most are.
        var options: [String]?
        /// The source is a path of the node itself, to be opened by each start; nil: no.
        var isOpenedByStart: Bool?
    }

    var schema = 1
    /// The boot in which all this is true.
    var bootID: String
    var image: Image
    var mounts: [HostMount]
    /// IPv4 first.
    var addresses: [String]
    /// Where it is on each of its networks; nil: of an earlier version, which had none.
    var endpoints: [NetworkEndpoint]?
    var hostname: String

    var pod: PreparedPod { PreparedPod(addresses: addresses, endpoints: endpoints ?? []) }

    /// Reads it; nil when preparation has not ended. Blocks.
    static func read(_ paths: TaskPaths) throws -> PodFile? {
        guard File.exists(paths.pod) else { return nil }
        return try JSONCoding.decode(PodFile.self, from: File.read(paths.pod))
    }

    /// Blocks.
    func write(_ paths: TaskPaths) throws { try File.replace(paths.pod, with: JSONCoding.encode(self)) }
}
