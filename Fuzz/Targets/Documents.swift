import DeviceNodes
import JSON
import Kernel
import OCISpec

@testable import Cgroups
@testable import ContainerRuntime

/// Reads a document; one that is accepted says the same when it is written and read again.
func roundTrip<Document: OCIDocument>(_: Document.Type, _ bytes: [UInt8]) -> Document? {
    let document: Document
    do {
        document = try Document(parsing: bytes)
    } catch {
        expectSentence(error)
        return nil
    }
    let again = try? Document(parsing: document.encoded())
    expect(again == document && again?.encoded() == document.encoded(), "what is written is read again")
    return document
}

extension FuzzTarget {
    static let json = FuzzTarget(
        name: "json", longest: 4096,
        seeds: {
            [
                #"{"a":[1,-2,1.5e3,true,false,null,"x\u00e9\ud83d\ude00\n"],"b":{}}"#, "18446744073709551615",
                "2026-01-02T03:04:05.123456789+01:00", "TWFydGxldA==",
            ].map(bytes)
        }
    ) { input in
        let text = String(decoding: input, as: UTF8.self)
        if let time = Timestamp(rfc3339: text) {
            expect(Timestamp(rfc3339: "\(time)") == time, "a time is read as it is written: \(time)")
        }
        if let decoded = Base64.decode(text) { expect(Base64.encode(decoded) == text, "base64 has one spelling") }
        let value: JSONValue
        do {
            value = try JSONValue.parse(input)
        } catch {
            return expectSentence(error)
        }
        for written in [
            value.serialized(), value.serialized(pretty: true), value.serialized(pretty: false, sortedKeys: true),
        ] {
            expect((try? JSONValue.parse(written)) == value, "JSON is read as it is written")
        }
    }

    static let config = FuzzTarget(name: "config", longest: 8192, seeds: { Fixtures.configurations.map(bytes) }) {
        input in
        guard let spec = roundTrip(ContainerSpec.self, input) else { return }
        do {
            try Validation.check(spec)
        } catch {
            return expectRightRefusal(error, spec.process)
        }
        guard let process = spec.process, let linux = spec.linux else { return expect(false, "both are required") }
        expectSound(process)
        for (index, mount) in spec.mounts.enumerated() {
            guard let plan = try? MountPlan(mount, path: "mounts[\(index)]", bundle: "/bundle") else { continue }
            expect(plan.destination.utf8.first == UInt8(ascii: "/"), "a mount point is absolute")
            expectPlain(plan.destination, "a mount point")
            _ = plan.options.flags()
            let set = plan.options.set.subtracting(.accessTimeMask)
            expect(set.isDisjoint(with: plan.options.clear), "nothing is both set and cleared")
        }
        for name in linux.sysctl.keys {
            guard let place = SysctlCheck.place(of: name) else { return expect(false, "\(name) was accepted") }
            expectPlain(place, "a sysctl")
        }
        for mappings in [linux.uidMappings, linux.gidMappings] {
            expect(IDMap.text(mappings).utf8.count < 4096, "an id map fits into a page")
            for mapping in mappings {
                expect(UInt64(mapping.hostID) + UInt64(mapping.size) <= UInt64(UInt32.max), "an id map is in range")
            }
        }
        for device in linux.devices { expect(device.path.utf8.first == UInt8(ascii: "/"), "a device is absolute") }
        if let spec = linux.intelRdt, let lines = try? ContainerResourceControl.schemata(spec) {
            for line in lines { expect(!line.utf8.contains(10), "a schema is one line") }
        }
        if let path = linux.cgroupsPath { expectConfined(path) }
        if let resources = linux.resources { expectSound(resources) }
    }

    static let process = FuzzTarget(name: "process", longest: 4096, seeds: { [bytes(Fixtures.process)] }) { input in
        guard let process = roundTrip(ProcessSpec.self, input) else { return }
        do {
            try Validation.check(process, path: "process")
        } catch {
            return expectRightRefusal(error, process)
        }
        expectSound(process)
    }

