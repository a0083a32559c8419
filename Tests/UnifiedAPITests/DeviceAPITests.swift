import Client
import JSON
import Model
import NIOHTTP1
import Testing
import Wire

@testable import UnifiedAPI

@Suite struct DevicesOverTheAPI {
    private func claiming(_ claim: DeviceClaim) -> PodSpec {
        var pod = PodSpec(containers: [ContainerSpec(image: "web")])
        pod.containers[0].deviceClaims = [claim]
        return pod
    }

    @Test func whatANodeReportsIsListedAndGivenOut() async throws {
        try await withMaster { client, place in
            let node = TestNode(client, place)
            try await node.join()
            #expect(try await client.json(.GET, APIPaths.devices) as [DeviceView] == [])
            let gpus = ["GPU-a", "GPU-b"].map { NodeDevice(id: $0, vendor: "nvidia", model: "NVIDIA H200") }
            try await node.report(NodeReport(devices: gpus))
            let wish = CreateContainer(name: "web", pod: claiming(DeviceClaim(ids: ["GPU-b"])))
            try await client.send(.POST, APIPaths.containers, body: .json(wish))
            #expect(try await node.tasks().first?.grantedDevices.map(\.devices) == [["GPU-b"]])
            let views: [DeviceView] = try await client.json(.GET, APIPaths.devices, query: ["node": "one"])
            #expect(views.map(\.device) == gpus)
            #expect(views.map { $0.holders.map(\.name) } == [[], ["web"]])
            let view: DeviceView = try await client.json(.GET, "\(APIPaths.devices)/GPU-b")
            #expect(view == views[1])
            let inspected: NodeView = try await client.json(.GET, "\(APIPaths.nodes)/one")
            #expect(inspected.devices == views)
            #expect(try await client.refusal(.GET, "\(APIPaths.devices)/GPU-c").status == 404)
            #expect(try await client.refusal(.GET, "\(APIPaths.devices)?node=two").status == 404)
        }
    }

