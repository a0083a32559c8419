import CKernel
import Glibc
import JSON
import Kernel
import ShimProtocol
import StreamFrames

/// One client's connection. Whatever the client sends, the worst that happens is that this connection ends.
final class Connection {
    /// What the connection is for.
    private enum Role {
        /// Waits for the client's request.
        case request
        /// The request is being served; nothing is read meanwhile.
        case busy
        /// Carries a process's stdio.
        case stream(StreamSession)
        case events
        /// The last frame is queued; what the client still sends is dropped.
        case ending
    }

    /// What a client's frames do to a process.
    struct StreamSession {
        let io: ProcessIO
        /// Whether this client may send input.
        let stdin: Bool
        /// What `end(0)` does.
        let endsInput: Bool
        let signal: (Int32) -> Void
        /// The client is gone.
        let disconnected: () -> Void
    }

    private let loop: EventLoop
    private let socket: SharedFD
    private unowned let shim: Shim
    private var role = Role.request
    private var decoder = FrameDecoder()
    private var output = ByteQueue()
    private var reachedEnd = false
    private var isClosed = false
    private var lastProgress = EventLoop.now()
    private var stallTimer: Int?
    private var lifeTimer: Int?

    /// Takes over a connected, non-blocking socket.
    init(_ socket: SharedFD, loop: EventLoop, shim: Shim) throws(KernelError) {
        self.socket = socket
        self.loop = loop
        self.shim = shim
        try loop.watch(socket.raw, EventLoop.readable) { [unowned self] events in handle(events) }
        lifeTimer = loop.after(milliseconds: ShimLimits.requestMilliseconds) { [unowned self] in close() }
    }

    /// Bytes that the client has not taken.
    var waitingBytes: Int { output.count }

    // MARK: Out

    func send(_ response: ShimResponse) { send(message: response) }

    func send(_ event: ShimEvent) {
        send(message: event)
        if waitingBytes > ShimLimits.eventsHighWater { close() }
    }

    private func send(message: some Encodable) {
        do {
            send(Frame.control(try JSONCoding.encode(message)))
        } catch {
            fail("the answer cannot be written: \(error)")
        }
    }

    func send(_ frame: Frame) {
        guard !isClosed else { return }
        output.append(frame)
        flush()
    }

    /// Output of a process.
    func send(_ data: ArraySlice<UInt8>, as kind: Frame.Kind) {
        guard !isClosed else { return }
        output.append(data, as: kind)
        flush()
    }

    /// Ends the connection with a sentence.
    func fail(_ text: String) {
        send(.error(text))
        finish()
    }

    /// Ends the connection when everything is sent.
    func finish() {
        guard !isClosed else { return }
        role = .ending
        loop.cancel(lifeTimer)
        lifeTimer = nil
        flush()
    }

    // MARK: Roles

    /// The rest of the connection is a process's stdio.
    func become(_ session: StreamSession) {
        guard !isClosed else {
            session.io.detach(self)
            return session.disconnected()
        }
        role = .stream(session)
        processFrames()
        updateEvents()
    }

    /// The rest of the connection is events.
    func becomeEvents() {
        role = .events
        updateEvents()
    }

    /// The process takes input again.
    func inputUnblocked() {
        processFrames()
        updateEvents()
    }

    // MARK: In

    private func handle(_ events: UInt32) {
        if events & EventLoop.writable != 0 { flush() }
        guard !isClosed, events & ~EventLoop.writable != 0 else { return }
        if wantsInput {
            read()
        } else if events & (EventLoop.hangUp | EventLoop.failed) != 0 {
            close()
        }
        if reachedEnd, events & EventLoop.hangUp != 0 { close() }
        if !isClosed { updateEvents() }
    }

    private var wantsInput: Bool {
        if reachedEnd { return false }
        switch role {
        case .request, .ending, .events: return true
        case .busy: return false
        case .stream(let session): return !session.io.inputBlocked
        }
    }

    private func read() {
        var count = 0
        let buffer = [UInt8](unsafeUninitializedCapacity: Frame.dataLimit) { memory, filled in
            count = recv(socket.raw, memory.baseAddress, memory.count, 0)
            filled = max(0, count)
        }
        if count < 0 {
            if errno != EAGAIN && errno != EINTR { close() }
            return
        }
        if count == 0 { return inputEnded() }
        switch role {
        case .ending, .events: break
        case .request, .busy, .stream:
            decoder.append(buffer)
            processFrames()
        }
    }

    private func inputEnded() {
        reachedEnd = true
        switch role {
        // Nothing was asked, or everything is answered.
        case .request: close()
        case .ending: if output.isEmpty { close() }
        case .busy, .stream, .events: break
        }
    }

