import Client
import JSON
import Model
import NIOHTTP1
import Testing
import Wire

@testable import DockerAPI

@Suite struct ActionsOnContainers {
    /// With a container `web` on a node that does what it is told.
    private func withContainer(
        _ change: @escaping @Sendable (inout PodSpec) -> Void = { _ in },
        _ work: @escaping @Sendable (DockerBench) async throws -> Void
    ) async throws {
        try await DockerBench.run { bench in
            let node = try await PlayedNode(bench)
            try await bench.create("web", change)
            try await withThrowingTaskGroup(of: Void.self) { group in
                defer { group.cancelAll() }
                group.addTask { try await node.serve() }
                group.addTask { try await work(bench) }
                try await group.next()
            }
        }
    }

    @Test func eachActionHasDockersStatus() async throws {
        try await withContainer { bench in
            let expected = [
                ("stop", 304), ("kill", 409), ("pause", 409), ("start", 204), ("start", 304), ("unpause", 409),
                ("pause", 204), ("pause", 409), ("start", 409), ("unpause", 204), ("restart?t=0", 204),
                ("kill?signal=NONSENSE", 400), ("stop?t=nonsense", 400), ("stop?t=-1", 204), ("stop", 304),
                ("start?checkpoint=x", 501),
            ]
            for (action, code) in expected {
                let status = try await bench.ask(.POST, "/v1.41/containers/web/\(action)").status
                #expect(status == code, "\(action)")
            }
            #expect(try await bench.view("web").container.exitCode == 137)
        }
    }

    @Test func aRunningOneIsRemovedByForceOnly() async throws {
        try await withContainer { bench in
            #expect(try await bench.ask(.POST, "/containers/web/start").status == 204)
            let refused = try await bench.ask(.DELETE, "/containers/web")
            #expect(refused.status == 409)
            #expect(refused.message.contains("cannot remove a running container"))
            #expect(try await bench.ask(.DELETE, "/containers/web?link=1").status == 400)
            #expect(try await bench.ask(.DELETE, "/containers/web?force=1&v=1").status == 204)
            #expect(try await bench.ask(.DELETE, "/containers/web").status == 404)
            #expect(try await bench.list().isEmpty)
        }
    }

    @Test func aNewNameHasToBeFree() async throws {
        try await withContainer { bench in
            try await bench.create("other")
            let taken = try await bench.ask(.POST, "/containers/web/rename?name=/other")
            #expect(taken.status == 409)
            #expect(taken.message.hasPrefix("Conflict. The container name \"/other\" is already in use by container"))
            #expect(try await bench.ask(.POST, "/containers/web/rename").status == 400)
            #expect(try await bench.ask(.POST, "/containers/web/rename?name=web").status == 400)
            #expect(try await bench.ask(.POST, "/containers/web/rename?name=a%20b").status == 400)
            #expect(try await bench.ask(.POST, "/containers/web/rename?name=db").status == 204)
            #expect(try await bench.names(filters: "{}") == ["other", "db"])
        }
    }

