import HTTPService
import HTTPTypes
import Hummingbird
import JSON
import Kernel
import Master
import MasterCore
import Model
import Wire

extension UnifiedAPI {
    var systemOperations: [Operation] {
        [
            Operation(
                .get, access: .read, APIPaths.cluster, "The cluster in one object.", answer: .json(ClusterView.self),
                statuses: [200]
            ) { _ in
                guard case .cluster(let view) = try await master.query(.cluster) else { throw APIProblem.unexpected }
                return try .json(view)
            },
            Operation(
                .get, access: .read, APIPaths.version, "Versions of program and API.", answer: .json(VersionInfo.self),
                statuses: [200]
            ) { _ in
                try .json(
                    VersionInfo(version: Version.number, api: Version.api, clusterID: await master.clusterID))
            },
            Operation(
                .get, access: .open, "/healthz", "Whether changes can be taken.", answer: .bytes("text/plain"),
                statuses: [200, 503]
            ) { _ in
                if let problem = await master.healthProblem { throw APIProblem(.unavailable, problem) }
                return .text("ok\n")
            },
            Operation(
                .get, access: .observe, "/metrics", "Numbers for Prometheus, text format 0.0.4.",
                answer: .bytes("text/plain"),
                statuses: [200]
            ) { _ in
                guard case .devices(let devices) = try await master.query(.devices(node: nil)),
                    case .deviceUsage(let usage) = try await master.query(.deviceUsage)
                else { throw APIProblem.unexpected }
                var metrics = Metrics(await master.snapshot, nodes: try await nodeViews())
                metrics.add(devices, usage)
                return .text(metrics.text, contentType: "text/plain; version=0.0.4; charset=utf-8")
            },
        ]
    }
}
