import HTTPService
import Hummingbird
import Wire

/// What a master is started with.
package struct MasterConfiguration: Sendable {
    /// What outlives a boot; made with mode 0700. The store is `store/martlet.db` in it.
    package var dataDirectory = "/var/lib/martlet"
    /// Sockets; made with mode 0750.
    package var runDirectory = "/run/martlet"
    /// Where the API is served; nil: `martlet.sock` in the run directory.
    package var socketPath: String?
    /// Who may use the socket besides root, when there is such a group.
    package var group: String? = "martlet"
    package var limits = ServiceLimits()
    /// How other machines reach the cluster from now on; nil: as was said before.
    package var settings: ClusterSettings?

    package init() {}

    var socket: String { socketPath ?? "\(runDirectory)/martlet.sock" }
    var storeDirectory: String { "\(dataDirectory)/store" }
    var authorityDirectory: String { "\(dataDirectory)/authority" }
    var auditPath: String { "\(dataDirectory)/audit.log" }
    var storePath: String { "\(storeDirectory)/martlet.db" }
    var secretsKeyPath: String { "\(storeDirectory)/secrets.key" }
}

/// One API over the master: adds its routes to the router that all faces share.
package typealias MasterFace = @Sendable (Router<ServiceContext>, ClusterMaster) -> Void
