import ClusterSecurity
import Testing

@Suite struct TunnelKeysTests {
    private struct Node {
        let key = TunnelKeys.makeKey()
        let address: [UInt8]
        var publicKey: [UInt8] { TunnelKeys.publicKey(of: key) ?? [] }

        func secrets(_ peer: Node, address: [UInt8]? = nil, bytes: Int = 24) -> (outgoing: [UInt8], incoming: [UInt8])?
        {
            TunnelKeys.secrets(
                key: key, address: address ?? self.address, peerKey: peer.publicKey, peerAddress: peer.address,
                bytes: bytes)
        }
    }

    @Test func bothSidesAgreeAndDirectionsDiffer() throws {
        let (one, two) = (Node(address: [192, 0, 2, 1]), Node(address: [192, 0, 2, 2]))
        let (here, there) = (try #require(one.secrets(two)), try #require(two.secrets(one)))
        #expect(here.outgoing == there.incoming && here.incoming == there.outgoing)
        #expect(here.outgoing != here.incoming && here.outgoing.count == 24)
    }

    @Test func anotherKeyOrAddressIsAnotherSecret() throws {
        let (one, two) = (Node(address: [192, 0, 2, 1]), Node(address: [192, 0, 2, 2]))
        var seen: Set<[UInt8]> = []
        for secrets in [
            one.secrets(two), one.secrets(two, address: [192, 0, 2, 3]), Node(address: [192, 0, 2, 1]).secrets(two),
            one.secrets(Node(address: [192, 0, 2, 2])),
        ] {
            let secrets = try #require(secrets)
            seen.insert(secrets.outgoing)
            seen.insert(secrets.incoming)
        }
        #expect(seen.count == 8)
        let again = try #require(one.secrets(two))
        #expect(seen.contains(again.outgoing))
    }

    @Test func whatIsNoKeyIsRefused() {
        let one = Node(address: [192, 0, 2, 1])
        #expect(TunnelKeys.publicKey(of: [1, 2, 3]) == nil)
        // The points of small order come to the same with everybody's key.
        for bad in [[], [1], [UInt8](repeating: 0, count: 32), [1] + [UInt8](repeating: 0, count: 31)] {
            let secrets = TunnelKeys.secrets(
                key: one.key, address: one.address, peerKey: bad, peerAddress: [192, 0, 2, 2], bytes: 24)
            #expect(secrets == nil, "\(bad)")
        }
    }
}
