import Glibc
import JSON
import Kernel
import Model
import Testing
import Wire

extension SystemSuite {
    @Suite("Nodes that are taken out of service", .serialized)
    struct Drain {
        /// Looks every 50 ms at what runs until a command has ended, and gives what it printed.
        private func during(
            _ fabric: ClusterFabric, _ arguments: [String], _ look: (Set<Beat.Process>, Double) -> Void
        ) throws -> String {
            let output = fabric.folder + "/said"
            try Tree.remove(output)
            let command = try fabric.begin(arguments, output: output)
            var status: Kernel.ExitStatus?
            let looks = try fabric.watch(60) { running, time in
                look(running, time)
                status = try command.poll()
                return status == nil
            }
            let said = try File.text(output)
            #expect(status == .exited(0) && looks > 5, "\(arguments) after \(looks) looks: \(said)")
            return said
        }

        @Test("a drain never leaves fewer than its minimum, ends at its deadline; what was moved away comes back")
        func minimum() throws {
            try withFabric { fabric in
                try fabric.mountBeats()
                try fabric.service("web", ["--replicas", "6", "--update-parallelism", "2"])
                try fabric.service(
                    "alone",
                    [
                        "--replicas", "6", "--update-parallelism", "6", "--on-disconnect", "stop-after=20s",
                        "--stop-timeout", "1",
                        "--replace-after", "30s",
                    ])
                try fabric.service("each", ["--mode", "global"])
                for name in ["web", "alone", "each"] { try expectSuccess(fabric.martlet("service", "wait", name)) }
                try expectSuccess(
                    fabric.martlet(
                        "run", "--rm", "-v", "data:/v", "--constraint", "node.name==n2", "busybox", "touch", "/v/x"))
                try fabric.service("tied", ["-v", "data:/v"])
                try expectSuccess(
                    fabric.run(
                        ["run", "-d", "--name", "single", "--constraint", "node.name==n1"] + Beat.mount
                            + Beat.program("single")))
                let all = ["n1", "n2", "n3"]
                try fabric.awaitPlaces(
                    ["web": all + all, "alone": all + all, "each": all, "tied": ["n2"], "single": ["n1"]]
                        .mapValues { $0.sorted() })

                // 80 per cent of 6 are 5: of the two that must not run twice one goes after the other.
                var said = try during(fabric, ["node", "drain", "n1", "--min-available", "80"]) { running, time in
                    #expect(running.places("web").count >= 6, "after \(time) s: \(running)")
                    #expect((5...6).contains(running.places("alone").count), "after \(time) s: \(running)")
                }
                #expect(said.contains("single stays: a container stays until it is removed"), "\(said)")
                var running = try fabric.awaitPlaces(
                    ["web": ["n2", "n2", "n2", "n3", "n3", "n3"], "each": ["n2", "n3"], "single": ["n1"]])
                #expect(running.places("alone").count == 6 && !running.places("alone").contains("n1"))
                try fabric.expectStill(2, running)

                // Spread evenly again, one at a time.
                try expectSuccess(fabric.martlet("node", "activate", "n1"))
                running = try fabric.awaitPlaces(["web": (all + all).sorted(), "each": all]) { running in
                    (6...7).contains(running.places("web").count) && running.places("alone").count == 6
                }
                try expectSuccess(fabric.martlet("service", "wait", "web"))
                try fabric.expectStill(2, running)

                // What cannot move first stays until the deadline; then it goes.
                let stuck = running.filter { $0.machine == "n2" && ["alone", "tied"].contains($0.name) }
                #expect(stuck.count >= 2)
                var isBefore = true
                said = try during(fabric, ["node", "drain", "n2", "--deadline", "10s"]) { running, time in
                    isBefore = isBefore && running.isSuperset(of: stuck)
                    #expect(time > 9 || isBefore, "after \(time) s: \(running)")
                    guard isBefore else { return }
                    #expect(running.places("web").count >= 6, "after \(time) s: \(running)")
                    #expect(running.places("alone").count == 6, "after \(time) s: \(running)")
                }
                #expect(!isBefore)
                #expect(said.contains("must not run twice") && said.contains("mounts the volume data"), "\(said)")
                running = try fabric.awaitPlaces(["each": ["n1", "n3"], "tied": []])
                try eventually("what must not run twice runs elsewhere") {
                    running = try fabric.beating()
                    return running.places("alone").count == 6 && running.places("web").count == 6
                }
                #expect(running.allSatisfy { $0.machine != "n2" })
                #expect(try fabric.martlet("service", "ps", "tied").output.contains("volume data (its data is on n2"))
                try expectSuccess(fabric.martlet("node", "activate", "n2"))
                try fabric.awaitPlaces(["tied": ["n2"], "each": all])
            }
        }

        @Test("global services follow the nodes; a cordoned node gets nothing; one that is dead is removed")
        func follow() throws {
            try withFabric { fabric in
                let all = ["n1", "n2", "n3"]
                try fabric.mountBeats()
                try fabric.service("each", ["--mode", "global"])
                try fabric.awaitPlaces(["each": all])
                try expectSuccess(fabric.martlet("node", "cordon", "n3"))
                try fabric.service("web", ["--replicas", "4"])
                try fabric.awaitPlaces(["web": ["n1", "n1", "n2", "n2"], "each": all])
                let running = try fabric.beating()
                try fabric.expectStill(2, running)
                try expectSuccess(fabric.martlet("service", "rm", "-f", "web"))
                try expectSuccess(fabric.martlet("node", "activate", "n3"))

                let fourth = try fabric.addMachine("n4", number: 14)
                try fabric.mountBeats([fourth])
                try fabric.join(fourth)
                try fabric.awaitPlaces(["each": all + ["n4"]])
                try fabric.service(
                    "alone",
                    [
                        "--constraint", "node.name==n4", "--on-disconnect", "stop-after=20s", "--stop-timeout", "1",
                        "--replace-after", "30s",
                    ])
                try expectSuccess(fabric.martlet("service", "wait", "alone"))
                let connected = try fabric.martlet("node", "rm", "--force", "n4")
                #expect(connected.code == 1 && connected.errors.contains("connected"), "\(connected)")
                try fourth.powerOff()
                try eventually("it is missed", within: 60) {
                    try fabric.nodeViews().contains { view in
                        view.node.name == "n4" && view.conditions.contains { $0.kind == .ready && !$0.holds }
                    }
                }
                let tasks = try fabric.martlet("node", "rm", "n4")
                #expect(tasks.code == 1 && tasks.errors.contains("has 2 tasks"), "\(tasks)")
                // It may still run there, as far as anybody knows.
                let early = try fabric.martlet("node", "rm", "--force", "n4")
                #expect(early.code == 1 && early.errors.contains("must not run twice"), "\(early)")
                try eventually("it has ended by itself", within: 60) {
                    try fabric.martlet("node", "rm", "--force", "n4").code == 0
                }
                #expect(try fabric.nodeViews().map(\.node.name).sorted() == all)
                #expect(Set(try fabric.containers(service: "each").map(\.nodeName)) == Set(all))
                #expect(
                    try fabric.martlet("service", "ls", "--format", "{{.Name}} {{.Serving}}").output.contains(
                        "each 3/3"))
                #expect(try fabric.beating().places("each") == all)
            }
        }
    }
}
