import JSON
import Model
import Wire

/// Which of the agents that say they are a node is believed.
///
/// An agent process keeps a random word and shows it with its next registration along with the new process's own. The
/// last word that was answered is in the node's record, so that of two copies of a data directory only one goes on.
extension MasterCore {
    /// - Returns: the word to keep.
    func session(of known: Node?, _ body: NodeRegistration, now: Timestamp) throws(APIProblem) -> String? {
        guard let next = body.nextSession else { return known?.session }
        guard (16...64).contains(next.utf8.count), next.utf8.allSatisfy(Admission.isAlphanumeric) else {
            throw APIProblem(.badRequest, "$.nextSession is not 16 to 64 letters and digits")
        }
        guard let known, let last = known.session, last != next else { return next }
        guard body.session == last else {
            throw APIProblem(
                .conflict,
                "the node \(known.name) (\(known.id)) has gone on with another copy of this data directory: a machine that "
                    + "was cloned needs a data directory of its own, and a token to join with")
        }
        if memory[known.id]?.connected == true, memory[known.id]?.isSilent(at: steady) == false {
            throw APIProblem(
                .nodeConnected,
                "another agent is connected as the node \(known.name) (\(known.id)): a machine that was cloned needs a data "
                    + "directory of its own, and a token to join with")
        }
        return next
    }

    /// The caller speaks for the node that it registers.
    func checkSpeaker(_ node: NodeID) throws(APIProblem) {
        guard case .node(let own) = acting else { return }
        guard own == node else {
            throw APIProblem(.forbidden, "the certificate is of the node \(own), which does not speak for \(node)")
        }
        guard state.nodes[own] != nil else {
            throw APIProblem(
                .forbidden,
                "the node \(own) was removed from the cluster: join again with a new data directory and a token")
        }
    }

    /// Whether the text is where an agent may serve: a unix socket, or a port with TLS.
    static func isStreamEndpoint(_ text: String) -> Bool {
        text.utf8.count <= 280 && (text.hasPrefix("unix:/") || isContentEndpoint(text))
    }

    static func isContentEndpoint(_ text: String) -> Bool {
        text.utf8.count <= 280 && text.hasPrefix("https://") && text.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F }
    }
}
