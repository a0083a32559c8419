import Glibc
import Hummingbird
import Logging
import NIOCore
import NIOPosix
import ServiceLifecycle
import Synchronization

/// Listens on one or more endpoints and answers with one router.
///
/// ```
/// let router = makeRouter()
/// router.get("/api/v1/nodes") { request, context in try Response.json(nodes) }
/// let server = try await HTTPServer.listen(on: [.unix(path: path, group: "martlet")], router: router, logger: logger)
/// try await server.run()
/// ```
package final class HTTPServer: Service {
    /// Where it really listens; a TCP port 0 is replaced by the one the kernel chose.
    package let endpoints: [Endpoint]

    private let respond: ConnectionLoop.Responder
    private let limits: ServiceLimits
    private let logger: Logger
    private let acceptor: Acceptor
    private let listeners: [any Channel]
    private let unixListeners: [UnixListener]

    private init(
        endpoints: [Endpoint], respond: @escaping ConnectionLoop.Responder, limits: ServiceLimits, logger: Logger,
        acceptor: Acceptor, listeners: [any Channel], unixListeners: [UnixListener]
    ) {
        self.endpoints = endpoints
        self.respond = respond
        self.limits = limits
        self.logger = logger
        self.acceptor = acceptor
        self.listeners = listeners
        self.unixListeners = unixListeners
    }

    /// Begins to listen: when it returns, clients can connect; they are answered once `run` is called.
    ///
    /// - Parameters:
    ///   - router: made with `makeRouter` and complete: routes added later are not served.
    ///   - role: what this server is, for the error of an endpoint that is taken: "master".
    /// - Throws: `ListenError` with a sentence for the operator. Nothing stays open then.
    package static func listen(
        on endpoints: [Endpoint], router: Router<ServiceContext>, role: String = "master",
        limits: ServiceLimits = ServiceLimits(), logger: Logger
    ) async throws -> HTTPServer {
        try await listen(on: endpoints, respond: responder(for: router), role: role, limits: limits, logger: logger)
    }

    /// Begins to listen elsewhere too, with the same routes: a server of its own, which is run and ended by itself.
    ///
    /// - Throws: `ListenError`.
    package func another(on endpoint: Endpoint, role: String = "master") async throws -> HTTPServer {
        try await Self.listen(on: [endpoint], respond: respond, role: role, limits: limits, logger: logger)
    }

    private static func listen(
        on endpoints: [Endpoint], respond: @escaping ConnectionLoop.Responder, role: String, limits: ServiceLimits,
        logger: Logger
    ) async throws -> HTTPServer {
        let acceptor = Acceptor(limits: limits, logger: logger)
        var bound: [Endpoint] = []
        var channels: [any Channel] = []
        var unixListeners: [UnixListener] = []
        do {
            for endpoint in endpoints {
                switch endpoint {
                case .unix(let path, let group):
                    let listener = try UnixListener(path: path, group: group, role: role)
                    unixListeners.append(listener)
                    let bootstrap = acceptor.bootstrap(tls: nil)
                    let descriptor = listener.takeDescriptor()
                    channels.append(try await bootstrap.withBoundSocket(descriptor).get())
                    // NIO has called listen(2) again, with a backlog of its own.
                    Glibc.listen(descriptor, Acceptor.backlog)
                    bound.append(endpoint)
                case .tls(let host, let port, let identity):
                    let channel = try await listenTLS(host, port, identity, role, acceptor)
                    channels.append(channel)
                    bound.append(.tls(host: host, port: channel.localAddress?.port ?? port, identity))
                }
            }
        } catch {
            for channel in channels { try? await channel.close() }
            for listener in unixListeners { listener.remove() }
            acceptor.stop()
            throw error
        }
        return HTTPServer(
            endpoints: bound, respond: respond, limits: limits, logger: logger, acceptor: acceptor,
            listeners: channels, unixListeners: unixListeners)
    }

    private static func listenTLS(
        _ host: String, _ port: Int, _ identity: TLSIdentity, _ role: String, _ acceptor: Acceptor
    ) async throws -> any Channel {
        let bootstrap = acceptor.bootstrap(tls: identity)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
        do {
            return try await bootstrap.bind(host: host, port: port).get()
        } catch let error as IOError where error.errnoCode == EADDRINUSE {
            throw ListenError(
                description: "port \(port) of \(host) is taken: another \(role) or program is listening there")
        } catch {
            throw ListenError(
                description: "cannot listen on \(Endpoint.tls(host: host, port: port, identity)): \(error)")
        }
    }

    /// Serves until the surrounding service group shuts down gracefully or the task is cancelled.
    ///
    /// A graceful shutdown stops listening, lets requests be finished, ends line streams and waits, and cuts what is
    /// left after `ServiceLimits.shutdownTimeout`. Cancelling cuts everything at once.
    package func run() async throws {
        await withTaskCancellationHandler {
            await withGracefulShutdownHandler {
                await serve()
            } onGracefulShutdown: {
                self.drain()
            }
        } onCancel: {
            acceptor.cut.fire()
            drain()
        }
        for listener in listeners { try? await listener.closeFuture.get() }
        acceptor.abortAll()
    }

    /// Serves all connections, until they have ended or are cut.
    private func serve() async {
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await self.serveConnections() }
            group.addTask { await self.acceptor.cut.wait() }
            await group.next()
            group.cancelAll()
        }
    }

    private func serveConnections() async {
        let cutter = Mutex<Task<Void, Never>?>(nil)
        await withDiscardingTaskGroup { group in
            for await connection in acceptor.accepted {
                group.addTask { await connection.run(respond: self.respond, logger: self.logger) }
            }
            // Here the shutdown has begun.
            cutter.withLock { cutter in
                cutter = Task { [limits, acceptor] in
                    try? await Task.sleep(for: limits.shutdownTimeout)
                    if !Task.isCancelled { acceptor.cut.fire() }
                }
            }
        }
        cutter.withLock { $0 }?.cancel()
    }

    /// Stops listening and tells all connections to end.
    private func drain() {
        for listener in unixListeners { listener.remove() }
        for listener in listeners { listener.close(promise: nil) }
        acceptor.drain()
    }
}
