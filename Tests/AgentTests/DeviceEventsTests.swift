import Devices
import Glibc
import Kernel
import Logging
import Testing

@testable import Agent

@Suite("What the driver told of sick devices, for an agent that starts again")
struct DeviceEventsTests {
    private static let reason = "its driver told of XID 79"

    /// What an agent has in mind that finds this file, in this boot of the machine.
    private func events(_ path: String, boot: String) -> DeviceEvents {
        DeviceEvents(
            NVMLHelper(program: "/nowhere/martlet-nvml"), keptIn: path, bootID: boot,
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }, news: {})
    }

    private func withFile(_ text: String, _ body: (String) throws -> Void) throws {
        var template = Array("/tmp/martlet-troubles-XXXXXX".utf8CString)
        let made = try #require(mkdtemp(&template))
        let directory = String(cString: made)
        defer { _ = try? Tree.remove(directory) }
        try File.replace("\(directory)/devices.json", with: Array(text.utf8))
        try body("\(directory)/devices.json")
    }

    private static let kept = #"{"bootID":"b1","reasons":{"GPU-1":["its driver told of XID 79"]}}"#

    @Test("an agent of the same boot goes on with it, until somebody has seen to the device")
    func again() throws {
        try withFile(Self.kept) { path in
            #expect(events(path, boot: "b1").clear(["GPU-2"]) == [])
            #expect(events(path, boot: "b1").clear(["GPU-1"]) == [Self.reason])
            #expect(events(path, boot: "b1").clear(["GPU-1"]) == [], "nor does the next one have it")
        }
    }

    /// The machine was started anew: with it the GPUs were, and what they do now is all that counts.
    @Test("what was told in another boot is not believed")
    func anotherBoot() throws {
        try withFile(Self.kept) { path in
            #expect(events(path, boot: "b2").clear(["GPU-1"]) == [])
            #expect(events(path, boot: "").clear(["GPU-1"]) == [])
        }
    }

    @Test(
        "of a file that is no such file nothing is believed",
        arguments: [
            "", "{", "[]", #"{"bootID":"b1"}"#, #"{"reasons":{"GPU-1":["its driver told of XID 79"]}}"#,
            #"{"bootID":"b1","reasons":{"GPU-1":"its driver told of XID 79"}}"#,
        ])
    func damaged(text: String) throws {
        try withFile(text) { path in
            #expect(events(path, boot: "b1").clear(["GPU-1"]) == [])
        }
    }
}
