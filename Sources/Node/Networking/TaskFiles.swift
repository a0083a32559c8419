import CNISpec
import Glibc
import Kernel

/// The files that tell a container who and where it is: /etc/hosts, /etc/resolv.conf, /etc/hostname.
package struct TaskFiles: Sendable, Equatable {
    /// Name service settings that replace the host's where they are given.
    package struct NameService: Sendable, Equatable {
        package var servers: [IPAddress] = []
        package var search: [String] = []
        package var options: [String] = []

        package init() {}
    }

    /// At most 64 characters, see sethostname(2).
    package var hostname: String
    /// The pod's own; nil for one without network or with the host's.
    package var address: IPAddress?
    /// The pod uses the host's network: it sees the host's own names and name servers.
    package var isHostNetwork = false
    /// Further lines of /etc/hosts.
    package var extraHosts: [(name: String, address: IPAddress)] = []
    package var nameService = NameService()
    /// Others that it reaches by name.
    package var peers: [Peer] = []

    /// Another pod of the same network.
    package struct Peer: Sendable, Hashable {
        package var address: String
        package var names: [String]

        package init(address: String, names: [String]) {
            self.address = address
            self.names = names
        }
    }

    package init(hostname: String) { self.hostname = hostname }

    package static func == (left: TaskFiles, right: TaskFiles) -> Bool {
        left.hostname == right.hostname && left.address == right.address
            && left.isHostNetwork == right.isHostNetwork && left.nameService == right.nameService
            && left.peers == right.peers && left.extraHosts.elementsEqual(right.extraHosts, by: ==)
    }

    /// Writes `hosts`, `resolv.conf` and `hostname` into a directory, which is made when missing. Existing files keep
    /// their inode, since they may be mounted into a container.
    ///
    /// - Parameter hostRoot: where the host's own /etc is looked for; other than "" only in tests.
    /// - Throws: `NetworkError` for a name that does not fit into such a file, or what the kernel refused.
    package func write(to directory: String, hostRoot: String = "") throws(NetworkError) {
        try validate()
        do throws(KernelError) {
            try File.makeDirectories(directory)
            let hosts = isHostNetwork ? Self.read("\(hostRoot)/etc/hosts") : nil
            let texts = [
                ("hosts", hostsFile(hostsOwn: hosts)),
                ("resolv.conf", resolverFile(hostFiles: Self.resolvers(hostRoot))), ("hostname", "\(hostname)\n"),
            ]
            for (name, text) in texts {
                let path = "\(directory)/\(name)"
                let file = try File.open(path, O_WRONLY | O_CREAT | O_NOFOLLOW, mode: 0o644)
                // Whatever the umask is: containers may run as any user.
                let raw = file.raw
                try systemCall("fchmod", path) { fchmod(raw, 0o644) }
                try Self.write(text, to: file, path)
            }
        } catch {
            throw NetworkError(.failed, error.description)
        }
    }

    /// Writes `hosts` alone, into its old inode. Where there is none the pod is on its way out, and nothing is made.
    package func writeHosts(to directory: String) throws(NetworkError) {
        try validate()
        let path = "\(directory)/hosts"
        do throws(KernelError) {
            let file = try File.open(path, O_WRONLY | O_NOFOLLOW)
            try Self.write(hostsFile(hostsOwn: nil), to: file, path)
        } catch {
            if error.errno == ENOENT { return }
            throw NetworkError(.failed, error.description)
        }
    }

    /// The host's resolver configuration, and the one behind systemd-resolved's local server.
    private static func resolvers(_ root: String) -> [String] {
        ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"].compactMap { read(root + $0) }
    }

    private static func read(_ path: String) -> String? {
        (try? File.read(path, limit: 1 << 20)).map { String(decoding: $0, as: UTF8.self) }
    }

    /// Over what is there: whoever reads meanwhile never finds the file empty.
    private static func write(_ text: String, to file: borrowing OwnedFD, _ path: String) throws(KernelError) {
        let bytes = Array(text.utf8)
        let raw = file.raw
        try file.writeAll(bytes, subject: path)
        try systemCall("ftruncate", path) { ftruncate(raw, off_t(bytes.count)) }
    }

    /// A word that cannot begin another line or another word.
    private static func isWord(_ text: String) -> Bool {
        (1...255).contains(text.utf8.count)
            && text.utf8.allSatisfy { $0 > 32 && $0 < 127 && $0 != UInt8(ascii: "#") && $0 != UInt8(ascii: ";") }
    }

    private func validate() throws(NetworkError) {
        guard Self.isWord(hostname), hostname.utf8.count <= 64 else {
            throw NetworkError(.configuration, "'\(hostname)' is no host name: at most 64 plain characters")
        }
        let words = extraHosts.map(\.name) + nameService.search + nameService.options + peers.flatMap(\.names)
        if let bad = words.first(where: { !Self.isWord($0) }) {
            throw NetworkError(.configuration, "'\(bad)' does not fit into a hosts or resolver file")
        }
        guard words.count <= 65_536, nameService.servers.count <= 64 else {
            throw NetworkError(.configuration, "too many names for a hosts or resolver file")
        }
    }

    /// The contents of /etc/hosts.
    ///
    /// - Parameter hostsOwn: the host's file, for a pod in the host's network.
    func hostsFile(hostsOwn: String?) -> String {
        var text: String
        if let hostsOwn {
            text = hostsOwn.hasSuffix("\n") ? hostsOwn : hostsOwn + "\n"
        } else {
            text = """
                127.0.0.1\tlocalhost
                ::1\tlocalhost ip6-localhost ip6-loopback
                fe00::\tip6-localnet
                ff00::\tip6-mcastprefix
                ff02::1\tip6-allnodes
                ff02::2\tip6-allrouters

                """
            // Without a network the name still leads to the pod itself.
            text += "\(address?.description ?? "127.0.0.1")\t\(hostname)\n"
        }
        for host in extraHosts { text += "\(host.address)\t\(host.name)\n" }
        for peer in peers { text += "\(peer.address)\t\(peer.names.joined(separator: " "))\n" }
        return text
    }

    /// The contents of /etc/resolv.conf.
    ///
    /// A pod in the host's network gets the host's file as it is. Any other cannot reach name servers on the host's
    /// loopback: they are left out, and if none remains, the next of `hostFiles` is tried.
    func resolverFile(hostFiles: [String]) -> String {
        if isHostNetwork && nameService == NameService() { return hostFiles.first ?? "" }
        let parsed = hostFiles.map { ResolverSettings($0) }
        var settings = parsed.first { !$0.reachable(isHostNetwork).isEmpty } ?? parsed.first ?? ResolverSettings("")
        settings.servers = settings.reachable(isHostNetwork)
        if !nameService.servers.isEmpty { settings.servers = nameService.servers.map(\.description) }
        if !nameService.search.isEmpty { settings.search = nameService.search }
        if !nameService.options.isEmpty { settings.options = nameService.options }
        return settings.text
    }
}

