import CKernel
import CStage
import Glibc
import Kernel
import OCISpec

/// The terminal of a process in a container, made by that process itself.
enum ContainerTerminal {
    /// Makes a pair in the container's /dev/pts, hands its main side to `receiver` and makes the other one this
    /// session's controlling terminal and standard input, output and error.
    ///
    /// - Parameters:
    ///   - root: the container's root.
    ///   - consoleNode: also bind the terminal over /dev/console, as a container's first process has it.
    static func open(
        in root: borrowing Root, size: ConsoleSize?, owner: UInt32, consoleNode: Bool,
        _ receiver: (borrowing OwnedFD) throws -> Void
    ) throws {
        let pts = try root.open("/dev/pts", Int32(CK_O_PATH) | O_DIRECTORY)
        let directory = OwnedFD(
            adopting: try systemCall("open", "/dev/pts") {
                ck_openat(pts.raw, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
            })
        let pair = try Terminal.pair(inDevpts: directory.raw, subject: "/dev/pts")
        if let size {
            try Terminal.setSize(Terminal.Size(columns: size.width, rows: size.height), of: pair.main.raw)
        }
        if consoleNode {
            let dev = Root(adopting: try root.open("/dev", Int32(CK_O_PATH) | O_DIRECTORY), name: "/dev")
            try bindConsole(dev, pair.peer)
        }
        try receiver(pair.main)
        try systemCall("ioctl(TIOCSCTTY)") { ck_terminal_control(pair.peer.raw) }
        for number: Int32 in 0...2 {
            try systemCall("dup2", "the terminal") { dup2(pair.peer.raw, number) }
        }
        setOwner(of: 0, owner)
    }

    /// Hands the main side to a console socket, as engines listen on one, or to the runtime.
    static func send(_ main: borrowing OwnedFD, to consoleSocket: Int32?, or channel: Channel) throws {
        guard let consoleSocket else { return try channel.send(CS_TERMINAL, descriptors: [main.raw]) }
        let name = "/dev/pts/\(try Terminal.number(of: main.raw))"
        let raw = main.raw
        try withContext("--console-socket") {
            try UnixSocket.send(consoleSocket, Array(name.utf8), descriptors: [raw])
        }
    }

    /// /dev/console becomes this terminal: a file that we made or that is none of a link.
    private static func bindConsole(_ dev: borrowing Root, _ peer: borrowing OwnedFD) throws {
        let made = ck_openat(dev.directory.raw, "console", O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o666)
        if made >= 0 { close(made) }
        let target = try dev.open("console", Int32(CK_O_PATH) | O_NOFOLLOW, .withoutSymlinks)
        let tree = try Mounts.clone(of: peer.raw, recursive: false, subject: "the terminal")
        try Mounts.attach(tree, on: target.raw, subject: "/dev/console")
    }

    /// Gives what the process inherits as standard input, output and error to its user, so that it can open it again
    /// through /dev/stdout. Refusals are no matter: a file of another user namespace or a read-only filesystem.
    static func giveStandardIO(to uid: UInt32) {
        var null = stat()
        let hasNull = stat("/dev/null", &null) == 0
        for number: Int32 in 0...2 {
            var info = stat()
            guard fstat(number, &info) == 0 else { continue }
            if hasNull && info.st_mode & S_IFMT == S_IFCHR && info.st_rdev == null.st_rdev { continue }
            setOwner(of: number, uid)
        }
    }

    private static func setOwner(of descriptor: Int32, _ uid: UInt32) {
        var info = stat()
        guard fstat(descriptor, &info) == 0, info.st_uid != uid else { return }
        _ = fchown(descriptor, uid, info.st_gid)
    }
}
