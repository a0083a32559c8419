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
