import HTTPService
import Hummingbird
import JSON
import Kernel
import Master
import MasterCore
import Model
import Wire

/// Martlet's own API: `/api/v1`, `/healthz` and `/metrics`.
package struct UnifiedAPI: Sendable {
    let master: ClusterMaster

    package init(_ master: ClusterMaster) { self.master = master }

    /// Adds the API to a master's listener.
    package static let face: MasterFace = { router, master in UnifiedAPI(master).add(to: router) }

    /// Adds all routes, and the document that describes them.
    package func add(to router: Router<ServiceContext>) {
        for operation in allOperations { operation.add(to: router) }
    }

    var allOperations: [Operation] {
        let described = operations
        let document = Operation(
            .get, access: .read, APIPaths.openAPI, "This document.", answer: .bytes("application/json"), statuses: [200]
        ) { _ in
            .json(bytes: try OpenAPIDocument(operations: described, version: Version.number).json.serialized())
        }
        return described + [document]
    }

    private var operations: [Operation] {
        containerOperations + containerActions + containerStreams + contentOperations + serviceOperations
            + nodeOperations + agentOperations + deviceOperations
            + tokenOperations + imageOperations + volumeOperations + networkOperations + secretOperations
            + configOperations
            + deliveryOperations
            + eventOperations + systemOperations
    }

    // MARK: Asking the master

    func containerView(_ ref: String) async throws -> ContainerView {
        guard case .container(let view) = try await master.query(.container(ref)) else { throw APIProblem.unexpected }
        return view
    }

    func serviceView(_ ref: String) async throws -> ServiceView {
        guard case .service(let view) = try await master.query(.service(ref)) else { throw APIProblem.unexpected }
        return view
    }

    func nodeViews() async throws -> [NodeView] {
        guard case .nodes(let views) = try await master.query(.nodes) else { throw APIProblem.unexpected }
        return views
    }

    /// Does `work`, but only for so long: nil when it did not come to its end.
    func within<Value: Sendable>(
        _ time: Duration, _ work: @escaping @Sendable () async throws -> Value
    ) async throws -> Value? {
        try await withThrowingTaskGroup(of: Value?.self) { group in
            defer { group.cancelAll() }
            group.addTask { try await work() }
            group.addTask {
                try await Task.sleep(for: time)
                return nil
            }
            return try await group.next() ?? nil
        }
    }
}
