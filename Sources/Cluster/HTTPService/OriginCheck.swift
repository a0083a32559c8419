import HTTPTypes
import Hummingbird

/// Keeps web pages of others out of a listener on TCP: a page that a browser shows can make it send requests to
/// addresses that its author does not reach himself, with the browser's own certificate.
enum OriginCheck {
    /// - Throws: `APIError` 403 when `Origin` names another host than `Host`, 400 when there is not exactly one `Host`.
    static func check(_ request: Request) throws(APIError) {
        guard let authority = request.head.authority,
            !request.headers.contains(where: { $0.name.canonicalName == "host" })
        else {
            throw .badRequest("a request over TCP needs exactly one Host header field", code: "invalid-http")
        }
        for origin in request.headers[values: .origin] {
            guard let separator = origin.firstRange(of: "://"),
                origin[separator.upperBound...].lowercased() == authority.lowercased()
            else {
                throw .forbidden("requests from web pages of '\(origin)' are not accepted")
            }
        }
    }
}
