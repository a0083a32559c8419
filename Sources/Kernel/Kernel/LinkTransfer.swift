import CKernel
import Glibc

/// A network link that goes from the caller's network namespace into another one.
package struct LinkTransfer: Sendable, Equatable {
    /// What it is called here.
    package let name: String
    /// What it is called there; with `%d` at the end the kernel puts the first free number.
    package let newName: String

    /// Names as `isName` has them.
    package init(name: String, newName: String) {
        self.name = name
        self.newName = newName
    }

    /// Whether the kernel takes a text as a link's name: 1 to 15 bytes without `/`, `:` and white space.
    ///
    /// - Parameter template: also one that ends in `%d`.
    package static func isName(_ text: String, template: Bool) -> Bool {
        let bytes = Array(text.utf8)
        guard (1...15).contains(bytes.count), text != ".", text != ".." else { return false }
        guard bytes.allSatisfy({ $0 > 32 && $0 != 127 && $0 != UInt8(ascii: "/") && $0 != UInt8(ascii: ":") }) else {
            return false
        }
        let plain = template && text.hasSuffix("%d") ? bytes.dropLast(2) : bytes[...]
        return !plain.contains(UInt8(ascii: "%"))
    }

    private var isTemplate: Bool { newName.hasSuffix("%d") }

    /// Moves links, and sets them up where they arrive with the permanent addresses of global scope that they have here.
    ///
    /// The kernel takes a link down and drops its addresses when it moves. What can be known to fail is found out
    /// before the first one goes.
    ///
    /// - Parameter namespace: a descriptor of the network namespace; the calling thread enters it for a moment.
    /// - Throws: `KernelError` that names the link: ENODEV, EEXIST, or what the kernel says. Links that have moved by
    ///   then stay where they are.
    package static func move(_ links: [LinkTransfer], to namespace: Int32) throws(KernelError) {
        if links.isEmpty { return }
        var here = try RouteSocket()
        var there = try RouteSocket(in: namespace)
        let numbers = try Self.numbers(&here)
        let present = try Self.numbers(&there)
        var taken = Set(present.values)
        var arrivals: [(link: LinkTransfer, index: Int32, newIndex: Int32)] = []
        for link in links {
            guard let index = numbers[link.name] else {
                throw KernelError(
                    "move", "link \(link.name)", errno: ENODEV, hint: "the runtime's network namespace has none")
            }
            if !link.isTemplate, present[link.newName] != nil {
                throw KernelError(
                    "move", "link \(link.name)", errno: EEXIST,
                    hint: "the container's network namespace has a \(link.newName) already")
            }
            // Kept where it is free; else the kernel would choose, and not say what.
            let newIndex = taken.contains(index) ? (taken.max() ?? 0) + 1 : index
            taken.insert(newIndex)
            arrivals.append((link, index, newIndex))
        }
        let addresses = try LinkAddress.all(&here)
        for arrival in arrivals {
            let subject = "link \(arrival.link.name)"
            var request = RouteRequest(
                CK_RTM_SETLINK, flags: CK_NLM_F_ACK, header: RouteRequest.link(index: arrival.index))
            request.put(CK_IFLA_IFNAME, Array(arrival.link.newName.utf8) + [0])
            request.put(CK_IFLA_NET_NS_FD, [UInt8](of: namespace))
            request.put(CK_IFLA_NEW_IFINDEX, [UInt8](of: arrival.newIndex))
            try here.send(request, "move", subject)
            for address in addresses where address.index == arrival.index && address.isKept {
                try there.send(address.request(for: arrival.newIndex), "give its address to", subject)
            }
            // IFF_UP
            let up: UInt32 = 1
            let header = RouteRequest.link(index: arrival.newIndex, flags: up, change: up)
            try there.send(RouteRequest(CK_RTM_SETLINK, flags: CK_NLM_F_ACK, header: header), "set up", subject)
        }
    }

    /// The links of a namespace, by name.
    private static func numbers(_ socket: inout RouteSocket) throws(KernelError) -> [String: Int32] {
        let request = RouteRequest(CK_RTM_GETLINK, flags: CK_NLM_F_DUMP, header: RouteRequest.link(index: 0))
        var result: [String: Int32] = [:]
        for answer in try socket.list(request, "network links", headerLength: 16) {
            guard let name = answer.text(CK_IFLA_IFNAME), let index = answer.payload.number(4, Int32.self) else {
                throw KernelError("list", "network links", errno: EBADMSG)
            }
            result[name] = index
        }
        return result
    }
}

/// An address of a link, as the kernel lists it.
private struct LinkAddress {
    let index: Int32
    private let family: UInt8
    private let prefixLength: UInt8
    private let scope: UInt8
    private let flags: UInt32
    private let attributes: [(Int, [UInt8])]

    /// Permanent and of global scope: meant for the link wherever it is, not a lease and nothing of the host's.
    var isKept: Bool { flags & UInt32(CK_IFA_F_PERMANENT) != 0 && Int(scope) == CK_RT_SCOPE_UNIVERSE }

    static func all(_ socket: inout RouteSocket) throws(KernelError) -> [LinkAddress] {
        let request = RouteRequest(CK_RTM_GETADDR, flags: CK_NLM_F_DUMP, header: [UInt8](repeating: 0, count: 8))
        var result: [LinkAddress] = []
        for answer in try socket.list(request, "addresses", headerLength: 8) {
            guard let address = LinkAddress(answer) else { throw KernelError("list", "addresses", errno: EBADMSG) }
            result.append(address)
        }
        return result
    }

    /// nil for a header that is cut off.
    private init?(_ answer: RouteAnswer) {
        let header = answer.payload
        guard let family = header.number(0, UInt8.self), let length = header.number(1, UInt8.self),
            let oldFlags = header.number(2, UInt8.self), let scope = header.number(3, UInt8.self),
            let index = header.number(4, Int32.self)
        else { return nil }
        self.family = family
        prefixLength = length
        self.scope = scope
        self.index = index
        flags = answer.attributes[CK_IFA_FLAGS]?.number(0, UInt32.self) ?? UInt32(oldFlags)
        attributes = [CK_IFA_LOCAL, CK_IFA_ADDRESS, CK_IFA_BROADCAST, CK_IFA_RT_PRIORITY].compactMap { type in
            answer.attributes[type].map { (type, Array($0)) }
        }
    }

    /// The request that gives it to a link.
    func request(for index: Int32) -> RouteRequest {
        let header = [family, prefixLength, 0, scope] + [UInt8](of: index)
        var request = RouteRequest(
            CK_RTM_NEWADDR, flags: CK_NLM_F_ACK | CK_NLM_F_CREATE | CK_NLM_F_REPLACE, header: header)
        for (type, value) in attributes { request.put(type, value) }
        // What was asked for when it was given; the rest is what became of it.
        let asked =
            CK_IFA_F_NODAD | CK_IFA_F_HOMEADDRESS | CK_IFA_F_MANAGETEMPADDR | CK_IFA_F_NOPREFIXROUTE
            | CK_IFA_F_MCAUTOJOIN
        request.put(CK_IFA_FLAGS, [UInt8](of: flags & UInt32(asked)))
        return request
    }
}
