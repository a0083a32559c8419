import Confinement
import Glibc
import Kernel
import Synchronization
import Testing

/// Classes of service in a resctrl filesystem of memory.
@Suite struct ResourceControlTests {
    /// What the kernel would do: a directory that is made has its files.
    private final class MemoryFiles: ResourceControlFiles {
        private let content: Mutex<[String: String]>
        let written = Mutex<[String]>([])

        init(_ classes: [String] = []) {
            var files = [
                "schemata": "    L3:0=7ff;1=7ff\n    MB:0=100;1=100\n", "tasks": "", "info/last_cmd_status": "ok",
            ]
            for name in classes { files.merge(Self.files(of: name)) { $1 } }
            content = Mutex(files)
        }

        private static func files(of name: String) -> [String: String] {
            [name: "", "\(name)/schemata": "    L3:0=7ff;1=07f\n    MB:0=100;1= 70\n", "\(name)/tasks": ""]
        }

        func exists(_ path: String) -> Bool { content.withLock { $0[path] != nil } }

        func text(_ path: String) throws(KernelError) -> String {
            guard let text = content.withLock({ $0[path] }) else { throw KernelError("open", path, errno: ENOENT) }
            return text
        }

        func write(_ path: String, _ text: String) throws(KernelError) {
            guard exists(path) else { throw KernelError("open", path, errno: ENOENT) }
            if text.contains("bad") {
                content.withLock { $0["info/last_cmd_status"] = "mask is no mask" }
                throw KernelError("write", path, errno: EINVAL)
            }
            content.withLock { $0[path] = text }
            written.withLock { $0.append("\(path): \(text)") }
        }

        func makeDirectory(_ path: String) throws(KernelError) {
            if exists(path) { throw KernelError("mkdir", path, errno: EEXIST) }
            content.withLock { $0.merge(Self.files(of: path)) { $1 } }
        }

        func removeDirectory(_ path: String) throws(KernelError) {
            content.withLock { files in
                for key in files.keys where key == path || key.hasPrefix(path + "/") { files[key] = nil }
            }
        }

        var log: [String] { written.withLock { $0 } }
    }

    private func group(
        _ closID: String?, monitored: Bool = false, _ files: MemoryFiles
    ) throws -> ResourceControlGroup {
        try ResourceControlGroup(closID: closID, container: "box", monitored: monitored, in: files)
    }

    @Test func `a container without a class gets one of its own, which goes with it`() throws {
        let files = MemoryFiles()
        let group = try group(nil, monitored: true, files)
        try group.create(schemata: ["L3:0=f", "MB:0=20"], named: false, in: files)
        try group.add(7, in: files)
        #expect(files.log == ["box/schemata: L3:0=f\nMB:0=20\n", "box/tasks: 7", "box/mon_groups/box/tasks: 7"])
        try group.remove(in: files)
        #expect(!files.exists("box"))
        try group.remove(in: files)
    }

    @Test func `new shares are written to the class, and the kernel's objection is told`() throws {
        let files = MemoryFiles(["shared"])
        let group = try group("shared", files)
        try group.update(schemata: ["L3:0=3", "MB:0=30"], in: files)
        #expect(files.log == ["shared/schemata: L3:0=3\nMB:0=30\n"])
        let error = #expect(throws: KernelError.self) { try group.update(schemata: ["L3:0=bad"], in: files) }
        #expect(error.map { "\($0)".contains("mask is no mask") } == true)
    }

    @Test func `without a schema no shares are written`() throws {
        let files = MemoryFiles()
        try group(nil, files).create(schemata: [], named: false, in: files)
        #expect(files.exists("box") && files.log == [])
    }

    @Test func `a directory that was there before stays`() throws {
        let files = MemoryFiles(["box"])
        let group = try group(nil, files)
        try group.create(schemata: [], named: false, in: files)
        try group.remove(in: files)
        #expect(files.exists("box"))
    }

    @Test func `a class by name is shared and stays, a monitoring group in it goes`() throws {
        let files = MemoryFiles(["gold"])
        let group = try group("gold", monitored: true, files)
        try group.create(schemata: [], named: true, in: files)
        try group.add(7, in: files)
        #expect(files.log == ["gold/tasks: 7", "gold/mon_groups/box/tasks: 7"])
        try group.remove(in: files)
        #expect(files.exists("gold") && !files.exists("gold/mon_groups/box"))
    }

    @Test func `the default class is the root`() throws {
        let files = MemoryFiles()
        let group = try group("/", monitored: true, files)
        #expect(group.path == "" && group.monitoring == "mon_groups/box")
        try group.create(schemata: [], named: true, in: files)
        try group.add(7, in: files)
        #expect(files.log.first == "tasks: 7")
        try group.remove(in: files)
        #expect(files.exists("schemata"))
    }

    @Test func `a class by name that is not there needs a schema, and stays when it was made`() throws {
        let files = MemoryFiles()
        let group = try group("gold", files)
        #expect(throws: ProcessAttributeError.self) { try group.create(schemata: [], named: true, in: files) }
        #expect(!files.exists("gold"))
        try group.create(schemata: ["L3:0=f"], named: true, in: files)
        try group.remove(in: files)
        #expect(files.exists("gold"))
    }

    @Test(
        arguments: [
            (["L3:0=7ff"], true), (["L3:1=7f;0=7FF", "MB:1=70"], true), (["L3:0=7fe"], false), (["MB:1=71"], false),
            (["L3:2=1"], false), (["L2:0=1"], false), (["nothing"], false),
        ] as [([String], Bool)])
    func `a class that is there must have the shares that are asked for`(_ schemata: [String], _ fits: Bool) throws {
        let files = MemoryFiles(["gold"])
        let group = try group("gold", files)
        if fits {
            try group.create(schemata: schemata, named: true, in: files)
        } else {
            #expect(throws: ProcessAttributeError.self) {
                try group.create(schemata: schemata, named: true, in: files)
            }
        }
        #expect(files.log == [], "the shares of others are not changed")
    }

    @Test func `what fails leaves nothing, and is told in the kernel's words`() throws {
        let files = MemoryFiles()
        let error = #expect(throws: KernelError.self) {
            try group(nil, files).create(schemata: ["L3:0=bad"], named: false, in: files)
        }
        #expect(error?.hint == "mask is no mask")
        #expect(!files.exists("box"))
    }

    @Test(arguments: [
        ".", "..", "a/b", "info", "mon_groups", "mon_data", "a b", "a\nb", String(repeating: "a", count: 256),
    ])
    func `names that are none of a class`(_ name: String) {
        #expect(throws: ProcessAttributeError.self) { try group(name, MemoryFiles()) }
    }
}