    @Test func metricsTellHowDevicesAreAndHowTheyAreUsed() async throws {
        try await withMaster { client, place in
            let node = TestNode(client, place)
            try await node.join()
            var gpus = ["GPU-a", "GPU-b"].map { NodeDevice(id: $0, vendor: "nvidia", model: #"The "H200""#) }
            gpus[0].health = NodeDevice.Health(.unusable, reasons: ["XID 79"])
            try await node.report(NodeReport(devices: gpus))
            let wish = CreateContainer(name: "web", pod: claiming(DeviceClaim()))
            try await client.send(.POST, APIPaths.containers, body: .json(wish))
            let task = try #require(try await node.tasks().first?.task)
            let stats = DeviceStats(
                id: "GPU-b", utilization: 37, memoryUsage: nil, memoryUsedByAll: 2 << 30, memory: 141 << 30,
                celsius: 61,
                milliwatts: 412_500)
            // One task that nobody knows, one device that nobody knows, and a number that cannot be.
            let stranger = DeviceUsage.Share(task: TaskID("stranger"), memoryUsage: 1)
            var other = DeviceUsage(stats)
            other.stats.id = "GPU-c"
            let share = DeviceUsage.Share(task: task, memoryUsage: 1 << 30)
            try await node.report(NodeReport(deviceUsage: [DeviceUsage(stats, tasks: [share, stranger]), other]))
            let text = String(decoding: try await client.request(.GET, "/metrics").checked().bytes(), as: UTF8.self)
            func labels(_ device: String, _ more: String = "", first: String = "", last: String = "") -> String {
                #"{\#(first)device="\#(device)",\#(more)model="The \"H200\"",node="one",\#(last)vendor="nvidia"}"#
            }
            let busy = labels("GPU-b")
            let ofTask = labels("GPU-b", first: #"container="web","#, last: #"task="\#(task)","#)
            for line in [
                #"martlet_node_devices{granted="false",health="unusable",node="one"} 1"#,
                #"martlet_node_devices{granted="true",health="healthy",node="one"} 1"#,
                "martlet_device_health\(labels("GPU-a", #"health="unusable","#)) 1",
                "martlet_device_health\(labels("GPU-a", #"health="healthy","#)) 0",
                "martlet_device_health\(labels("GPU-b", #"health="gone","#)) 0",
                "martlet_device_tasks\(busy) 1", "martlet_device_tasks\(labels("GPU-a")) 0",
                "martlet_device_shares\(busy) 1", "martlet_device_task\(ofTask) 1",
                "martlet_device_utilization_ratio\(busy) 0.37", "martlet_device_memory_used_bytes\(busy) 2147483648",
                "martlet_device_memory_bytes\(busy) \(141 << 30)", "martlet_device_power_watts\(busy) 412.5",
                "martlet_device_temperature_celsius\(busy) 61",
                "martlet_device_task_memory_used_bytes\(ofTask) 1073741824",
            ] {
                #expect(text.contains(line + "\n"), "\(line) is not in \(text)")
            }
            #expect(!text.contains("stranger") && !text.contains("GPU-c"))
            // Every family is described once, before its samples, and no sample comes twice.
            var described: Set<String> = []
            var samples: Set<String> = []
            for line in text.split(separator: "\n") {
                let words = line.split(separator: " ")
                if line.hasPrefix("# TYPE ") {
                    #expect(described.insert(String(words[2])).inserted, "\(line)")
                } else if !line.hasPrefix("#") {
                    let name = String(line.prefix { $0 != "{" && $0 != " " })
                    #expect(described.contains(name), "\(line)")
                    #expect(
                        samples.insert(String(line.prefix(upTo: line.lastIndex(of: " ") ?? line.endIndex))).inserted)
                }
            }
        }
    }

    @Test func anOperatorClearsADeviceOnItsNode() async throws {
        try await withMaster { client, place in
            let node = TestNode(client, place)
            try await node.join()
            var gpus = ["GPU-a", "GPU-b"].map { NodeDevice(id: $0, vendor: "nvidia") }
            gpus[0].aliases = ["0"]
            try await node.report(NodeReport(devices: gpus))
            @Sendable func path(_ node: String, _ device: String) -> String {
                "\(APIPaths.nodes)/\(node)/devices/\(device)/clear"
            }
            // The agent does not answer.
            #expect(try await client.refusal(.POST, path("one", "GPU-a")).status == 503)
            try await node.serve {
                for name in ["GPU-a", "0"] {
                    let cleared: ClearedDevice = try await client.json(.POST, path("one", name))
                    #expect(cleared == ClearedDevice(id: "GPU-a", forgotten: ["XID 79"], health: NodeDevice.Health()))
                }
                let refusal = try await client.refusal(.POST, path("one", "GPU-b"))
                #expect(refusal.status == 409 && refusal.message.contains("no error"), "\(refusal)")
                #expect(try await client.refusal(.POST, path("one", "GPU-c")).status == 404)
            }
            #expect(try await client.refusal(.POST, path("two", "GPU-a")).status == 404)
        }
    }

    @Test func whatCannotBeMeantIsRefusedWithItsField() async throws {
        try await withMaster { client, place in
            let node = TestNode(client, place)
            try await node.join()
            let wish = CreateContainer(name: "web", pod: claiming(DeviceClaim(count: 0)))
            let refusal = try await client.request(.POST, APIPaths.containers, body: .json(wish))
            #expect(refusal.status == 400)
            let text = String(decoding: try await refusal.bytes(), as: UTF8.self)
            #expect(text.contains("$.pod.containers[0].deviceClaims[0].count: 0 devices cannot be claimed"), "\(text)")
            // What can be meant waits, and says for what.
            let other = CreateContainer(name: "other", pod: claiming(DeviceClaim(model: "H200")))
            try await client.send(.POST, APIPaths.containers, body: .json(other))
            let view: ContainerView = try await client.json(.GET, "\(APIPaths.containers)/other")
            #expect(view.unschedulable?.message == "0 of 1 node: no gpu on 1")
        }
    }
}
