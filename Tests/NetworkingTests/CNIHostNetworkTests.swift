import CNISpec
import Glibc
import JSON
import Kernel
import Reactor
import Synchronization
import Testing

@testable import Networking

/// What is asked about a network as a whole, and what else a host owes to plugins that misbehave.
@Suite struct CNIHostNetworkTests {
    let plugins: ScriptedPlugins

    init() throws { plugins = try ScriptedPlugins() }

    /// A plugin that answers ADD in the version that it was asked in.
    private func plugin(_ name: String, speaks versions: String, more: String = "") throws {
        try plugins.plugin(
            name,
            """
            version=$(echo "$input" | sed 's/.*"cniVersion":"\\([^"]*\\)".*/\\1/')
            \(more)
            case $CNI_COMMAND in
            ADD) echo "{\\"cniVersion\\": \\"$version\\", \\"ips\\": [{\\"address\\": \\"10.0.0.2/24\\"}]}";;
            VERSION) echo '{"cniVersion": "1.0.0", "supportedVersions": [\(versions)]}';;
            esac
            """)
    }

    private func host(_ types: String..., versions: String, more: String = "") throws -> CNIHost {
        let list = types.map { #"{"type": "\#($0)"}"# }.joined(separator: ",")
        let text = #"{\#(versions), "name": "net"\#(more), "plugins": [\#(list)]}"#
        return CNIHost(
            list: try NetworkConfigurationList.parse(Array(text.utf8)), pluginDirectories: [plugins.directory],
            cacheDirectory: "\(plugins.directory)/cache", timeoutMilliseconds: 30_000)
    }

    private let all = #""cniVersion": "0.4.0", "cniVersions": ["0.3.1", "1.0.0", "1.1.0", "3.0.0"]"#

    @Test func `of several versions the highest is used that list, host and all plugins know`() throws {
        try plugin("a", speaks: #""0.3.1", "0.4.0", "1.0.0""#)
        try plugin("b", speaks: #""0.4.0", "1.0.0", "1.1.0""#)
        let host = try host("a", "b", versions: all)
        for id in ["c1", "c2"] { _ = try host.add(plugins.attachment(id)) }
        #expect(try plugins.input("b", "ADD")["cniVersion"] == "1.0.0")
        #expect(plugins.calls.filter { $0.hasPrefix("VERSION") } == ["VERSION a", "VERSION b"], "each is asked once")
        #expect(try host.records().map(\.list.versions) == [[.v1_0_0], [.v1_0_0]], "DEL speaks the version of ADD")
        #expect(host.status() == [] && host.collectGarbage() == [], "both came with 1.1.0")
        #expect(!plugins.calls.contains { $0.hasPrefix("STATUS") || $0.hasPrefix("GC") })
    }

    @Test func `plugins that have no version in common are told apart`() throws {
        try plugin("a", speaks: #""0.4.0""#)
        try plugin("b", speaks: #""1.0.0", "9.0.0""#)
        let error = #expect(throws: CNIHostError.self) {
            try host("a", "b", versions: all).add(plugins.attachment())
        }
        #expect(
            error?.description
                == "CNI VERSION in network net: plugin b: it speaks none of the versions 0.4.0, only 1.0.0, 9.0.0")
        #expect(plugins.cached == [])
    }

    @Test func `STATUS says which plugin cannot serve, and why`() throws {
        try plugin("a", speaks: #""1.1.0""#)
        try plugin(
            "b", speaks: #""1.1.0""#,
            more: #"[ $CNI_COMMAND = STATUS ] && { echo '{"code": 50, "msg": "no daemon"}'; exit 1; }"#)
        let host = try host("a", "b", versions: #""cniVersion": "1.1.0""#)
        #expect(
            host.status().map(\.description) == [
                "CNI STATUS in network net: plugin b: no daemon (code 50: it cannot attach anybody now)"
            ])
        #expect(plugins.calls.suffix(2) == ["STATUS a", "STATUS b"])
        let environment = try plugins.environment("a", "STATUS").filter { $0.hasPrefix("CNI_") }
        #expect(environment.sorted() == ["CNI_COMMAND=STATUS", "CNI_PATH=\(plugins.directory)"])
        #expect(try plugins.input("a", "STATUS") == ["cniVersion": "1.1.0", "name": "net", "type": "a"])
        let missing = try self.host("a", "none", versions: #""cniVersion": "1.1.0""#).status()
        #expect(missing.map(\.plugin) == ["none"])
    }

    @Test func `GC names all that is on record, also where the record is damaged, and goes on after a failure`() throws
    {
        try plugin(
            "a", speaks: #""1.1.0""#,
            more: #"[ $CNI_COMMAND = GC ] && { echo '{"code": 5, "msg": "disk"}'; exit 1; }"#)
        try plugin("b", speaks: #""1.1.0""#)
        let host = try host("a", "b", versions: #""cniVersion": "1.1.0""#)
        for id in ["c1", "c2", "c-3"] { _ = try host.add(plugins.attachment(id)) }
        try host.delete(plugins.attachment("c2"))
        try File.replace("\(plugins.directory)/cache/net-c-3-eth0.json", with: Array("{".utf8))
        #expect(
            host.collectGarbage().map(\.description) == [
                "CNI GC in network net: plugin a: disk (code 5: it could not read or write)"
            ])
        #expect(plugins.calls.suffix(2) == ["GC a", "GC b"])
        #expect(
            try plugins.input("b", "GC") == [
                "cniVersion": "1.1.0", "name": "net", "type": "b",
                "cni.dev/valid-attachments": [
                    ["containerID": "c-3", "ifname": "eth0"], ["containerID": "c1", "ifname": "eth0"],
                ],
            ])
        try plugins.forgetCalls()
        let silent = try self.host("a", versions: #""cniVersion": "1.1.0""#, more: #", "disableGC": true"#)
        #expect(silent.collectGarbage() == [] && plugins.calls == [])
    }

    @Test func `GC waits for an ADD that is under way, and leaves what it made alone`() throws {
        let go = "\(plugins.directory)/go"
        try plugin(
            "a", speaks: #""1.1.0""#,
            more: "[ $CNI_COMMAND = ADD ] && while ! test -e \(go); do sleep 0.01; done")
        let host = try host("a", versions: #""cniVersion": "1.1.0""#)
        let ended = Mutex<[String]>([])
        let attachment = plugins.attachment()
        try Thread.start(name: "add") {
            _ = try? host.add(attachment)
            ended.withLock { $0.append("ADD") }
        }
        try wait { plugins.calls == ["ADD a"] }
        try Thread.start(name: "gc") {
            _ = host.collectGarbage()
            ended.withLock { $0.append("GC") }
        }
        usleep(100_000)
        #expect(plugins.calls == ["ADD a"])
        try File.replace(go, with: [])
        try wait { ended.withLock { $0.count } == 2 }
        #expect(plugins.calls == ["ADD a", "GC a"])
        #expect(
            try plugins.input("a", "GC")["cni.dev/valid-attachments"] == [["containerID": "c1", "ifname": "eth0"]])
    }

    private func wait(for condition: () -> Bool) throws {
        for _ in 0..<1000 where !condition() { usleep(10_000) }
        try #require(condition())
    }

    @Test func `a damaged record is detached before the same pod is attached again`() throws {
        try plugin("a", speaks: #""1.1.0""#)
        let host = try host("a", versions: #""cniVersion": "1.1.0""#)
        _ = try host.add(plugins.attachment())
        try File.replace("\(plugins.directory)/cache/net-c1-eth0.json", with: [])
        _ = try host.add(plugins.attachment())
        #expect(plugins.calls == ["ADD a", "DEL a", "ADD a"])
        #expect(plugins.cached == ["net-c1-eth0.json"])
    }

    @Test func `a plugin that does not know the container has nothing to take away`() throws {
        try plugins.plugin("a", #"echo '{"code": 3, "msg": "who?"}'; exit 1"#)
        try host("a", versions: #""cniVersion": "1.0.0""#).delete(plugins.attachment())
        #expect(plugins.calls == ["DEL a"])
    }

    @Test func `processes that a plugin leaves behind with its output open hold nobody up, and end`() throws {
        let note = "\(plugins.directory)/left"
        try plugin("a", speaks: #""1.0.0""#, more: "sleep 1000 & echo $! > \(note)")
        _ = try host("a", versions: #""cniVersion": "1.0.0""#).add(plugins.attachment())
        try expectEnd(of: File.text(note))
    }

    @Test func `a plugin that hangs is killed with what it has started`() throws {
        let note = "\(plugins.directory)/left"
        try plugins.plugin("a", "[ $CNI_COMMAND = ADD ] || exit 0; sleep 1000 & echo $! > \(note); wait")
        let host = CNIHost(
            list: NetworkConfigurationList(
                name: "net", plugins: [try PluginConfiguration(JSONReader(["type": "a"]))]),
            pluginDirectories: [plugins.directory], cacheDirectory: "\(plugins.directory)/cache",
            timeoutMilliseconds: 1000)
        let error = #expect(throws: CNIHostError.self) { try host.add(plugins.attachment()) }
        #expect(error?.description.contains("did not end within 1000 ms and was killed") == true)
        try expectEnd(of: File.text(note))
    }

    /// Whoever has become its parent may not have noticed yet.
    private func expectEnd(of pid: String) throws {
        for _ in 0..<500 {
            guard let status = try? File.text("/proc/\(pid)/stat") else { return }
            if status.contains(") Z ") { return }
            usleep(10_000)
        }
        Issue.record("process \(pid) is still there")
    }

    @Test func `links within the plugin directories are followed, others and files that all may write are not run`()
        throws
    {
        try plugin("real", speaks: #""1.0.0""#)
        let directory = plugins.directory
        symlink("real", "\(directory)/twin")
        symlink("/bin/true", "\(directory)/out")
        symlink("nothing", "\(directory)/gone")
        try plugin("open", speaks: #""1.0.0""#)
        chmod("\(directory)/open", 0o777)
        try File.replace("\(directory)/plain", with: Array("#!/bin/sh\n".utf8))
        _ = try host("twin", versions: #""cniVersion": "1.0.0""#).add(plugins.attachment())
        #expect(plugins.calls == ["ADD twin"])
        for (type, reason) in [
            ("out", "\(directory)/out is not run: it is a symbolic link to "),
            ("gone", "it is a symbolic link that leads nowhere"), ("open", "everybody may write it"),
            ("plain", "it is not executable"), ("cache", "it is no ordinary file"),
        ] {
            let error = #expect(throws: CNIHostError.self) {
                try host(type, versions: #""cniVersion": "1.0.0""#).add(plugins.attachment("c-\(type)"))
            }
            #expect(try #require(error).reason.contains(reason), "\(error?.reason ?? "")")
        }
    }

    @Test func `words of plugins cannot make lines or control a terminal`() throws {
        try plugins.plugin("a", #"printf 'one\ntwo\033[2J\001three' >&2; exit 3"#)
        let error = #expect(throws: CNIHostError.self) {
            try host("a", versions: #""cniVersion": "1.0.0""#).delete(plugins.attachment())
        }
        #expect(error?.reason == "it ended with code 3 and wrote: one; two [2J three")
    }
}
