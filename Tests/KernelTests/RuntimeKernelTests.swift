import CKernel
import Glibc
import Kernel
import Testing

extension KernelSuite {
    /// The parts of the kernel boundary that the runtime and the daemons stand on.
    @Suite(.serialized) struct KernelParts {
        /// A directory that goes away with the value.
        final class Scratch {
            let path: String

            init() throws {
                var template = Array("/tmp/martlet-kernel-XXXXXX".utf8CString)
                path = String(cString: try #require(mkdtemp(&template)))
            }

            deinit { _ = try? Tree.remove(path) }

            func directory(_ name: String) throws { try File.makeDirectories("\(path)/\(name)", mode: 0o755) }
            func link(_ name: String, to target: String) { symlink(target, "\(path)/\(name)") }
            func file(_ name: String, _ text: String) throws {
                try File.replace("\(path)/\(name)", with: Array(text.utf8), mode: 0o644)
            }
        }

        /// Where a descriptor leads, as the host sees it.
        private func place(_ descriptor: borrowing OwnedFD) -> String {
            var buffer = [CChar](repeating: 0, count: 4096)
            let length = readlink("/proc/self/fd/\(descriptor.raw)", &buffer, 4095)
            return String(decoding: buffer.prefix(max(0, length)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }

        @Test func `a root keeps absolute links and dots inside`() throws {
            let scratch = try Scratch()
            try scratch.directory("root/etc")
            try scratch.file("root/etc/name", "inside")
            try scratch.file("name", "outside")
            scratch.link("root/absolute", to: "/etc/name")
            scratch.link("root/up", to: "../../../../etc/name")
            let root = try Root("\(scratch.path)/root")
            for path in ["etc/name", "/etc/name", "absolute", "up", "../../etc/name", "etc/../../etc/name"] {
                #expect(String(decoding: try root.read(path, limit: 100), as: UTF8.self) == "inside", "\(path)")
            }
            let found = root.exists("name")
            #expect(!found)
        }

        @Test func `what is missing is made inside, through links and dangling ones`() throws {
            let scratch = try Scratch()
            try scratch.directory("root/srv")
            scratch.link("root/run", to: "/srv/run")
            scratch.link("root/out", to: "../../../../srv/out")
            scratch.link("root/chain", to: "run/deeper")
            // A slash and the mark behind it are one character, and two bytes of a path.
            scratch.link("root/mark", to: "../\u{301}x")
            let root = try Root("\(scratch.path)/root")
            for (path, expected) in [
                ("mark", "\u{301}x"), ("../\u{301}y", "\u{301}y"), ("run/a/b", "srv/run/a/b"), ("/out/x", "srv/out/x"),
                ("chain/y", "srv/run/deeper/y"),
                ("new/../other", "other"), ("..//./dots/.", "dots"),
            ] {
                #expect(place(try root.makeDirectories(path)) == "\(scratch.path)/root/\(expected)", "\(path)")
            }
            #expect(place(try root.makeFile("run/f/file", mode: 0o600)) == "\(scratch.path)/root/srv/run/f/file")
            var info = stat()
            #expect(stat("\(scratch.path)/root/srv/run/f", &info) == 0)
            #expect(info.st_mode & 0o111 == 0o111, "whoever uses the file can enter its directory")
            #expect(try File.list(scratch.path) == ["root"])
        }

        @Test func `what cannot be resolved inside is an error`() throws {
            let scratch = try Scratch()
            try scratch.directory("root")
            try scratch.file("root/file", "")
            scratch.link("root/loop", to: "loop/x")
            scratch.link("root/magic", to: "/proc/self/root")
            func number(_ body: (borrowing Root) throws -> Void) -> Int32? {
                do {
                    try body(try Root("\(scratch.path)/root"))
                    return nil
                } catch {
                    return (error as? KernelError)?.errno
                }
            }
            #expect(number { _ = try $0.makeDirectories("file/x") } == ENOTDIR)
            #expect(number { _ = try $0.makeDirectories("loop") } == ELOOP)
            #expect(number { _ = try $0.open("nothing", O_RDONLY) } == ENOENT)
            #expect(number { _ = try $0.open("loop", O_RDONLY, .withoutSymlinks) } == ELOOP)
            #expect(number { _ = try $0.makeFile("a/..") } == EISDIR)
            #expect(number { _ = try $0.read("file", limit: 0) } == nil)
            #expect(mkfifo("\(scratch.path)/root/fifo", 0o600) == 0)
            #expect(number { _ = try $0.read("fifo", limit: 10) } == EINVAL, "a pipe does not block the reader")
            let procfs = try Root("/proc")
            var refused: Int32?
            do { _ = try procfs.open("self/root/etc", O_RDONLY) } catch { refused = error.errno }
            #expect(refused == ELOOP, "a magic link of procfs")
        }

        @Test func `a pinned network namespace has loopback, and is entered by a thread only`() throws {
            let scratch = try Scratch()
            let path = "\(scratch.path)/net"
            func own() -> UInt64 {
                var info = stat()
                return stat("/proc/thread-self/ns/net", &info) == 0 ? UInt64(info.st_ino) : 0
            }
            let before = own()
            try NetworkNamespace.create(at: path)
            defer { try? NetworkNamespace.remove(at: path) }
            #expect(throws: KernelError.self, "it is there already") { try NetworkNamespace.create(at: path) }
            let inside = try NetworkNamespace.run(in: path) { () throws(KernelError) in
                let devices = try File.text("/proc/thread-self/net/dev")
                var info = stat()
                stat("/proc/thread-self/ns/net", &info)
                return (devices, UInt64(info.st_ino))
            }
            #expect(inside.1 != before && own() == before)
            let names = inside.0.split(separator: "\n").dropFirst(2).compactMap { $0.split(separator: ":").first }
            #expect(names.contains { $0.contains("lo") } && !names.contains { $0.contains("eth") })
            let state = try Program(
                "/usr/bin/nsenter", ["--net=\(path)", "cat", "/sys/class/net/lo/flags"],
                environment: ["PATH=/usr/bin:/bin"]
            ).run()
            // /sys shows the namespace it was mounted in: only that the command works is of interest.
            #expect(state.status == .exited(0))
            let up = try NetworkNamespace.run(in: path) { () throws(KernelError) in
                try File.text("/proc/thread-self/net/if_inet6", limit: 4096)
            }
            #expect(up.hasSuffix("lo"), "an address appears when the interface is up")
            #expect(throws: KernelError.self, "errors come back") {
                try NetworkNamespace.run(in: path) { () throws(KernelError) in throw KernelError("x", errno: 5) }
            }
            try NetworkNamespace.remove(at: path)
            #expect(!File.exists(path))
            try NetworkNamespace.remove(at: path)
            #expect(try MountInfo.read().allSatisfy { !$0.mountPoint.hasPrefix(scratch.path) })
        }

        @Test func `sockets carry descriptors and tell who is there, also with long names`() throws {
            let scratch = try Scratch()
            let deep = String(repeating: "d", count: 120)
            try scratch.directory(deep)
            for path in ["\(scratch.path)/s", "\(scratch.path)/\(deep)/s"] {
                let listener = try UnixSocket.listen(path, kind: .packets)
                var info = stat()
                #expect(stat(path, &info) == 0 && info.st_mode & 0o777 == 0o600)
                let client = try UnixSocket.connect(path, kind: .packets)
                let server = try UnixSocket.accept(listener.raw)
                let peer = try UnixSocket.peer(server.raw)
                #expect(peer.pid == getpid() && peer.uid == 0 && peer.gid == 0)
                try scratch.file("content", "passed on")
                let file = try File.open("\(scratch.path)/content", O_RDONLY)
                try UnixSocket.send(client.raw, [1, 2], descriptors: [file.raw, file.raw])
                let message = try UnixSocket.receive(server.raw, limit: 16, maximumDescriptors: 2)
                #expect(message.bytes == [1, 2] && message.descriptors.count == 2)
                let received = try #require(message.descriptors.first)
                #expect(try Descriptor.readAll(received.raw, limit: 100) == Array("passed on".utf8))
                #expect(ck_fcntl(received.raw, F_GETFD, 0) == FD_CLOEXEC)
                // More than the receiver wants, and a message that does not fit, are errors; nothing leaks.
                let count = try File.list("/proc/self/fd").count
                try UnixSocket.send(client.raw, [1], descriptors: [file.raw, file.raw, file.raw])
                #expect(throws: KernelError.self) {
                    try UnixSocket.receive(server.raw, limit: 16, maximumDescriptors: 1)
                }
                try UnixSocket.send(client.raw, [UInt8](repeating: 0, count: 32))
                #expect(throws: KernelError.self) { try UnixSocket.receive(server.raw, limit: 16) }
                #expect(try File.list("/proc/self/fd").count == count)
            }
        }

