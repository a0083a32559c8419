import JSON
import Model
import Wire

/// A type whose JSON form cannot be read off it.
struct SchemaError: Error, CustomStringConvertible {
    let description: String
}

/// Reads JSON schemas off `Decodable` types: a type is decoded from a recorder, which notes what it asks for.
final class SchemaBook {
    /// Objects by their type's name.
    private(set) var components: [String: JSONValue] = [:]
    /// Types that are being read: a recursive one refers to itself.
    private var open: Set<String> = []

    /// The schema, or a reference to it when it is an object.
    func schema(of type: any Decodable.Type) throws -> JSONValue {
        try record(type).schema
    }

    /// Decodes a value out of nothing, and notes its form.
    func record<Value: Decodable>(_ type: Value.Type) throws -> (schema: JSONValue, value: Value) {
        if let known = KnownForm.of(type), let value = known.sample as? Value { return (known.schema, value) }
        let node = SchemaNode(book: self)
        let value: Value
        do {
            value = try Value(from: node)
        } catch {
            throw SchemaError(description: "the JSON form of \(type) is not known: \(error)")
        }
        guard case .object(let members) = node.form else { return (try node.schema(), value) }
        let name = Self.name(of: type)
        components[name] = .object(members)
        return (["$ref": .string("#/components/schemas/\(name)")], value)
    }

    /// `WatchLine<ContainerView>` becomes `WatchLineOfContainerView`.
    private static func name(of type: any Decodable.Type) -> String {
        "\(type)".replacing("<", with: "Of").replacing(">", with: "").replacing(".", with: "")
    }
}

/// Forms that decoding cannot find out: a value that is accepted is needed, or there are alternatives.
private struct KnownForm {
    let schema: JSONValue
    let sample: any Sendable

    static func of(_ type: any Decodable.Type) -> KnownForm? { table[ObjectIdentifier(type)] }

    private static let table: [ObjectIdentifier: KnownForm] = {
        var table: [ObjectIdentifier: KnownForm] = [:]
        func words<Word: RawRepresentable & Sendable>(_ type: Word.Type, _ all: [Word]) where Word.RawValue == String {
            guard let sample = all.first else { return }
            table[ObjectIdentifier(type)] = KnownForm(
                schema: ["type": "string", "enum": .array(all.map { .string($0.rawValue) })], sample: sample)
        }
        func form(_ type: any Sendable.Type, _ schema: JSONValue, _ sample: any Sendable) {
            table[ObjectIdentifier(type)] = KnownForm(schema: schema, sample: sample)
        }
        words(Workload.Kind.self, [.container, .service])
        words(DesiredState.self, [.prepared, .running, .paused, .stopped, .removed])
        words(UpdatePolicy.FailureAction.self, [.pause, .continue, .rollback])
        words(UpdateState.Phase.self, [.settled, .updating, .paused])
        words(PodSpec.Network.self, [.bridge, .host, .none, .attached, .container])
        words(HealthCheck.OnUnhealthy.self, [.stop, .tell])
        words(PortMapping.Transport.self, [.tcp, .udp, .sctp])
        words(RestartPolicy.Condition.self, [.no, .onFailure, .always, .unlessStopped])
        words(Constraint.Relation.self, [.equal, .notEqual])
        words(PlacementStrategy.self, [.binpack, .spread, .random])
        words(Condition.Kind.self, [.ready, .unreachable, .serving, .healthy, .unschedulable, .deviceUnusable])
        words(Node.Availability.self, [.active, .cordoned, .drained])
        words(
            TaskStatus.Phase.self,
            [.assigned, .preparing, .prepared, .running, .paused, .stopping, .exited, .failed, .removed])
        words(ContainerStatus.State.self, [.waiting, .created, .running, .paused, .exited])
        words(ContainerStatus.Health.self, [.none, .starting, .healthy, .unhealthy])
        words(LossPolicy.OnReturn.self, [.keepReplacement, .keepOriginal])
        words(Displaced.Cause.self, [.lost, .drained, .rebalanced, .unhealthy])
        words(NodeDevice.Link.Kind.self, NodeDevice.Link.Kind.allCases)
        words(NodeDevice.Health.State.self, NodeDevice.Health.State.allCases)
        words(DeviceClaim.Sharing.self, DeviceClaim.Sharing.allCases)
        words(DeviceClaim.HealthPolicy.self, DeviceClaim.HealthPolicy.allCases)
        words(ProcessorPinning.self, [.cores])
        form(ProcessorSet.self, ["type": "string", "example": .string("0-3,7")], ProcessorSet())
        words(Role.self, Role.allCases)
        words(PullPolicy.self, PullPolicy.allCases)
        words(FileChange.Kind.self, FileChange.Kind.allCases)
        form(
            LossPolicy.OnDisconnect.self,
            [
                "oneOf": .array([
                    ["type": "string", "enum": .array([.string("keep")])],
                    [
                        "type": "object", "required": .array([.string("stopAfter")]),
                        "properties": ["stopAfter": ["type": "integer"]],
                    ],
                ])
            ], LossPolicy.OnDisconnect.keep)
        form(
            Namespaces.Source.self,
            [
                "oneOf": .array([
                    ["type": "string", "enum": .array([.string("own"), .string("node")])],
                    object(["container": ["type": "string"]]),
                ])
            ], Namespaces.Source.own)
        form(Timestamp.self, ["type": "string", "format": "date-time"], Timestamp(nanoseconds: 0))
        form(
            Workload.Scale.self,
            alternatives(["replicated": ["type": "integer"], "global": ["type": "object"]]), Workload.Scale.global)
        form(
            HealthCheck.Probe.self,
            alternatives([
                "command": ["type": "array", "items": ["type": "string"]],
                "tcp": object(["port": ["type": "integer"]]),
                "http": object(["port": ["type": "integer"], "path": ["type": "string"]]),
            ]), HealthCheck.Probe.tcp(port: 1))
        form(
            Mount.Source.self,
            alternatives([
                "bind": object(["path": ["type": "string"]]), "volume": object(["name": ["type": "string"]]),
                "tmpfs": object(["size": ["type": "integer"], "mode": ["type": "string"]]),
                "secret": object(["name": ["type": "string"]]), "config": object(["name": ["type": "string"]]),
            ]), Mount.Source.volume(name: "v"))
        form(
            Seccomp.self,
            alternatives([
                "default": ["type": "object"], "unconfined": ["type": "object"],
                "profile": object(["json": ["type": "string"]]),
            ]), Seccomp.default)
        return table
    }()

    private static func object(_ properties: JSONObject) -> JSONValue {
        ["type": "object", "properties": .object(properties)]
    }

    /// An object with exactly one of these members.
    private static func alternatives(_ members: JSONObject) -> JSONValue {
        [
            "oneOf": .array(
                members.members.map { member in
                    [
                        "type": "object", "required": [.string(member.key)],
                        "properties": .object([member.key: member.value]),
                    ]
                })
        ]
    }
}
