import Glibc
import JSON
import Kernel
import Model
import Testing
import Wire

extension SystemSuite {
    @Suite("Nodes that are lost, and that return", .serialized)
    struct Loss {
        @Test("what is shorter than the policy changes nothing: ten seconds without the master, or without the agent")
        func short() throws {
            try withFabric { fabric in
                let (cut, stopped, killed) = (fabric.nodes[0], fabric.nodes[1], fabric.nodes[2])
                try fabric.mountBeats()
                try fabric.service("web", ["--replicas", "6"])
                try expectSuccess(fabric.martlet("service", "wait", "web"))
                try expectSuccess(
                    fabric.run(
                        ["run", "-d", "--name", "one", "--constraint", "node.name==n1"] + Beat.mount
                            + Beat.program("one")))
                let running = try fabric.beating()
                #expect(running.places("web") == ["n1", "n1", "n2", "n2", "n3", "n3"] && running.count == 7)
                let tasks = try fabric.containers().map(\.task)

                try fabric.partition(cut, from: fabric.master)
                try stopped.signal("agent", SIGSTOP)
                try killed.kill("agent")
                let begun = try ClusterFabric.uptime()
                // Silence counts from the last word, which is at most 5 s old.
                try fabric.expectStill(4, running)
                try fabric.startAgent(killed)
                #expect(try fabric.containers().allSatisfy { $0.unreachableSince == nil })
                try fabric.expectStill(begun + 9 - ClusterFabric.uptime(), running)
                #expect(try fabric.containers().allSatisfy { $0.unreachableSince == nil })
                try fabric.expectStill(begun + 10 - ClusterFabric.uptime(), running)
                try fabric.heal()
                try stopped.signal("agent", SIGCONT)
                try fabric.expectStill(4, running)
                try eventually("all nodes answer") {
                    try [Int](1...6).allSatisfy { try fabric.martlet("exec", "web.\($0)", "true").code == 0 }
                }
                var views = try fabric.containers()
                #expect(views.map(\.task) == tasks && views.allSatisfy { $0.displaced.isEmpty })
                #expect(views.allSatisfy { $0.container.start == 1 && $0.unreachableSince == nil })

                // Longer than it takes to be missed, and still shorter than the policy.
                try fabric.partition(cut, from: fabric.master)
                let again = try ClusterFabric.uptime()
                try eventually("it is missed", within: 60) {
                    try fabric.inspect("one").unreachableSince != nil
                }
                #expect(try ClusterFabric.uptime() - again > 9)
                views = try fabric.containers()
                #expect(
                    views.allSatisfy {
                        ($0.unreachableSince != nil) == ($0.nodeName == "n1") && $0.status.phase == .running
                    })
                let status = try fabric.martlet("ps", "--format", "{{.Status}}", "-f", "name=one").text
                #expect(status.hasPrefix("Unreachable for "))
                #expect(try fabric.inspect("one").conditions.contains { $0.message.contains("it waits for the node") })
                let web = try #require(views.first { $0.workloadName == "web" && $0.nodeName == "n1" })
                #expect(web.conditions.contains { $0.message.contains("it is replaced at") })
                #expect(
                    try fabric.martlet("node", "ls", "--format", "{{.Name}} {{.Status}}").output.contains(
                        "n1 unreachable"))
                try fabric.expectStill(2, running)
                try fabric.heal()
                try eventually("it is back") { try fabric.inspect("one").unreachableSince == nil }
                try fabric.expectStill(3, running)
                #expect(try fabric.containers().map(\.task) == tasks)
            }
        }

        /// What a policy says of an instance on a node that is lost for longer than all times in it.
        private struct Policy {
            let name: String
            let flags: [String]
            /// It runs elsewhere while its node is away.
            let isReplaced: Bool
            /// What was there before is what is there afterwards.
            let originalStays: Bool
        }

        private static let policies = [
            Policy(
                name: "original", flags: ["--replace-after", "15s", "--on-return", "keep-original"],
                isReplaced: true, originalStays: true),
            Policy(
                name: "replacement", flags: ["--replace-after", "15s", "--on-return", "keep-replacement"],
                isReplaced: true, originalStays: false),
            Policy(
                name: "waiting", flags: ["--replace-after", "never", "--give-up-after", "never"],
                isReplaced: false, originalStays: true),
            Policy(
                name: "lost", flags: ["--replace-after", "never", "--give-up-after", "15s"],
                isReplaced: true, originalStays: false),
            // An original that has been given up does not come back.
            Policy(
                name: "late",
                flags: ["--replace-after", "15s", "--give-up-after", "17s", "--on-return", "keep-original"],
                isReplaced: true, originalStays: false),
        ]

        @Test("after longer than the policy, however the node was lost: what it says, and nothing twice afterwards")
        func policies() throws {
            try withFabric(nodes: 6, image: 5) { fabric in
                let lost = fabric.nodes.dropLast()
                let spare = fabric.nodes[5]
                try fabric.mountBeats()
                try expectSuccess(fabric.martlet("node", "cordon", spare.name))
                for node in lost {
                    let only = lost.filter { $0 !== node }.flatMap { ["--constraint", "node.name!=\($0.name)"] }
                    for policy in Self.policies {
                        try fabric.service("\(policy.name)-\(node.name)", policy.flags + only)
                    }
                }
                let count = lost.count * Self.policies.count
                try eventually("all run") { try fabric.beating().count == count }
                try eventually("the master knows") {
                    try fabric.containers().allSatisfy { $0.status.phase == .running }
                }
                try expectSuccess(fabric.martlet("node", "activate", spare.name))
                let before = try fabric.beating()

                try fabric.partition(lost[0])
                try fabric.cut(from: lost[1])
                try fabric.cut(to: lost[2])
                try lost[3].signal("agent", SIGSTOP)
                try lost[4].kill("agent")
                try fabric.expectStill(9, before)
                func expected(_ place: (Policy, Machine) -> [String]) -> [String: [String]] {
                    var all: [String: [String]] = [:]
                    for node in lost {
                        for policy in Self.policies { all["\(policy.name)-\(node.name)"] = place(policy, node) }
                    }
                    return all
                }
                let during = expected { $1.name < spare.name && $0.isReplaced ? [$1.name, spare.name] : [$1.name] }
                let afterwards = expected { $0.originalStays ? [$1.name] : [spare.name] }
                // Containers go on without master and agent.
                try fabric.awaitPlaces(during) { $0.isSuperset(of: before) }
                try eventually("what is late is given up") {
                    try lost.allSatisfy { try fabric.inspect("late-\($0.name).1").displaced.isEmpty }
                }
                #expect(
                    try fabric.containers().allSatisfy { view in
                        let policy = Self.policies.first { view.name.hasPrefix("\($0.name)-") }
                        return (view.unreachableSince != nil) == (policy?.isReplaced == false)
                    })

                try fabric.heal()
                try lost[3].signal("agent", SIGCONT)
                try fabric.startAgent(lost[4])
                let after = try fabric.awaitPlaces(afterwards)
                #expect(after.count == count)
                // Those that stayed are the same processes.
                for policy in Self.policies where policy.originalStays {
                    for node in lost {
                        let name = "\(policy.name)-\(node.name)"
                        #expect(after.filter { $0.name == name } == before.filter { $0.name == name })
                    }
                }
                try fabric.expectStill(6, after)
                let views = try fabric.containers()
                #expect(
                    views.count == count && views.allSatisfy { $0.displaced.isEmpty && $0.status.phase == .running })
                for view in views { #expect(afterwards[view.workloadName] == [view.nodeName]) }
            }
        }
    }
}
