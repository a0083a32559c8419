import CNIPlugin
import CNISpec
import Netfilter
import PortmapPlugin
import Synchronization

/// What ports of the node lead to pods of some networks, as the plugin portmap has put it into the kernel, so that it can be
/// looked at and mended without the plugin; and where plugins are at work.
///
/// All functions may block. They belong to the network namespace of the thread that calls.
final class PortKeeper: Sendable {
    fileprivate struct Key: Hashable {
        let network: String
        let attachment: PluginAttachment

        init(_ attachment: NetworkAttachment, _ network: String) {
            self.network = network
            self.attachment = PluginAttachment(
                containerID: attachment.containerID, interface: attachment.interface)
        }
    }

    private struct State {
        var wanted: [Key: PublishedAttachment] = [:]
        /// Plugins are at it just now, or could not end it.
        var moving: Set<Key> = []
        /// All that there ever was something of.
        var networks: Set<String> = []
    }

    private let state = Mutex(State())

    /// Says that an attachment comes or goes: what there is of it is neither missing nor too much.
    func begin(_ attachment: NetworkAttachment, on network: String) {
        let hasPorts = !attachment.capabilities.portMappings.isEmpty
        state.withLock { state in
            state.moving.insert(Key(attachment, network))
            guard hasPorts else { return }
            state.networks.insert(network)
            state.wanted[Key(attachment, network)] = nil
        }
    }

    /// Says how it ended.
    ///
    /// - Parameter result: of ADD; nil: it is not there any more. Where Debian's portmap has published there is nothing to
    ///   keep.
    func settle(_ attachment: NetworkAttachment, on network: String, _ result: CNIResult?) {
        let ports = attachment.capabilities.portMappings
        let key = Key(attachment, network)
        if ports.isEmpty { return state.withLock { _ = $0.moving.remove(key) } }
        let published = result.flatMap {
            try? PublishedAttachment(network: network, attachment: key.attachment, ports: ports, result: $0)
        }
        state.withLock { state in
            state.networks.insert(network)
            state.wanted[key] = published
            state.moving.remove(key)
        }
    }

    /// Networks on which an attachment comes or goes.
    var moving: Set<String> { state.withLock { Set($0.moving.map(\.network)) } }

    /// Compares the table of published ports with what should be in it; with `repairs` it is that afterwards.
    func look(repairs: Bool) -> [String] {
        state.withLock { state in
            if state.networks.isEmpty { return [] }
            let (wanted, moving, networks) = (state.wanted, state.moving, state.networks)
            do throws(CNIError) {
                return try PortRepair.look(Array(wanted.values), repairs: repairs) { network, attachment in
                    let key = Key(network, attachment)
                    // The node's own network has the same name at another agent on this machine.
                    return network.hasPrefix(BridgeNetwork.userPrefix) && networks.contains(network)
                        && wanted[key] == nil && !moving.contains(key)
                }
            } catch {
                return [error.message]
            }
        }
    }

    /// Whether something was taken out of the table that is no single port: those the plugin takes out itself.
    func isForeign(_ event: FilterEvent) -> Bool {
        event.family == .inet && event.table == PortRepair.table && event.isDeletion && !event.isOfElement
            && state.withLock { !$0.wanted.isEmpty }
    }
}

extension PortKeeper.Key {
    fileprivate init(_ network: String, _ attachment: PluginAttachment) {
        self.network = network
        self.attachment = attachment
    }
}
