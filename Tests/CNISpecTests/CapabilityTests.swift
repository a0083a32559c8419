import CNISpec
import JSON
import Testing

/// What lists and runtimes of version 1.1 and of CNI's conventions have beside what there always was.
@Suite struct CapabilityTests {
    private func list(_ text: String) throws -> NetworkConfigurationList {
        try NetworkConfigurationList.parse(Array(text.utf8))
    }

    @Test(arguments: [
        (#""cniVersion": "0.4.0""#, ["0.4.0"]), (#""cniVersions": ["1.0.0"]"#, ["1.0.0"]),
        (#""cniVersion": "1.1.0", "cniVersions": ["0.3.1", "1.0.0", "2.0.0"]"#, ["0.3.1", "1.0.0", "1.1.0"]),
        (#""cniVersion": "7.0.0", "cniVersions": ["0.4.0", "0.4.0"]"#, ["0.4.0"]),
    ])
    func `a list's versions are those of both of its members that are known`(members: String, versions: [String]) throws
    {
        let list = try list(#"{\#(members), "name": "n", "plugins": [{"type": "x"}]}"#)
        #expect(list.versions.map(\.rawValue) == versions && list.version.rawValue == versions.last)
        #expect(try NetworkConfigurationList(JSONReader(list.json)) == list)
        #expect(list.at(.v0_4_0).versions == [.v0_4_0] && list.at(.v0_4_0).version == .v0_4_0)
    }

    @Test func `a list of versions that are all unknown is refused`() {
        #expect(throws: JSONError.self) { try list(#"{"cniVersions": ["7.0.0"], "name": "n", "type": "x"}"#) }
        #expect(throws: JSONError.self) { try list(#"{"cniVersions": "1.0.0", "name": "n", "type": "x"}"#) }
    }

    @Test func `files beside a list add plugins unless it says otherwise or is a single plugin`() throws {
        func directory(_ members: String) throws -> String? {
            try NetworkConfigurationList.PluginFiles(of: parse(#"{"name": "n"\#(members)}"#)).directory
        }
        #expect(try directory("") == "n" && directory(#", "plugins": []"#) == "n")
        #expect(try directory(#", "type": "x""#) == nil)
        #expect(try directory(#", "plugins": [], "loadOnlyInlinedPlugins": true"#) == nil)
        #expect(try directory(#", "plugins": [], "loadOnlyInlinedPlugins": "false""#) == "n")
        #expect(throws: JSONError.self) { try directory(#", "loadOnlyInlinedPlugins": true"#) }
        let more = [try PluginConfiguration(parse(#"{"type": "y"}"#))]
        let bare = try parse(#"{"cniVersion": "1.1.0", "name": "n"}"#)
        #expect(try NetworkConfigurationList(bare, more: more).plugins.map(\.type) == ["y"])
        #expect(throws: JSONError.self) { try NetworkConfigurationList(bare) }
        let full = try parse(#"{"cniVersion": "1.1.0", "name": "n", "plugins": [{"type": "x"}]}"#)
        #expect(try NetworkConfigurationList(full, more: more).plugins.map(\.type) == ["x", "y"])
        let many = [PluginConfiguration](repeating: more[0], count: CNILimits.plugins)
        #expect(throws: JSONError.self) { try NetworkConfigurationList(full, more: many) }
    }

    @Test func `what the runtime writes is taken out of a configuration first, and members of a list of one with it`()
        throws
    {
        let list = try list(
            """
            {"cniVersion": "0.4.0", "cniVersions": ["1.1.0"], "name": "net", "disableGC": true, "disableCheck": true,
             "type": "a", "own": 1, "args": {"cni": {}}, "cni.dev/valid-attachments": [], "cni.dev/later": 1,
             "prevResult": {}, "runtimeConfig": {}, "capabilities": {}}
            """)
        #expect(list.disableGC && list.disableCheck)
        let input = list.plugins[0].execution(
            version: list.version, network: list.name, valid: [ValidAttachment(containerID: "c", interface: "eth0")])
        #expect(
            input == [
                "cniVersion": "1.1.0", "name": "net", "type": "a", "own": 1, "args": ["cni": [:]],
                "cni.dev/valid-attachments": [["containerID": "c", "ifname": "eth0"]],
            ])
    }

    @Test(arguments: ["../x", "/bin/sh", "..", "a b"])
    func `an address plugin is a plain name too`(name: String) throws {
        let error = #expect(throws: JSONError.self) {
            try list(#"{"cniVersion": "1.0.0", "name": "n", "type": "x", "ipam": {"type": "\#(name)"}}"#)
        }
        #expect(error?.description.hasPrefix("$.ipam.type: ") == true)
    }

    @Test func `capabilities are those of the conventions`() throws {
        let text = """
            {"ips": ["10.0.0.5/8", "fd00::5"], "aliases": ["web", "db"],
             "dns": {"servers": ["10.0.0.1"], "searches": ["a.example"], "options": ["ndots:2"]},
             "ipRanges": [[{"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.3", "rangeEnd": "10.1.2.99",
                            "gateway": "10.1.2.254"}]]}
            """
        let arguments = try CapabilityArguments(parse(text))
        #expect(arguments.addresses.count == 1 && arguments.plainAddresses.map(\.description) == ["fd00::5"])
        #expect(JSONValue.object(arguments.json) == (try parse(text)).value)
        let list = try list(
            """
            {"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "x", "capabilities": {"ips": true, "dns": false}},
             {"type": "y", "capabilities": {"aliases": true}}]}
            """)
        #expect(arguments.unserved(by: list).sorted() == ["dns", "ipRanges"])
        var others = CapabilityArguments(portMappings: [PortMapping(hostPort: 1, containerPort: 2)])
        others.aliases = ["other"]
        #expect(arguments.completed(by: others).aliases == ["web", "db"])
        #expect(arguments.completed(by: others).portMappings.count == 1)
    }

    @Test(arguments: [
        (#"{"ips": ["x"]}"#, "$.ips[0]"), (#"{"aliases": ["a b"]}"#, "$.aliases[0]"),
        (#"{"dns": {"servers": ["host"]}}"#, "$.dns.servers[0]"),
        (#"{"dns": {"searches": ["a\nnameserver 6.6.6.6"]}}"#, "$.dns.searches[0]"),
        (#"{"ipRanges": [{}]}"#, "$.ipRanges[0]"), (#"{"ipRanges": [[{}]]}"#, "$.ipRanges[0][0].subnet"),
        (#"{"ipRanges": [[{"subnet": "10.0.0.0/24", "rangeStart": "10.0.1.1"}]]}"#, "$.ipRanges[0][0].rangeStart"),
        (
            #"{"ipRanges": [[{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.9", "rangeEnd": "10.0.0.1"}]]}"#,
            "$.ipRanges[0][0].rangeEnd"
        ),
    ])
    func `capabilities that cannot be are refused with their place`(text: String, place: String) throws {
        let error = #expect(throws: JSONError.self) { try CapabilityArguments(parse(text)) }
        #expect(try #require(error).description.hasPrefix(place), "\(error?.description ?? "")")
    }

    @Test func `codes of errors have a meaning, those of plugins their own`() {
        #expect(CNIError(code: 11, message: "busy").sentence == "busy (code 11: it may work later)")
        #expect(CNIError(code: 100, message: "").sentence == "no message (code 100)")
        #expect(CNIError(code: 7, message: "a", details: "b").sentence == "a: b (code 7: its configuration is invalid)")
    }
}
