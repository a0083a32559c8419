import HTTPService
import HTTPTypes
import Hummingbird
import JSON
import Master
import MasterCore
import Model
import NIOCore
import Wire

/// `GET /containers/json`: read from the master in parts and written as they come, so that many containers need neither
/// much memory nor a long time until the first is seen.
extension DockerAPI {
    /// Containers of a part: the first is small, so that something is seen soon.
    private static let firstPart = 100
    private static let part = 500

    func listContainers(_ call: DockerCall) async throws -> Response {
        let selection = try await selection(call)
        let limit = try call.query.integer("limit", in: -1...(.max)) ?? 0
        var rest = limit > 0 ? limit : Int.max
        let first = try await master.containers(selection, after: nil, limit: min(rest, Self.firstPart))
        rest -= first.containers.count
        var style = ContainerListStyle(version: call.version, namesNodes: first.nodes > 1, now: .now())
        if call.query.flag("size") { style.sizes = try await imageSizes() }
        var text = JSONText()
        text.open()
        try await write(first, style, to: &text)
        guard let next = first.next, rest > 0 else {
            text.close()
            return .json(text: text.take())
        }
        let (subject, shown, begun, remaining) = (Subject.current, style, text, rest)
        return Response(
            status: .ok, headers: [.contentType: "application/json"],
            body: ResponseBody { body in
                try await Subject.$current.withValue(subject) {
                    var (text, position, rest) = (begun, Optional(next), remaining)
                    while let from = position, rest > 0 {
                        let ready = text.take()
                        if ready.readableBytes > 0 { try await body.write(ready) }
                        let page = try await master.containers(
                            selection, after: from, limit: min(rest, Self.part))
                        try await write(page, shown, to: &text)
                        rest -= page.containers.count
                        position = page.next
                    }
                    text.close()
                    try await body.write(text.take())
                }
                try await body.finish(nil)
            })
    }

    private func write(_ page: ContainerPage, _ style: ContainerListStyle, to text: inout JSONText) async throws {
        let written = try await sizes(of: page.containers, if: style.sizes != nil)
        for container in page.containers { style.write(container, written: written[container.id], to: &text) }
    }

    /// What containers have written, in bytes; nothing when it is not asked for. Those of nodes that are not there are
    /// left out.
    func sizes(of containers: [ContainerSummary], if isAsked: Bool) async throws -> [ContainerID: Int64] {
        guard isAsked else { return [:] }
        var tasks: [NodeID: [TaskID]] = [:]
        for container in containers {
            if let node = container.node, let task = container.task { tasks[node, default: []].append(task) }
        }
        let measured = try await master.sizes(of: tasks, volumes: false)
        var sizes: [ContainerID: Int64] = [:]
        for container in containers {
            guard let node = container.node, let task = container.task else { continue }
            sizes[container.id] = measured[node]?.tasks[task.text]
        }
        return sizes
    }

    /// Bytes of images, by their ids.
    private func imageSizes() async throws -> [String: Int64] {
        guard case .images(let images) = try await master.query(.images) else { throw APIProblem.unexpected }
        return Dictionary(images.map { ($0.id, $0.size) }, uniquingKeysWith: max)
    }
}

extension Response {
    /// JSON that is at hand.
    static func json(text: ByteBuffer) -> Response {
        Response(status: .ok, headers: [.contentType: "application/json"], body: ResponseBody(byteBuffer: text))
    }
}
