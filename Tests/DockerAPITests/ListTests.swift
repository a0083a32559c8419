import Client
import JSON
import MasterCore
import Model
import NIOHTTP1
import Testing
import Wire

@testable import DockerAPI

@Suite struct ListOfContainers {
    @Test func aContainerHasDockersShape() async throws {
        try await DockerBench.run { bench in
            let node = try await PlayedNode(bench)
            try await bench.create("full") { pod in
                pod.containers[0].entrypoint = ["serve"]
                pod.containers[0].command = ["--name", "two words"]
                pod.containers[0].labels = ["quote\"": "line\nbreak"]
                pod.containers[0].exposedPorts = ["80/tcp", "9000/udp"]
                pod.containers[0].mounts = [
                    Mount(.volume(name: "data"), target: "/data", readOnly: true),
                    Mount(.bind(path: "/srv"), target: "/srv"),
                ]
                pod.ports = [PortMapping(hostPort: 8080, containerPort: 80)]
            }
            let view = try await bench.view("full")
            #expect((200...299).contains(try await bench.ask(.POST, "/api/v1/containers/full/start").status))
            try await node.obey()
            let container = try #require(try await bench.list(version: "/v1.41").first)
            #expect(container["Id"]?.stringValue == view.id.text)
            #expect(container["Names"] == .array(["/full"]))
            #expect(container["Image"]?.stringValue == "web")
            #expect(container["ImageID"]?.stringValue == DockerBench.imageID)
            #expect(container["Command"]?.stringValue == "serve --name 'two words'")
            #expect(container["Created"] == .integer(view.createdAt.nanoseconds / 1_000_000_000))
            #expect(container["Labels"]?["quote\""]?.stringValue == "line\nbreak")
            #expect(container["State"]?.stringValue == "running")
            #expect(container["Status"]?.stringValue?.hasPrefix("Up ") == true)
            #expect(container["HostConfig"]?["NetworkMode"]?.stringValue == "bridge")
            #expect(container["NetworkSettings"]?["Networks"]?["bridge"]?["IPAMConfig"] == .null)
            #expect(container["SizeRw"] == nil)
            #expect(
                container["Ports"]
                    == .array([
                        .object([
                            "IP": "0.0.0.0", "PrivatePort": .integer(80), "PublicPort": .integer(8080), "Type": "tcp",
                        ]), .object(["PrivatePort": .integer(9000), "Type": "udp"]),
                    ]))
            guard case .array(let mounts)? = container["Mounts"] else { throw DockerBench.Unexpected(what: "mounts") }
            #expect(mounts.map { $0["Type"]?.stringValue } == ["volume", "bind"])
            #expect(mounts.map { $0["RW"] } == [.bool(false), .bool(true)])
            #expect(mounts[0]["Name"]?.stringValue == "data")
        }
    }

    @Test func onlyWhatRunsIsShownUnlessAllIsAskedFor() async throws {
        try await DockerBench.run { bench in
            let node = try await PlayedNode(bench)
            for name in ["made", "runs", "ended", "paused", "restarting"] { try await bench.create(name) }
            for name in ["runs", "ended", "paused", "restarting"] {
                _ = try await bench.ask(.POST, "/api/v1/containers/\(name)/start")
                try await node.report(try await node.task(name), .running)
            }
            try await node.report(
                try await node.task("ended"), PlayedNode.status(try await node.task("ended"), .exited, exitCode: 3))
            _ = try await bench.ask(.POST, "/api/v1/containers/paused/pause")
            try await node.report(
                try await node.task("paused"), PlayedNode.status(try await node.task("paused"), .paused))
            try await node.report(
                try await node.task("restarting"),
                PlayedNode.status(
                    try await node.task("restarting"), .exited, exitCode: 1, restartAt: .now().adding(seconds: 100)))
            #expect(try await bench.names(filters: "{}", "") == ["restarting", "paused", "runs"])
            #expect(try await bench.names(filters: "{}").count == 5)
            #expect(try await bench.names(filters: "{}", "limit=4&").count == 4)
            let states = Dictionary(
                uniqueKeysWithValues: try await bench.list().map {
                    ($0["Names"]?.arrayValue?.first?.stringValue ?? "", $0["Status"]?.stringValue ?? "")
                })
            #expect(states["/made"] == "Created")
            #expect(states["/ended"]?.hasPrefix("Exited (3) ") == true)
            #expect(states["/paused"]?.hasSuffix(" (Paused)") == true)
            #expect(states["/restarting"]?.hasPrefix("Restarting (1) ") == true)
            for (state, name) in [
                ("created", "made"), ("running", "runs"), ("exited", "ended"), ("paused", "paused"),
                ("restarting", "restarting"),
            ] {
                #expect(try await bench.names(filters: #"{"status":["\#(state)"]}"#, "") == [name])
            }
            #expect(try await bench.names(filters: #"{"exited":["3"]}"#) == ["ended"])
            #expect(try await bench.names(filters: #"{"before":["runs"]}"#) == ["made"])
            #expect(try await bench.names(filters: #"{"since":{"ended":true}}"#) == ["restarting", "paused"])
        }
    }

    @Test func imagesAreFoundByNameAndIDAndWhatIsMadeOfThem() async throws {
        try await DockerBench.run { bench in
            _ = try await PlayedNode(bench)
            try await bench.create("a")
            for text in ["web", "web:latest", DockerBench.imageID, "222222222222"] {
                #expect(try await bench.names(filters: #"{"ancestor":["\#(text)"]}"#) == ["a"], "\(text)")
            }
            #expect(try await bench.names(filters: #"{"ancestor":["other"]}"#).isEmpty)
        }
    }

    @Test(arguments: [
        #"{"status":["nonsense"]}"#, #"{"health":["fine"]}"#, #"{"exited":["x"]}"#, #"{"unknown":["x"]}"#,
        #"{"name":["("]}"#, #"{"publish":["80/icmp"]}"#, #"{"expose":["90-80"]}"#, #"{"is-task":["perhaps"]}"#,
        "nonsense",
    ])
    func whatIsNoFilterIsRefused(filters: String) async throws {
        try await DockerBench.run { bench in
            let answer = try await bench.ask(
                .GET, "/containers/json?filters=\(PercentEncoding.encode(filters))")
            #expect(answer.status == 400)
            #expect(!answer.message.isEmpty)
        }
    }

    @Test func containersOfSeveralNodesAreNamedAfterThem() async throws {
        try await DockerBench.run { bench in
            _ = try await PlayedNode(bench, "one")
            try await bench.create("web") { $0.ports = [PortMapping(hostPort: 8080, containerPort: 80)] }
            _ = try await PlayedNode(bench, "two")
            let container = try #require(try await bench.list().first)
            #expect(container["Names"] == .array(["/one/web"]))
        }
    }

    /// More than one part: none is missing, none is there twice.
    @Test func aLongListComesInParts() async throws {
        try await DockerBench.run { bench in
            _ = try await PlayedNode(bench)
            let pod = PodSpec(containers: [ContainerSpec(image: "web")])
            try await bench.client.send(
                .POST, APIPaths.services, body: .json(CreateService(name: "web", pod: pod, scale: .replicated(1300))))
            let names = try await bench.names(filters: "{}")
            #expect(Set(names) == Set((1...1300).map { "web.\($0)" }))
            #expect(names.count == 1300)
            #expect(try await bench.list("limit=700").count == 700)
            #expect(try await bench.names(filters: #"{"name":["^/web.7$"]}"#) == ["web.7"])
            #expect(try await bench.names(filters: #"{"is-task":["false"]}"#).isEmpty)
        }
    }

    @Test func aBeginningOfAnIDIsEnough() async throws {
        try await DockerBench.run { bench in
            _ = try await PlayedNode(bench)
            try await bench.create("zero")
            let id = try await bench.view("zero").id.text
            let face = try await bench.ask(.POST, "/containers/\(id.prefix(1))/rename?name=one")
            #expect(face.status == 204)
            #expect(try await bench.ask(.POST, "/containers/\(id.prefix(1))x/rename?name=two").status == 404)
            for index in 0..<17 { try await bench.create("more\(index)") }
            let digits = try await bench.list().compactMap { $0["Id"]?.stringValue?.prefix(1) }
            let common = try #require(Dictionary(grouping: digits, by: { $0 }).first { $0.value.count > 1 }?.key)
            let answer = try await bench.ask(.POST, "/containers/\(common)/pause")
            #expect(answer.status == 400)
            #expect(answer.message == "multiple IDs found with provided prefix: \(common)")
            let none = try await bench.ask(.POST, "/containers/nosuch/pause")
            #expect(none.status == 404)
            #expect(none.message == "No such container: nosuch")
        }
    }
}

