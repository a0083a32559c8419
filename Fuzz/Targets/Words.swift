import CNISpec
import DeviceNodes
import JSON
import ShimProtocol

@testable import Cgroups
@testable import ContainerRuntime
@testable import Kernel
@testable import Networking

extension FuzzTarget {
    /// Words of command lines and of configurations; NUL stands between the words of a command line.
    static let words = FuzzTarget(
        name: "words", longest: 256,
        seeds: {
            [
                "SIGKILL", "RTMIN+3", "64", "1000:1000", "1.5GiB", "c-1.x_+", "0-3,7", "/a/b", "memory,cpu:/x",
                "system.slice:martlet:c1", "rwm", "c", "eth%d", "uint64 7", "['a', 'b']", "1.5", "'text'", "0 1000 1\n",
                "net.ipv4.conf.eth0/1.tag", "nosuid", "10.0.0.1/24", "fe80::1", "02:00:00:00:00:01",
                "--tty\u{0}-e\u{0}A=b\u{0}--user=1:2\u{0}c1\u{0}sh",
                "--socket\u{0}/s\u{0}--runtime\u{0}/r\u{0}--runtime-root\u{0}/q\u{0}--task-id\u{0}t\u{0}--ready-fd\u{0}3",
            ].map(bytes)
        }
    ) { input in
        let text = String(decoding: input, as: UTF8.self)
        let isASCII = text.utf8.allSatisfy { $0 < 128 }
        if let number = try? SignalName.number(of: text) {
            expect((1...64).contains(number) && isASCII, "a signal is one of 64: \(text)")
        }
        if let id = try? ContainerID(text) {
            expect(isASCII && !"\(id)".isEmpty && id.description.utf8.count <= 255, "an id is a plain name")
        }
        if let user = try? ExecArguments.parse(user: text) {
            let written = user.gid.map { "\(user.uid):\($0)" } ?? "\(user.uid)"
            expect(bytes(written) == input && user.uid != .max && user.gid != .max, "a user is a number: \(text)")
        }
        if let size = ByteSize.parse(text) { expect(size >= 0 && isASCII, "a size is not negative: \(text)") }
        if let set = try? NumberSet(list: text, below: 8192) {
            expect(!set.words.isEmpty && set.words.count <= 128 && isASCII, "numbers are in bounds")
        }
        if let mask = CgroupManager.mask(text) { expect(mask.count <= 1024, "a mask has 8192 bits") }
        if let access = DeviceAccess(text) { expect(DeviceAccess("\(access)") == access && isASCII, "letters of rwm") }
        if let property = try? SystemdProperty(annotation: "TimeoutStopSec", text) {
            if case .uint64 = property.value {} else { expect(false, "seconds are a number") }
        }
        _ = try? SystemdProperty(annotation: "Description", text)
        if let place = SysctlCheck.place(of: text) { expectPlain(place, "a sysctl") }
        if LinkTransfer.isName(text, template: false) {
            expect(text.utf8.count < 16 && !text.utf8.contains(UInt8(ascii: "/")), "a link's name fits: \(text)")
        }
        expectConfined(text)
        expectAddress(text)
        let words = text.split(separator: "\u{0}", omittingEmptySubsequences: false).map { String($0) }
        if let options = try? ShimOptions(arguments: words) {
            expect((try? ShimOptions(arguments: options.arguments)) == options, "options are read as they are written")
        }
        if let arguments = try? Arguments(words[...], flags: Verb.exec.flags()) {
            expect(arguments.positional.count <= words.count, "words are not made up")
        }
        _ = try? CgroupSubgroups(words)
        _ = try? MountOptions(words, path: "options")
    }

    static let cni = FuzzTarget(
        name: "cni", longest: 4096,
        seeds: {
            [
                #"""
                {"cniVersion":"1.0.0","interfaces":[{"name":"eth0","mac":"02:00:00:00:00:01","sandbox":"/n"}],"ips":[
                {"address":"10.0.0.2/24","gateway":"10.0.0.1","interface":0}],"routes":[{"dst":"0.0.0.0/0","gw":
                "10.0.0.1"}],"dns":{"nameservers":["10.0.0.1"],"domain":"d","search":["s"],"options":["o"]}}
                """#,
                #"""
                {"cniVersion":"0.4.0","name":"net","plugins":[{"type":"bridge","capabilities":{"portMappings":true}}]}
                """#,
                #"{"code":7,"msg":"m","details":"d"}"#, #"{"cniVersion":"1.0.0","supportedVersions":["0.4.0"]}"#,
            ].map(bytes)
        }
    ) { input in
        if let list = try? NetworkConfigurationList.parse(input) {
            expect(CNINames.isName(list.name) && (1...32).contains(list.plugins.count), "a list is in bounds")
            expect((try? NetworkConfigurationList(JSONReader(list.json))) == list, "a list is read as it is written")
            for plugin in list.plugins {
                let input = plugin.execution(version: list.version, network: list.name).serialized()
                expect((try? PluginAnswer.object(input)) != nil, "a plugin gets an object")
            }
        }
        guard let reader = try? PluginAnswer.object(input) else { return }
        if let result = try? CNIResult(reader, version: nil) {
            let written = result.json(version: .v1_1_0)
            expect((try? CNIResult(JSONReader(written), version: nil)) == result, "a result is read as it is written")
        }
        if let error = try? CNIError(reader) { expectSentence(error) }
        _ = try? VersionReply(reader)
        if let arguments = try? CapabilityArguments(reader) {
            let written = JSONReader(.object(arguments.json))
            expect((try? CapabilityArguments(written)) == arguments, "capabilities are read as they are written")
        }
    }

    /// What a host remembers of an attachment.
    static let attachment = FuzzTarget(
        name: "attachment", longest: 4096,
        seeds: {
            [
                #"""
                {"kind":"martlet-cni-1","container":"c1","namespace":"/run/netns/c1","interface":"eth0","complete":true,
                "list":{"cniVersion":"1.1.0","name":"net","plugins":[{"type":"a","ipam":{"type":"host-local"}}]},
                "capabilities":{"portMappings":[{"hostPort":80,"containerPort":8080,"protocol":"udp","hostIP":"::1"}],
                "ips":["10.0.0.2/24","fd00::2"],"mac":"02:00:00:00:00:01","aliases":["a"],"dns":{"servers":["10.0.0.1"]},
                "ipRanges":[[{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.9","rangeEnd":"10.0.0.20"}]]},"arguments":
                {"K":"v"},"result":{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.2/24"}]},"owner":"o"}
                """#
            ].map(bytes)
        }
    ) { input in
        guard let record = CNICache.parse(input) else { return }
        expect(CNICache.parse(record.json.serialized()) == record, "a record is read as it is written")
        let attachment = record.attachment
        let name = "\(record.list.name)-\(attachment.containerID)-\(attachment.interface).json"
        expect(name.utf8.count < 240 && !name.utf8.contains(UInt8(ascii: "/")), "a record has a file's name: \(name)")
    }
}

private func expectAddress(_ text: String) {
    if let address = IPAddress(text) {
        expect(IPAddress("\(address)") == address, "an address is read as it is written: \(address)")
    }
    if let range = CIDR(text) { expect(CIDR("\(range)") == range, "a range is read as it is written: \(range)") }
    if let address = MACAddress(text) { expect(MACAddress("\(address)") == address, "\(address)") }
}
