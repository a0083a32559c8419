import ArgumentParser
import Glibc
import Kernel
import Model
import Wire

struct NetworkCreate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "create", abstract: "Create a network.",
        discussion: """
            Examples: martlet network create shop; martlet run -d --network shop --name db postgres
            martlet network create -d overlay --ipv6 wide: containers on all nodes reach each other
            martlet network create -d overlay --opt encrypted=true safe: what goes from node to node is encrypted
            martlet network create -d cni --config list.json lan: what a CNI configuration list says, on each node
            """)
    @OptionGroup var connection: ConnectionOptions
    @Option(
        name: .shortAndLong, help: "bridge: on one node; overlay: on all nodes; cni: by the CNI plugins of each node.",
        completion: .list(["bridge", "overlay", "cni"]))
    var driver = "bridge"
    @Option(help: "IPv4 such as 172.30.0.0/16, IPv6 such as fd00:1::/64; without it a free one is chosen.")
    var subnet: [String] = []
    @Option(help: "The nodes' address in a subnet; the first unless given.") var gateway: [String] = []
    @Option(help: "The part of the IPv4 subnet that containers get addresses from.") var ipRange: String?
    @Option(help: "NAME=ADDRESS: no container gets it.") var auxAddress: [LabelArgument] = []
    @Option(help: "The VXLAN network identifier of an overlay; a free one is chosen unless given.") var vni: Int?
    @Option(help: "Bytes of the largest packet.") var mtu: Int?
    @Flag(name: .customLong("ipv6"), help: "Also IPv6, of a bridge or overlay.") var isIPv6 = false
    @Flag(help: "No way out.") var `internal` = false
    @Flag(help: "Kept with the network; all can be attached to.") var attachable = false
    @Option(name: [.customShort("o"), .customLong("opt")], help: "An option of the driver: KEY=value.")
    var options: [LabelArgument] = []
    @Option(
        help: """
            The file with the CNI configuration list, - for standard input; without it each node's own list of the \
            network's name counts.
            """, completion: .file())
    var config: String?
    @Option(name: .shortAndLong, help: "KEY=value.") var label: [LabelArgument] = []
    @Option(help: "The group whose it is, such as /team/web.") var group: String?
    @Argument var name: String

    func run() async throws {
        let (subnet4, subnet6) = try Self.families(subnet, "--subnet")
        let (gateway4, gateway6) = try Self.families(gateway, "--gateway")
        let body = CreateNetwork(
            name: name, driver: driver, vni: vni, subnet: subnet4, gateway: gateway4, subnet6: subnet6,
            gateway6: gateway6, isIPv6: isIPv6, range: ipRange, reserved: auxAddress.dictionary,
            isInternal: `internal`, isAttachable: attachable, labels: label.dictionary, options: try allOptions(),
            group: group)
        let view: NetworkView = try await connection.cluster.send("POST", APIPaths.networks, body: body)
        Output.line(view.network.name)
    }

    /// One of each family at most.
    private static func families(_ texts: [String], _ option: String) throws -> (v4: String?, v6: String?) {
        let (v6, v4) = (texts.filter { $0.contains(":") }, texts.filter { !$0.contains(":") })
        guard v4.count <= 1, v6.count <= 1 else {
            let given = texts.joined(separator: " ")
            throw ValidationError("\(option) takes one for IPv4 and one for IPv6 at most, not \(given)")
        }
        return (v4.first, v6.first)
    }

    private func allOptions() throws -> [String: String] {
        var all = options.dictionary
        if let mtu {
            let option = Network.Option.mtu.rawValue
            if let other = all[option], other != "\(mtu)" {
                throw ValidationError("--mtu \(mtu) is not the \(other) that --opt \(option) says: give one of them")
            }
            all[option] = "\(mtu)"
        }
        guard let config else { return all }
        guard driver == Network.Driver.cni.rawValue else {
            throw ValidationError("--config goes with --driver cni only")
        }
        all[Network.Option.cniConfiguration.rawValue] = try Self.text(of: config)
        return all
    }

    /// Bytes that a list may have: the master refuses more.
    private static let longestList = 64 << 10

    private static func text(of path: String) throws -> String {
        let source = try LocalFile(reading: path)
        let bytes: [UInt8]
        do throws(KernelError) {
            bytes = try Descriptor.readAll(source.descriptor.raw, limit: longestList, subject: source.name)
        } catch {
            guard error.errno == EFBIG else { throw error }
            throw CommandFailure(
                "\(source.name) has more bytes than the \(longestList) that a CNI configuration list may have")
        }
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw CommandFailure("\(source.name) is no text in UTF-8: name a CNI configuration list")
        }
        return text
    }
}