        @Test func `a line of mountinfo`() throws {
            let line =
                #"36 35 98:0 /mnt1 /mnt\0402 rw,noatime shared:1 master:2 - ext3 /dev/ro\134ot rw,errors=continue"#
            let entry = try #require(MountInfo.parse(Array(line.utf8)))
            #expect(entry.id == 36 && entry.parent == 35 && entry.major == 98 && entry.minor == 0)
            #expect(entry.root == "/mnt1" && entry.mountPoint == "/mnt 2" && entry.source == #"/dev/ro\ot"#)
            #expect(entry.options == ["rw", "noatime"] && entry.propagation == ["shared:1", "master:2"])
            #expect(entry.type == "ext3" && entry.superOptions == ["rw", "errors=continue"] && entry.isShared)
            for bad in ["", "36 35", "a b c:d / / rw - x y z", "36 35 98:0 / / rw ext3"] {
                #expect(MountInfo.parse(Array(bad.utf8)) == nil, "\(bad)")
            }
            #expect(try MountInfo.read().contains { $0.mountPoint == "/proc" && $0.type == "proc" })
        }

        @Test func `a stat line whose command looks like its end`() throws {
            let rest = "S 1 2 3 4 5 6 7 8 9 10 111 222 13 14 15 16 17 18 987654 20 4321 22"
            let stat = try #require(Proc.parse(stat: Array("42 (a) R 5 (b)) \(rest)".utf8)))
            #expect(stat.pid == 42 && stat.command == "a) R 5 (b)" && stat.state == "S" && stat.parent == 1)
            #expect(stat.userTicks == 111 && stat.systemTicks == 222 && stat.startTime == 987_654)
            #expect(stat.residentPages == 4321)
            #expect(Proc.parse(stat: Array("42 a S 1".utf8)) == nil)
        }

        @Test func `processes are told apart by their start`() throws {
            let child = try Spawn("/bin/sleep", ["sleep", "1000"]).start()
            let stat = try #require(try Proc.stat(child.pid))
            #expect(stat.parent == getpid() && !stat.hasEnded)
            #expect(try Proc.children(getpid()).contains(child.pid))
            func isOpen(_ start: UInt64) throws -> Bool { try Proc.open(child.pid, startedAt: start) != nil }
            #expect(try isOpen(stat.startTime))
            #expect(try !isOpen(stat.startTime + 1))
            try child.signal(SIGKILL)
            var ended = pollfd(fd: child.pidfd.raw, events: Int16(POLLIN), revents: 0)
            poll(&ended, 1, 5000)
            #expect(try !isOpen(stat.startTime), "a zombie has ended")
            _ = try child.wait()
            #expect(try Proc.stat(child.pid) == nil)
            #expect(try Proc.bootID().utf8.count == 36)
            #expect(Proc.uptimeNanoseconds() > 0)
        }
    }
}
