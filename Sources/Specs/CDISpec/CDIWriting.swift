import JSON
import OCISpec

extension CDISpecification {
    /// The specification as JSON; what is empty is left out.
    package var json: JSONValue {
        var object: JSONObject = ["cdiVersion": .string(version.rawValue), "kind": .string(kind.description)]
        object.put("annotations", annotations)
        object["devices"] = .array(devices.map(\.json))
        if !edits.isEmpty { object["containerEdits"] = edits.json }
        return .object(object)
    }

    /// The text of a file.
    package func encoded() -> [UInt8] { json.serialized(pretty: true) + [10] }
}

extension CDIDevice {
    var json: JSONValue {
        var object: JSONObject = ["name": .string(name)]
        object.put("annotations", annotations)
        object["containerEdits"] = edits.json
        return .object(object)
    }
}

extension CDIEdits {
    var json: JSONValue {
        var object = JSONObject()
        object.put("env", env)
        object.put("deviceNodes", deviceNodes.map(\.json))
        object.put("netDevices", netDevices.map(\.json))
        object.put("hooks", hooks.map(\.json))
        object.put("mounts", mounts.map(\.json))
        object["intelRdt"] = intelRdt?.json
        object.put("additionalGids", additionalGids.map { JSONValue(UInt64($0)) })
        return .object(object)
    }
}

extension CDIDeviceNode {
    var json: JSONValue {
        var object: JSONObject = ["path": .string(path)]
        object.put("hostPath", hostPath)
        object.put("type", type?.rawValue)
        if major != 0 { object["major"] = JSONValue(UInt64(major)) }
        if minor != 0 { object["minor"] = JSONValue(UInt64(minor)) }
        object.put("fileMode", fileMode)
        object.put("permissions", permissions)
        object.put("uid", uid)
        object.put("gid", gid)
        return .object(object)
    }
}

extension CDINetDevice {
    var json: JSONValue { ["hostInterfaceName": .string(hostInterfaceName), "name": .string(name)] }
}

extension CDIMount {
    var json: JSONValue {
        var object: JSONObject = ["hostPath": .string(hostPath), "containerPath": .string(containerPath)]
        object.put("type", type)
        object.put("options", options)
        return .object(object)
    }
}

extension CDIHook {
    var json: JSONValue {
        var object: JSONObject = ["hookName": .string(point.rawValue), "path": .string(hook.path)]
        object.put("args", hook.args)
        object.put("env", hook.env)
        if let timeout = hook.timeout { object["timeout"] = .integer(timeout) }
        return .object(object)
    }
}

extension JSONObject {
    fileprivate mutating func put(_ key: String, _ text: String?) {
        if let text { self[key] = .string(text) }
    }

    fileprivate mutating func put(_ key: String, _ number: UInt32?) {
        if let number { self[key] = JSONValue(UInt64(number)) }
    }

    fileprivate mutating func put(_ key: String, _ texts: [String]) { put(key, texts.map { .string($0) }) }

    fileprivate mutating func put(_ key: String, _ values: [JSONValue]) {
        if !values.isEmpty { self[key] = .array(values) }
    }

    fileprivate mutating func put(_ key: String, _ table: [String: String]) {
        guard !table.isEmpty else { return }
        var inner = JSONObject()
        for key in table.keys.sorted() { inner[key] = table[key].map { .string($0) } }
        self[key] = .object(inner)
    }
}
