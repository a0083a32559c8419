import ArgumentParser
import Model

/// A container's network, and the names that it has and knows.
struct NameOptions: ParsableArguments {
    @Option(
        help: "bridge, host, none, container:NAME, or the name of a network.",
        completion: .list(["bridge", "host", "none"]))
    var network: [String] = []

    @Option(help: "A further name on the network.")
    var networkAlias: [String] = []

    @Option(help: "The IPv4 address that it asks for on its network.")
    var ip: String?

    @Option(help: "The IPv6 address that it asks for on its network.")
    var ip6: String?

    @Option(
        help:
            "in=10m,out=2m: bits a second to and from it; in-burst, out-burst: bits. On a network with the driver cni.",
        transform: { try TrafficLimits(expression: $0) })
    var bandwidth: TrafficLimits?

    @Option(help: "The container's NIS domain name.")
    var domainname = ""

    @Option(help: "A name server's address.")
    var dns: [String] = []

    @Option(help: "A domain in which names are looked up.")
    var dnsSearch: [String] = []

    @Option(name: [.customLong("dns-option"), .customLong("dns-opt")], help: "An option of resolv.conf(5).")
    var dnsOption: [String] = []

    @Option(help: "NAME:ADDRESS, or NAME:host-gateway for the node: a line of /etc/hosts.")
    var addHost: [String] = []

    /// Changes in `pod` what was given.
    func apply(to pod: inout PodSpec) throws {
        try applyNetworks(to: &pod)
        if !domainname.isEmpty { pod.domainname = domainname }
        if !dns.isEmpty { pod.nameService.servers = dns }
        // The docker CLI's way to say none at all.
        if !dnsSearch.isEmpty { pod.nameService.search = dnsSearch == ["."] ? [] : dnsSearch }
        if !dnsOption.isEmpty { pod.nameService.options = dnsOption }
        pod.extraHosts += addHost.map { line in
            // `name=address` is the newer spelling.
            guard let equals = line.firstIndex(of: "=") else { return line }
            return line[..<equals] + ":" + line[line.index(after: equals)...]
        }
    }

    private func applyNetworks(to pod: inout PodSpec) throws {
        guard !network.isEmpty else {
            guard networkAlias.isEmpty, ip == nil, ip6 == nil, bandwidth == nil else {
                throw ValidationError(
                    "--network-alias, --ip, --ip6 and --bandwidth need --network with the name of a network")
            }
            return
        }
        let kinds: [String: PodSpec.Network] = ["bridge": .bridge, "default": .bridge, "host": .host, "none": .none]
        pod.attachments = []
        pod.namespaces.network = .own
        if network.count == 1, let kind = kinds[network[0]] {
            pod.network = kind
        } else if network.count == 1, network[0].hasPrefix("container:") {
            pod.network = .container
            pod.namespaces.network = .container(String(network[0].dropFirst(10)))
        } else {
            pod.network = network.contains("bridge") ? .bridge : .attached
            pod.attachments = network.filter { $0 != "bridge" }.map {
                NetworkAttachment(network: $0, aliases: networkAlias)
            }
            pod.attachments[0].address = ip
            pod.attachments[0].address6 = ip6
            pod.attachments[0].bandwidth = bandwidth
        }
        guard pod.attachments.isEmpty, !networkAlias.isEmpty || ip != nil || ip6 != nil || bandwidth != nil else {
            return
        }
        throw ValidationError("--network-alias, --ip, --ip6 and --bandwidth go only with networks that users made")
    }
}
