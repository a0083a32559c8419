import JSON
import OCISpec
import Testing

/// Every part of a whole configuration, one after another, replaced by what does not belong there: the reader says where
/// the mistake is, and takes nothing for something else.
@Suite struct MutationTests {
    @Test func `a value of another type is refused by its place`() throws {
        try Self.check(
            try Document.whole.places.flatMap { place in
                let original = try #require(Document.whole[place])
                return Self.strangers.filter { $0.typeName != original.typeName }.map { Mutant(place, $0) }
            }
        ) { _ in .refused }
    }

    @Test func `null means absent, except among elements and in tables`() throws {
        try Self.check(Document.whole.places.map { Mutant($0, .null) }) { mutant in
            if Document.required.contains(mutant.field) || mutant.isElement || mutant.isInTable { return .refused }
            return .accepted
        }
    }

    @Test func `what must be there is missed by its name, all else may be left out`() throws {
        let members = Document.whole.places.filter { if case .key = $0.last { true } else { false } }
        try Self.check(members.map { Mutant($0, nil) }) { mutant in
            Document.required.contains(mutant.field) ? .refused : .accepted
        }
        #expect(
            Document.required.isSubset(of: Set(Document.whole.places.map { Mutant($0, nil).field })),
            "the whole configuration has all that is required")
    }

    @Test func `numbers are in the range of their field`() throws {
        let numbers = Document.whole.places.filter { Document.whole[$0]?.typeName == "an integer" }
        #expect(Set(numbers.map { Mutant($0, nil).field }) == Set(Document.ranges.keys))
        let tried: [JSONValue] = [
            .integer(.min), .integer(-0x8000_0001), .integer(-0x8000_0000), -1, 0, 1, 0xffff, 0x1_0000, 999_999_999,
            1_000_000_000, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff, 0x1_0000_0000, .integer(.max),
            .unsigned(UInt64(Int64.max) + 1), .unsigned(.max), .double(1.5), .double(1e300), .double(0x1p64),
        ]
        try Self.check(numbers.flatMap { place in tried.map { Mutant(place, $0) } }) { mutant in
            guard let range = Document.ranges[mutant.field] else { return .refused }
            switch mutant.value {
            case .integer(let number): return range.contains(Int128(number)) ? .accepted : .refused
            case .unsigned(let number): return range.contains(Int128(number)) ? .accepted : .refused
            default: return .refused
            }
        }
    }

    @Test func `a NUL character in a text is refused by its place`() throws {
        let texts = Document.whole.places.filter { Document.whole[$0]?.typeName == "a string" }
        try Self.check(texts.map { Mutant($0, "a\u{0}b") }) { _ in .refused }
    }

    @Test func `a word that is none of a choice is refused by its place`() throws {
        let choices = [
            "linux.namespaces[].type", "linux.devices[].type", "linux.personality.domain",
        ]
        let places = Document.whole.places.filter { choices.contains(Mutant($0, nil).field) }
        try Self.check(places.flatMap { place in ["", "nosuch", "PID", " c"].map { Mutant(place, .string($0)) } }) {
            _ in
            .refused
        }
    }

    @Test func `texts may be long, and nothing in them ends the sentence of an error`() throws {
        let texts = Document.whole.places.filter { Document.whole[$0]?.typeName == "a string" }
        for place in texts {
            for text in Self.oddTexts {
                if let message = Self.message(Mutant(place, .string(text))) {
                    #expect(!message.contains("\n") && !message.contains("\u{1b}"), "\(message)")
                    #expect(message.utf8.count < 1024, "\(message.prefix(100))")
                }
            }
        }
    }

    // MARK: Mutants

    private enum Verdict { case accepted, refused }

    private static let oddTexts = [String(repeating: "x", count: 5000), "a\nb\u{1b}[31m", "../../../x", "\u{202e}"]

    /// One of each type, for where it is not wanted.
    private static let strangers: [JSONValue] = [true, 7, -7, 1.5, "text", "", [], [[]], [1], [:], ["a": 1]]

    /// Some text of the error; nil when the mutant is accepted.
    private static func message(_ mutant: Mutant) -> String? {
        do {
            _ = try ContainerSpec(JSONReader(mutant.document))
            return nil
        } catch {
            return error.description
        }
    }

    private static func check(_ mutants: [Mutant], _ expected: (Mutant) throws -> Verdict) throws {
        #expect(mutants.count > 8)
        for mutant in mutants {
            let message = message(mutant)
            switch (try expected(mutant), message) {
            case (.accepted, let message?): Issue.record("\(mutant) is refused: \(message)")
            case (.refused, nil): Issue.record("\(mutant) is accepted")
            case (.refused, let message?):
                let place = JSONPathElement.text(mutant.place)
                #expect(message.contains("\(place): "), "the error about \(mutant) names another place: \(message)")
            case (.accepted, nil): break
            }
        }
    }
}

