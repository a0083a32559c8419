import JSON
import Model
import NIOCore
import Testing
import Wire

@testable import DockerAPI

@Suite struct FiguresOfNetworks {
    @Test func eachDeviceIsTold() throws {
        let view = CreateFixture.view(try CreateFixture.create())
        var sample = ContainerStats(
            id: view.id, name: "web", time: Timestamp.now(), cpuTotal: 0, cpuUser: 0, cpuSystem: 0,
            throttledPeriods: 0, throttledTime: 0, memoryUsage: 0, memoryLimit: nil, pids: 1, pidsLimit: nil,
            networkReceived: 11, networkSent: 22, blockRead: 0, blockWritten: 0)
        func networks() throws -> JSONValue? {
            var text = StatsText(view, Resources(), APIVersion(minor: 43)).write(sample, after: nil)
            return try JSONValue.parse(text.readBytes(length: text.readableBytes) ?? [])["networks"]
        }
        #expect(try networks() == nil)
        sample.interfaces = [("eth0", 1), ("eth1", 10)].map { name, number in
            NetworkInterface(
                name: name, received: .init(bytes: number, packets: 2, errors: 3, dropped: 4),
                sent: .init(bytes: 2 * number, packets: 5, errors: 6, dropped: 7))
        }
        let told = try networks()
        #expect(told?.objectValue?.members.map(\.key) == ["eth0", "eth1"])
        #expect(
            told?["eth1"] == [
                "rx_bytes": 10, "rx_packets": 2, "rx_errors": 3, "rx_dropped": 4, "tx_bytes": 20, "tx_packets": 5,
                "tx_errors": 6, "tx_dropped": 7,
            ])
    }
}