@Suite struct WordsOfLists {
    @Test(arguments: [
        (0, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"), (119, "About a minute"),
        (120, "2 minutes"), (3599, "59 minutes"), (3600, "About an hour"), (5400, "2 hours"), (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"), (14 * 86_400, "2 weeks"), (60 * 86_400, "2 months"), (3 * 365 * 86_400, "3 years"),
    ])
    func spansOfTime(seconds: Int, words: String) {
        #expect(ContainerText.duration(Int64(seconds) * 1_000_000_000) == words)
    }

    @Test func textIsEscaped() throws {
        var text = JSONText()
        text.object { text in
            text.member("a", "\"\\\u{1}é")
            text.list("b") { text in
                text.element("x")
                text.object { _ in }
                text.object { $0.null("c") }
            }
            text.member(named: "k\n", "v")
            text.member(named: "o") { $0.object { $0.member("n", Int64(-5)) } }
            text.member("t", true)
        }
        let value = try JSONValue.parse(text.bytes)
        #expect(
            value
                == .object([
                    "a": "\"\\\u{1}é", "b": .array(["x", .object([:]), .object(["c": .null])]), "k\n": "v",
                    "o": .object(["n": .integer(-5)]), "t": .bool(true),
                ]))
    }
}

extension PlayedNode {
    fileprivate func report(_ task: TaskAssignment, _ phase: TaskStatus.Phase) async throws {
        try await report(task, Self.status(task, phase))
    }
}
