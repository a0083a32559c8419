import Cgroups
import Testing

/// Changes of limits that hold all or not at all, against trees of plain files.
@Suite struct UpdateResourcesTests {
    @Test func aFailedChangeLeavesTheFormerLimits() throws {
        let before = [
            "cpu.weight": "100", "cpu.max": "max 100000", "cpu.max.burst": "0", "memory.max": "max",
            "memory.swap.max": "max", "memory.low": "0", "io.weight": "default 100",
        ]
        let tree = try ControlTree.unified(before)
        var resources = CgroupResources()
        resources.cpu.shares = 2048
        resources.cpu.quota = 5000
        resources.memory.limit = 1000
        resources.memory.swap = 1500
        resources.memory.reservation = 500
        resources.blockIO.weight = 300
        resources.rdma = [CgroupResources.RDMA(device: "mlx5_0", handles: 1)]
        let error = #expect(throws: CgroupError.self) { try tree.manager.update(resources) }
        #expect(error?.controller == "rdma")
        for (file, text) in before { #expect(tree["unified/\(file)"] == text, "\(file)") }
    }

    @Test func aRefusedLastStepTakesTheLimitsBack() throws {
        let tree = try ControlTree.old([.pids: ["pids.max": "7"]])
        var resources = CgroupResources()
        resources.pidsLimit = 9
        let refusal = CgroupError(.refused, "the last step", "does not want to")
        let error = #expect(throws: CgroupError.self) {
            try tree.manager.update(resources) { _ throws(CgroupError) in throw refusal }
        }
        #expect(error == refusal)
        #expect(tree["pids/pids.max"] == "7")
        _ = try tree.manager.update(resources)
        #expect(tree["pids/pids.max"] == "9")
    }

    @Test func aNameOutsideTheGroupIsNeverRead() throws {
        let tree = try ControlTree.unified(["pids.max": "7"])
        var resources = CgroupResources()
        resources.pidsLimit = 9
        resources.unified = [CgroupResources.Unified(file: "../secret.txt", value: "x")]
        resources.hugepages = []
        #expect(throws: CgroupError.self) { try tree.manager.update(resources) }
        #expect(tree["unified/pids.max"] == "7")
    }
}
