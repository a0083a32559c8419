import HTTPService
import Hummingbird
import JSON
import Wire

extension StreamPort {
    /// What an operator says of this node's devices.
    func addDevices(to group: RouterGroup<ServiceContext>) {
        group.post("devices/{device}/clear") { _, context in
            let id = try context.pathParameter("device")
            do {
                return try Response.json(try await executor.devices.clear(id))
            } catch NodeDevices.ClearingProblem.unknown {
                throw APIError.notFound("this node has no device '\(id)'; see `martlet device ls`")
            } catch NodeDevices.ClearingProblem.refused(let words) {
                throw APIError.conflict("nothing is to be cleared of the device \(id): \(words)")
            }
        }
    }
}