/// The whole configuration with one part replaced or left out.
private struct Mutant: CustomStringConvertible {
    let place: [JSONPathElement]
    let value: JSONValue?

    init(_ place: [JSONPathElement], _ value: JSONValue?) {
        self.place = place
        self.value = value
    }

    var document: JSONValue { Document.whole.replacing(place[...], by: value) }

    var description: String {
        "\(JSONPathElement.text(place)) = \(value.map { String(decoding: $0.serialized(), as: UTF8.self) } ?? "(nothing)")"
    }

    /// The place without the numbers of elements and the keys of tables.
    var field: String {
        var text = ""
        for (index, element) in place.enumerated() {
            switch element {
            case .index: text += "[]"
            case .key where Document.tables.contains(text) && index > 0: text += "{}"
            case .key(let key): text += text.isEmpty ? key : ".\(key)"
            }
        }
        return text
    }

    var isElement: Bool { if case .index = place.last { true } else { false } }
    var isInTable: Bool { field.hasSuffix("{}") }
}

extension JSONValue {
    /// All parts of this value, itself excepted.
    fileprivate var places: [[JSONPathElement]] {
        let children: [(JSONPathElement, JSONValue)] =
            switch self {
            case .object(let object): object.members.map { (.key($0.key), $0.value) }
            case .array(let elements): elements.enumerated().map { (.index($0), $1) }
            default: []
            }
        return children.flatMap { element, value in [[element]] + value.places.map { [element] + $0 } }
    }

    fileprivate subscript(place: [JSONPathElement]) -> JSONValue? {
        place.reduce(self as JSONValue?) { value, element in
            switch (value, element) {
            case (.object(let object)?, .key(let key)): object[key]
            case (.array(let elements)?, .index(let index)): elements[index]
            default: nil
            }
        }
    }

    fileprivate func replacing(_ place: ArraySlice<JSONPathElement>, by new: JSONValue?) -> JSONValue {
        guard let first = place.first else { return new ?? .null }
        switch (self, first) {
        case (.object(var object), .key(let key)):
            object[key] =
                place.count == 1 ? new : object[key].map { $0.replacing(place.dropFirst(), by: new) }
            return .object(object)
        case (.array(var elements), .index(let index)):
            elements[index] = elements[index].replacing(place.dropFirst(), by: new)
            return .array(elements)
        default: return self
        }
    }
}

/// A configuration with every field that the reader looks into, and what it says about them.
private enum Document {
    /// Null when the text below is no JSON.
    static let whole = (try? JSONValue.parse(text)) ?? .null

