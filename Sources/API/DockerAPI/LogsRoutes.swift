import Client
import HTTPService
import Hummingbird
import JSON
import Kernel
import Master
import MasterCore
import Model
import NIOCore
import NIOHTTP1
import StreamFrames
import Wire

extension DockerAPI {
    var logRoutes: [DockerRoute] {
        [DockerRoute(.get, "/containers/{id}/logs", access: .read) { try await logs($0) }]
    }

    private func logs(_ call: DockerCall) async throws -> Response {
        let (stdout, stderr) = (call.query.flag("stdout"), call.query.flag("stderr"))
        guard stdout || stderr else {
            throw DockerError.badRequest("Bad parameters: you must choose at least one stream")
        }
        let follow = call.query.flag("follow")
        var query = "stdout=\(stdout)&stderr=\(stderr)&follow=\(follow)&padded=true"
        query += "&timestamps=\(call.query.flag("timestamps"))&indented=\(call.query.flag("details"))"
        for key in ["since", "until"] {
            // 0 says nothing, as with dockerd.
            guard let time = try call.query.time(key), time.nanoseconds != 0 else { continue }
            query += "&\(key)=\(Client.PercentEncoding.encode(time.description))"
        }
        // Whatever is no number means all, as Docker has it.
        if let tail = call.query["tail"].flatMap({ Int($0) }), tail >= 0 { query += "&tail=\(tail)" }
        // In a task of its own: what it needs for the look at the container is free again while the log is followed.
        let source = try await call.context.untilPeerCloses { [query] in
            try await logSource(call.id, query, isFollowed: follow)
        }
        let type = call.streamType(multiplexed: source.isMultiplexed)
        return .bytes(call.context, contentType: type) { body in
            guard let answer = source.answer else { return }
            var translation = LogTranslation(isMultiplexed: source.isMultiplexed)
            for try await piece in answer.body {
                let bytes = try translation.take(piece)
                if bytes.readableBytes > 0 { try await body.write(bytes) }
            }
        }
    }

    private func logSource(_ ref: String, _ query: String, isFollowed: Bool) async throws -> LogSource {
        let view = try await container(ref)
        guard view.spec.logging.isKept else {
            throw DockerError.notImplemented("configured logging driver does not support reading")
        }
        let isMultiplexed = !view.spec.terminal
        // Without a node there was never a line.
        if view.task == nil, !isFollowed { return LogSource(isMultiplexed: isMultiplexed, answer: nil) }
        let (streams, task) = try await streams(of: view)
        let answer = try await streams.open(.GET, NodeStreams.path(task, "logs"), query: query)
        return LogSource(isMultiplexed: isMultiplexed, answer: answer)
    }
}

/// Where a container's log comes from.
private struct LogSource: Sendable {
    let isMultiplexed: Bool
    /// The agent's; nil: there is none.
    let answer: Client.Response?
}

/// Turns frames of ours into Docker's: all that is complete of each piece at once.
struct LogTranslation {
    let isMultiplexed: Bool
    private var decoder = FrameDecoder()

    init(isMultiplexed: Bool) { self.isMultiplexed = isMultiplexed }

    /// - Throws: `FrameError`.
    mutating func take(_ piece: ByteBuffer) throws -> ByteBuffer {
        decoder.append(piece.readableBytesView)
        var output = ByteBuffer()
        while let frame = try decoder.next() {
            switch frame {
            case .stdout(let bytes): add(bytes, .stdout, to: &output)
            case .stderr(let bytes): add(bytes, .stderr, to: &output)
            default: break
            }
        }
        return output
    }

    private func add(_ bytes: [UInt8], _ stream: DockerStream.Output, to output: inout ByteBuffer) {
        if isMultiplexed { output.writeMultipleIntegers(UInt32(stream.rawValue) << 24, UInt32(bytes.count)) }
        output.writeBytes(bytes)
    }
}
