import CNISpec
import Glibc
import Kernel
import Netlink
import Synchronization

/// What encrypts the packets of encrypted networks between nodes: for each peer two of IPsec's security associations and two
/// policies, and two policies by which nothing else comes or goes at their port. See docs/networks.md.
///
/// An association is made once of what it is made of: its numbers, which AES-GCM must not see twice with a key, begin with
/// it. So associations stay when a peer goes, and when the last encrypted network goes, without policies that use them; what
/// was lost, or may not have come to be, is made again with another key of this node, now and then at most.
///
/// All functions block, and are called with the lock of the fabric's state held.
final class OverlayTunnels: Sendable {
    private let cryptography: TunnelCryptography?
    private let ability: Mutex<String?>
    private let store: OverlayStore
    private let state = Mutex(State())
    private let listener = Mutex(Listener())

    /// In a struct, because a closure that a `Mutex` holds bare is wrapped once more by each access.
    private struct Listener: Sendable {
        var keyChanged: (@Sendable () -> Void)?
    }

    private struct State: Sendable {
        /// Nil: not loaded yet.
        var record: TunnelRecord?
        var publicKey: [UInt8] = []
        /// What there is with each peer, also with those that have gone.
        var tunnels: [IPAddress: Tunnel] = [:]
        var renewal = TunnelRenewal()
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
        ability = Mutex(cryptography == nil ? "this agent encrypts nothing" : Self.lack(isV6: isV6))
    }

    /// Why this node cannot encrypt; nil: it can.
    var lack: String? { ability.withLock { $0 } }

