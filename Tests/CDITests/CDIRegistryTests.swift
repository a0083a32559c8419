import CDISpec
import Glibc
import Kernel
import Synchronization
import Testing

@testable import CDI

@Suite struct CDIRegistryTests {
    private let place: CDIPlace
    private let registry: CDIRegistry

    init() throws {
        place = try CDIPlace()
        registry = CDIRegistry(place.directories)
    }

    private func environment(_ names: String...) throws -> [String] {
        try registry.edits(of: try names.map(CDIPlace.name)).env
    }

    private func reason(_ name: String) throws -> String {
        let error = #expect(throws: CDIError.self) { try environment(name) }
        return try #require(error?.description).replacing(place.path, with: "")
    }

    private var names: [String] { registry.refresh().names.map(\.description) }
    private var warnings: [String] { registry.refresh().warnings.map { $0.replacing(place.path, with: "") } }

    @Test func `specifications are the files .json and .yaml, and directories need not be there`() throws {
        try place.devices("etc/a.json", "a")
        try place.write(
            "run/b.yaml",
            "cdiVersion: 0.5.0\nkind: vendor.com/class\ndevices:\n- name: 0\n  containerEdits: {env: [A=b]}")
        for file in ["etc/c.txt", "etc/.json", "etc/d.json.new", "etc/e.yml", "run/spec.123.tmp"] {
            try place.devices(file, "c")
        }
        try File.makeDirectories("\(place.path)/etc/f.json")
        #expect(names == ["vendor.com/class=0", "vendor.com/class=a"] && warnings == [])
        #expect(registry.refresh()[try CDIPlace.name("a")]?.file == "\(place.path)/etc/a.json")
        let none = CDIRegistry(["\(place.path)/none"]).refresh()
        #expect(none == CDIInventory() && none.names == [] && none.warnings == [])
        #expect(CDIRegistry().directories == ["/etc/cdi", "/var/run/cdi"])
    }

