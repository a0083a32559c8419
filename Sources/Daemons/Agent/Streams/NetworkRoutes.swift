import HTTPService
import Hummingbird
import JSON
import Networking
import Reactor
import Wire

extension StreamPort {
    /// What this node's kernel has of networks.
    func addNetworks(to group: RouterGroup<ServiceContext>) {
        group.post("network-check") { request, context in
            let body = try await request.json(NetworkCheckRequest.self, context)
            let overlays = executor.overlays
            return try await transfers.pool.run {
                let differences = body.repair ? overlays.repair() : overlays.check()
                let isRight = differences.isEmpty || body.repair && overlays.check().isEmpty
                return try Response.json(NetworkCheck(differences: differences, repaired: isRight))
            }
        }
    }
}
