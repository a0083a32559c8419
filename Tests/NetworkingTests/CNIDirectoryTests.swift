import CNISpec
import Glibc
import JSON
import Kernel
import Synchronization
import Testing

@testable import Networking

@Suite struct CNIDirectoryTests {
    /// Removes itself.
    final class Place: Sendable {
        let path: String

        init() throws {
            var template = Array("/tmp/martlet-lists-XXXXXX".utf8CString)
            path = String(cString: try #require(mkdtemp(&template)))
        }

        deinit { _ = try? Tree.remove(path) }

        func write(_ file: String, _ text: String) throws {
            try File.replace("\(path)/\(file)", with: Array(text.utf8))
        }

        func list(_ file: String, _ name: String, _ type: String = "a", more: String = "") throws {
            try write(file, #"{"cniVersion": "1.0.0", "name": "\#(name)"\#(more), "plugins": [{"type": "\#(type)"}]}"#)
        }
    }

    private let place: Place
    private let directory: CNIDirectory

    init() throws {
        place = try Place()
        directory = CNIDirectory(place.path)
    }

    private func types(_ name: String) -> [String]? { directory.refresh().entries[name]?.list.plugins.map(\.type) }

    @Test func `lists are read by their endings in the order of their names, and the first of a network is the one`()
        throws
    {
        try place.list("20-b.conflist", "b")
        try place.list("10-a.json", "a", "first")
        try place.list("11-a.conflist", "a", "second")
        try place.write("30-c.conf", #"{"cniVersion": "0.4.0", "name": "c", "type": "single", "disableCheck": true}"#)
        try place.list("notes.txt", "d")
        try place.list(".conf", "e")
        let lists = directory.refresh()
        #expect(lists.names == ["a", "b", "c"])
        #expect(lists.entries["a"]?.file == "10-a.json" && types("a") == ["first"])
        #expect(lists.entries["c"]?.list.disableCheck == true)
        #expect(
            lists.warnings == [
                "the CNI list 11-a.conflist is not used: 10-a.json comes before it and names the network a too; remove "
                    + "one or give it another name"
            ])
        try File.removeFile("\(place.path)/10-a.json")
        #expect(types("a") == ["second"] && directory.refresh().warnings == [])
    }

    @Test(arguments: ["", "{", #"{"cniVersion": "1.0.0", "name": "a", "plu"#, "[]", #"{"name": "a"}"#, "\u{0}"])
    func `a file that is not whole is named, and what it said before is used until it is gone`(text: String) throws {
        try place.list("a.conflist", "a", "good")
        try place.list("b.conflist", "b")
        #expect(types("a") == ["good"])
        try place.write("a.conflist", text)
        let lists = directory.refresh()
        #expect(lists.entries["a"]?.list.plugins.map(\.type) == ["good"] && lists.names == ["a", "b"])
        #expect(lists.warnings.count == 1)
        let warning = try #require(lists.warnings.first)
        #expect(warning.hasPrefix("the CNI list a.conflist is not valid, what it said before is used: "), "\(warning)")
        #expect(!warning.utf8.contains { $0 < 32 })
        #expect(
            CNIDirectory(place.path).refresh().warnings.first?.contains("a.conflist is not valid, it is not used")
                == true, "who never saw it whole cannot use it")
        try place.list("a.conflist", "a", "better")
        #expect(types("a") == ["better"] && directory.refresh().warnings == [])
        try place.write("a.conflist", text)
        try File.removeFile("\(place.path)/a.conflist")
        #expect(directory.refresh().names == ["b"])
    }

    @Test func `a network that is not there is named with those that are, and with what is wrong`() throws {
        try place.list("b.conflist", "b")
        try place.write("a.conflist", "{")
        let error = #expect(throws: NetworkError.self) { try directory.list(named: "a") }
        let text = try #require(error?.description)
        #expect(
            text.hasPrefix(#"no CNI list in \#(place.path) is called "a", there are: b; the CNI list a.conflist is"#))
        #expect(CNIDirectory("/nowhere/at/all").refresh() == CNILists())
        #expect(throws: NetworkError.self) { try CNIDirectory("/nowhere/at/all").list(named: "a") }
    }

    @Test func `plugins from files beside the list come last, unless it wants its own only`() throws {
        try place.list("a.conflist", "a", "own")
        try place.list("b.conflist", "b", "own", more: #", "loadOnlyInlinedPlugins": true"#)
        try place.write("c.conflist", #"{"cniVersion": "1.1.0", "name": "c"}"#)
        for name in ["a", "b", "c"] {
            mkdir("\(place.path)/\(name)", 0o755)
            try place.write("\(name)/20-y.conf", #"{"cniVersion": "1.1.0", "type": "y"}"#)
            try place.write("\(name)/10-x.conf", #"{"type": "x", "own": 1}"#)
            try place.write("\(name)/z.conflist", #"{"type": "z"}"#)
        }
        #expect(types("a") == ["own", "x", "y"] && types("b") == ["own"] && types("c") == ["x", "y"])
        #expect(directory.refresh().warnings == [])
        try place.write("a/20-y.conf", #"{"type": "../y"}"#)
        #expect(types("a") == ["own", "x", "y"], "as it was")
        #expect(
            directory.refresh().warnings.first?.contains("what it said before is used: a/20-y.conf: $.type: ") == true)
        try File.removeFile("\(place.path)/a/20-y.conf")
        #expect(types("a") == ["own", "x"] && directory.refresh().warnings == [])
        try Tree.remove("\(place.path)/c")
        #expect(
            directory.refresh().warnings.first?.hasPrefix("the CNI list c.conflist is not valid, what it said") == true)
    }

    @Test func `what is no file, too large or too much is named, and the rest is used`() throws {
        try place.list("a.conflist", "a")
        mkfifo("\(place.path)/b.conflist", 0o600)
        mkdir("\(place.path)/c.conf", 0o755)
        symlink("/nowhere", "\(place.path)/d.json")
        try place.write("e.json", String(repeating: " ", count: CNILimits.bytes + 1))
        symlink("a.conflist", "\(place.path)/f.json")
        let lists = directory.refresh()
        #expect(lists.names == ["a"])
        #expect(
            lists.warnings.map { $0.split(separator: " ")[3] } == [
                "b.conflist", "c.conf", "d.json", "e.json", "f.json",
            ])
        #expect(lists.warnings.last?.contains("names the network a too") == true)
    }

    @Test func `so many files are read and no more`() throws {
        for number in 1000..<1000 + CNIDirectory.fileLimit + 2 { try place.list("\(number).conf", "n\(number)") }
        let lists = directory.refresh()
        #expect(lists.names.count == CNIDirectory.fileLimit)
        #expect(
            lists.warnings == [
                "the CNI list 1256.conf and all behind it are not read: there are 258 files, and 256 is the limit"
            ])
    }

    @Test func `changes are told`() throws {
        let seen = Mutex<[CNILists]>([])
        try place.list("a.conflist", "a")
        let watch = try CNIDirectoryWatch(directory) { lists in seen.withLock { $0.append(lists) } }
        func expect(_ names: [String], warnings: Int = 0) {
            for _ in 0..<1000 {
                if let last = seen.withLock({ $0.last }), last.names == names, last.warnings.count == warnings {
                    return
                }
                usleep(10_000)
            }
            Issue.record("not seen: \(names), but \(seen.withLock { $0 })")
        }
        expect(["a"])
        try place.list("b.conflist", "b")
        expect(["a", "b"])
        try place.write("b.conflist", "{")
        expect(["a", "b"], warnings: 1)
        try File.removeFile("\(place.path)/b.conflist")
        expect(["a"])
        withExtendedLifetime(watch) {}
    }
}