/// What a resolv.conf says, see resolv.conf(5).
struct ResolverSettings: Equatable {
    var servers: [String] = []
    var search: [String] = []
    var options: [String] = []

    /// Later `search` and `domain` lines replace earlier ones.
    init(_ text: String) {
        for line in text.split(whereSeparator: \.isNewline) {
            let words = line.split(whereSeparator: { $0 == " " || $0 == "\t" }).map { String($0) }
            guard let keyword = words.first else { continue }
            switch keyword {
            case "nameserver": servers += words.dropFirst().prefix(1)
            case "search", "domain": search = Array(words.dropFirst().prefix(32))
            case "options": options += words.dropFirst().prefix(32)
            default: continue
            }
        }
    }

    /// The servers that a pod can reach; zones of link-local ones mean nothing in another namespace.
    func reachable(_ fromHostNetwork: Bool) -> [String] {
        if fromHostNetwork { return servers }
        return servers.filter { server in IPAddress(server).map { !$0.isLoopback && !$0.isUnspecified } ?? false }
    }

    var text: String {
        var text = servers.isEmpty ? "# the host has no name server that a container can reach\n" : ""
        for server in servers { text += "nameserver \(server)\n" }
        if !search.isEmpty { text += "search \(search.joined(separator: " "))\n" }
        if !options.isEmpty { text += "options \(options.joined(separator: " "))\n" }
        return text
    }
}
