import CNISpec
import Glibc
import JSON
import Kernel
import Testing

@testable import Networking

/// A directory of plugins that are shell scripts, and a host that runs them. Every script first notes that it was called.
final class ScriptedPlugins {
    let directory: String
    private let namespace = "/proc/self/ns/net"

    init() throws {
        var template = Array("/tmp/martlet-cni-XXXXXX".utf8CString)
        directory = String(cString: try #require(mkdtemp(&template)))
    }

    deinit { _ = try? Tree.remove(directory) }

    /// The notes: one `VERB plugin` a line.
    var calls: [String] {
        ((try? File.text("\(directory)/calls")) ?? "").split(separator: "\n").map { String($0) }
    }

    func forgetCalls() throws { try File.removeFile("\(directory)/calls") }

    func plugin(_ name: String, _ script: String) throws {
        let path = "\(directory)/\(name)"
        let text = """
            #!/bin/sh
            input=$(cat)
            echo "$CNI_COMMAND ${0##*/}" >> \(directory)/calls
            echo "$input" > \(directory)/${0##*/}.$CNI_COMMAND.input
            env > \(directory)/${0##*/}.$CNI_COMMAND.env
            \(script)
            """
        try writeProgram(path, text)
    }

    /// A plugin that answers ADD with one address.
    func plugin(_ name: String, address: String, version: String = "1.0.0") throws {
        try plugin(
            name,
            """
            case $CNI_COMMAND in
            ADD) echo '{"cniVersion": "\(version)", "interfaces": [{"name": "eth0", "sandbox": "/x"}],
                 "ips": [{"address": "\(address)", "interface": 0}]}';;
            VERSION) echo '{"cniVersion": "\(version)", "supportedVersions": ["0.4.0", "\(version)"]}';;
            esac
            """)
    }

    func input(_ plugin: String, _ verb: String) throws -> JSONValue {
        try JSONValue.parse(File.read("\(directory)/\(plugin).\(verb).input"))
    }

    func environment(_ plugin: String, _ verb: String) throws -> [String] {
        try File.text("\(directory)/\(plugin).\(verb).env").split(separator: "\n").map { String($0) }
    }

    func host(_ types: String..., version: String = "1.0.0", timeout: Int = 30_000, more: String = "") throws -> CNIHost
    {
        let plugins = types.map { #"{"type": "\#($0)", "capabilities": {"portMappings": true}}"# }.joined(
            separator: ",")
        let list = try NetworkConfigurationList.parse(
            Array(#"{"cniVersion": "\#(version)", "name": "net"\#(more), "plugins": [\#(plugins)]}"#.utf8))
        return CNIHost(
            list: list, pluginDirectories: ["\(directory)/none", directory], cacheDirectory: "\(directory)/cache",
            timeoutMilliseconds: timeout)
    }

    func attachment(_ id: String = "c1") -> NetworkAttachment {
        NetworkAttachment(containerID: id, namespacePath: namespace)
    }
    var cached: [String] { (try? File.list("\(directory)/cache")) ?? [] }
}

/// Writes an executable file by another process: were it open for writing here, a child that some other test starts at
/// that moment would keep it open until its own execve, and ours would fail with ETXTBSY.
func writeProgram(_ path: String, _ text: String) throws {
    let write = Program(
        "/bin/sh", ["-c", "cat > \"$0\" && chmod 755 \"$0\"", path],
        environment: ["PATH=/usr/bin:/bin"], input: Array(text.utf8))
    try #require(try write.run().status == .exited(0))
}

@Suite struct CNIHostTests {
    let plugins: ScriptedPlugins

    init() throws { plugins = try ScriptedPlugins() }

    @Test func `ADD chains the results in order, DEL goes back, and what is on record goes with it`() throws {
        try plugins.plugin("a", address: "10.0.0.2/24")
        try plugins.plugin("b", address: "10.0.0.3/24")
        let host = try plugins.host("a", "b")
        var attachment = plugins.attachment()
        attachment.capabilities.portMappings = [PortMapping(hostPort: 80, containerPort: 8080)]
        attachment.arguments = ["K8S": "x", "IgnoreUnknown": "1"]
        let result = try host.add(attachment)
        #expect(result.addresses.map(\.address.description) == ["10.0.0.3/24"])
        #expect(try plugins.input("a", "ADD")["prevResult"] == nil)
        let previous = try plugins.input("b", "ADD")["prevResult"]
        #expect(previous?["ips"]?.arrayValue?.first?["address"] == "10.0.0.2/24")
        #expect(try plugins.input("a", "ADD")["runtimeConfig"]?["portMappings"]?.arrayValue?.count == 1)
        let environment = try plugins.environment("a", "ADD")
        for line in [
            "CNI_COMMAND=ADD", "CNI_CONTAINERID=c1", "CNI_IFNAME=eth0", "CNI_NETNS=/proc/self/ns/net",
            "CNI_ARGS=IgnoreUnknown=1;K8S=x", "CNI_PATH=\(plugins.directory)/none:\(plugins.directory)",
        ] {
            #expect(environment.contains(line), "\(line)")
        }
        #expect(plugins.cached == ["net-c1-eth0.json"])
        #expect(try host.records().map(\.isComplete) == [true])

        try host.delete(NetworkAttachment(containerID: "c1", namespacePath: ""))
        #expect(plugins.calls == ["ADD a", "ADD b", "DEL b", "DEL a"])
        let input = try plugins.input("a", "DEL")
        #expect(input["prevResult"]?["ips"]?.arrayValue?.first?["address"] == "10.0.0.3/24")
        #expect(input["runtimeConfig"]?["portMappings"]?.arrayValue?.count == 1, "DEL gets what ADD got")
        #expect(try plugins.environment("a", "DEL").contains("CNI_ARGS=IgnoreUnknown=1;K8S=x"))
        #expect(plugins.cached == [])
    }

    @Test func `DEL without a record runs all plugins and is no error, again and again`() throws {
        try plugins.plugin("a", address: "10.0.0.2/24")
        try plugins.plugin("b", address: "10.0.0.3/24")
        let host = try plugins.host("a", "b")
        for _ in 0..<2 { try host.delete(plugins.attachment("never-added")) }
        #expect(plugins.calls == ["DEL b", "DEL a", "DEL b", "DEL a"])
    }

    @Test func `DEL tells plugins when the namespace is gone, also when its pin file is left`() throws {
        try plugins.plugin("a", address: "10.0.0.2/24")
        let host = try plugins.host("a")
        let pin = "\(plugins.directory)/pin"
        try File.replace(pin, with: [])
        try host.delete(NetworkAttachment(containerID: "c1", namespacePath: pin))
        #expect(try plugins.environment("a", "DEL").contains("CNI_NETNS="))
        #expect(throws: CNIHostError.self) { try host.add(NetworkAttachment(containerID: "c1", namespacePath: pin)) }
    }

    @Test func `a plugin that fails is named with verb, network and its own words, and all are undone`() throws {
        try plugins.plugin("a", address: "10.0.0.2/24")
        try plugins.plugin(
            "b",
            """
            [ $CNI_COMMAND = ADD ] && echo '{"code": 11, "msg": "no room", "details": "none"}' && exit 1
            exit 0
            """)
        try plugins.plugin("c", address: "10.0.0.4/24")
        let host = try plugins.host("a", "b", "c")
        let error = #expect(throws: CNIHostError.self) { try host.add(plugins.attachment()) }
        #expect(
            error?.description == "CNI ADD in network net for c1: plugin b: no room: none (code 11: it may work later)")
        #expect(error?.code == CNIError.tryAgainLater)
        #expect(plugins.calls == ["ADD a", "ADD b", "DEL c", "DEL b", "DEL a"])
        #expect(plugins.cached == [])
    }

    @Test func `when undoing fails too, both are told and the record stays for another try`() throws {
        try plugins.plugin("a", #"test -e \#(plugins.directory)/works || { echo broken >&2; exit 3; }"#)
        let host = try plugins.host("a")
        let error = #expect(throws: CNIHostError.self) { try host.add(plugins.attachment()) }
        #expect(
            error?.description == "CNI ADD in network net for c1: plugin a: it ended with code 3 and wrote: broken; "
                + "undoing it failed too: it ended with code 3 and wrote: broken")
        let left = try host.records()
        #expect(left.map(\.isComplete) == [false])
        try File.replace("\(plugins.directory)/works", with: [])
        try host.delete(left[0])
        #expect(plugins.cached == [])
    }

    @Test(arguments: [
        ("echo garbage", "its result is not understood: $"),
        ("exit 0", "its result is not understood: $"),
        ("echo '[]'", "expected an object"),
        (#"echo '{"cniVersion": "0.4.0"}'"#, "the answer is of version 0.4.0, wanted 1.0.0"),
        (#"echo '{"cniVersion": "1.0.0", "ips": [{"address": "x"}]}'"#, "$.ips[0].address"),
        ("head -c 2000000 /dev/zero", "wrote more than 1048576 bytes and was killed"),
        ("kill -SEGV $$", "it was killed by signal 11"),
        ("echo no json; exit 2", "it ended with code 2"),
        ("sleep 1000", "did not end within 1000 ms and was killed"),
    ])
    func `garbage and misbehaviour are errors that name the plugin`(script: String, reason: String) throws {
        try plugins.plugin("bad", "[ $CNI_COMMAND = ADD ] || exit 0\n\(script)")
        let error = #expect(throws: CNIHostError.self) {
            try plugins.host("bad", timeout: 1000).add(plugins.attachment())
        }
        #expect(error?.plugin == "bad" && error?.verb == .add && error?.network == "net")
        #expect(try #require(error).reason.contains(reason), "\(error?.reason ?? "")")
        #expect(plugins.calls == ["ADD bad", "DEL bad"])
        #expect(plugins.cached == [])
    }

    @Test func `a plugin that is missing is named with where it was looked for; the others still get their DEL`() throws
    {
        try plugins.plugin("a", address: "10.0.0.2/24")
        let host = try plugins.host("a", "gone")
        let error = #expect(throws: CNIHostError.self) { try host.add(plugins.attachment()) }
        #expect(error?.plugin == "gone")
        #expect(try #require(error).reason.contains("not installed in \(plugins.directory)/none, \(plugins.directory)"))
        #expect(plugins.calls == ["ADD a", "DEL a"])
        #expect(plugins.cached == ["net-c1-eth0.json"], "the record stays until the plugin can undo")
        try plugins.plugin("gone", address: "10.0.0.3/24")
        try host.delete(plugins.attachment())
        #expect(plugins.cached == [])
    }

    @Test func `only files in the plugin directories are run`() throws {
        try plugins.plugin("a", address: "10.0.0.2/24")
        mkdir("\(plugins.directory)/none", 0o755)
        mkdir("\(plugins.directory)/none/a", 0o755)
        try File.replace("\(plugins.directory)/text", with: Array("no program".utf8))
        let host = try plugins.host("a")
        #expect(host.program(of: "a") == "\(plugins.directory)/a", "a directory of that name is passed over")
        for type in ["text", "../a", "none/../a", "/bin/sh", "..", "", "b"] {
            #expect(host.program(of: type) == nil, "\(type)")
        }
    }

    @Test func `ADD of what is on record deletes the old attachment first, with the old list`() throws {
        try plugins.plugin("a", address: "10.0.0.2/24")
        try plugins.plugin("b", address: "10.0.0.3/24")
        _ = try plugins.host("a").add(plugins.attachment())
        _ = try plugins.host("b").add(plugins.attachment())
        #expect(plugins.calls == ["ADD a", "DEL a", "ADD b"])
    }

    @Test func `CHECK asks with the recorded result; without ADD it is an error, with disableCheck it is not asked`()
        throws
    {
        try plugins.plugin("a", address: "10.0.0.2/24")
        let host = try plugins.host("a")
        #expect(throws: CNIHostError.self) { try host.check(plugins.attachment()) }
        _ = try host.add(plugins.attachment())
        try host.check(plugins.attachment())
        #expect(try plugins.input("a", "CHECK")["prevResult"]?["ips"] != nil)
        try plugins.plugin("a", #"echo '{"code": 100, "msg": "address is gone"}'; exit 1"#)
        let error = #expect(throws: CNIHostError.self) { try host.check(plugins.attachment()) }
        #expect(error?.description == "CNI CHECK in network net for c1: plugin a: address is gone (code 100)")

        try plugins.plugin("b", address: "10.0.0.2/24")
        let silent = try plugins.host("b", more: #", "disableCheck": true"#)
        _ = try silent.add(plugins.attachment("c2"))
        try silent.check(plugins.attachment("c2"))
        #expect(!plugins.calls.contains("CHECK b"))
    }

    @Test func `an old list has no CHECK and gives DEL no result`() throws {
        try plugins.plugin("a", address: "10.0.0.2/24", version: "0.3.1")
        let host = try plugins.host("a", version: "0.3.1")
        _ = try host.add(plugins.attachment())
        let error = #expect(throws: CNIHostError.self) { try host.check(plugins.attachment()) }
        #expect(error?.reason == "version 0.3.1 has no CHECK")
        try host.delete(plugins.attachment())
        #expect(try plugins.input("a", "DEL")["prevResult"] == nil)
    }

    @Test func `VERSION finds plugins that are missing, too old or talk nonsense`() throws {
        try plugins.plugin("a", address: "10.0.0.2/24")
        try plugins.host("a").verifyPlugins()
        #expect(try plugins.environment("a", "VERSION").filter { $0.hasPrefix("CNI_") }.count == 2)
        let old = #expect(throws: CNIHostError.self) { try plugins.host("a", version: "1.1.0").verifyPlugins() }
        #expect(old?.reason == "it does not speak 1.1.0, only 0.4.0, 1.0.0")
        try plugins.plugin("b", "echo nonsense")
        #expect(throws: CNIHostError.self) { try plugins.host("b").verifyPlugins() }
        #expect(throws: CNIHostError.self) { try plugins.host("none-such").verifyPlugins() }
    }

    @Test func `ids, devices and arguments that could be mistaken are refused before any plugin runs`() throws {
        try plugins.plugin("a", address: "10.0.0.2/24")
        let host = try plugins.host("a")
        for attachment in [
            NetworkAttachment(containerID: "../x", namespacePath: "/proc/self/ns/net"),
            NetworkAttachment(containerID: "", namespacePath: "/proc/self/ns/net"),
            NetworkAttachment(containerID: "c", namespacePath: "/proc/self/ns/net", interface: "a/b"),
            NetworkAttachment(containerID: "c", namespacePath: "/proc/self/ns/net", arguments: ["A": "x;CNI=y"]),
            NetworkAttachment(containerID: "c", namespacePath: "/nowhere"),
        ] {
            #expect(throws: CNIHostError.self) { try host.add(attachment) }
        }
        #expect(plugins.calls == [])
    }

    @Test(arguments: ["", "{", "null", #"{"kind": "other"}"#, #"{"kind": "martlet-cni-1"}"#])
    func `a record that cannot be read is set aside, and DEL works without it`(text: String) throws {
        try plugins.plugin("a", address: "10.0.0.2/24")
        let host = try plugins.host("a")
        _ = try host.add(plugins.attachment())
        let path = "\(plugins.directory)/cache/net-c1-eth0.json"
        try File.replace(path, with: Array(text.utf8))
        #expect(try host.records() == [])
        #expect(plugins.cached == ["net-c1-eth0.json.corrupt"])
        try host.delete(plugins.attachment())
        #expect(plugins.calls == ["ADD a", "DEL a"])
    }

    @Test func `networks whose names begin alike keep their records apart`() throws {
        try plugins.plugin("a", address: "10.0.0.2/24")
        let host = try plugins.host("a")
        _ = try host.add(plugins.attachment())
        let other = CNIHost(
            list: NetworkConfigurationList(name: "net-c1", plugins: host.list.plugins),
            pluginDirectories: host.pluginDirectories, cacheDirectory: "\(plugins.directory)/cache")
        _ = try other.add(plugins.attachment("x"))
        #expect(try host.records().map(\.attachment.containerID) == ["c1"])
        #expect(try other.records().map(\.attachment.containerID) == ["x"])
    }
}