    private func processFrames() {
        while !isClosed {
            let frame: Frame?
            switch role {
            case .busy, .ending, .events: return
            case .stream(let session) where session.io.inputBlocked: return
            case .request, .stream: break
            }
            do throws(FrameError) {
                frame = try decoder.next()
            } catch {
                return end(badInput: error.description)
            }
            guard let frame else { return }
            switch role {
            case .request: request(frame)
            case .stream(let session): session.take(frame) { end(badInput: $0) }
            case .busy, .ending, .events: return
            }
        }
    }

    /// The client does not speak our language: tells it so and ends the connection; a process goes on.
    private func end(badInput text: String) {
        leaveRole()
        fail(text)
    }

    private func request(_ frame: Frame) {
        guard case .control(let bytes) = frame else { return fail("expected a control frame with a request first") }
        let limits = JSONLimits(bytes: ShimProtocol.messageLimit, stringBytes: ShimProtocol.messageLimit)
        let request: ShimRequest
        do {
            request = try JSONCoding.decode(ShimRequest.self, from: bytes, limits: limits)
        } catch {
            return fail("the request is not understood: \(error)")
        }
        loop.cancel(lifeTimer)
        lifeTimer = nil
        role = .busy
        shim.serve(request, self)
        if !isClosed { updateEvents() }
    }

    // MARK: The socket

    private func flush() {
        guard !isClosed else { return }
        let before = output.count
        // MSG_NOSIGNAL: a client that is gone is an error number here, not a signal.
        let (written, progress) = output.flush {
            Glibc.send(socket.raw, $0, $1, Int32(MSG_NOSIGNAL))
        }
        if written > 0 { lastProgress = EventLoop.now() }
        if case .failed = progress { return close() }
        if before > ShimLimits.clientHighWater / 4, output.count <= ShimLimits.clientHighWater / 4,
            case .stream(let session) = role
        {
            session.io.clientPressureChanged()
        }
        if progress == .blocked, stallTimer == nil { watchStall() }
        if case .ending = role, output.isEmpty { linger() }
        if !isClosed { updateEvents() }
    }

    /// Drops a client that takes nothing for too long.
    private func watchStall() {
        let idle = EventLoop.now() - lastProgress
        stallTimer = loop.after(milliseconds: max(1, ShimLimits.clientStallMilliseconds - idle)) { [unowned self] in
            stallTimer = nil
            if output.isEmpty { return }
            if EventLoop.now() - lastProgress >= ShimLimits.clientStallMilliseconds { return close() }
            watchStall()
        }
    }

    /// Everything is sent. Closing at once with unread input would reset the connection under the client's last read.
    private func linger() {
        guard lifeTimer == nil else { return }
        if reachedEnd { return close() }
        shutdown(socket.raw, Int32(SHUT_WR))
        lifeTimer = loop.after(milliseconds: ShimLimits.lingerMilliseconds) { [unowned self] in close() }
    }

    private func updateEvents() {
        guard !isClosed else { return }
        var events: UInt32 = 0
        if wantsInput { events |= EventLoop.readable }
        if !output.isEmpty { events |= EventLoop.writable }
        if events == 0 {
            // Wake for the end of the connection, except while input is held back: bytes may be waiting behind it.
            if case .stream(let session) = role, session.io.inputBlocked, !reachedEnd {
                events = 0
            } else {
                events = EventLoop.failed
            }
        }
        do throws(KernelError) {
            try loop.setEvents(socket.raw, events)
        } catch {
            close()
        }
    }

    private func leaveRole() {
        let left = role
        role = .ending
        switch left {
        case .stream(let session):
            session.io.detach(self)
            session.disconnected()
        case .events, .request, .busy, .ending: break
        }
    }

    /// Ends the connection now.
    func close() {
        guard !isClosed else { return }
        isClosed = true
        loop.cancel(lifeTimer)
        loop.cancel(stallTimer)
        loop.forget(socket.raw)
        output.removeAll()
        leaveRole()
        shim.connectionClosed(self)
    }
}

extension Connection.StreamSession {
    /// Does what a client's frame asks; `refuse` gets a sentence when it makes no sense.
    fileprivate func take(_ frame: Frame, refuse: (String) -> Void) {
        switch frame {
        case .stdin(let bytes): if stdin { io.write(bytes) }
        case .end(0): if stdin, endsInput { io.endInput() }
        // Without a terminal, or when it has just ended, a size means nothing.
        case .resize(let columns, let rows): try? io.resize(columns: columns, rows: rows)
        case .signal(let number): signal(Int32(number))
        case .end, .stdout, .stderr, .exit, .error, .control:
            refuse("a client sends stdin, end(0), resize and signal frames only")
        }
    }
}