    @Test func `edits for all devices of a file are made once, before those of its first device`() throws {
        try place.devices("etc/a.json", "a", "b")
        try place.devices("etc/c.json", "c", kind: "vendor.com/other")
        #expect(
            try environment("b", "vendor.com/other=c", "a", "b") == [
                "ALL=etc/a.json", "FROM=etc/a.json", "ALL=etc/c.json", "FROM=etc/c.json", "FROM=etc/a.json",
            ])
        #expect(try environment() == [])
    }

    @Test func `a device of a later directory goes before the same of an earlier one`() throws {
        try place.devices("etc/a.json", "a", "b")
        try place.devices("run/a.json", "a")
        #expect(try environment("a") == ["ALL=run/a.json", "FROM=run/a.json"])
        #expect(try environment("b") == ["ALL=etc/a.json", "FROM=etc/a.json"])
        try place.remove("run/a.json")
        #expect(try environment("a") == ["ALL=etc/a.json", "FROM=etc/a.json"] && warnings == [])
    }

    @Test func `a device that two files of one directory have cannot be asked for, their others can`() throws {
        try place.devices("etc/a.json", "a", "b")
        try place.devices("etc/b.json", "a", "c")
        #expect(
            try reason("a")
                == "the CDI device vendor.com/class=a is in /etc/a.json and /etc/b.json: remove it from all but one of them"
        )
        #expect(names == ["vendor.com/class=b", "vendor.com/class=c"])
        #expect(warnings == ["CDI devices are in /etc/a.json and /etc/b.json and cannot be used: vendor.com/class=a"])
        // The directory above decides alone.
        try place.devices("run/c.json", "a")
        #expect(try environment("a") == ["ALL=run/c.json", "FROM=run/c.json"] && warnings == [])
        try place.devices("run/d.json", "a")
        #expect(try reason("a").contains("is in /run/c.json and /run/d.json"))
        try place.remove("run/d.json")
        try place.remove("run/c.json")
        try place.remove("etc/b.json")
        #expect(try environment("a") == ["ALL=etc/a.json", "FROM=etc/a.json"])
    }

    @Test(arguments: [
        "", "{", #"{"cdiVersion":"0.5.0","kind":"vendor.com/class","devi"#, "\u{0}",
        #"{"cdiVersion":"9.0.0","kind":"vendor.com/class","devices":[{"name":"a","containerEdits":{"env":["A=b"]}}]}"#,
        #"{"cdiVersion":"0.5.0","kind":"vendor.com/class","devices":[],"x":1}"#,
    ])
    func `a file that is not whole takes its devices away and no others, until it is`(text: String) throws {
        try place.devices("etc/low.json", "a")
        try place.devices("run/a.json", "a", "b")
        try place.devices("run/c.json", "c")
        #expect(names.count == 3)
        try place.write("run/a.json", text)
        #expect(names == ["vendor.com/class=c"])
        let reason = try reason("a")
        #expect(
            reason.hasPrefix("the CDI device vendor.com/class=a was in /run/a.json, which is not valid now: $"),
            "\(reason)")
        #expect(!reason.utf8.contains { $0 < 32 })
        #expect(warnings.count == 1 && warnings[0].hasPrefix("the CDI specification /run/a.json is not used: $"))
        // Who never saw it whole cannot know which devices it had, and says what is wrong with it.
        let other = CDIRegistry(place.directories)
        #expect(try other.edits(of: [CDIPlace.name("a")]).env == ["ALL=etc/low.json", "FROM=etc/low.json"])
        let error = #expect(throws: CDIError.self) { try other.edits(of: [CDIPlace.name("b")]) }
        #expect(error?.description.contains("run/a.json is not used: $") == true)
        try place.devices("run/a.json", "a")
        #expect(try environment("a") == ["ALL=run/a.json", "FROM=run/a.json"])
        #expect(names == ["vendor.com/class=a", "vendor.com/class=c"] && warnings == [])
        try place.write("run/a.json", text)
        try place.remove("run/a.json")
        #expect(try environment("a") == ["ALL=etc/low.json", "FROM=etc/low.json"])
    }

    @Test func `a device that is not there is named with those that are`() throws {
        #expect(try reason("a") == "this node has no CDI devices vendor.com/class, only of the kinds: none")
        try place.devices("etc/a.json", "a", "b")
        #expect(
            try reason("c") == "this node has no CDI device vendor.com/class=c, of vendor.com/class there are: a, b")
        #expect(
            try reason("vendor.com/other=c")
                == "this node has no CDI devices vendor.com/other, only of the kinds: vendor.com/class")
        #expect(
            throws: CDIError.self, "of several names the one that is missing fails all",
            performing: { try environment("a", "c") })
    }

    @Test func `what is no ordinary file, or anybody may write to, is not used`() throws {
        try place.devices("etc/a.json", "a")
        try place.devices("etc/b.json", "b")
        #expect(symlink("nowhere", "\(place.path)/etc/c.json") == 0)
        #expect(symlink("a.json", "\(place.path)/run/d.json") == 0)
        #expect(mkfifo("\(place.path)/etc/e.json", 0o600) == 0)
        #expect(chmod("\(place.path)/etc/b.json", 0o666) == 0)
        #expect(names == ["vendor.com/class=a"])
        let found = warnings
        #expect(found.contains("the CDI specification /etc/b.json is not used: anybody may write to it; run chmod o-w"))
        #expect(
            found.contains("the CDI specification /etc/c.json is not used: it is a symbolic link that leads nowhere"))
        #expect(found.contains { $0.hasPrefix("the CDI specification /etc/e.json is not used: ") } && found.count == 4)
        try place.remove("run/d.json")
        #expect(symlink("../etc/a.json", "\(place.path)/run/d.json") == 0)
        #expect(try environment("a").first == "ALL=etc/a.json")
        #expect(registry.refresh()[try CDIPlace.name("a")]?.file == "\(place.path)/run/d.json")
        #expect(chmod("\(place.path)/run", 0o777) == 0)
        #expect(
            warnings.contains("the CDI specifications in /run are not used: anybody may write to it; run chmod o-w"))
        #expect(registry.refresh()[try CDIPlace.name("a")]?.file == "\(place.path)/etc/a.json")
    }

    @Test func `files, their sizes and their devices are bounded, and what is within the bounds goes on`() throws {
        for number in 0..<258 { try place.devices("etc/\(1000 + number).json", "d\(number)") }
        #expect(names.count == 256)
        #expect(
            warnings == [
                "the CDI specification 1256.json and all behind it in /etc are not read: there are 258 files, and 256 is the "
                    + "limit"
            ])
        try place.write("run/a.json", String(repeating: " ", count: (1 << 20) + 1))
        #expect(warnings.contains { $0.hasPrefix("the CDI specification /run/a.json is not used: ") })
        #expect(names.count == 256)
    }

    @Test func `a change is told after each file that comes, changes and goes, also into a directory made later`()
        async throws
    {
        try place.devices("etc/a.json", "a")
        let late = CDIRegistry(["\(place.path)/etc", "\(place.path)/late"])
        let (changes, tell) = AsyncStream.makeStream(of: [String].self)
        let watch = try CDIWatch(late) { tell.yield($0.names.map(\.device)) }
        var seen = changes.makeAsyncIterator()
        #expect(await seen.next() == ["a"])
        try place.devices("etc/b.json", "b")
        #expect(await seen.next() == ["a", "b"])
        try File.makeDirectories("\(place.path)/late")
        try place.devices("late/c.json", "c")
        #expect(await seen.next() == ["a", "b", "c"])
        // What is written beside and renamed is never seen in part.
        try place.devices("late/c.json", "d")
        #expect(await seen.next() == ["a", "b", "d"])
        try place.remove("etc/a.json")
        #expect(await seen.next() == ["b", "d"])
        withExtendedLifetime(watch) {}
    }
}
