import CNISpec
import Glibc
import Kernel
import Netlink
import Synchronization

/// What encrypts the packets of encrypted networks between nodes: for each peer two of IPsec's security associations and two
/// policies, and two policies by which nothing else comes or goes at their port. See docs/networks.md.
///
/// An association is made once of what it is made of: its numbers, which AES-GCM must not see twice with a key, begin with
/// it. So associations stay when a peer goes, without policies that use them, until the last encrypted network goes; what
/// was lost is made again with another key of this node.
///
/// All functions block, and are called with the lock of the fabric's state held.
final class OverlayTunnels: Sendable {
    private let cryptography: TunnelCryptography?
    /// Why this node cannot encrypt; nil: it can.
    let lack: String?
    private let store: OverlayStore
    private let state = Mutex(State())
    private let listener = Mutex(Listener())

    /// In a struct, because a closure that a `Mutex` holds bare is wrapped once more by each access.
    private struct Listener: Sendable {
        var keyChanged: (@Sendable () -> Void)?
    }

    private struct State: Sendable {
        /// Empty: not loaded yet.
        var key: [UInt8] = []
        var publicKey: [UInt8] = []
        var used: Set<TunnelUse> = []
        /// What the file says was used: all of that, and what the kernel refused.
        var written: Set<TunnelUse> = []
        /// What there is with each peer, also with those that have gone.
        var tunnels: [IPAddress: Tunnel] = [:]
    }

    private struct Tunnel: Sendable {
        let use: TunnelUse
        /// The incoming one, then the outgoing one.
        let associations: [SecurityAssociation]
        /// In the same order.
        let keys: [[UInt8]]
    }

    /// - Parameter cryptography: nil: nothing is encrypted, and the kernel is not asked whether it could.
    init(_ cryptography: TunnelCryptography?, isV6: Bool, store: OverlayStore) {
        self.cryptography = cryptography
        self.store = store
        lack = cryptography == nil ? "this agent encrypts nothing" : Self.lack(isV6: isV6)
    }

    /// Makes an association that nothing uses, and takes it away: the kernel loads its modules for it, where it has them.
    private static func lack(isV6: Bool) -> String? {
        let own: [UInt8] = isV6 ? [UInt8](repeating: 0, count: 15) + [1] : [127, 0, 0, 1]
        let probe = SecurityAssociation(
            from: own, to: own, number: 0x6d61_7274, request: OverlayNumbers.request,
            port: OverlayNumbers.encryptedPort)
        do throws(KernelError) {
            var socket = try NetlinkSocket(.transform)
            let key = [UInt8](repeating: 0, count: SecurityAssociation.keyBytes)
            try socket.send(probe.request(key: key).tolerating(EEXIST))
            try socket.send(probe.deletion())
            return nil
        } catch {
            return error.description + "; it takes the kernel's modules xfrm_user, \(isV6 ? "esp6" : "esp4") and gcm"
        }
    }

    /// Has `body` called when this node has another public key, with locks held.
    func onKeyChange(_ body: @escaping @Sendable () -> Void) { listener.withLock { $0.keyChanged = body } }

    /// What others need to know to agree with this node; nil: it cannot encrypt.
    func publicKey() throws(KernelError) -> [UInt8]? {
        guard lack == nil else { return nil }
        return try state.withLock { state throws(KernelError) in
            try load(&state)
            return state.publicKey
        }
    }

    // MARK: The key

    /// Takes over the key of the process before, or makes one.
    private func load(_ state: inout State) throws(KernelError) {
        guard state.key.isEmpty, let cryptography else { return }
        guard let record = store.tunnels(), let publicKey = cryptography.publicKey(record.key) else {
            return try renew(&state, isFirst: true)
        }
        (state.key, state.publicKey, state.used) = (record.key, publicKey, Set(record.uses))
        state.written = state.used
        for use in record.uses { state.tunnels[use.peer] = tunnel(use, state) }
    }

    /// Makes another key, of which nothing was used. What there is of the one before has to be taken away.
    private func renew(_ state: inout State, isFirst: Bool = false) throws(KernelError) {
        guard let cryptography else { return }
        let key = cryptography.makeKey()
        guard let publicKey = cryptography.publicKey(key) else {
            throw KernelError("make a key", "encrypted networks", errno: EINVAL)
        }
        try store.write(TunnelRecord(key: key))
        state = State(key: key, publicKey: publicKey)
        if !isFirst { listener.withLock { $0 }.keyChanged?() }
    }

