import HTTPService
import Hummingbird

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
    /// A loopback address that serves the API too; nil: none.
    package var tcp: (host: String, port: Int)?
    package var limits = ServiceLimits()

    package init() {}

    var socket: String { socketPath ?? "\(runDirectory)/martlet.sock" }
    var storeDirectory: String { "\(dataDirectory)/store" }
    var storePath: String { "\(storeDirectory)/martlet.db" }
}

/// One API over the master: adds its routes to the router that all faces share.
package typealias MasterFace = @Sendable (Router<ServiceContext>, ClusterMaster) -> Void
