import AgentCore
import Glibc
import JSON
import Kernel
import Model
import Testing
import Wire

@testable import Agent

@Suite("The machine's processors, as sysfs tells of them")
struct ProcessorFactsTests {
    /// A sysfs of these files, read.
    private func facts(_ files: [String: String], allowed: ProcessorSet? = nil) throws -> ProcessorFacts {
        try read(files) { ProcessorFacts(sys: $0, allowed: allowed) }
    }

    private func read<Result>(_ files: [String: String], _ body: (_ sys: String) -> Result) throws -> Result {
        var pattern = Array("/tmp/martlet-processors-XXXXXX".utf8CString)
        let folder = try #require(mkdtemp(&pattern).map { String(cString: $0) })
        defer { _ = try? Tree.remove(folder) }
        for (path, text) in files {
            let whole = "\(folder)/\(path)"
            try File.makeDirectories(String(whole.split(separator: "/").dropLast().joined(separator: "/")).rooted)
            try File.replace(whole, with: Array(text.utf8), mode: 0o644)
        }
        return body(folder)
    }

    /// Two sockets with a NUMA node each, of two cores with two hyperthreads.
    private static let twoSockets: [String: String] = {
        var files = ["devices/system/cpu/online": "0-7\n"]
        for cpu in 0..<8 {
            let topology = "devices/system/cpu/cpu\(cpu)/topology"
            files["\(topology)/thread_siblings_list"] = "\(cpu % 4),\(cpu % 4 + 4)\n"
            files["\(topology)/physical_package_id"] = "\(cpu % 4 / 2)\n"
        }
        for node in 0..<2 {
            let folder = "devices/system/node/node\(node)"
            files["\(folder)/cpulist"] = "\(node * 2)-\(node * 2 + 1),\(node * 2 + 4)-\(node * 2 + 5)\n"
            files["\(folder)/meminfo"] = "Node \(node) MemTotal:       8192 kB\nNode \(node) MemFree: 1 kB\n"
            files["\(folder)/hugepages/hugepages-2048kB/nr_hugepages"] = "\(node + 1)\n"
        }
        files["kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"] = "3\n"
        files["kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages"] = "0\n"
        return files
    }()

    @Test("Cores, NUMA nodes, their huge pages and what is left of their memory beside those")
    func whole() throws {
        let found = try facts(Self.twoSockets)
        #expect(
            found.processors?.nodes == [
                .init(
                    id: 0, memory: 6 << 20, hugepages: ["2m": 2 << 20],
                    cores: [
                        .init(package: 0, cpus: ProcessorSet([0, 4])), .init(package: 0, cpus: ProcessorSet([1, 5])),
                    ]),
                .init(
                    id: 1, memory: 4 << 20, hugepages: ["2m": 4 << 20],
                    cores: [
                        .init(package: 1, cpus: ProcessorSet([2, 6])), .init(package: 1, cpus: ProcessorSet([3, 7])),
                    ]),
            ])
        #expect(found.hugepages == ["2m": 6 << 20])
    }

    @Test(
        "Huge pages are bounded and no memory beside; a size without a page is a size too"
    )
    func hugepages() throws {
        var files = Self.twoSockets
        files["kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"] = "18446744073709551615"
        files["devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"] = "100"
        let found = try facts(files)
        #expect(found.hugepages == ["2m": 1 << 50])
        #expect(found.processors?.nodes.map(\.memory) == [0, 4 << 20])
        let sizes = try read(files) { ProcessorFacts.hugepageSizes(sys: $0) }
        #expect(sizes == ["1g", "2m"])
    }

    @Test("What containers may not run on is left out")
    func restricted() throws {
        let found = try facts(Self.twoSockets, allowed: ProcessorSet([1, 2, 5, 100]))
        #expect(found.processors?.nodes.map { $0.cores.map(\.cpus.description) } == [["1,5"], ["2"]])
    }

    @Test("A kernel without NUMA and topology: one node of cores with one processor")
    func plain() throws {
        let found = try facts(["devices/system/cpu/online": "0-1"])
        #expect(found.processors?.nodes.map(\.id) == [0])
        #expect(found.processors?.nodes.first?.cores.map(\.cpus.description) == ["0", "1"])
        #expect(found.processors?.nodes.first?.memory == 0)
        #expect(try facts([:]).processors == nil)
    }

    @Test(
        "Garbage is left out, and no processor is in two cores",
        arguments: [
            ("devices/system/cpu/cpu0/topology/thread_siblings_list", "0-7"),
            ("devices/system/cpu/cpu1/topology/thread_siblings_list", "x"),
            ("devices/system/cpu/cpu1/topology/thread_siblings_list", "2-3"),
            ("devices/system/cpu/cpu1/topology/physical_package_id", "-1"),
            ("devices/system/node/node0/cpulist", "0-7"), ("devices/system/node/node1/meminfo", "MemTotal: many kB"),
            ("devices/system/node/node0x/cpulist", "0"),
            ("devices/system/node/node0/hugepages/hugepages-3kB/nr_hugepages", "1"),
            ("kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "18446744073709551615"),
            ("kernel/mm/hugepages/hugepages-67108864kB/nr_hugepages", "18446744073709551615"),
            ("kernel/mm/hugepages/hugepages-1073741824kB/nr_hugepages", "18446744073709551615"),
            ("devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages", "18446744073709551615"),
        ])
    func garbage(path: String, text: String) throws {
        var files = Self.twoSockets
        files[path] = text
        let processors = try #require(try facts(files).processors)
        let all = processors.nodes.flatMap { $0.cores.flatMap(\.cpus.numbers) }
        #expect(all.sorted() == Array(0..<8))
    }

    @Test("Too many processors, or a list that is none, are told as nothing", arguments: ["0-5000", "all", "", "1-0"])
    func unusable(text: String) throws {
        var files = Self.twoSockets
        files["devices/system/cpu/online"] = text
        #expect(try facts(files).processors == nil)
    }

    @Test("This machine's")
    func real() {
        let found = ProcessorFacts(sys: "/sys")
        #expect(found.processors.map { $0.cpus.count } == Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))))
    }
}

