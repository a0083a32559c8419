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
            let seconds = response.headers.first(name: "retry-after").flatMap { UInt32($0) }
            throw TransferFailure(answer, retryAfter: seconds.map { .seconds($0) })
        case 300...399: throw ImageError(.unavailable, "\(answer), a redirect that is not followed")
        default: throw ImageError(.unavailable, answer)
        }
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
