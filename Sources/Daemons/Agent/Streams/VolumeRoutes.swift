import AgentCore
import HTTPService
import Hummingbird
import JSON
import Model
import Reactor
import Volumes
import Wire

extension StreamPort {
    /// This node's named volumes.
    func addVolumes(to group: RouterGroup<ServiceContext>) {
        group.get("volumes") { _, _ in try Response.json(try await views()) }
        group.get("volumes/{name}") { _, context in try Response.json(try await view(context.pathParameter("name"))) }
        group.post("volumes") { request, context in
            let body = try await request.json(CreateVolume.self, context)
            let volumes = executor.volumes
            if let existing = volumes.list().first(where: { $0.name == body.name }) {
                guard existing.options == body.options else {
                    throw APIError.conflict("the volume \(body.name) exists with other options; choose another name")
                }
                guard existing.labels == body.labels else {
                    throw APIError.conflict("the volume \(body.name) exists with other labels; choose another name")
                }
                return try Response.json(try await view(body.name))
            }
            try await explainingVolumes {
                try await transfers.pool.run {
                    _ = try volumes.create(
                        body.name, labels: body.labels, options: body.options, anonymous: body.isAnonymous)
                }
            }
            inventoryChanged()
            return try Response.json(try await view(body.name), status: .created)
        }
        group.delete("volumes/{name}") { request, context in
            _ = try Query(request, known: ["force"]).flag("force")
            let name = try context.pathParameter("name")
            let (volumes, table) = (executor.volumes, table)
            if let names = PodExecutor.volumeUsers(table.all)[name] {
                throw APIError.conflict(
                    "the volume \(name) is used by \(names.joined(separator: ", ")); remove those containers first")
            }
            try await explainingVolumes {
                try await transfers.pool.run {
                    _ = try volumes.remove(name, inUse: Set(PodExecutor.volumeUsers(table.all).keys))
                }
            }
            inventoryChanged()
            return Response.empty
        }
    }

    private func views() async throws -> [VolumeView] {
        let (executor, records) = (executor, table.all)
        return try await explainingVolumes { try await transfers.pool.run { try executor.volumeViews(records) } }
    }

    private func view(_ name: String) async throws -> VolumeView {
        guard let view = try await views().first(where: { $0.name == name }) else {
            throw APIError.notFound("there is no volume \(name) on this node")
        }
        return view
    }

    private func explainingVolumes<Result>(_ body: () async throws -> Result) async throws -> Result {
        do {
            return try await body()
        } catch let error as VolumeError {
            switch error.kind {
            case .invalidArgument, .unsupported, .refused: throw APIError.badRequest(error.message)
            case .notFound: throw APIError.notFound(error.message)
            case .inUse: throw APIError.conflict(error.message)
            case .noSpace: throw APIError(status: 507, code: "storage-full", message: error.message)
            case .system: throw APIError.internalError(error.message)
            }
        }
    }
}