@Suite("What containers run on beside others' own processors")
struct SharedProcessorsTests {
    private func list(_ wish: String?, owned: Set<Int>) -> String {
        var limits = Limits()
        limits.cpus = wish
        return SharedProcessors.list(for: limits, allowed: ProcessorSet(0..<4), owned: owned).description
    }

    @Test("All but those; a wish yields to them")
    func lists() {
        #expect(list(nil, owned: []) == "0-3")
        #expect(list(nil, owned: [1, 2]) == "0,3")
        #expect(list("1-3", owned: [1]) == "2-3")
        #expect(list("1", owned: [1, 2]) == "0,3", "nothing is left of the wish")
        #expect(list(nil, owned: [0, 1, 2, 3]) == "0-3", "a machine that lost processors")
        #expect(list("9", owned: [0]) == "1-3")
    }

    private func record(_ change: (inout TaskRecord) -> Void = { _ in }) -> TaskRecord {
        var container = ContainerSpec(image: "busybox")
        container.limits.cpu = 1_000_000_000
        container.limits.pinning = .cores
        var record = TaskRecord(
            TaskAssignment(
                task: TaskID("t"), instance: InstanceID("i"), instanceName: "web", containers: [ContainerID("c")],
                workload: WorkloadID("w"), workloadName: "web", kind: .container, labels: [:], revision: 1, epoch: 1,
                desired: .running, generation: 1, stop: nil, pod: PodSpec(containers: [container]), ports: [],
                grantedProcessors: [
                    ProcessorGrant(container: "main", cpus: ProcessorSet([1]), memoryNodes: ProcessorSet([0]))
                ]), bootID: "b")
        change(&record)
        return record
    }

    @Test("A task has its processors until it has ended for good")
    func owners() {
        #expect(record().ownProcessors == [1])
        #expect(record { $0.container.state = .running }.ownProcessors == [1])
        #expect(record { $0.container.state = .exited }.ownProcessors == [])
        #expect(
            record {
                $0.container.state = .exited
                $0.restartAt = Timestamp(nanoseconds: 1)
            }.ownProcessors == [1])
        #expect(record { $0.removed = true }.ownProcessors == [])
    }
}

extension String {
    fileprivate var rooted: String { hasPrefix("/") ? self : "/" + self }
}
