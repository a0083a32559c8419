import Confinement
import Kernel
import Testing

/// What is known to be wrong with a process's scheduling and memory policy before the kernel is asked.
@Suite struct ProcessSchedulingTests {
    private func field(_ body: () throws(ProcessAttributeError) -> Void) -> String? {
        do throws(ProcessAttributeError) {
            try body()
            return nil
        } catch {
            return error.field
        }
    }

    @Test(
        arguments: [
            ("SCHED_OTHER", 19, 0, nil), ("SCHED_OTHER", 20, 0, "nice"), ("SCHED_BATCH", -21, 0, "nice"),
            ("SCHED_FIFO", 0, 0, "priority"), ("SCHED_FIFO", 0, 1, nil), ("SCHED_RR", 0, 99, nil),
            ("SCHED_RR", 0, 100, "priority"), ("SCHED_IDLE", 0, 1, "priority"), ("SCHED_ISO", 0, 0, "policy"),
            ("SCHED_DEADLINE", 0, 0, "runtime"), ("sched_other", 0, 0, "policy"), ("", 0, 0, "policy"),
        ] as [(String, Int32, Int32, String?)])
    func `a policy and its parameters belong together`(
        _ policy: String, _ nice: Int32, _ priority: Int32, _ wrong: String?
    ) {
        let found = field { () throws(ProcessAttributeError) in
            _ = try ProcessSchedule(policy: policy, nice: nice, priority: priority)
        }
        #expect(found == wrong)
    }

    @Test func `times are for the deadline policy, and flags are known by name`() {
        #expect(
            field { () throws(ProcessAttributeError) in
                _ = try ProcessSchedule(policy: "SCHED_RR", priority: 1, period: 1)
            }
                == "period")
        #expect(
            field { () throws(ProcessAttributeError) in
                _ = try ProcessSchedule(policy: "SCHED_DEADLINE", runtime: 1, deadline: 2, period: 3)
            } == nil)
        #expect(
            field { () throws(ProcessAttributeError) in
                _ = try ProcessSchedule(policy: "SCHED_OTHER", flags: ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_X"])
            } == "flags[1]")
    }

    @Test(
        arguments: [
            ("IOPRIO_CLASS_BE", 7, nil), ("IOPRIO_CLASS_IDLE", 0, nil), ("IOPRIO_CLASS_RT", 8, "priority"),
            ("IOPRIO_CLASS_RT", -1, "priority"), ("IOPRIO_CLASS_NONE", 0, "class"),
        ] as [(String, Int32, String?)])
    func `disk priorities are eight in three classes`(_ name: String, _ priority: Int32, _ wrong: String?) {
        let found = field { () throws(ProcessAttributeError) in _ = try IOPriority(class: name, priority: priority) }
        #expect(found == wrong)
    }

    @Test(
        arguments: [
            ("MPOL_DEFAULT", "", [], nil), ("MPOL_DEFAULT", "0", [], "nodes"), ("MPOL_LOCAL", "0", [], "nodes"),
            ("MPOL_BIND", "", [], "nodes"), ("MPOL_BIND", "0-3", ["MPOL_F_STATIC_NODES"], nil),
            ("MPOL_PREFERRED", "", [], nil), ("MPOL_PREFERRED_MANY", "", [], "nodes"),
            ("MPOL_WEIGHTED_INTERLEAVE", "1024", [], "nodes"), ("MPOL_INTERLEAVE", "a", [], "nodes"),
            ("MPOL_INTERLEAVE", "0", ["MPOL_F_NEAR"], "flags[0]"), ("MPOL_FAR", "0", [], "mode"),
            ("MPOL_BIND", "0", ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"], "flags"),
        ] as [(String, String, [String], String?)])
    func `a memory policy has the nodes that its mode wants`(
        _ mode: String, _ nodes: String, _ flags: [String], _ wrong: String?
    ) {
        let found = field { () throws(ProcessAttributeError) in
            _ = try MemoryPolicy(mode: mode, nodes: nodes, flags: flags)
        }
        #expect(found == wrong)
    }

    @Test(
        arguments: [
            ("0", [1]), ("0-3,7", [0x8f]), (" 1 , 2 ,,", [6]), ("63,64", [1 << 63, 1]), ("0-127", [.max, .max]),
        ] as [(String, [UInt64])])
    func `lists of numbers are what cpuset files have`(_ list: String, _ words: [UInt64]) throws {
        #expect(try NumberSet(list: list, below: 128).words == words)
    }

    @Test(arguments: [
        "", ",", "-", "1-", "-1", "3-1", "1-2-3", "0x1", "+1", "128", "0-128", "99999999999999999999", "１",
    ])
    func `other lists are refused`(_ list: String) {
        #expect(throws: NumberSetError.self) { try NumberSet(list: list, below: 128) }
    }
}
