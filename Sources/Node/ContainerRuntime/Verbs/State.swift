import JSON
import OCISpec

extension Verb {
    static let state = Verb(
        name: "state", usage: "<container-id>", summary: "print the state of a container", flags: { [] }
    ) { call in
        try call.arguments.require("state", atLeast: 1, atMost: 1)
        let id = try call.containerID()
        guard let record = try call.store.read(id) else { throw RuntimeError.noContainer(id.description) }
        let shown = JSONValue.object(record.shown(try call.store.status(record), owner: call.store.owner(id)))
        print(String(decoding: shown.serialized(pretty: true), as: UTF8.self))
        return 0
    }
}
