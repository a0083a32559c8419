import Glibc
import Kernel
import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization
import Testing

@testable import Images

@Suite struct ProxyTests {
    private func settings(_ variables: [String: String]) throws -> ProxySettings { try ProxySettings { variables[$0] } }

    private func proxy(_ url: String, _ variables: [String: String]) throws -> String? {
        let found = try settings(variables).proxy(for: try #require(RegistryURL(url)))
        return found.map { "\($0.host):\($0.port)" }
    }

    @Test func theSchemeAndTheHostSayWhichProxyIsUsed() throws {
        let both = ["HTTPS_PROXY": "http://proxy.lan:3128/", "http_proxy": "other.lan"]
        #expect(try proxy("https://registry.lan", both) == "proxy.lan:3128")
        #expect(try proxy("http://registry.lan:5000", both) == "other.lan:80")
        #expect(try proxy("https://127.0.0.1:5000", both) == nil)
        #expect(try proxy("https://localhost", both) == nil)
        #expect(try proxy("https://registry.lan", [:]) == nil)
        #expect(try proxy("https://registry.lan", ["HTTPS_PROXY": ""]) == nil)
    }

    @Test func someHostsAreAskedDirectly() throws {
        let variables = [
            "HTTPS_PROXY": "proxy:1", "NO_PROXY": "a.lan, .b.lan,*.c.lan,d.lan:5000,10.0.0.0/9,2001:db8::/32",
        ]
        for host in ["a.lan", "x.a.lan", "x.b.lan", "x.c.lan", "d.lan:5000", "10.127.0.1:5000", "[2001:db8:1::1]"] {
            #expect(try proxy("https://\(host)", variables) == nil, "\(host)")
        }
        for host in ["xa.lan", "b.lan", "d.lan", "10.128.0.1", "[2001:db9::1]", "example.org"] {
            #expect(try proxy("https://\(host)", variables) == "proxy:1", "\(host)")
        }
        #expect(try proxy("https://example.org", ["HTTPS_PROXY": "proxy:1", "NO_PROXY": "*"]) == nil)
    }

    @Test(arguments: [
        ("socks5://proxy:1", "socks5"), ("https://proxy:1", "https"), ("http://proxy:x", "HTTPS_PROXY"),
        ("http://u:geheim%2@proxy", "HTTPS_PROXY"),
    ])
    func whatIsNotSupportedIsNamed(value: String, word: String) throws {
        do {
            _ = try settings(["HTTPS_PROXY": value])
            Issue.record("\(value) was taken")
        } catch let error as ImageError {
            #expect(error.message.contains(word) && !error.message.contains("geheim"), "\(error)")
        }
    }

    @Test(.enabled(if: geteuid() == 0, "needs root to unpack layers"))
    func anImageIsPulledThroughAProxyThatAloneKnowsTheHost() async throws {
        let image = try SampleImage(layers: [200_000])
        let registry = try FaultyRegistry(["1": image])
        let proxy = try ConnectProxy(to: registry.server.port)
        let place = try StoreFixture()
        let client = try Registry(
            RegistryConfiguration(hosts: ["registry.invalid:5000": .init(plainHTTP: true)]), fetcher: place.fetcher
        ) {
            ["HTTPS_PROXY": "http://user:p%40ss@127.0.0.1:\(proxy.port)"][$0]
                ?? ["HTTP_PROXY": "127.0.0.1:\(proxy.port)"][$0]
        }
        try place.expectWhole(try await client.pull(ImageReference("registry.invalid:5000/team/app:1")))
        let heads = proxy.heads
        #expect(
            !heads.isEmpty && heads.allSatisfy { $0.hasPrefix("CONNECT registry.invalid:5000 HTTP/1.1") }, "\(heads)")
        #expect(heads.first?.contains("Basic dXNlcjpwQHNz") == true, "\(heads)")
        // The login at the proxy is the proxy's alone.
        #expect(registry.server.requests.allSatisfy { !$0.headers.contains(name: "proxy-authorization") })
    }
}

/// A proxy that takes CONNECT to anywhere, and leads it to one port of this machine.
private final class ConnectProxy: Sendable {
    let port: Int
    private let channel: any Channel
    private let state: HeadLog

    init(to target: Int) throws {
        let log = HeadLog()
        state = log
        channel = try ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(ConnectHandler(log, target))
                }
            }
            .bind(host: "127.0.0.1", port: 0).wait()
        port = channel.localAddress?.port ?? 0
    }

    deinit { channel.close(promise: nil) }

    var heads: [String] { state.heads.withLock { $0 } }
}

private final class HeadLog: Sendable {
    let heads = Mutex<[String]>([])
}

/// Reads the request's head, answers 200, and passes bytes on.
private final class ConnectHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let log: HeadLog
    private let target: Int
    private var head = ByteBuffer()
    private var isOpen = false
    private var other: (any Channel)?

    init(_ log: HeadLog, _ target: Int) {
        self.log = log
        self.target = target
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        if let other { return other.writeAndFlush(bytes, promise: nil) }
        head.writeBuffer(&bytes)
        let text = String(buffer: head)
        guard !isOpen, text.hasSuffix("\r\n\r\n") else { return }
        isOpen = true
        log.heads.withLock { $0.append(text) }
        let near = context.channel
        let bound = NIOLoopBound(self, eventLoop: context.eventLoop)
        ClientBootstrap(group: context.eventLoop)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(PassOn(near))
                }
            }
            .connect(host: "127.0.0.1", port: target)
            .whenSuccess { far in
                bound.value.other = far
                near.writeAndFlush(ByteBuffer(string: "HTTP/1.1 200 OK\r\n\r\n"), promise: nil)
            }
    }

    func channelInactive(context: ChannelHandlerContext) { other?.close(promise: nil) }
    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}

private final class PassOn: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    private let other: any Channel

    init(_ other: any Channel) { self.other = other }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        other.writeAndFlush(unwrapInboundIn(data), promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) { other.close(promise: nil) }
    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
