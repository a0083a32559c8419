import CNISpec
import Glibc
import JSON
import Kernel

/// What is known of overlay networks beside the kernel, in the run directory: a crash of the machine takes it along together
/// with what it describes.
///
/// - `networks/<name>.json`: the network, from before anything of it is made until all of it is gone; one that is encrypted
///   is in `<name>.encrypted`, which agents that encrypt nothing do not take for one that is not.
/// - `peers/<name>`: a line for each peer, `+ key underlay block…`, and one for each change since, `- key` for a peer that
///   went: to write down one change costs one line. A last line without its end is of a crash and counts as not written.
/// - `ipam/<name>`: the leases of the plugin.
/// - `../tunnels`: the private key of encrypted networks, mode 0600, and for which peers it has been used: also while there
///   is no network.
struct OverlayStore: Sendable {
    /// Where it is kept that networks of all kinds share.
    let parent: String

    var directory: String { "\(parent)/overlay" }
    var leaseDirectory: String { "\(directory)/ipam" }
    private var networkDirectory: String { "\(directory)/networks" }
    private var peerDirectory: String { "\(directory)/peers" }

    private static func suffix(_ isEncrypted: Bool) -> String { isEncrypted ? ".encrypted" : ".json" }
    private static let corrupt = ".corrupt"
    private static let limits = JSONLimits(bytes: 64 << 10, depth: 8, stringBytes: 4096)
    /// Most bytes of the peers of a network: 10,000 peers with 64 blocks each are 16 MiB.
    private static let peerBytes = 64 << 20

    // MARK: Networks

    func write(_ configuration: OverlayNetworkConfiguration) throws(KernelError) {
        try File.makeDirectories(networkDirectory)
        try File.replace(
            "\(networkDirectory)/\(configuration.name)\(Self.suffix(configuration.isEncrypted))",
            with: configuration.json.serialized())
    }

    func remove(network name: String) throws(KernelError) {
        for isEncrypted in [false, true] {
            try File.removeFile("\(networkDirectory)/\(name)\(Self.suffix(isEncrypted))")
        }
    }

    /// All of them. A record that cannot be read is set aside as `….corrupt`.
    func networks() throws(KernelError) -> [OverlayNetworkConfiguration] {
        var networks: [OverlayNetworkConfiguration] = []
        for name in try Self.entries(networkDirectory)
        where [false, true].contains(where: { name.hasSuffix(Self.suffix($0)) }) {
            let path = "\(networkDirectory)/\(name)"
            if let configuration = Self.network(path),
                configuration.name + Self.suffix(configuration.isEncrypted) == name
            {
                networks.append(configuration)
            } else {
                rename(path, path + Self.corrupt)
            }
        }
        return networks
    }

    private static func network(_ path: String) -> OverlayNetworkConfiguration? {
        guard let bytes = try? File.read(path, limit: limits.bytes),
            let value = try? JSONValue.parse(bytes, limits: limits),
            let configuration = try? OverlayNetworkConfiguration(JSONReader(value)),
            (try? configuration.validate()) != nil
        else { return nil }
        return configuration
    }

    // MARK: Peers

    /// In front of a peer's public key: no block looks so.
    private static let keyMark = "key="

    /// Writes down all peers of a network, whatever was there before.
    func write(_ peers: some Collection<OverlayPeer>, of name: String) throws(KernelError) {
        let path = "\(peerDirectory)/\(name)"
        if peers.isEmpty { return try File.removeFile(path) }
        try File.makeDirectories(peerDirectory)
        var bytes: [UInt8] = []
        for peer in peers { bytes += Self.line(peer) }
        try File.replace(path, with: bytes)
    }

