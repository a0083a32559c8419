import CKernel
import Glibc
import JSON
import Kernel
import OCISpec
import Testing

/// A seccomp agent: takes listeners over a unix socket and answers what they ask, on a thread of its own.
final class SeccompAgent {
    /// What a notified call gets: an error number, or 0 to let the kernel do it.
    typealias Answer = @Sendable (_ call: Int32) -> Int32

    let path: String
    private let listener: OwnedFD
    private let stop: OwnedFD
    private let answer: Answer
    private var thread = pthread_t()
    // Written by the thread, read when it has been joined.
    private var states: [JSONValue] = []
    private var asked: [Int32] = []
    private var connections: [SharedFD] = []
    private var joined = false

    init(_ path: String, answer: @escaping Answer) throws {
        self.path = path
        self.answer = answer
        listener = try UnixSocket.listen(path)
        stop = OwnedFD(adopting: try systemCall("eventfd") { eventfd(0, Int32(EFD_CLOEXEC)) })
        let passed = Unmanaged.passRetained(self)
        let result = pthread_create(
            &thread, nil,
            { context in
                // SAFETY: retained for this thread alone.
                if let context { Unmanaged<SeccompAgent>.fromOpaque(context).takeRetainedValue().serve() }
                return nil
            }, passed.toOpaque())
        guard result == 0 else {
            passed.release()
            throw KernelError("pthread_create", errno: result)
        }
    }

    /// Ends the agent: the container process states it was sent, one for each connection, and the calls it was asked
    /// about. Nothing more came over any connection than its state, and its end.
    func finish() -> (states: [JSONValue], asked: [Int32]) {
        if !joined {
            var one: UInt64 = 1
            _ = write(stop.raw, &one, 8)
            pthread_join(thread, nil)
            joined = true
        }
        for connection in connections {
            var byte: UInt8 = 0
            #expect(recv(connection.raw, &byte, 1, Int32(MSG_DONTWAIT)) == 0)
        }
        return (states, asked)
    }

    private func serve() {
        var filters: [SharedFD] = []
        while true {
            var polls = [stop.raw, listener.raw].map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
            polls += filters.map { pollfd(fd: $0.raw, events: Int16(POLLIN), revents: 0) }
            guard poll(&polls, nfds_t(polls.count), -1) > 0, polls[0].revents == 0 else { return }
            for (filter, entry) in zip(filters, polls.dropFirst(2)) where entry.revents & Int16(POLLIN) != 0 {
                reply(filter.raw)
            }
            filters = zip(filters, polls.dropFirst(2)).filter { $0.1.revents & Int16(POLLHUP) == 0 }.map(\.0)
            if polls[1].revents != 0, let filter = accept() { filters.append(filter) }
        }
    }

    /// One connection: a state with one descriptor. Its end is looked at later: runc forgets to close it while it runs.
    private func accept() -> SharedFD? {
        guard let connection = try? UnixSocket.accept(listener.raw) else { return nil }
        let kept = SharedFD(connection)
        guard let received = try? UnixSocket.receive(kept.raw, limit: 1 << 16, maximumDescriptors: 1),
            let state = try? JSONValue.parse(received.bytes)
        else { return nil }
        connections.append(kept)
        states.append(state)
        return received.descriptors.first
    }

    /// See seccomp_unotify(2): `struct seccomp_notif` and `struct seccomp_notif_resp`.
    private func reply(_ filter: Int32) {
        var request = [UInt64](repeating: 0, count: 10)
        guard ck_ioctl(filter, 0xc050_2100, &request) == 0 else { return }
        let call = Int32(truncatingIfNeeded: request[2])
        asked.append(call)
        let number = answer(call)
        // The error, negative, in the lower half; SECCOMP_USER_NOTIF_FLAG_CONTINUE in the upper.
        let last = number == 0 ? UInt64(1) << 32 : UInt64(UInt32(bitPattern: -number))
        var response: [UInt64] = [request[0], 0, last]
        _ = ck_ioctl(filter, 0xc018_2101, &response)
    }
}