    /// Nil when there is nothing to be agreed on.
    private func tunnel(_ use: TunnelUse, _ state: State) -> Tunnel? {
        guard use.own.family == use.peer.family, use.key.count == TunnelCryptography.publicKeyBytes,
            let secrets = cryptography?.agree(state.key, use.own.bytes, use.key, use.peer.bytes),
            secrets.incoming.count == TunnelCryptography.Secrets.bytes, secrets.outgoing.count == secrets.incoming.count
        else { return nil }
        func association(_ secret: [UInt8], from: IPAddress, to: IPAddress) -> SecurityAssociation {
            let number = secret.suffix(4).reduce(0) { $0 << 8 | UInt32($1) }
            // Small numbers are reserved (RFC 4303, section 2.1).
            return SecurityAssociation(
                from: from.bytes, to: to.bytes, number: number | 0x8000_0000, request: OverlayNumbers.request,
                port: OverlayNumbers.encryptedPort)
        }
        return Tunnel(
            use: use,
            associations: [
                association(secrets.incoming, from: use.peer, to: use.own),
                association(secrets.outgoing, from: use.own, to: use.peer),
            ], keys: [secrets.incoming, secrets.outgoing].map { Array($0.prefix(SecurityAssociation.keyBytes)) })
    }

    // MARK: Peers

    /// What belongs to a peer whose packets are encrypted.
    private static func policies(_ peer: IPAddress, own: IPAddress) -> [SecurityPolicy] {
        let port = OverlayNumbers.encryptedPort
        let action = SecurityPolicy.Action.encrypt(request: OverlayNumbers.request)
        let priority = OverlayNumbers.policyPriority
        return [
            SecurityPolicy(
                IPsecSelector(from: peer.bytes, to: own.bytes, port: port), .in, action, priority: priority),
            SecurityPolicy(
                IPsecSelector(from: own.bytes, to: peer.bytes, port: port), .out, action, priority: priority),
        ]
    }

    /// By which nothing comes or goes that is for no peer. VXLAN's socket hears at all addresses of the node, and sends from
    /// one; what pods send to that port of each other passes the node with other sources, and is nobody's business here.
    private static func blocks(own: IPAddress) -> [SecurityPolicy] {
        let (isV6, port) = (own.family == .v6, OverlayNumbers.encryptedPort)
        let selectors: [(IPsecSelector, SecurityPolicy.Direction)] = [
            (IPsecSelector(from: nil, to: nil, isV6: isV6, port: port), .in),
            (IPsecSelector(from: own.bytes, to: nil, isV6: isV6, port: port), .out),
        ]
        return selectors.map { SecurityPolicy($0, $1, .drop, priority: OverlayNumbers.blockPriority) }
    }

    /// Has packets to and from peers encrypted.
    ///
    /// - Parameter peers: public keys by addresses; with an empty one nothing passes.
    /// - Returns: false when this takes another key of this node, see `look`.
    func connect(_ peers: [IPAddress: [UInt8]], own: IPAddress) throws(KernelError) -> Bool {
        // Until the node's address is known.
        if own.isLoopback { return true }
        return try state.withLock { state throws(KernelError) in
            try load(&state)
            var socket = try NetlinkSocket(.transform)
            for (peer, key) in peers where !key.isEmpty && peer.family == own.family {
                let use = TunnelUse(own: own, peer: peer, key: key)
                if state.tunnels[peer]?.use != use {
                    if state.used.contains(use) || state.used.count >= TunnelRecord.mostUses { return false }
                    try make(use, &state, &socket)
                }
                for policy in Self.policies(peer, own: own) { try socket.send(policy.request()) }
            }
            return true
        }
    }

    /// Makes the two associations in the place of those that there are with the peer.
    private func make(_ use: TunnelUse, _ state: inout State, _ socket: inout NetlinkSocket) throws(KernelError) {
        guard let tunnel = tunnel(use, state) else {
            throw KernelError(
                "agree on keys", "\(use.peer)", errno: EINVAL, hint: "its public key is none; restart its agent")
        }
        // Before it is used: after a crash nobody uses it again.
        if !state.written.contains(use) { try store.append(use) }
        state.written.insert(use)
        failpoint("overlay.after_use_record")
        var made: [SecurityAssociation] = []
        do throws(KernelError) {
            for (association, key) in zip(tunnel.associations, tunnel.keys) {
                try socket.send(association.request(key: key))
                made.append(association)
            }
        } catch {
            // The incoming one alone, which has numbered nothing.
            for association in made { try? socket.send(association.deletion()) }
            throw error
        }
        state.used.insert(use)
        for old in state.tunnels[use.peer]?.associations ?? [] { try socket.send(old.deletion()) }
        state.tunnels[use.peer] = tunnel
    }

    /// Lets nothing pass to and from addresses any more.
    func disconnect(_ peers: some Sequence<IPAddress>, own: IPAddress) throws(KernelError) {
        var writer = try NetlinkWriter(.transform)
        for peer in peers where peer.family == own.family {
            for policy in Self.policies(peer, own: own) { try writer.add(policy.deletion()) }
        }
        try writer.flush()
        if let refusal = writer.refusals.first { throw refusal }
    }

