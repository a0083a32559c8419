import MasterCore
import Model

/// What the master counts of its own work.
package struct Figures: Sendable {
    package var commits = 0
    package var writes = 0
    package var failedCommits = 0
    package var commitTime = Duration.zero
    /// Why the last transaction was not committed; nil when it was.
    package var storeProblem: String?
}

extension ClusterMaster {
    /// The numbers that `/metrics` shows.
    package struct Snapshot: Sendable {
        package var tally: MasterCore.Tally
        package var figures: Figures
        package var watchers: Int
    }

    package var snapshot: Snapshot {
        Snapshot(tally: core.tally, figures: figures, watchers: watches.count)
    }

    /// nil: all is well.
    package var healthProblem: String? {
        if core.clusterID == nil { return "the store is being read" }
        return figures.storeProblem.map { "the store cannot be written: \($0)" }
    }

    package var clusterID: String { core.clusterID ?? "" }

    package var nodeIDs: [NodeID] { core.nodeIDs }
}