    static let resources = FuzzTarget(name: "resources", longest: 4096, seeds: { [bytes(Fixtures.resources)] }) {
        input in
        guard let resources = roundTrip(ResourcesSpec.self, input) else { return }
        guard (try? Validation.check(resources, path: "resources")) != nil else { return }
        expectSound(resources)
    }

    static let record = FuzzTarget(name: "record", longest: 8192, seeds: { [bytes(Fixtures.record)] }) { input in
        func read(_ bytes: [UInt8]) -> ContainerRecord? {
            guard let value = try? JSONValue.parse(bytes) else { return nil }
            return try? ContainerRecord(JSONReader(value))
        }
        guard let record = read(input) else { return }
        let written = record.json.serialized(sortedKeys: true)
        expect(read(written)?.json.serialized(sortedKeys: true) == written, "a record is read as it is written")
        expect(!record.id.description.utf8.contains(UInt8(ascii: "/")), "an id is a file's name")
        expectPlain(record.cgroup.manager.path, "a group")
    }
}

/// A refusal names what is wrong, and that is wrong.
private func expectRightRefusal(_ error: any Error, _ process: ProcessSpec?) {
    guard let refused = error as? RefusedField, let process, refused.path.hasPrefix("process.env[") else { return }
    let right = process.env.contains { entry in
        entry.utf8.first == UInt8(ascii: "=") || !entry.utf8.contains(UInt8(ascii: "="))
    }
    expect(right, "what is refused as no NAME=value is none: \(refused)")
}

private func expectSound(_ process: ProcessSpec) {
    expect(process.args.first?.isEmpty == false, "a program is named")
    expect(process.cwd.utf8.first == UInt8(ascii: "/"), "a working directory is absolute")
    for entry in process.env {
        expect((entry.utf8.firstIndex(of: UInt8(ascii: "=")) ?? entry.startIndex) > entry.startIndex, "NAME=value")
    }
    expect(process.user.uid != .max && process.user.gid != .max && !process.user.additionalGids.contains(.max), "ids")
    if let score = process.oomScoreAdj { expect((-1000...1000).contains(score), "oomScoreAdj is in range") }
    for text in process.args + process.env + [process.cwd] { expect(!text.utf8.contains(0), "no text has a NUL") }
}

private func expectSound(_ resources: ResourcesSpec) {
    _ = CgroupResources(resources)
    for file in resources.unified.keys { expect(!file.utf8.contains(UInt8(ascii: "/")), "a file is in its group") }
    guard let rules = try? DeviceRules.of(resources) else { return }
    let policy = DevicePolicy(rules)
    _ = DeviceProgram(policy)
    // The shortened list says the same as the whole one, at the numbers that are named and beside them.
    for rule in rules.prefix(16) {
        for device in [DeviceClass.block, .char] {
            for major in [rule.major ?? 7, (rule.major ?? 7) &+ 1] {
                for access in [DeviceAccess.read, .write, .mknod] {
                    let minor = rule.minor ?? 9
                    var allowed = false
                    for rule in rules
                    where (rule.device == .all || rule.device == device) && rule.access.contains(access)
                        && (rule.major ?? major) == major && (rule.minor ?? minor) == minor
                    {
                        allowed = rule.allow
                    }
                    expect(
                        policy.allows(device, major: major, minor: minor, access) == allowed,
                        "\(device) \(major):\(minor) \(access) is decided by the last rule for it")
                }
            }
        }
    }
}

/// Wherever a group's path is accepted, it lies below what it starts from.
func expectConfined(_ path: String) {
    let layout = CgroupLayout([CgroupHierarchy(mountPoint: "/m", version: .v2, controllers: [.memory])])
    if let manager = try? CgroupManager(layout: layout, path: path) { expectPlain(manager.path, "a group") }
    if let scope = try? SystemdScope(path: path, container: "x") { expectPlain(scope.path, "a scope's group") }
    if let groups = try? CgroupSubgroups([path]) {
        for hierarchy in layout.hierarchies { expectPlain(groups.path(in: hierarchy), "a sub-group") }
    }
}
