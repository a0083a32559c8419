import JSON
import OCISpec
import Testing

/// What config.json says of scheduling, memory and hardware.
@Suite struct ProcessAttributesSpecTests {
    @Test func `every part is read to its type`() throws {
        let spec = try ContainerSpec(
            parsing: Array(
                """
                {"ociVersion":"1.3.0","process":{"args":["a"],"cwd":"/","scheduler":{"policy":"SCHED_DEADLINE",
                "nice":-3,"priority":4,"flags":["A"],"runtime":1,"deadline":2,"period":18446744073709551615},
                "ioPriority":{"class":"IOPRIO_CLASS_RT","priority":1},"execCPUAffinity":{"final":"3"}},
                "linux":{"netDevices":{"eth0":{"name":"x"},"eth1":{}},"memoryPolicy":{"mode":"MPOL_LOCAL"},
                "intelRdt":{"schemata":["MB:0=1"],"enableMonitoring":true},
                "resources":{"rdma":{"m":{"hcaObjects":7}}}}}
                """.utf8))
        let scheduler = try #require(spec.process?.scheduler)
        #expect(scheduler.policy == "SCHED_DEADLINE" && scheduler.nice == -3 && scheduler.priority == 4)
        #expect(scheduler.runtime == 1 && scheduler.deadline == 2 && scheduler.period == .max)
        #expect(spec.process?.ioPriority == IOPrioritySpec(class: "IOPRIO_CLASS_RT", priority: 1))
        #expect(spec.process?.execCPUAffinity == CPUAffinitySpec(initial: nil, final: "3"))
        #expect(spec.linux?.netDevices == ["eth0": NetDeviceSpec(name: "x"), "eth1": NetDeviceSpec()])
        #expect(spec.linux?.memoryPolicy == MemoryPolicySpec(mode: "MPOL_LOCAL"))
        #expect(spec.linux?.intelRdt?.schemata == ["MB:0=1"] && spec.linux?.intelRdt?.enableMonitoring == true)
        #expect(spec.linux?.resources?.rdma == ["m": RDMASpec(hcaObjects: 7)])
        #expect(try ContainerSpec(parsing: spec.encoded()) == spec)
    }

    @Test(arguments: [
        (#""process":{"cwd":"/","scheduler":{}}"#, "$.process.scheduler.policy"),
        (#""process":{"cwd":"/","scheduler":{"policy":"A","nice":2147483648}}"#, "$.process.scheduler.nice"),
        (#""process":{"cwd":"/","scheduler":{"policy":"A","period":-1}}"#, "$.process.scheduler.period"),
        (#""process":{"cwd":"/","ioPriority":{"class":"A"}}"#, "$.process.ioPriority.priority"),
        (#""process":{"cwd":"/","execCPUAffinity":{"initial":0}}"#, "$.process.execCPUAffinity.initial"),
        (#""linux":{"memoryPolicy":{}}"#, "$.linux.memoryPolicy.mode"),
        (#""linux":{"netDevices":{"eth0":"net0"}}"#, "$.linux.netDevices.eth0"),
        (#""linux":{"netDevices":["eth0"]}"#, "$.linux.netDevices"),
        (#""linux":{"intelRdt":{"schemata":"L3:0=f"}}"#, "$.linux.intelRdt.schemata"),
        (#""linux":{"resources":{"rdma":{"m":{"hcaHandles":4294967296}}}}"#, "$.linux.resources.rdma.m.hcaHandles"),
    ])
    func `what does not fit is named by its place`(_ text: String, _ place: String) {
        let error = #expect(throws: JSONError.self) {
            try ContainerSpec(parsing: Array("{\"ociVersion\":\"1.3.0\",\(text)}".utf8))
        }
        #expect(error?.description.contains(place) == true, "\(String(describing: error))")
    }
}