    /// Writes down a change.
    func append(_ change: OverlayPeerChange, of name: String) throws(KernelError) {
        try File.makeDirectories(peerDirectory)
        let line =
            switch change {
            case .update(let peer): Self.line(peer)
            case .remove(let key): Array("- \(key)\n".utf8)
            }
        let path = "\(peerDirectory)/\(name)"
        let file = try File.open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW)
        try file.writeAll(line, subject: path)
    }

    private static func line(_ peer: OverlayPeer) -> [UInt8] {
        let key = peer.publicKey.isEmpty ? [] : [keyMark + Hexadecimal.text(peer.publicKey)]
        let words = ["+", peer.key, peer.underlay.description] + key + peer.blocks.map(\.description)
        return Array((words.joined(separator: " ") + "\n").utf8)
    }

    /// The peers of all networks. A line that cannot be read is left out; a file that cannot is set aside as `….corrupt`:
    /// the master says it all again.
    func peers() throws(KernelError) -> [String: [OverlayPeer]] {
        var all: [String: [OverlayPeer]] = [:]
        for name in try Self.entries(peerDirectory) where CNINames.isInterface(name) && !name.hasSuffix(Self.corrupt) {
            let path = "\(peerDirectory)/\(name)"
            do throws(KernelError) {
                let bytes = try File.read(path, limit: Self.peerBytes)
                let list = Self.peers(bytes)
                // What comes next would be glued to a line that was cut off.
                if let last = bytes.last, last != UInt8(ascii: "\n") { try write(list, of: name) }
                all[name] = list
            } catch {
                _ = try? Tree.remove(path + Self.corrupt)
                rename(path, path + Self.corrupt)
            }
        }
        return all
    }

    static func peers(_ bytes: [UInt8]) -> [OverlayPeer] {
        var order: [String] = []
        var known: [String: OverlayPeer] = [:]
        let whole = bytes[..<((bytes.lastIndex(of: UInt8(ascii: "\n")) ?? -1) + 1)]
        for line in whole.split(separator: UInt8(ascii: "\n")) {
            let words = line.split(separator: UInt8(ascii: " ")).map { String(decoding: $0, as: UTF8.self) }
            guard words.count >= 2 else { continue }
            if words[0] == "-" { known[words[1]] = nil }
            guard words[0] == "+", words.count >= 3, let underlay = IPAddress(words[2]) else { continue }
            var rest = words[3...]
            var publicKey: [UInt8]? = []
            if let word = rest.first, word.hasPrefix(keyMark) {
                publicKey = Hexadecimal.bytes(rest.removeFirst().dropFirst(keyMark.count))
            }
            let blocks = rest.compactMap { CIDR($0) }
            guard let publicKey, blocks.count == rest.count else { continue }
            let peer = OverlayPeer(key: words[1], underlay: underlay, blocks: blocks, publicKey: publicKey)
            guard (try? peer.validate()) != nil else { continue }
            if known.updateValue(peer, forKey: peer.key) == nil { order.append(peer.key) }
        }
        var seen: Set<String> = []
        return order.filter { seen.insert($0).inserted }.compactMap { known[$0] }
    }

    // MARK: Encryption

    private var tunnelPath: String { "\(parent)/tunnels" }
    /// Most bytes of the file: `TunnelRecord.mostUses` with two addresses of IPv6 and a key each.
    private static let tunnelBytes = 16 << 20

    /// What is known of encryption; nil: nothing yet, nothing that can be read, or it is of another boot: whoever has copied
    /// or kept the directory has not kept what the kernel knew.
    func tunnels() -> TunnelRecord? {
        guard File.exists(tunnelPath), let bytes = try? File.read(tunnelPath, limit: Self.tunnelBytes) else {
            return nil
        }
        guard let record = TunnelRecord(bytes), let boot = try? Proc.bootID(), record.boot == boot else { return nil }
        return record
    }

    /// Writes down a new key.
    func write(_ record: TunnelRecord) throws(KernelError) {
        try File.makeDirectories(parent)
        try File.replace(tunnelPath, with: record.bytes)
    }

    /// Writes down that the key is used for peers from now on, so that it outlives all that is done then.
    func append(_ uses: [TunnelUse]) throws(KernelError) {
        let file = try File.open(tunnelPath, O_WRONLY | O_APPEND | O_NOFOLLOW)
        try file.writeAll(uses.flatMap(\.line), subject: tunnelPath)
        try systemCall("fsync", tunnelPath) { fsync(file.raw) }
    }

    func removeTunnels() throws(KernelError) { try File.removeFile(tunnelPath) }

    private static func entries(_ directory: String) throws(KernelError) -> [String] {
        File.exists(directory) ? try File.list(directory).sorted() : []
    }
}

/// One change of the peers of a network.
enum OverlayPeerChange: Sendable {
    case update(OverlayPeer)
    case remove(String)
}