    // MARK: What should be and what is

    /// Compares; with `repairs` it is so afterwards, be it with another key of this node.
    ///
    /// - Parameter wanted: public keys of peers by addresses; nil: there are no encrypted networks.
    /// - Returns: what differed, and what could not be mended.
    func look(
        _ wanted: [IPAddress: [UInt8]]?, own: IPAddress, repairs: Bool
    ) throws(KernelError) -> [String] {
        if let lack { return wanted == nil ? [] : ["nothing of encrypted networks passes: \(lack)"] }
        return try state.withLock { state throws(KernelError) in
            try load(&state)
            var socket = try NetlinkSocket(.transform)
            var words: [String] = []
            let present = Set(try SecurityAssociation.all(&socket).filter { $0.request == OverlayNumbers.request })
            guard let wanted else {
                words = try lookAtPolicies([], repairs: repairs, &socket)
                words += try sweep(present, repairs: repairs, &socket)
                if repairs, !state.used.isEmpty { try renew(&state) }
                return words
            }
            // What passes in the clear is stopped first.
            if repairs { words += try lookAtPolicies(nil, own: own, repairs: true, &socket) }
            for (peer, tunnel) in state.tunnels where !tunnel.associations.allSatisfy({ present.contains($0) }) {
                state.tunnels[peer] = nil
            }
            var policies = Self.blocks(own: own)
            var uses: [TunnelUse] = []
            for (peer, key) in wanted.sorted(by: { "\($0.key)" < "\($1.key)" }) where !own.isLoopback {
                guard peer.family == own.family, !key.isEmpty else {
                    words.append("nothing of encrypted networks goes to \(peer): it has no public key for it")
                    continue
                }
                uses.append(TunnelUse(own: own, peer: peer, key: key))
                policies += Self.policies(peer, own: own)
            }
            let missing = uses.filter { state.tunnels[$0.peer]?.use != $0 }
            words += missing.map { "the security associations with \($0.peer) are missing" }
            if repairs,
                missing.contains(where: { state.used.contains($0) }) || state.used.count >= TunnelRecord.mostUses
            {
                try renew(&state)
                for association in present { try socket.send(association.deletion()) }
            }
            if repairs {
                for use in uses where state.tunnels[use.peer]?.use != use {
                    do throws(KernelError) {
                        try make(use, &state, &socket)
                    } catch {
                        // The others are not to wait for this one.
                        words.append(error.description)
                    }
                }
            }
            let kept = Set(state.tunnels.values.flatMap(\.associations))
            words += try sweep(present.subtracting(kept), repairs: repairs, &socket, isTold: missing.isEmpty)
            return words + (try lookAtPolicies(policies, repairs: repairs, &socket))
        }
    }

    /// Takes away associations that are nobody's.
    private func sweep(
        _ stray: Set<SecurityAssociation>, repairs: Bool, _ socket: inout NetlinkSocket, isTold: Bool = true
    ) throws(KernelError) -> [String] {
        if repairs { for association in stray { try socket.send(association.deletion()) } }
        return stray.isEmpty || !isTold ? [] : ["\(stray.count) security associations are too much"]
    }

    /// - Parameter own: look at nothing but what stops all else.
    private func lookAtPolicies(
        _ wanted: [SecurityPolicy]?, own: IPAddress? = nil, repairs: Bool, _ socket: inout NetlinkSocket
    ) throws(KernelError) -> [String] {
        let present = Set(
            try SecurityPolicy.all(&socket).filter {
                $0.selector.port == OverlayNumbers.encryptedPort
                    && [OverlayNumbers.policyPriority, OverlayNumbers.blockPriority].contains($0.priority)
            })
        let needed = Set(wanted ?? own.map { Self.blocks(own: $0) } ?? [])
        let missing = needed.subtracting(present)
        let extra = wanted == nil ? [] : present.subtracting(needed)
        if repairs {
            for policy in missing { try socket.send(policy.request()) }
            for policy in extra { try socket.send(policy.deletion()) }
        }
        return missing.map { Self.words($0) + " is missing" }.sorted()
            + extra.map { Self.words($0) + " is too much" }.sorted()
    }

    private static func words(_ policy: SecurityPolicy) -> String {
        let selector = policy.selector
        if policy.action == .drop { return "the policy that drops what is not encrypted (\(policy.direction))" }
        let end = IPAddress(bytes: (policy.direction == .in ? selector.source : selector.destination) ?? [])
        return "the policy that encrypts what \(policy.direction == .in ? "comes from" : "goes to") "
            + (end?.description ?? "?")
    }

    /// Forgets the key, after which there is nothing of it in the kernel.
    func forget() throws(KernelError) {
        try state.withLock { state throws(KernelError) in
            state = State()
            try store.removeTunnels()
        }
    }
}
