import HTTPTypes
import Hummingbird

/// Keeps web pages out of a listener on TCP: a page that a browser shows can make it send requests to loopback
/// addresses, and a name under the page's control can be made to mean one ("DNS rebinding").
enum OriginCheck {
    /// - Parameter accepted: host names in lower case, without port; nil to check nothing.
    /// - Throws: `APIError` 403 when `Host` or `Origin` names another host, 400 when there is not exactly one `Host`.
    static func check(_ request: Request, _ accepted: Set<String>?) throws(APIError) {
        guard let accepted else { return }
        guard let authority = request.head.authority,
            !request.headers.contains(where: { $0.name.canonicalName == "host" })
        else {
            throw .badRequest("a request over TCP needs exactly one Host header field", code: "invalid-http")
        }
        guard accepted.contains(host(of: authority)) else {
            throw .forbidden("Host '\(authority)' is not a name of this listener")
        }
        for origin in request.headers[values: .origin] {
            guard let separator = origin.firstRange(of: "://"),
                accepted.contains(host(of: origin[separator.upperBound...]))
            else {
                throw .forbidden("requests from web pages of '\(origin)' are not accepted")
            }
        }
    }

    /// The host in `host`, `host:port`, `[v6]` or `[v6]:port`, in lower case.
    private static func host(of authority: some StringProtocol) -> String {
        let text = authority.lowercased()
        if text.hasPrefix("[") {
            return String(text.prefix { $0 != "]" }.dropFirst())
        }
        return String(text.prefix { $0 != ":" })
    }
}
