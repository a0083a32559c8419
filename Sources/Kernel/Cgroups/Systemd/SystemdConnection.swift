import Glibc
import Kernel

/// A conversation with systemd's manager over D-Bus: one call at a time, each answer awaited for at most 30 seconds.
///
/// The manager listens itself, for root, on /run/systemd/private; where that is not there, the system bus passes
/// messages on.
package final class SystemdConnection {
    private let socket: OwnedFD
    private var serial: UInt32 = 0
    private var input: [UInt8] = []
    /// Jobs that have ended since we listen, by their object's path.
    private var endedJobs: [(job: String, result: String)] = []

    /// What a call came to.
    enum Answer {
        case values([DBusValue])
        case failure(name: String, text: String)
    }

    private static let managerPath = "/org/freedesktop/systemd1"
    private static let managerName = "org.freedesktop.systemd1"
    private static let busPath = "/run/dbus/system_bus_socket"
    private static let timeout = 30_000

    /// Whether this host was started by systemd, see sd_booted(3).
    package static var isRunning: Bool {
        var info = stat()
        return lstat("/run/systemd/system", &info) == 0 && info.st_mode & S_IFMT == S_IFDIR
    }

    /// Connects to the manager of this host.
    ///
    /// - Throws: `CgroupError`, of kind `unsupported` where systemd does not run.
    package static func open() throws(CgroupError) -> SystemdConnection {
        guard isRunning else {
            throw CgroupError(
                .unsupported, controller: "systemd", "/run/systemd/system", "this host was not started by systemd",
                hint: "leave out --systemd-cgroup")
        }
        var number: Int32 = 0
        for (path, isBus) in [("/run/systemd/private", false), (busPath, true)] {
            let socket: OwnedFD
            do throws(KernelError) {
                socket = try UnixSocket.connect(path)
            } catch {
                number = error.errno
                continue
            }
            return try SystemdConnection(adopting: socket, isBus: isBus)
        }
        throw CgroupError(
            .refused, controller: "systemd", busPath, "neither it nor /run/systemd/private takes connections",
            errno: number)
    }

    /// Says who we are and asks to be told of jobs that end.
    ///
    /// - Parameter isBus: the other side is a bus, which wants a greeting and a rule for the signals it passes on.
    package init(adopting socket: consuming OwnedFD, isBus: Bool) throws(CgroupError) {
        self.socket = socket
        // The name is the user id in digits, each digit's code in hexadecimal: `30` for root.
        let name = String(getuid()).utf8.map { String($0, radix: 16) }.joined()
        // In one piece, so that the other side is past it all when it answers: systemd does not look at a message that it
        // has read together with BEGIN before it is sent something more.
        try send([0] + Array("AUTH EXTERNAL \(name)\r\nBEGIN\r\n".utf8))
        let answer = try line()
        guard answer.hasPrefix("OK ") else { throw Self.broken("it refuses user \(getuid()): '\(answer.prefix(100))'") }
        if isBus {
            let bus = "org.freedesktop.DBus"
            let rule =
                "type='signal',sender='\(Self.managerName)',interface='\(Self.managerName).Manager',member='JobRemoved'"
            for (member, arguments) in [("Hello", []), ("AddMatch", [.string(rule)])] as [(String, [DBusValue])] {
                try require(
                    member,
                    try call(member, arguments, destination: bus, path: "/org/freedesktop/DBus", interface: bus))
            }
        }
        try require("Subscribe", try call("Subscribe"))
    }

    /// Calls a method of the manager.
    func call(_ member: String, _ arguments: [DBusValue] = []) throws(CgroupError) -> Answer {
        try call(
            member, arguments, destination: Self.managerName, path: Self.managerPath,
            interface: Self.managerName + ".Manager")
    }

    private func call(
        _ member: String, _ arguments: [DBusValue], destination: String, path: String, interface: String
    ) throws(CgroupError) -> Answer {
        serial += 1
        let message = DBusMessage(
            .call, serial: serial, path: path, interface: interface, member: member, destination: destination,
            body: arguments)
        try send(message.encoded())
        let deadline = Deadline(milliseconds: Self.timeout)
        while true {
            let message = try next(deadline, for: member)
            guard message.replySerial == serial else { continue }
            switch message.kind {
            case .reply: return .values(message.body)
            case .error: return .failure(name: message.errorName ?? "", text: message.body.first?.text ?? "")
            default: continue
            }
        }
    }

    /// - Throws: `CgroupError` for a failure.
    @discardableResult
    func require(_ subject: String, _ answer: Answer) throws(CgroupError) -> [DBusValue] {
        switch answer {
        case .values(let values): return values
        case .failure(let name, let text):
            throw CgroupError(.refused, controller: "systemd", subject, "systemd says \(name): \(text)")
        }
    }

    /// Waits for the end of a job that a call has answered with.
    ///
    /// - Returns: `done`, or how it failed.
    func result(of answer: [DBusValue], _ subject: String) throws(CgroupError) -> String {
        guard let job = answer.first?.text else { throw Self.broken("it names no job for \(subject)") }
        let deadline = Deadline(milliseconds: Self.timeout)
        while true {
            if let index = endedJobs.firstIndex(where: { $0.job == job }) { return endedJobs.remove(at: index).result }
            _ = try next(deadline, for: "the job for \(subject)")
        }
    }

    /// The next message; news of jobs are kept.
    private func next(_ deadline: Deadline, for subject: String) throws(CgroupError) -> DBusMessage {
        while true {
            do throws(DBusFault) {
                if let message = try DBusMessage.take(from: &input) {
                    note(message)
                    return message
                }
            } catch {
                throw Self.broken("it sent what cannot be read: \(error.reason)")
            }
            try receive(deadline, subject)
        }
    }

    /// JobRemoved: number, job, unit, result.
    private func note(_ message: DBusMessage) {
        guard message.kind == .signal, message.member == "JobRemoved", message.body.count == 4,
            message.interface == Self.managerName + ".Manager", let job = message.body[1].text,
            let result = message.body[3].text
        else { return }
        // On a busy host other people's jobs end too.
        if endedJobs.count >= 1024 { endedJobs.removeFirst(512) }
        endedJobs.append((job, result))
    }

    private func line() throws(CgroupError) -> String {
        let deadline = Deadline(milliseconds: Self.timeout)
        while true {
            if let end = input.firstIndex(of: 10) {
                let text = String(decoding: input[..<end].filter { $0 != 13 }, as: UTF8.self)
                input.removeFirst(end + 1)
                return text
            }
            guard input.count < 4096 else { throw Self.broken("its greeting has no end") }
            try receive(deadline, "the greeting")
        }
    }

    private func send(_ bytes: [UInt8]) throws(CgroupError) {
        do throws(KernelError) {
            try UnixSocket.send(socket.raw, bytes)
        } catch {
            throw CgroupError(.refused, controller: "systemd", "D-Bus", "the connection broke", errno: error.errno)
        }
    }

    private func receive(_ deadline: Deadline, _ subject: String) throws(CgroupError) {
        var request = pollfd(fd: socket.raw, events: Int16(POLLIN), revents: 0)
        while poll(&request, 1, Int32(deadline.remaining)) < 1 {
            guard !deadline.hasPassed else {
                throw CgroupError(
                    .timedOut, controller: "systemd", subject, "no answer came within \(Self.timeout / 1000) seconds")
            }
        }
        let received: [UInt8]
        do throws(KernelError) {
            received = try UnixSocket.receive(socket.raw, limit: 65536).bytes
        } catch {
            throw CgroupError(.refused, controller: "systemd", "D-Bus", "the connection broke", errno: error.errno)
        }
        guard !received.isEmpty else { throw Self.broken("it closed the connection before it answered \(subject)") }
        input += received
    }

    private static func broken(_ reason: String) -> CgroupError {
        CgroupError(.refused, controller: "systemd", "D-Bus", reason)
    }
}
