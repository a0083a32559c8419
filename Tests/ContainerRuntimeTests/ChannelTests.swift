import Glibc
import Kernel
import Testing

@testable import ContainerRuntime

/// What the runtime takes from the process that becomes the container.
@Suite struct ChannelTests {
    /// The size of every message, see cstage_container.h.
    private let message = [UInt8](repeating: 0, count: 1016)

    @Test(arguments: [2, 3]) func `more descriptors than one are refused, and none stays open`(count: Int) throws {
        let sockets = try UnixSocket.pair(.packets)
        var ends: [Int32] = [-1, -1]
        try systemCall("pipe") { pipe(&ends) }
        defer { close(ends[0]) }
        try UnixSocket.send(sockets.far.raw, message, descriptors: [Int32](repeating: ends[1], count: count))
        close(ends[1])
        let near = sockets.near.raw
        #expect(throws: KernelError.self) { try Channel(socket: near).receive() }
        // The pipe has an end when nobody has its other side.
        var state = pollfd(fd: ends[0], events: Int16(POLLIN), revents: 0)
        poll(&state, 1, 0)
        #expect(state.revents & Int16(POLLHUP) != 0)
        _ = sockets.near.raw
    }

    @Test func `a message of another size, and one whose text goes beyond it, are refused`() throws {
        let sockets = try UnixSocket.pair(.packets)
        var long = message
        long.replaceSubrange(8..<12, with: [0xe9, 3, 0, 0])
        for wrong in [Array(message.dropLast()), message + [0], long] {
            try UnixSocket.send(sockets.far.raw, wrong)
            let near = sockets.near.raw
            #expect(throws: KernelError.self) { try Channel(socket: near).receive() }
        }
        try UnixSocket.send(sockets.far.raw, message)
        #expect(try Channel(socket: sockets.near.raw).receive()?.text == "")
    }
}