    private static let text = #"""
        {"ociVersion":"1.2.0","hostname":"box","domainname":"example","annotations":{"k":"v"},
        "root":{"path":"rootfs","readonly":true},
        "process":{"terminal":true,"consoleSize":{"height":30,"width":100},
        "user":{"uid":1,"gid":2,"umask":18,"additionalGids":[3,4]},"args":["sh","-c"],"env":["A=b"],"cwd":"/",
        "capabilities":{"bounding":["CAP_KILL"],"effective":["CAP_KILL"],"inheritable":["CAP_KILL"],
        "permitted":["CAP_KILL"],"ambient":["CAP_KILL"]},
        "rlimits":[{"type":"RLIMIT_NOFILE","hard":2048,"soft":1024}],"noNewPrivileges":true,"oomScoreAdj":-5,
        "apparmorProfile":"unconfined","selinuxLabel":"a"},
        "mounts":[{"destination":"/a","type":"bind","source":"/b","options":["rbind","ro"],
        "uidMappings":[{"containerID":0,"hostID":1,"size":2}],"gidMappings":[{"containerID":0,"hostID":1,"size":2}]}],
        "hooks":{"prestart":[{"path":"/x","args":["x"],"env":["C=d"],"timeout":3}],"createRuntime":[{"path":"/x"}],
        "createContainer":[{"path":"/x"}],"startContainer":[{"path":"/x"}],"poststart":[{"path":"/x"}],
        "poststop":[{"path":"/x"}]},
        "linux":{"namespaces":[{"type":"pid"},{"type":"network","path":"/run/n"}],
        "uidMappings":[{"containerID":0,"hostID":1000,"size":10}],
        "gidMappings":[{"containerID":0,"hostID":1000,"size":10}],
        "timeOffsets":{"boottime":{"secs":5,"nanosecs":6}},
        "devices":[{"path":"/dev/x","type":"c","major":1,"minor":2,"fileMode":438,"uid":1,"gid":2}],
        "cgroupsPath":"/a","sysctl":{"net.core.somaxconn":"256"},"rootfsPropagation":"rslave",
        "maskedPaths":["/m"],"readonlyPaths":["/r"],"mountLabel":"a",
        "personality":{"domain":"LINUX32","flags":["X"]},
        "resources":{"devices":[{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"}],
        "memory":{"limit":1048576,"reservation":1,"swap":3,"kernel":4,"kernelTCP":5,"swappiness":6,
        "disableOOMKiller":false,"useHierarchy":true,"checkBeforeUpdate":true},
        "cpu":{"shares":512,"quota":7,"burst":8,"period":9,"realtimeRuntime":10,"realtimePeriod":11,"cpus":"0-1",
        "mems":"0","idle":1},"pids":{"limit":7},
        "blockIO":{"weight":10,"leafWeight":10,
        "weightDevice":[{"major":8,"minor":0,"weight":10,"leafWeight":10}],
        "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1}],
        "throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":1}],
        "throttleReadIOPSDevice":[{"major":8,"minor":0,"rate":1}],
        "throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":1}]},
        "hugepageLimits":[{"pageSize":"2MB","limit":1}],
        "network":{"classID":1,"priorities":[{"name":"eth0","priority":1}]},"unified":{"memory.high":"max"}},
        "seccomp":{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"architectures":["SCMP_ARCH_X86"],
        "flags":["X"],"listenerPath":"/l","listenerMetadata":"m",
        "syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","errnoRet":1,
        "args":[{"index":0,"value":1,"valueTwo":2,"op":"SCMP_CMP_EQ"}]}]}}}
        """#

    /// Objects whose keys are the configuration's own.
    static let tables: Set<String> = ["annotations", "linux.sysctl", "linux.timeOffsets", "linux.resources.unified"]

    static let required: Set<String> = {
        var fields: Set<String> = [
            "ociVersion", "root.path", "process.cwd", "process.consoleSize.height", "process.consoleSize.width",
            "process.rlimits[].type", "process.rlimits[].hard", "process.rlimits[].soft", "mounts[].destination",
            "linux.namespaces[].type", "linux.devices[].path", "linux.devices[].type",
            "linux.personality.domain", "linux.resources.devices[].allow",
            "linux.resources.blockIO.weightDevice[].major", "linux.resources.blockIO.weightDevice[].minor",
            "linux.resources.hugepageLimits[].pageSize", "linux.resources.hugepageLimits[].limit",
            "linux.resources.network.priorities[].name", "linux.resources.network.priorities[].priority",
            "linux.seccomp.defaultAction", "linux.seccomp.syscalls[].names", "linux.seccomp.syscalls[].action",
            "linux.seccomp.syscalls[].args[].index", "linux.seccomp.syscalls[].args[].value",
            "linux.seccomp.syscalls[].args[].op",
        ]
        for mapping in mappings {
            for name in ["containerID", "hostID", "size"] { fields.insert("\(mapping)[].\(name)") }
        }
        for kind in hooks { fields.insert("hooks.\(kind)[].path") }
        for rate in rates {
            for name in ["major", "minor", "rate"] { fields.insert("linux.resources.blockIO.\(rate)[].\(name)") }
        }
        return fields
    }()

    /// Where numbers may be, by field.
    static let ranges: [String: ClosedRange<Int128>] = {
        let word = Int128(0)...Int128(UInt32.max)
        let short = Int128(0)...Int128(UInt16.max)
        let unsigned = Int128(0)...Int128(UInt64.max)
        let signed = Int128(Int64.min)...Int128(Int64.max)
        var table: [String: ClosedRange<Int128>] = [
            "process.consoleSize.height": short, "process.consoleSize.width": short,
            // (uid_t)-1 is nobody's.
            "process.user.uid": 0...Int128(UInt32.max - 1), "process.user.gid": 0...Int128(UInt32.max - 1),
            "process.user.umask": word, "process.user.additionalGids[]": 0...Int128(UInt32.max - 1),
            "process.rlimits[].hard": unsigned, "process.rlimits[].soft": unsigned,
            "process.oomScoreAdj": Int128(Int32.min)...Int128(Int32.max),
            "hooks.prestart[].timeout": 1...Int128(Int64.max),
            "linux.timeOffsets{}.secs": signed, "linux.timeOffsets{}.nanosecs": 0...999_999_999,
            "linux.resources.devices[].major": signed, "linux.resources.devices[].minor": signed,
            "linux.resources.memory.swappiness": unsigned, "linux.resources.pids.limit": signed,
            "linux.resources.blockIO.weight": short, "linux.resources.blockIO.leafWeight": short,
            "linux.resources.blockIO.weightDevice[].weight": short,
            "linux.resources.blockIO.weightDevice[].leafWeight": short,
            "linux.resources.blockIO.weightDevice[].major": word, "linux.resources.blockIO.weightDevice[].minor": word,
            "linux.resources.hugepageLimits[].limit": unsigned, "linux.resources.network.classID": word,
            "linux.resources.network.priorities[].priority": word,
            "linux.seccomp.defaultErrnoRet": word, "linux.seccomp.syscalls[].errnoRet": word,
            "linux.seccomp.syscalls[].args[].index": word, "linux.seccomp.syscalls[].args[].value": unsigned,
            "linux.seccomp.syscalls[].args[].valueTwo": unsigned,
        ]
        for mapping in mappings {
            for name in ["containerID", "hostID", "size"] { table["\(mapping)[].\(name)"] = word }
        }
        for name in ["major", "minor", "fileMode", "uid", "gid"] { table["linux.devices[].\(name)"] = word }
        for name in ["limit", "reservation", "swap", "kernel", "kernelTCP"] {
            table["linux.resources.memory.\(name)"] = signed
        }
        for name in ["quota", "realtimeRuntime", "idle"] { table["linux.resources.cpu.\(name)"] = signed }
        for name in ["shares", "burst", "period", "realtimePeriod"] { table["linux.resources.cpu.\(name)"] = unsigned }
        for rate in rates {
            for name in ["major", "minor"] { table["linux.resources.blockIO.\(rate)[].\(name)"] = word }
            table["linux.resources.blockIO.\(rate)[].rate"] = unsigned
        }
        return table
    }()

    private static let mappings = [
        "mounts[].uidMappings", "mounts[].gidMappings", "linux.uidMappings", "linux.gidMappings",
    ]
    private static let hooks = [
        "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
    ]
    private static let rates = [
        "throttleReadBpsDevice", "throttleWriteBpsDevice", "throttleReadIOPSDevice", "throttleWriteIOPSDevice",
    ]
}