    @Test func limitsAndTheRestartPolicyChange() async throws {
        try await withContainer { bench in
            let body = """
                {"Memory":67108864,"MemorySwap":67108864,"CpuShares":512,"PidsLimit":50,"CgroupParent":"","KernelMemory":0,
                "RestartPolicy":{"Name":"on-failure","MaximumRetryCount":3}}
                """
            let answer = try await bench.ask(.POST, "/containers/web/update", body: body)
            #expect(answer.status == 200)
            #expect(answer.json?["Warnings"] == .array([]))
            let view = try await bench.view("web")
            #expect(view.spec.limits.memory == 67_108_864)
            #expect(view.spec.limits.cpuShares == 512)
            #expect(view.spec.limits.pids == 50)
            #expect(view.restart == RestartPolicy(.onFailure, maximumRetries: 3))
            let lists = #"{"BlkioDeviceReadBps":[{"Path":"/dev/vda","Rate":1}]}"#
            #expect(try await bench.ask(.POST, "/containers/web/update", body: lists).status == 400)
            let refused = try await bench.ask(.POST, "/containers/web/update", body: #"{"KernelMemory":1048576}"#)
            #expect(refused.status == 400)
            #expect(refused.message.contains("KernelMemory"))
            let policy = #"{"RestartPolicy":{"Name":"sometimes"}}"#
            #expect(try await bench.ask(.POST, "/containers/web/update", body: policy).status == 400)
        }
    }

    /// An update is answered when the container's node has done it, or said why it cannot.
    @Test(arguments: [nil, "the kernel refuses"]) func anUpdateIsAnsweredByTheNode(refusal: String?) async throws {
        try await DockerBench.run { bench in
            let node = try await PlayedNode(bench)
            try await bench.create("web")
            _ = try await bench.ask(.POST, "/api/v1/containers/web/start")
            var task = try await node.task("web")
            let before = task.revision
            func report(_ message: String = "") async throws {
                var status = PlayedNode.status(task, .running, message: message)
                status.revision = message.isEmpty ? task.revision : before
                try await node.report(task, status)
            }
            try await report()
            async let answer = bench.ask(.POST, "/containers/web/update", body: #"{"Memory":67108864}"#)
            while task.revision == before { task = try await node.task("web") }
            try await report(refusal.map { TaskStatus.updateFailure + $0 } ?? "")
            #expect(try await answer.status == (refusal == nil ? 200 : 409))
            #expect(try await answer.message.hasSuffix(refusal ?? ""))
        }
    }

    @Test func oneThatDoesNotStartSaysWhyAndStays() async throws {
        try await DockerBench.run { bench in
            let node = try await PlayedNode(bench)
            try await bench.create("web")
            async let answer = bench.ask(.POST, "/containers/web/start")
            var task = try await node.task("web")
            while task.desired != .running { task = try await node.task("web") }
            try await node.report(
                task,
                PlayedNode.status(
                    task, .failed, exitCode: 127, start: 0,
                    message: "cannot start: exec: \"x\": executable file not found in $PATH"))
            #expect(try await answer.status == 400)
            #expect(try await answer.message.hasSuffix("executable file not found in $PATH: unknown"))
            let container = try #require(try await bench.list().first)
            #expect(container["State"]?.stringValue == "created")
        }
    }

    /// With a container `web` that needs more than `one` has as long as `other` runs there.
    private func withoutRoom(
        removeOnExit: Bool = false, _ work: @escaping @Sendable (DockerBench) async throws -> Void
    ) async throws {
        try await withContainer({ $0.containers[0].limits.cpu = 1_500_000_000 }) { bench in
            #expect(try await bench.ask(.POST, "/containers/web/rename?name=other").status == 204)
            #expect(try await bench.ask(.POST, "/containers/other/start").status == 204)
            try await bench.create("web", removeOnExit: removeOnExit) {
                $0.containers[0].limits.cpu = 1_500_000_000
            }
            try await work(bench)
        }
    }

    @Test func oneThatFitsNowhereSaysWhyAndStartsWhenThereIsRoom() async throws {
        try await withoutRoom { bench in
            for _ in 0..<2 {
                let refused = try await bench.ask(.POST, "/containers/web/start")
                #expect(refused.status == 409)
                #expect(refused.message.contains("no node fits: 0 of 1 node: cpu"))
                let state = try await bench.ask(.GET, "/containers/web/json").json?["State"]?["Status"]
                #expect(state == "created")
            }
            #expect(try await bench.ask(.DELETE, "/containers/other?force=1").status == 204)
            // It does not start by itself when there is room later.
            #expect(try await bench.view("web").task == nil)
            #expect(try await bench.ask(.POST, "/containers/web/start").status == 204)
            #expect(try await bench.view("web").container.state == .running)
        }
    }

    @Test func oneThatFitsNowhereIsAttachedToUntilItsStartHasFailed() async throws {
        try await withoutRoom { bench in
            // Of the first start, and of one after it.
            for _ in 0..<2 {
                let attached = try await bench.client.request(.POST, "/containers/web/attach?stream=1&stdout=1")
                #expect(attached.status == 200)
                #expect(try await bench.ask(.POST, "/containers/web/start").status == 409)
                #expect(try await attached.bytes().isEmpty)
            }
            let attached = try await bench.client.request(.POST, "/containers/web/attach?stream=1&stdout=1")
            #expect(try await bench.ask(.DELETE, "/containers/web").status == 204)
            #expect(try await attached.bytes().isEmpty)
        }
    }

    @Test func oneThatIsRemovedAtItsEndGoesWhenItsStartFails() async throws {
        try await withoutRoom(removeOnExit: true) { bench in
            let wait = try await bench.client.request(.POST, "/containers/web/wait?condition=removed")
            #expect(try await bench.ask(.POST, "/containers/web/start").status == 409)
            _ = try await wait.bytes()
            #expect(try await bench.ask(.GET, "/containers/web/json").status == 404)
        }
    }

    /// Clients take 404 for a missing image, and pull it.
    @Test func onlyAMissingImageIsNotFoundWhenAContainerIsMade() async throws {
        try await DockerBench.run { bench in
            _ = try await PlayedNode(bench)
            let image = try await bench.ask(.POST, "/containers/create", body: #"{"Image":"nosuch:1"}"#)
            #expect(image.status == 404)
            let body = #"{"Image":"web","HostConfig":{"VolumesFrom":["nobody"]}}"#
            let other = try await bench.ask(.POST, "/containers/create", body: body)
            #expect(other.status == 400)
            #expect(other.message == "No such container: nobody")
        }
    }

    @Test func pruneTakesWhatDoesNotRunAndFits() async throws {
        try await withContainer { bench in
            #expect(try await bench.ask(.POST, "/containers/web/start").status == 204)
            try await bench.create("plain")
            try await bench.create("kept") { $0.containers[0].labels = ["keep": "1"] }
            let filters = PercentEncoding.encode(#"{"label!":["keep"]}"#)
            let answer = try await bench.ask(.POST, "/containers/prune?filters=\(filters)")
            #expect(answer.status == 200)
            #expect(answer.json?["ContainersDeleted"]?.arrayValue?.count == 1)
            #expect(try await bench.names(filters: "{}") == ["kept", "web"])
            let old = PercentEncoding.encode(#"{"until":["1h"]}"#)
            _ = try await bench.ask(.POST, "/containers/prune?filters=\(old)")
            #expect(try await bench.names(filters: "{}") == ["kept", "web"])
            let wrong = PercentEncoding.encode(#"{"until":["soon"]}"#)
            #expect(try await bench.ask(.POST, "/containers/prune?filters=\(wrong)").status == 400)
        }
    }

    @Test func whatDoesNotRunUsesNothing() async throws {
        try await withContainer { bench in
            let answer = try await bench.ask(.GET, "/containers/web/stats?stream=0")
            #expect(answer.status == 200)
            #expect(answer.json?["name"]?.stringValue == "/web")
            #expect(answer.json?["cpu_stats"]?["cpu_usage"]?["total_usage"] == .integer(0))
            #expect(answer.json?["memory_stats"] == .object([:]))
            #expect(try await bench.ask(.GET, "/containers/web/top").status == 409)
        }
    }
}

@Suite struct WaitsForContainers {
    private func code(_ answer: DockerBench.Answer) -> JSONValue? { answer.json?["StatusCode"] }

    @Test func oneThatNeverRanIsNotWaitedFor() async throws {
        try await DockerBench.run { bench in
            _ = try await PlayedNode(bench)
            try await bench.create("web")
            #expect(code(try await bench.ask(.POST, "/containers/web/wait")) == .integer(0))
            #expect(try await bench.ask(.POST, "/containers/web/wait?condition=sometime").status == 400)
            #expect(try await bench.ask(.POST, "/containers/nosuch/wait").status == 404)
        }
    }

    /// What happens between the head of the answer and its body is not missed.
    @Test(arguments: ["next-exit", "not-running"]) func theEndIsTold(condition: String) async throws {
        try await DockerBench.run { bench in
            let node = try await PlayedNode(bench)
            try await bench.create("web")
            if condition == "not-running" {
                _ = try await bench.ask(.POST, "/api/v1/containers/web/start")
                let task = try await node.task("web")
                try await node.report(task, PlayedNode.status(task, .running))
            }
            let response = try await bench.client.request(.POST, "/containers/web/wait?condition=\(condition)")
            #expect(response.status == 200)
            _ = try await bench.ask(.POST, "/api/v1/containers/web/start")
            let task = try await node.task("web")
            try await node.report(task, PlayedNode.status(task, .exited, exitCode: 42))
            #expect(try JSONValue.parse(try await response.bytes())["StatusCode"] == .integer(42))
        }
    }

    @Test func theNextEndCountsAlsoWhenItStartsAgain() async throws {
        try await DockerBench.run { bench in
            let node = try await PlayedNode(bench)
            try await bench.create("web") { $0.restart = RestartPolicy(.always) }
            _ = try await bench.ask(.POST, "/api/v1/containers/web/start")
            let task = try await node.task("web")
            // It has ended once before.
            try await node.report(task, PlayedNode.status(task, .running, exitCode: 7, start: 2, endedAt: 1))
            let response = try await bench.client.request(.POST, "/containers/web/wait?condition=next-exit")
            try await node.report(task, PlayedNode.status(task, .running, exitCode: 9, start: 3, endedAt: 2))
            #expect(try JSONValue.parse(try await response.bytes())["StatusCode"] == .integer(9))
        }
    }

    @Test func aRemovedOneTellsItsLastEnd() async throws {
        try await DockerBench.run { bench in
            let node = try await PlayedNode(bench)
            try await bench.create("web")
            let response = try await bench.client.request(.POST, "/containers/web/wait?condition=removed")
            _ = try await bench.ask(.POST, "/api/v1/containers/web/start")
            var task = try await node.task("web")
            try await node.report(task, PlayedNode.status(task, .exited, exitCode: 5))
            _ = try await bench.ask(.DELETE, "/api/v1/containers/web?wait=0")
            while task.desired != .removed { task = try await node.task("web") }
            try await node.report(task, PlayedNode.status(task, .removed, exitCode: 5))
            #expect(try JSONValue.parse(try await response.bytes())["StatusCode"] == .integer(5))
        }
    }
}

@Suite struct ColumnsOfTop {
    @Test(arguments: [
        ("", ["PID", "TTY", "TIME", "CMD"]), ("-ef", ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]),
        ("aux", ["USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND"]),
        ("-o pid,comm", ["PID", "COMMAND"]), ("-eo pid,ppid,cmd", ["PID", "PPID", "CMD"]), ("-opid", ["PID"]),
    ])
    func areThoseOfPS(arguments: String, titles: [String]) throws {
        #expect(try TopColumns(arguments).titles == titles)
    }

    @Test(arguments: ["-o wchan", "--forest", "-l", "-o"]) func othersAreRefusedByName(arguments: String) {
        #expect(throws: DockerError.self) { try TopColumns(arguments) }
    }
}
