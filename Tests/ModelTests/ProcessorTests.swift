import JSON
import Model
import Testing

@Suite struct Processors {
    private func problem(_ change: (inout Limits) -> Void) -> String? {
        var limits = Limits()
        change(&limits)
        do throws(AdmissionError) {
            try Admission().limits(limits, at: "$.limits")
            return nil
        } catch {
            return "\(error)"
        }
    }

    @Test func listsAreReadAndWrittenAsTheKernelDoes() throws {
        #expect(ProcessorSet(list: "0-3,7,9-10")?.numbers == [0, 1, 2, 3, 7, 9, 10])
        #expect(ProcessorSet(list: "")?.isEmpty == true)
        #expect(ProcessorSet([7, 1, 0, 2, 1]).description == "0-2,7")
        for text in ["a", "1-", "-1", "3-1", "1,,2", "8192", "0-99999", "1-2-3", " 1", "0x1", "1,", "0-8191,0"] {
            #expect(ProcessorSet(list: text) == nil, "\(text)")
        }
        let set = ProcessorSet(list: "0,64-66")
        #expect(try JSONCoding.decode([ProcessorSet].self, from: JSONCoding.encode([set].compactMap(\.self))) == [set])
        #expect(throws: (any Error).self) { try JSONCoding.decode([ProcessorSet].self, from: Array(#"["x"]"#.utf8)) }
    }

    @Test func processorsOfOnesOwnAreWhole() {
        #expect(
            problem {
                $0.cpu = 2_000_000_000; $0.pinning = .cores
            } == nil)
        #expect(
            problem {
                $0.cpu = 1_500_000_000; $0.pinning = .cores
            }
                == "$.limits.cpu: 1500000000 nano-cores were given: processors of one's own (pinning) are whole ones, 1 or more"
        )
        #expect(problem { $0.pinning = .cores }?.hasPrefix("$.limits.cpu: no number of processors was given") == true)
    }

    @Test func theyGoWithNothingElseThatChoosesProcessors() {
        let others: [(String, (inout Limits) -> Void)] = [
            ("cpus", { $0.cpus = "0" }), ("memoryNodes", { $0.memoryNodes = "0" }),
            ("cpuQuota", { $0.cpuQuota = 5000 }),
            ("cpuPeriod", { $0.cpuPeriod = 5000 }),
        ]
        for (name, change) in others {
            let found = problem {
                $0.cpu = 1_000_000_000
                $0.pinning = .cores
                change(&$0)
            }
            #expect(found?.hasPrefix("$.limits.\(name): goes without pinning") == true, "\(found ?? "")")
        }
    }

    @Test func hugePagesAreWholePagesOfAKnownSize() {
        #expect(problem { $0.hugepages = ["2m": 512 << 20, "1g": 1 << 30, "64k": 64 << 10] } == nil)
        for size in ["2M", "2048k", "3m", "m", "2", "0m", "1t", "-2m", "4k", "128g"] {
            #expect(
                problem { $0.hugepages = [size: 1 << 40] }?.contains("is no size of huge pages") == true, "\(size)")
        }
        #expect(
            problem { $0.hugepages = ["2m": 3 << 20] }
                == "$.limits.hugepages.2m: 3145728 bytes are not 1 or more whole pages of 2m, up to 1 PiB")
        #expect(problem { $0.hugepages = ["2m": 0] } != nil)
        #expect(HugepageSize.name(2 << 20) == "2m" && HugepageSize.name(16 << 30) == "16g")
        #expect(HugepageSize.name(3 << 20) == nil && HugepageSize.name(0) == nil)
    }

    @Test func neitherChangesWhileAContainerIsThere() {
        var container = ContainerSpec(image: "web")
        container.limits.cpu = 2_000_000_000
        container.limits.pinning = .cores
        let old = PodSpec(containers: [container])
        for change: (inout Limits) -> Void in [
            { $0.cpu = 1_000_000_000 }, { $0.pinning = nil }, { $0.hugepages = ["2m": 2 << 20] },
        ] {
            var new = old
            change(&new.containers[0].limits)
            #expect(!new.changesInPlace(from: old))
        }
        var new = old
        new.containers[0].limits.memory = 64 << 20
        #expect(new.changesInPlace(from: old))
    }

    @Test func recordsOfEarlierVersionsAreRead() throws {
        let text = #"{"cpu":1000000000,"memory":5}"#
        #expect(try JSONCoding.decode(Resources.self, from: Array(text.utf8)).hugepages.isEmpty)
        #expect(try !String(decoding: JSONCoding.encode(Resources(cpu: 1)), as: UTF8.self).contains("hugepages"))
        #expect(try JSONCoding.decode(Limits.self, from: Array("{}".utf8)) == Limits())
    }

    @Test func hugePagesAreSummedBySize() {
        let one = Resources(hugepages: ["2m": 4, "1g": 2])
        let two = Resources(hugepages: ["2m": 1])
        #expect((one + two).hugepages == ["2m": 5, "1g": 2])
        #expect((one + two - two) == one)
        #expect((one - one).hugepages.isEmpty)
    }

    @Test func whatANodeTellsIsBounded() {
        let node = NodeProcessors.MemoryNode(
            id: 0, memory: -1, hugepages: ["2m": 2 << 20, "x": 1, "1g": 0],
            cores: [.init(cpus: ProcessorSet([0, 1])), .init(cpus: ProcessorSet([1])), .init(cpus: ProcessorSet())])
        let kept = NodeProcessors(nodes: [node, node]).bounded
        #expect(kept?.nodes.count == 1)
        #expect(kept?.nodes.first?.memory == 0)
        #expect(kept?.nodes.first?.hugepages == ["2m": 2 << 20])
        #expect(kept?.nodes.first?.cores.map(\.cpus.description) == ["0-1"])
        #expect(NodeProcessors(nodes: []).bounded == nil)
        let many = NodeProcessors.MemoryNode(id: 0, cores: [.init(cpus: ProcessorSet(0..<5000))])
        #expect(NodeProcessors(nodes: [many]).bounded == nil)
        let rich = NodeProcessors.MemoryNode(
            id: 0, memory: .max, hugepages: ["2m": .max], cores: [.init(cpus: ProcessorSet([0]))])
        #expect(NodeProcessors(nodes: [rich]).bounded?.nodes.first?.memory == 1 << 50)
        #expect(NodeProcessors(nodes: [rich]).bounded?.nodes.first?.hugepages == ["2m": 1 << 50])
    }

    @Test func aFewBytesOfListsAreNotReadAsManyNumbers() throws {
        func read(nodes: Int, cores: Int, cpus: String) throws -> NodeProcessors {
            let core = #"{"package":0,"cpus":"\#(cpus)"}"#
            let list = Array(repeating: core, count: cores).joined(separator: ",")
            let node = #"{"id":0,"memory":0,"cores":[\#(list)]}"#
            let all = Array(repeating: node, count: nodes).joined(separator: ",")
            let text = #"{"nodes":[\#(all)]}"#
            return try JSONCoding.decode(NodeProcessors.self, from: Array(text.utf8))
        }
        #expect(try read(nodes: 1, cores: 2, cpus: "0-2047").cpuCount == 4096)
        #expect(try read(nodes: 256, cores: 1, cpus: "0-15").nodes.count == 256)
        for (nodes, cores, cpus) in [(1, 1, "0-4096"), (1, 3, "0-2047"), (3, 1, "0-2047"), (257, 1, "0")] {
            #expect(throws: JSONError.self, "\(nodes) \(cores) \(cpus)") {
                try read(nodes: nodes, cores: cores, cpus: cpus)
            }
        }
    }
}
