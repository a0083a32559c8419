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
        let view = try await find(name, meant: ref)
        guard parts.count == 1 || view.nodeName == parts[0] || view.node?.text == parts[0] else {
            throw Self.noContainer(ref)
        }
        return view
    }

    private func find(_ name: String, meant ref: String) async throws -> ContainerView {
        do {
            guard case .container(let view) = try await master.query(.container(name)) else {
                throw APIProblem.unexpected
            }
            return view
        } catch let problem as APIProblem where problem.code == .notFound {
            // Users of Docker write as little of an id as will do.
            guard Self.isBeginning(name),
                case .containerIDs(let ids) = try await master.query(.containersBeginning(name, limit: 2)),
                let id = ids.first
            else { throw Self.noContainer(ref) }
            guard ids.count == 1 else { throw Self.ambiguous(ref) }
            guard case .container(let view) = try await master.query(.container(id.text)) else {
                throw APIProblem.unexpected
            }
            return view
        } catch let problem as APIProblem where problem.code == .conflict && Self.isBeginning(name) {
            throw Self.ambiguous(ref)
        }
    }

    private static func isBeginning(_ text: String) -> Bool {
        (1...64).contains(text.utf8.count)
            && text.utf8.allSatisfy { (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }
    }

    static func noContainer(_ ref: String) -> DockerError { .notFound("No such container: \(ref)") }

    private static func ambiguous(_ ref: String) -> DockerError {
        .badRequest("multiple IDs found with provided prefix: \(ref)")
    }

    /// The way to the agent that has the container's task.
    ///
    /// - Throws: `DockerError` 404; 409 when it is on no node.
    func streams(of view: ContainerView) async throws -> (streams: NodeStreams, task: TaskID) {
        let location = try await master.locate(view.id.text)
        guard let task = location.task else {
            throw DockerError.conflict("container \(view.id) is on no node")
        }
        return (try master.streams(location), task)
    }
}
