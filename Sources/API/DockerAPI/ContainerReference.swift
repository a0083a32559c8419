import Master
import MasterCore
import Model
import Wire

/// What users' names of containers mean.
extension DockerAPI {
    /// Finds a container by its id, a beginning of it, its name, `/name` or `node/name`.
    ///
    /// - Throws: `DockerError` 404 with Docker's words, 400 when several have such an id.
    func container(_ ref: String) async throws -> ContainerView {
        let parts = ref.split(separator: "/", omittingEmptySubsequences: true).map(String.init)
        guard let name = parts.last, parts.count <= 2 else { throw Self.noContainer(ref) }
        do {
            guard case .container(let view) = try await master.query(.container(name)) else {
                throw APIProblem.unexpected
            }
            guard parts.count == 1 || view.nodeName == parts[0] || view.node?.text == parts[0] else {
                throw Self.noContainer(ref)
            }
            return view
        } catch let problem as APIProblem where problem.code == .notFound {
            throw Self.noContainer(ref)
        }
    }

    static func noContainer(_ ref: String) -> DockerError { .notFound("No such container: \(ref)") }

    /// The way to the agent that has the container's task.
    ///
    /// - Throws: `DockerError` 404; 409 when it is on no node.
    func streams(_ ref: String) async throws -> (view: ContainerView, streams: NodeStreams, task: TaskID) {
        let view = try await container(ref)
        let location = try await master.locate(view.id.text)
        guard let task = location.task else {
            throw DockerError.conflict("container \(view.id) is on no node")
        }
        return (view, try master.streams(location), task)
    }
}
