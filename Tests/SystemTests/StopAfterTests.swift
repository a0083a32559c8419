import Glibc
import JSON
import Kernel
import Model
import Testing
import Wire

extension SystemSuite {
    /// What ends by itself on a node that is cut off: both sides write down when they ran.
    @Suite("What must never run twice", .serialized)
    struct StopAfter {
        /// As short as `replaceAfter` may be beside them.
        private static let obedient = [
            "--on-disconnect", "stop-after=8s", "--stop-timeout", "1", "--replace-after", "15s",
        ]
        private static let stubborn = [
            "--on-disconnect", "stop-after=7s", "--stop-timeout", "2", "--replace-after", "15s",
        ]

        @Test("it has ended before its replacement begins, however its node was lost, and goes on there afterwards")
        func neverTwice() throws {
            try withFabric(nodes: 8, image: 7) { fabric in
                let lost = fabric.nodes.dropLast()
                let spare = fabric.nodes[7]
                try fabric.mountBeats()
                let tight = try fabric.run(
                    ["service", "create", "--name", "x"] + Self.obedient + ["--stop-timeout", "2", "busybox", "true"])
                #expect(tight.code != 0 && tight.errors.contains("the least is 16"), "\(tight)")

                try expectSuccess(fabric.martlet("node", "cordon", spare.name))
                for node in lost {
                    let only = lost.filter { $0 !== node }.flatMap { ["--constraint", "node.name!=\($0.name)"] }
                    try fabric.service("obedient-\(node.name)", Self.obedient + only)
                    try fabric.service("stubborn-\(node.name)", Self.stubborn + only, stubborn: true)
                }
                let names = lost.flatMap { ["obedient-\($0.name)", "stubborn-\($0.name)"] }
                try fabric.awaitPlaces(
                    Dictionary(uniqueKeysWithValues: names.map { ($0, [String($0.suffix(2))]) }))
                try eventually("the master knows") {
                    try fabric.containers().allSatisfy { $0.status.phase == .running }
                }
                try expectSuccess(fabric.martlet("node", "activate", spare.name))

                let fault = try ClusterFabric.uptime()
                try fabric.partition(lost[0])
                try fabric.cut(from: lost[1])
                try fabric.cut(to: lost[2])
                try lost[3].signal("agent", SIGSTOP)
                try lost[4].kill("agent")
                try lost[5].powerOff()
                // An agent that begins anew without a master knows of no contact.
                try fabric.partition(lost[6])
                try lost[6].kill("agent")
                let fresh = try lost[6].begin(
                    [TestCluster.martlet, "agent", "--master", fabric.url] + lost[6].placeFlags + lost[6].nodeFlags)

                var isMissing = false
                try fabric.awaitPlaces(Dictionary(uniqueKeysWithValues: names.map { ($0, [spare.name]) })) { running in
                    isMissing = isMissing || names.contains { running.places($0).isEmpty }
                    return names.allSatisfy { running.places($0).count <= 1 }
                }
                #expect(isMissing, "there was a time without")
                // Nobody but the shims can have done it.
                #expect(try Proc.stat(lost[3].pid(of: "agent"))?.state == "T")
                #expect(!lost[4].isRunning("agent"))

                try fabric.heal()
                try lost[3].signal("agent", SIGCONT)
                try fabric.startAgent(lost[4])
                try fabric.powerOn(lost[5])
                try fabric.mountBeats([lost[5]])
                try fabric.startAgent(lost[5])
                let after = try fabric.beating()
                #expect(after.count == names.count)
                try fabric.expectStill(6, after)
                try eventually("nothing is left of the others") {
                    try fabric.containers().allSatisfy { $0.displaced.isEmpty }
                }
                for node in lost {
                    #expect(try File.list(node.dataDirectory + "/tasks").isEmpty)
                }
                try fresh.signal(SIGKILL)
                _ = try fresh.wait()

                for name in names {
                    let stretches = try fabric.stretches(of: name)
                    try #require(stretches.map(\.machine) == [String(name.suffix(2)), spare.name], "\(stretches)")
                    #expect(stretches[0].last < stretches[1].first, "\(name): \(stretches)")
                    // It was not ended the moment the contact was lost, unless the machine was.
                    let ran = stretches[0].last - fault
                    #expect(name.hasSuffix(lost[5].name) ? ran < 3 : ran > 3, "\(name) ran on for \(ran) s")
                }
            }
        }

        @Test("cut off for longer than it may run, and back before it is replaced, it goes on where it was")
        func back() throws {
            try withFabric(image: 2) { fabric in
                let lost = Array(fabric.nodes.prefix(2))
                try fabric.mountBeats()
                try expectSuccess(fabric.martlet("node", "cordon", "n3"))
                for (node, other) in [("n1", "n2"), ("n2", "n1")] {
                    try fabric.service(
                        "alone-\(node)",
                        [
                            "--on-disconnect", "stop-after=5s", "--stop-timeout", "1", "--replace-after", "60s",
                            "--constraint", "node.name!=\(other)",
                        ])
                }
                let places = ["alone-n1": ["n1"], "alone-n2": ["n2"]]
                let before = try fabric.awaitPlaces(places)
                try eventually("the master knows") { try fabric.containers().allSatisfy(\.status.serving) }
                try expectSuccess(fabric.martlet("node", "activate", "n3"))
                let tasks = try fabric.containers().map(\.task)

                try fabric.partition(lost[0])
                try lost[1].signal("agent", SIGSTOP)
                try fabric.awaitPlaces(places.mapValues { _ in [] }) { $0.isSubset(of: before) }
                // Not even the agent that can, and that wants it to run, starts it.
                try fabric.expectStill(3, [])
                try fabric.heal()
                try lost[1].signal("agent", SIGCONT)
                let after = try fabric.awaitPlaces(places)
                try fabric.expectStill(3, after)
                try eventually("the master knows") { try fabric.containers().allSatisfy(\.status.serving) }
                #expect(try fabric.containers().map(\.task) == tasks)
                #expect(try fabric.containers().allSatisfy { $0.container.start > 1 && $0.displaced.isEmpty })
            }
        }
    }
}