    /// Tries again whether this node can encrypt; others hear of it when that is another answer than before.
    ///
    /// - Parameter isV6: of the node's address.
    func probe(isV6: Bool) {
        guard cryptography != nil else { return }
        let new = Self.lack(isV6: isV6)
        let isChanged = ability.withLock { lack in
            defer { lack = new }
            return (lack == nil) != (new == nil)
        }
        if isChanged { listener.withLock { $0 }.keyChanged?() }
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

    /// Has `body` called when this node has another public key, or can encrypt or cannot any more, with locks held.
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
    private func load(_ state: inout State, makes: Bool = true) throws(KernelError) {
        guard state.record == nil, let cryptography else { return }
        guard let record = store.tunnels(), let publicKey = cryptography.publicKey(record.key) else {
            if makes { try renew(&state, isFirst: true) }
            return
        }
        (state.record, state.publicKey) = (record, publicKey)
        for use in record.uses.reversed() where state.tunnels[use.peer] == nil {
            state.tunnels[use.peer] = tunnel(use, record.key)
        }
    }

    /// Makes another key, of which nothing was used. What there is of the one before has to be taken away.
    private func renew(_ state: inout State, isFirst: Bool = false) throws(KernelError) {
        guard let cryptography else { return }
        let key = cryptography.makeKey()
        guard let publicKey = cryptography.publicKey(key) else {
            throw KernelError("make a key", "encrypted networks", errno: EINVAL)
        }
        let record = TunnelRecord(key: key, boot: try Proc.bootID())
        try store.write(record)
        (state.record, state.publicKey, state.tunnels) = (record, publicKey, [:])
        if !isFirst { listener.withLock { $0 }.keyChanged?() }
    }

    /// Nil when there is nothing to be agreed on.
    private func tunnel(_ use: TunnelUse, _ key: [UInt8]) -> Tunnel? {
        guard use.own.family == use.peer.family, use.key.count == TunnelCryptography.publicKeyBytes,
            let secrets = cryptography?.agree(key, use.own.bytes, use.key, use.peer.bytes),
            secrets.incoming.count == TunnelCryptography.Secrets.bytes, secrets.outgoing.count == secrets.incoming.count
        else { return nil }
        func association(_ secret: [UInt8], from: IPAddress, to: IPAddress) -> SecurityAssociation {
            let number = secret.suffix(4).reduce(0) { $0 << 8 | UInt32($1) }
            // Small numbers are reserved (RFC 4303, section 2.1).
            return SecurityAssociation(
                from: from.bytes, to: to.bytes, number: number > 255 ? number : number | 1 << 31,
                request: OverlayNumbers.request, port: OverlayNumbers.encryptedPort)
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

    /// What there is to be with a peer; nil: nothing passes, for what is put into `words`.
    ///
    /// - Parameter keys: what it has for public keys.
    private func pairing(
        _ peer: IPAddress, _ keys: Set<[UInt8]>, own: IPAddress, _ state: State, _ words: inout [String]
    ) -> TunnelUse? {
        func refuse(_ why: String) -> TunnelUse? {
            words.append("nothing of encrypted networks goes to \(peer): \(why)")
            return nil
        }
        guard keys.count < 2 else {
            return refuse(
                "several nodes with different public keys are at that address; remove those that are there no more")
        }
        guard peer.family == own.family, let key = keys.first else { return refuse("it has no public key for it") }
        let use = TunnelUse(own: own, peer: peer, key: key)
        if state.tunnels[peer]?.use == use { return use }
        switch state.record?.standing(of: use) ?? .new {
        case .new, .current, .full: return use
        case .superseded:
            return refuse("its public key was replaced by another before; restart its machine, so that it makes one")
        case .worn:
            return refuse("it has had \(TunnelRecord.mostOfPeer) public keys; see to it, and restart this machine")
        }
    }

    /// Whether what is not there takes another key of this node.
    private static func takesKey(_ use: TunnelUse, _ state: State) -> Bool {
        guard state.tunnels[use.peer]?.use != use else { return false }
        return switch state.record?.standing(of: use) {
        case .current, .full: true
        default: false
        }
    }

    /// Has packets to and from peers encrypted; nothing passes where that cannot be.
    ///
    /// - Parameter peers: public keys by addresses; where there is not one nothing passes.
    /// - Returns: false when this takes another key of this node, see `look`.
    /// - Throws: the first that could not be; the others are in force.
    func connect(_ peers: [IPAddress: Set<[UInt8]>], own: IPAddress) throws(KernelError) -> Bool {
        // Until the node's address is known.
        if own.isLoopback || lack != nil { return true }
        return try state.withLock { state throws(KernelError) in
            try load(&state)
            var words: [String] = []
            var uses: [TunnelUse] = []
            for (peer, keys) in peers {
                if let use = pairing(peer, keys, own: own, state, &words) { uses.append(use) }
            }
            let new = uses.filter { state.tunnels[$0.peer]?.use != $0 && !Self.takesKey($0, state) }
            var socket = try NetlinkSocket(.transform)
            // Nothing passes under what was there before while that is exchanged.
            let kept = uses.filter { state.tunnels[$0.peer]?.use == $0 }.map(\.peer)
            try disconnect(Set(peers.keys).subtracting(kept), own: own)
            var failure = make(new, &state, &socket).first
            for use in uses where state.tunnels[use.peer]?.use == use {
                do throws(KernelError) {
                    for policy in Self.policies(use.peer, own: own) { try socket.send(policy.request()) }
                } catch {
                    failure = failure ?? error
                }
            }
            if let failure { throw failure }
            let takesKey = uses.contains { Self.takesKey($0, state) }
            return !takesKey || !state.renewal.isDue(at: Proc.uptimeNanoseconds())
        }
    }

    /// Makes the associations of uses, which are new, in the place of those that there are with their peers.
    ///
    /// - Returns: what could not be: who it is about has none of the use.
    private func make(_ uses: [TunnelUse], _ state: inout State, _ socket: inout NetlinkSocket) -> [KernelError] {
        guard let key = state.record?.key, !uses.isEmpty else { return [] }
        var errors: [KernelError] = []
        var tunnels: [Tunnel] = []
        for use in uses {
            if let tunnel = tunnel(use, key) {
                tunnels.append(tunnel)
            } else {
                errors.append(
                    KernelError(
                        "agree on keys", "\(use.peer)", errno: EINVAL,
                        hint: "its public key is none; restart its agent"))
            }
        }
        do throws(KernelError) {
            // Before it is used: after a crash nobody uses it again.
            if !tunnels.isEmpty { try store.append(tunnels.map(\.use)) }
        } catch {
            return errors + [error]
        }
        // Before the kernel is asked: it may have done what it is not heard to have done.
        for tunnel in tunnels { state.record?.insert(tunnel.use) }
        failpoint("overlay.after_use_record")
        for tunnel in tunnels {
            do throws(KernelError) {
                try make(tunnel, &state, &socket)
            } catch {
                // The others are not to wait for this one.
                errors.append(error)
            }
        }
        return errors
    }

    private func make(
        _ tunnel: Tunnel, _ state: inout State, _ socket: inout NetlinkSocket
    ) throws(KernelError) {
        for (index, (association, key)) in zip(tunnel.associations, tunnel.keys).enumerated() {
            do throws(KernelError) {
                try socket.send(association.request(key: key))
            } catch {
                // Also the one that was refused: it may be there all the same. One of its number that was there before is
                // another's.
                let made = tunnel.associations.prefix(error.errno == EEXIST ? index : index + 1)
                for association in made { try? socket.send(association.deletion()) }
                throw error
            }
        }
        let old = state.tunnels.updateValue(tunnel, forKey: tunnel.use.peer)
        for association in old?.associations ?? [] { try socket.send(association.deletion()) }
    }

    /// Lets nothing pass to and from addresses any more.
    func disconnect(_ peers: some Sequence<IPAddress>, own: IPAddress) throws(KernelError) {
        if lack != nil { return }
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
    /// - Parameter wanted: public keys of peers by addresses; nil: there are no encrypted networks. Associations stay then.
    /// - Returns: what differed, and what could not be mended.
    func look(
        _ wanted: [IPAddress: Set<[UInt8]>]?, own: IPAddress, repairs: Bool
    ) throws(KernelError) -> [String] {
        if cryptography == nil, wanted == nil { return [] }
        if repairs, wanted != nil, lack != nil { probe(isV6: own.family == .v6) }
        if let lack { return lookWithout(wanted, own: own, repairs: repairs, lack) }
        return try state.withLock { state throws(KernelError) in
            var socket = try NetlinkSocket(.transform)
            guard let wanted else { return try lookAtPolicies([], repairs: repairs, &socket) }
            var words: [String] = []
            // What passes in the clear is stopped first.
            if repairs { words += try lookAtPolicies(nil, own: own, repairs: true, &socket) }
            try load(&state, makes: repairs)
            let present = Set(try SecurityAssociation.all(&socket).filter(Self.isOurs))
            for (peer, tunnel) in state.tunnels where !tunnel.associations.allSatisfy({ present.contains($0) }) {
                state.tunnels[peer] = nil
            }
            var uses: [TunnelUse] = []
            for (peer, keys) in wanted.sorted(by: { "\($0.key)" < "\($1.key)" }) where !own.isLoopback {
                if let use = pairing(peer, keys, own: own, state, &words) { uses.append(use) }
            }
            let missing = uses.filter { state.tunnels[$0.peer]?.use != $0 }
            words += missing.map { "the security associations with \($0.peer) are missing" }
            if repairs, missing.contains(where: { Self.takesKey($0, state) }) {
                let now = Proc.uptimeNanoseconds()
                if state.renewal.isDue(at: now) {
                    state.renewal.begin(at: now)
                    try renew(&state)
                    for association in present { try socket.send(association.deletion()) }
                } else {
                    words.append(
                        "what is missing takes another key of this node, which it makes later: it has made one")
                }
            }
            if repairs {
                // With another key it is all of them.
                let new = uses.filter { state.tunnels[$0.peer]?.use != $0 && !Self.takesKey($0, state) }
                words += make(new, &state, &socket).map(\.description)
            }
            let kept = Set(state.tunnels.values.flatMap(\.associations))
            words += try sweep(present.subtracting(kept), repairs: repairs, &socket, isTold: missing.isEmpty)
            let served = repairs ? uses.filter { state.tunnels[$0.peer]?.use == $0 } : uses
            let policies = Self.blocks(own: own) + served.flatMap { Self.policies($0.peer, own: own) }
            return words + (try lookAtPolicies(policies, repairs: repairs, &socket))
        }
    }

    /// The same where this node cannot encrypt: of the kernel is asked what it can be asked.
    private func lookWithout(
        _ wanted: [IPAddress: Set<[UInt8]>]?, own: IPAddress, repairs: Bool, _ lack: String
    ) -> [String] {
        var words: [String] = wanted == nil ? [] : ["nothing of encrypted networks passes: \(lack)"]
        if var socket = try? NetlinkSocket(.transform) {
            let policies = wanted == nil ? [] : Self.blocks(own: own)
            words += (try? lookAtPolicies(policies, repairs: repairs, &socket)) ?? []
        }
        return words
    }

    private static func isOurs(_ association: SecurityAssociation) -> Bool {
        association.request == OverlayNumbers.request && association.port == OverlayNumbers.encryptedPort
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

    /// Takes away all that there is in the kernel, and then forgets the key.
    func removeAll() throws(KernelError) {
        try state.withLock { state throws(KernelError) in
            if cryptography != nil {
                do throws(KernelError) {
                    var socket = try NetlinkSocket(.transform)
                    _ = try lookAtPolicies([], repairs: true, &socket)
                    _ = try sweep(
                        Set(SecurityAssociation.all(&socket).filter(Self.isOurs)), repairs: true, &socket)
                } catch {
                    if lack == nil { throw error }
                }
            }
            (state.record, state.publicKey, state.tunnels) = (nil, [], [:])
            try store.removeTunnels()
        }
    }
}
