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
            let (overlays, bridges) = (executor.overlays, executor.userNetworks)
            return try await transfers.pool.run {
                func check() -> [String] { bridges.check() + overlays.check() }
                let differences = body.repair ? bridges.repair() + overlays.repair() : check()
                let isRight = differences.isEmpty || body.repair && check().isEmpty
                return try Response.json(NetworkCheck(differences: differences, repaired: isRight))
            }
        }
    }
}
