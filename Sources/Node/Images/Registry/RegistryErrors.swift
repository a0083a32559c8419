import AsyncHTTPClient
import JSON
import NIOHTTP1

extension RegistrySession {
    /// What a registry says about a request that it refuses (distribution-spec, "Error codes").
    private struct Refusal: Decodable {
        struct Reason: Decodable {
            var code: String?
            var message: String?
        }
        var errors: [Reason]?
    }

    /// Throws what an unexpected answer means.
    ///
    /// - Parameter subject: what was asked for, to be read after "of": `manifest latest of team/app`.
    /// - Throws: `TransferFailure` for what may pass; `ImageError`: unauthorized, notFound, unavailable.
    func refuse(_ response: HTTPClientResponse, _ subject: String) async throws -> Never {
        let status = response.status
        let said = try await reason(response)
        let answer = "\(endpoint.name) answers \(status.code)\(said) for \(subject)"
        switch status.code {
        case 401, 403:
            throw ImageError(
                .unauthorized,
                credentials.map { "\(answer); \($0) is refused there, or may not do that" }
                    ?? "\(answer); there may be no such repository, or it needs a login (martlet login \(endpoint.name))"
            )
        case 404: throw ImageError(.notFound, answer)
        case 408, 425, 429, 500...599:
            let wish = response.headers.first(name: "retry-after").flatMap { Self.patience($0, now: .now()) }
            throw TransferFailure(answer, retryAfter: wish)
        case 300...399: throw ImageError(.unavailable, "\(answer), a redirect that is not followed")
        default: throw ImageError(.unavailable, answer)
        }
    }

    /// What `Retry-After` asks for: seconds, or a date in the one form that is still written (RFC 9110, section 10.2.3);
    /// nil for anything else.
    static func patience(_ text: String, now: Timestamp) -> Duration? {
        if let seconds = UInt32(text) { return .seconds(seconds) }
        // Sun, 06 Nov 1994 08:49:37 GMT
        let words = text.prefix(64).split(separator: " ")
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        guard words.count == 6, words[5] == "GMT", let month = months.firstIndex(of: String(words[2])),
            let date = Timestamp(
                rfc3339: "\(words[3])-\(month < 9 ? "0" : "")\(month + 1)-\(words[1])T\(words[4])Z")
        else { return nil }
        return .nanoseconds(max(0, date.nanoseconds - now.nanoseconds))
    }

    /// The registry's own words, short and printable; empty where there are none.
    private func reason(_ response: HTTPClientResponse) async throws -> String {
        guard response.headers.first(name: "content-length") != "0" else { return "" }
        let bytes: [UInt8]
        do {
            bytes = try await RegistryClient.body(response, limit: 64 << 10, "the answer")
        } catch is CancellationError {
            throw CancellationError()
        } catch {
            return ""
        }
        guard let refusal = try? JSONCoding.decode(Refusal.self, from: bytes),
            let first = refusal.errors?.first, let text = first.message ?? first.code
        else { return "" }
        return " (\(printable(String(text.prefix(200)))))"
    }
}
