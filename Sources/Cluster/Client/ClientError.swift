import Glibc
import JSON
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL

/// Why a request did not succeed, in a sentence that can be shown as it is.
package struct ClientError: Error, Sendable, Equatable, CustomStringConvertible {
    package enum Kind: Sendable, Equatable {
        /// Nobody listens at the address.
        case unreachable
        /// The socket may not be used by this user.
        case permission
        /// The server is not who it should be.
        case untrusted
        /// There was no answer in time.
        case timeout
        /// The connection ended before the answer was complete.
        case disconnected
        /// The server answered with an error; `status` and `code` are its.
        case refused
        /// The other end does not speak as it should.
        case badAnswer
        /// The address cannot be understood.
        case badAddress
    }

    package let kind: Kind
    /// The HTTP status; nil when there was no answer.
    package let status: Int?
    /// The server's word for the error, `not-found`; nil when it gave none.
    package let code: String?
    package let message: String

    package init(_ kind: Kind, _ message: String, status: Int? = nil, code: String? = nil) {
        self.kind = kind
        self.message = message
        self.status = status
        self.code = code
    }

    package var description: String { message }
}

extension ClientError {
    /// The error in a server's answer: `{"error":{"code":…,"message":…}}`, or whatever text there is.
    init(status: Int, body: [UInt8], role: ServerRole) {
        if let error = (try? JSONValue.parse(body))?["error"], let message = error["message"]?.stringValue {
            self.init(.refused, message, status: status, code: error["code"]?.stringValue)
        } else {
            let text = String(decoding: body.prefix(512), as: UTF8.self)
            let said = text.isEmpty ? "" : ": \(text)"
            self.init(.refused, "the \(role.rawValue) answered with status \(status)\(said)", status: status)
        }
    }

    /// A failure to connect to `address`.
    init(connecting error: any Error, to address: ServerAddress, role: ServerRole) {
        switch error {
        case let error as IOError:
            self = Self.connecting(error.errnoCode, address, role)
        case let error as NIOConnectionError:
            if let inner = error.connectionErrors.first?.error {
                self.init(connecting: inner, to: address, role: role)
            } else {
                self.init(
                    .unreachable, "the host of \(address) is not known: check the name, or give an address instead")
            }
        case ChannelError.connectTimeout:
            self.init(.timeout, "\(address) did not accept a connection within 5 s: is the \(role.rawValue) alive?")
        default:
            self.init(.unreachable, "cannot connect to \(address): \(error)")
        }
    }

    /// With TLS 1.3 a client learns only when it reads that its certificate was refused.
    private static func handshake(_ error: NIOSSLError, _ address: ServerAddress, _ role: ServerRole) -> String {
        switch error {
        case .handshakeFailed(.sslError(let errors)):
            "no TLS with \(address): \(errors.map { "\($0)" }.joined(separator: "; ")): is a \(role.rawValue) of the same "
                + "cluster listening there?"
        default: "no TLS with \(address): \(error)"
        }
    }

    private static func connecting(_ number: Int32, _ address: ServerAddress, _ role: ServerRole) -> ClientError {
        switch number {
        case ENOENT, ECONNREFUSED:
            ClientError(.unreachable, "no \(role.rawValue) is listening on \(address): \(role.remedy(at: address))")
        case EACCES, EPERM:
            if address.isOnNetwork {
                ClientError(
                    .unreachable, "this machine does not let anybody connect to \(address): look at its firewall")
            } else {
                ClientError(
                    .permission,
                    "\(address) may not be used by this user: run as root or as a member of the group martlet")
            }
        case EAGAIN:
            ClientError(.timeout, "the \(role.rawValue) on \(address) has too many connections waiting: try again")
        default:
            ClientError(
                .unreachable,
                "cannot connect to \(address): \(strerror(number).map { String(cString: $0) } ?? "error \(number)")")
        }
    }

    /// A failure on a connection that was made.
    init(exchanging error: any Error, with address: ServerAddress, role: ServerRole) {
        switch error {
        case let error as ClientError:
            self = error
        case NIOSSLError.uncleanShutdown:
            self.init(
                .disconnected, "the \(role.rawValue) on \(address) closed the connection before its answer was complete"
            )
        case let error as NIOSSLError:
            self.init(.untrusted, Self.handshake(error, address, role))
        case let error as HTTPParserError where error != .invalidEOFState:
            self.init(.badAnswer, "what listens on \(address) does not speak HTTP/1.1: \(error)")
        default:
            self.init(
                .disconnected, "the \(role.rawValue) on \(address) closed the connection before its answer was complete"
            )
        }
    }
}

/// What is expected at an address; it goes into errors.
package enum ServerRole: String, Sendable {
    case master
    case agent

    func remedy(at address: ServerAddress) -> String {
        switch (self, address.isOnNetwork) {
        case (.master, false): "start one with `martlet up`"
        case (.master, true):
            "check the address and that it runs; `martlet cluster enable --advertise ADDRESS` on its machine has it listen"
        case (.agent, _): "start one with `martlet agent`"
        }
    }
}
