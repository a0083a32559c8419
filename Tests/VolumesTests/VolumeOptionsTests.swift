import Kernel
import Testing

@testable import Volumes

/// What Docker's local driver calls options, and nothing else.
@Suite struct VolumeOptionsTests {
    @Test func withoutOptionsItIsADirectory() throws {
        #expect(try VolumeOptions([:]).source == .directory)
    }

    @Test func memoryTakesTheKernelsOptionsAndFlags() throws {
        let options = try VolumeOptions(["type": "tmpfs", "device": "tmpfs", "o": "size=10m,uid=1000,noexec,ro"])
        #expect(options.source == .tmpfs(options: ["size=10m", "uid=1000"]))
        #expect(options.attributes == [.noExecution, .readOnly])
    }

    @Test func aDirectoryOfTheNodeIsBound() throws {
        let bound = try VolumeOptions(["type": "none", "device": "/srv/data", "o": "bind"])
        #expect(bound.source == .bind(path: "/srv/data", recursive: false))
        let deep = try VolumeOptions(["device": "/srv/data", "o": "rbind,ro,rw"])
        #expect(deep.source == .bind(path: "/srv/data", recursive: true))
        #expect(deep.attributes == [])
    }

    @Test func aServerNeedsAnAddress() throws {
        let options = try VolumeOptions(["type": "nfs", "device": ":/export", "o": "addr=192.0.2.7,vers=4,ro"])
        #expect(options.source == .nfs(type: "nfs", device: ":/export", options: ["addr=192.0.2.7", "vers=4"]))
        #expect(options.attributes == .readOnly)
    }

    @Test(arguments: [
        ["type": "none", "device": "/srv"], ["type": "none", "o": "bind"], ["o": "bind", "device": "srv"],
        ["type": "nfs", "device": ":/export", "o": "addr=server.lan"], ["type": "nfs", "o": "addr=192.0.2.7"],
        ["type": "tmpfs", "o": "size=1\n"],
    ])
    func whatIsIncompleteIsRefused(options: [String: String]) {
        #expect(VolumeStoreTests.kind { _ = try VolumeOptions(options) } == .invalidArgument)
    }

    @Test(arguments: [
        ["type": "ext4", "device": "/dev/sda1"], ["size": "10G"], ["type": "tmpfs", "o": "lowerdir=/"],
        ["type": "none", "device": "/srv", "o": "bind,uid=5"],
    ])
    func whatIsUnknownIsRefusedByName(options: [String: String]) {
        #expect(VolumeStoreTests.kind { _ = try VolumeOptions(options) } == .unsupported)
    }
}
