import Glibc
import JSON
import Kernel
import Model
import Testing
import Wire

extension SystemSuite {
    @Suite("Machines that start anew", .serialized)
    struct Reboot {
        @Test("after a reboot everything is as its restart policy says, in place, and nothing is left of before")
        func quick() throws {
            try withFabric(nodes: 2) { fabric in
                let node = fabric.nodes[0]
                try fabric.mountBeats()
                let here = ["--constraint", "node.name==n1"]
                func run(_ name: String, _ flags: String...) throws {
                    try expectSuccess(
                        fabric.run(["run", "-d", "--name", name] + Beat.mount + here + flags + Beat.program(name)))
                }
                try run("ends")
                try run("again", "--restart", "always", "-v", "kept:/kept")
                try run("goes", "--rm")
                try expectSuccess(
                    fabric.run(
                        ["run", "-d", "--name", "off", "--restart", "unless-stopped"] + here + [
                            "busybox", "sleep", "1000",
                        ]))
                try expectSuccess(fabric.martlet("stop", "-t", "0", "off"))
                try fabric.service("web", ["--replicas", "4"])
                try fabric.service(
                    "alone",
                    here + ["--on-disconnect", "stop-after=20s", "--stop-timeout", "1", "--replace-after", "30s"])
                try expectSuccess(fabric.martlet("service", "wait", "web"))
                try expectSuccess(fabric.martlet("service", "wait", "alone"))
                try expectSuccess(fabric.martlet("exec", "again", "sh", "-c", "echo still here >/kept/x"))
                let before = try fabric.beating()
                #expect(before.filter { $0.machine == "n1" }.count == 6 && before.count == 8)
                let tasks = try fabric.containers(service: "web").map(\.task)

                try fabric.reboot(node)
                try fabric.mountBeats([node])
                #expect(try fabric.beating() == before.filter { $0.machine == "n2" })
                try fabric.startAgent(node)
                try fabric.awaitPlaces([
                    "again": ["n1"], "web": ["n1", "n1", "n2", "n2"], "alone": ["n1"], "ends": [], "goes": [],
                ])
                try eventually("the master knows") {
                    try fabric.containers().allSatisfy { $0.status.serving || ["ends", "off"].contains($0.name) }
                }
                let after = try fabric.beating()
                #expect(after.count == 6 && after.filter { $0.machine == "n2" } == before.filter { $0.machine == "n2" })
                #expect(try fabric.martlet("exec", "again", "cat", "/kept/x").text == "still here")
                let ends = try fabric.inspect("ends")
                // As if it had been killed, and it says by what.
                #expect(ends.status.phase == .exited && ends.container.exitCode == 137)
                #expect(ends.container.reason == "node rebooted", "\(ends.container.reason)")
                #expect(
                    try fabric.martlet("ps", "-a", "--format", "{{.Status}}", "-f", "name=ends").text.contains(
                        "node rebooted"))
                #expect(try fabric.inspect("off").status.phase == .exited)
                #expect(try fabric.martlet("inspect", "goes").code != 0)
                #expect(try fabric.containers(service: "web").map(\.task) == tasks, "nothing has moved")
                let again = try fabric.inspect("again").container
                #expect(again.start == 2)

                // What is on the machine is what the master knows, and nothing else.
                let known = Set(try fabric.containers().filter { $0.nodeName == "n1" }.compactMap { $0.task?.text })
                #expect(Set(try File.list(node.dataDirectory + "/tasks")) == known)
                let ended = try fabric.containers().filter { $0.status.phase == .exited }.compactMap { $0.task?.text }
                let live = known.subtracting(ended)
                for controller in try File.list("/sys/fs/cgroup") {
                    let parent = "/sys/fs/cgroup/\(controller)/\(node.cgroupParent)"
                    guard File.exists(parent) else { continue }
                    let groups = try File.list(parent).filter { File.exists("\(parent)/\($0)/cgroup.procs") }
                    #expect(Set(groups).subtracting(["shims"]).isSubset(of: known), "\(controller)")
                }
                let mounts = try node.run(["cat", "/proc/self/mountinfo"]).output.split(separator: "\n")
                    .filter { $0.contains(node.folder) && !$0.contains("/beats") && !$0.contains("boot_id") }
                for mount in mounts {
                    #expect(live.contains { mount.contains($0) }, "\(mount)")
                }
                #expect(mounts.count >= live.count)
                try fabric.expectStill(3, after)

                // What has ended has its files still.
                let copied = try fabric.martlet("cp", "ends:/bin/busybox", "-")
                #expect(copied.code == 0 && !copied.output.isEmpty, "\(copied.errors)")
                try expectSuccess(fabric.martlet("rm", "ends"))
            }
        }

        @Test("what needs a volume of a lost node waits, says so, and comes back with it")
        func volumes() throws {
            try withFabric(nodes: 2) { fabric in
                let node = fabric.nodes[0]
                try fabric.mountBeats()
                try expectSuccess(fabric.martlet("node", "cordon", "n2"))
                for name in ["off", "cut"] {
                    try fabric.service(name, ["--replace-after", "15s", "-v", "\(name):/v"])
                }
                try fabric.awaitPlaces(["off": ["n1"], "cut": ["n1"]])
                try expectSuccess(fabric.martlet("node", "activate", "n2"))
                for name in ["off", "cut"] {
                    try expectSuccess(fabric.martlet("exec", "\(name).1", "sh", "-c", "echo \(name) >/v/x"))
                }
                let before = try fabric.beating()

                try fabric.partition(node)
                try eventually("both say what they wait for", within: 60) {
                    try ["off", "cut"].allSatisfy { name in
                        let text = try fabric.martlet("service", "ps", name).output
                        return text.contains("Unreachable for ")
                            && text.contains("volume \(name) (its data is on n1, which is unreachable)")
                    }
                }
                let status = try fabric.martlet("ps", "--no-trunc", "--format", "{{.Status}}", "-f", "name=cut.1").text
                #expect(status.contains("volume cut (its data is on n1, which is unreachable)"), "\(status)")
                let waiting = try fabric.inspect("cut.1")
                #expect(waiting.unschedulable?.message.contains("its data is on n1") == true)
                #expect(waiting.conditions.contains { $0.message.contains("it goes on when the node is back") })
                #expect(try fabric.martlet("volume", "ls", "--format", "{{.Name}} {{.Node}}").output.contains("cut n1"))
                try fabric.expectStill(2, before)
                try fabric.heal()
                try eventually("they are there again") {
                    try ["off", "cut"].allSatisfy { try fabric.inspect("\($0).1").unreachableSince == nil }
                }
                try fabric.expectStill(3, before)

                // The same when the machine goes: it is the volume's machine that has them again.
                try node.powerOff()
                try eventually("it waits", within: 60) {
                    try fabric.inspect("off.1").unschedulable?.message.contains("its data is on n1") == true
                }
                #expect(try fabric.beating().isEmpty)
                try fabric.powerOn(node)
                try fabric.mountBeats([node])
                try fabric.startAgent(node)
                try fabric.awaitPlaces(["off": ["n1"], "cut": ["n1"]])
                for name in ["off", "cut"] {
                    try expectSuccess(fabric.martlet("service", "wait", name))
                    #expect(try fabric.martlet("exec", "\(name).1", "cat", "/v/x").text == name)
                }
                try fabric.expectStill(3, try fabric.beating())
            }
        }
    }
}
