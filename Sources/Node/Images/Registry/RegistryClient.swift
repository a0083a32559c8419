import AsyncHTTPClient
import Glibc
import Kernel
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import Synchronization

/// One HTTP exchange with any host, by the configuration's rules. Redirects and logins are `RegistrySession`'s.
final class RegistryClient: Sendable {
    /// A request's body, made anew for each try.
    struct Body: Sendable {
        let make: @Sendable () -> HTTPClientRequest.Body
    }

    struct Request: Sendable {
        var method: HTTPMethod = .GET
        var url: RegistryURL
        var headers = HTTPHeaders()
        var body: Body?
    }

    let configuration: RegistryConfiguration
    let settings: TransferSettings
    private let proxies: ProxySettings
    private let options: HTTPClient.Configuration
    /// By the proxy that they go through; nil for none.
    private let clients = Mutex<[ProxySettings.Proxy?: HTTPClient]>([:])

    init(configuration: RegistryConfiguration, settings: TransferSettings, proxies: ProxySettings) {
        self.configuration = configuration
        self.settings = settings
        self.proxies = proxies
        var options = HTTPClient.Configuration(
            redirectConfiguration: .disallow,
            timeout: .init(
                connect: TimeAmount(settings.connectTimeout), read: TimeAmount(settings.idleTimeout),
                write: TimeAmount(settings.idleTimeout)))
        // Otherwise a failed handshake is repeated until the connect timeout, and its reason is lost.
        options.connectionPool.retryConnectionEstablishment = false
        self.options = options
    }

    deinit { for client in clients.withLock({ $0 }).values { client.shutdown { _ in } } }

    private func client(for url: RegistryURL) -> HTTPClient {
        let proxy = proxies.proxy(for: url)
        return clients.withLock { clients in
            if let known = clients[proxy] { return known }
            var options = options
            options.proxy = proxy.map { .init($0) }
            let client = HTTPClient(configuration: options)
            clients[proxy] = client
            return client
        }
    }

    /// Sends a request and returns once the head of the answer is there.
    ///
    /// - Throws: `TransferFailure` for what may pass, `ImageError` for a certificate that is not trusted.
    func exchange(_ request: Request) async throws -> HTTPClientResponse {
        var message = HTTPClientRequest(url: request.url.description)
        message.method = request.method
        message.headers = request.headers
        message.headers.replaceOrAdd(name: "user-agent", value: "martlet")
        // A transport's compression would change lengths and digests.
        message.headers.replaceOrAdd(name: "accept-encoding", value: "identity")
        message.body = request.body?.make()
        if request.url.isSecure { message.tlsConfiguration = try trust(request.url) }
        do {
            return try await client(for: request.url).execute(message, deadline: .distantFuture)
        } catch {
            try Task.checkCancellation()
            if let error = error as? ImageError { throw error }
            let host = request.url.authority
            guard !Self.isDistrust(error) else {
                throw ImageError(
                    .unavailable,
                    "the certificate of \(host) is not trusted (\(Self.explanation(error))); if the host has its own "
                        + "authority, name its file as ca in the registry configuration")
            }
            let proxy = proxies.proxy(for: request.url).map { " through the proxy \($0.host):\($0.port)" } ?? ""
            throw TransferFailure("\(host) cannot be reached\(proxy): \(Self.explanation(error))")
        }
    }

    /// TLS settings for a host; nil for the system's.
    private func trust(_ url: RegistryURL) throws -> TLSConfiguration? {
        guard let path = configuration.authorities(url.host, url.port) else { return nil }
        do {
            let certificates = try NIOSSLCertificate.fromPEMBytes(File.read(path, limit: 1 << 20))
            guard !certificates.isEmpty else { throw ImageError(.invalidArgument, "it has no certificate") }
            var tls = TLSConfiguration.makeClientConfiguration()
            tls.additionalTrustRoots = [.certificates(certificates)]
            return tls
        } catch {
            throw ImageError(
                .invalidArgument, "the authorities of \(url.authority), \(path), cannot be used: \(error)")
        }
    }

    private static func isDistrust(_ error: any Error) -> Bool {
        if let error = error as? NIOSSLExtraError, error == .failedToValidateHostname { return true }
        return "\(error)".contains("CERTIFICATE_VERIFY_FAILED")
    }

    /// What an error of the transport means.
    static func explanation(_ error: any Error) -> String {
        switch error {
        case let error as HTTPClientError where error == .readTimeout: "no byte came in time"
        case let error as HTTPClientError where error == .writeTimeout: "it took no byte in time"
        case let error as HTTPClientError where error == .connectTimeout || error == .tlsHandshakeTimeout:
            "no connection in time"
        case let error as HTTPClientError
        where error == .remoteConnectionClosed || error == .uncleanShutdown || error == .bodyLengthMismatch:
            "the connection was closed before the end"
        case let error as HTTPClientError: error.shortDescription
        case let error as IOError: String(errno: error.errnoCode)
        case let error as NIOConnectionError where !error.connectionErrors.isEmpty:
            explanation(error.connectionErrors[0].error)
        case is NIOConnectionError, is SocketAddressError.UnknownHost:
            "no name server knows the host, or none answers"
        default: printable(String("\(error)".prefix(300)))
        }
    }

    /// Whether a URL that a server names may be asked: plain HTTP only where it is allowed, and never from TLS.
    func mayFollow(_ url: RegistryURL, from source: RegistryURL) -> Bool {
        url.isSecure || !source.isSecure && configuration.allowsPlain(url.host, url.port)
    }

    /// Reads the answer's body, of at most `limit` bytes.
    static func body(_ response: HTTPClientResponse, limit: Int, _ subject: String) async throws -> [UInt8] {
        let length = response.headers.first(name: "content-length").flatMap { UInt64($0) }
        return try await ContentStream(offset: 0, length: length, bytes: response.body).collect(
            limit: limit, subject)
    }
}

extension TimeAmount {
    init(_ duration: Duration) {
        self = .nanoseconds(
            duration.components.seconds * 1_000_000_000 + duration.components.attoseconds / 1_000_000_000)
    }
}
