import Glibc
import Kernel
import Testing

@testable import Images

/// USER strings of images and containers.
@Suite struct ContainerUserTests {
    static let passwd = """
        root:x:0:0:root:/root:/bin/sh
        # comment:x:5:5::/:
        daemon:x:1:1:daemon:/usr/sbin:/bin/false
        app:x:1000:2000::/home/app:/bin/sh
        0x0:x:0:0::/:
        1001:x:0:0::/:
        4294967296:x:0:0::/:
        big:x:4294967296:0::/:
        minus:x:-1:0::/:
        empty:x::0::/:
        relative:x:7:7::home:
        short:x:8:8
        broken
        daemon:x:0:0:second entry of the same name::
        """
    static let group = """
        root:x:0:
        bin:x:1:root,daemon
        wheel:x:10:root,app,app
        app:x:2000:app
        2147483648:x:0:
        huge:x:4294967296:app
        extra:x:3000:nobody,app
        """

    /// A root with both files.
    final class Fixture {
        let root: String
        init(passwd: String? = ContainerUserTests.passwd, group: String? = ContainerUserTests.group) throws {
            var template = Array("/tmp/martlet-users.XXXXXX".utf8CString)
            guard mkdtemp(&template) != nil else { throw KernelError("mkdtemp", errno: errno) }
            root = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
            try File.makeDirectories("\(root)/etc", mode: 0o755)
            if let passwd { try File.replace("\(root)/etc/passwd", with: Array(passwd.utf8)) }
            if let group { try File.replace("\(root)/etc/group", with: Array(group.utf8)) }
        }
        deinit { _ = try? Tree.remove(root) }
    }

    @Test(arguments: [
        ("", ContainerUser(uid: 0, gid: 0, groups: [0, 1, 10], home: "/root", name: "root")),
        ("root", ContainerUser(uid: 0, gid: 0, groups: [0, 1, 10], home: "/root", name: "root")),
        ("0", ContainerUser(uid: 0, gid: 0, groups: [0, 1, 10], home: "/root", name: "root")),
        ("1", ContainerUser(uid: 1, gid: 1, groups: [1], home: "/usr/sbin", name: "daemon")),
        ("daemon", ContainerUser(uid: 1, gid: 1, groups: [1], home: "/usr/sbin", name: "daemon")),
        ("1:1", ContainerUser(uid: 1, gid: 1, groups: [1], home: "/usr/sbin", name: "daemon")),
        ("app", ContainerUser(uid: 1000, gid: 2000, groups: [2000, 10, 3000], home: "/home/app", name: "app")),
        ("1000", ContainerUser(uid: 1000, gid: 2000, groups: [2000, 10, 3000], home: "/home/app", name: "app")),
        ("app:wheel", ContainerUser(uid: 1000, gid: 10, groups: [10], home: "/home/app", name: "app")),
        ("app:77", ContainerUser(uid: 1000, gid: 77, groups: [77], home: "/home/app", name: "app")),
        ("1001", ContainerUser(uid: 1001, gid: 0, groups: [0], home: "/")),
        ("12345:54321", ContainerUser(uid: 12345, gid: 54321, groups: [54321], home: "/")),
        ("2147483647", ContainerUser(uid: 2_147_483_647, gid: 0, groups: [0], home: "/")),
        ("relative", ContainerUser(uid: 7, gid: 7, groups: [7], home: "/", name: "relative")),
        ("short", ContainerUser(uid: 8, gid: 8, groups: [8], home: "/", name: "short")),
    ])
    func isAUser(text: String, expected: ContainerUser) throws {
        let fixture = try Fixture()
        #expect(try resolveUser(text, root: fixture.root) == expected)
    }

    @Test(arguments: [
        ("1:", ImageError.Kind.invalidArgument), (":1", .invalidArgument), (":", .invalidArgument),
        ("-1", .invalidArgument),
        ("2147483648", .invalidArgument), ("4294967295", .invalidArgument), ("4294967296", .invalidArgument),
        ("99999999999", .invalidArgument), ("00", .invalidArgument), ("0x0", .invalidArgument),
        (" 1", .invalidArgument),
        ("1 ", .invalidArgument), ("+1", .invalidArgument), ("\u{ff11}", .invalidArgument), ("1:1:1", .invalidArgument),
        ("1:4294967296", .invalidArgument), ("1:00", .invalidArgument), ("app:", .invalidArgument),
        ("a\0b", .invalidArgument),
        ("r\u{f6}\u{f6}t", .invalidArgument), ("nobody", .notFound), ("app:nogroup", .notFound), ("roo", .notFound),
        ("broken", .notFound), ("big", .invalidArchive), ("minus", .invalidArchive), ("empty", .invalidArchive),
        ("app:huge", .invalidArchive),
    ])
    func isNoUser(text: String, kind: ImageError.Kind) throws {
        let fixture = try Fixture()
        do {
            Issue.record("resolved to \(try resolveUser(text, root: fixture.root))")
        } catch {
            #expect((error as? ImageError)?.kind == kind, "\(error)")
        }
    }

    @Test func aRootWithoutFilesHasNumbersOnly() throws {
        let fixture = try Fixture(passwd: nil, group: nil)
        #expect(try resolveUser("", root: fixture.root) == ContainerUser(uid: 0, gid: 0, groups: [0], home: "/"))
        #expect(try resolveUser("5:6", root: fixture.root).gid == 6)
        #expect(throws: ImageError.self) { try resolveUser("root", root: fixture.root) }
    }

    @Test func theFilesStayInsideTheRoot() throws {
        let fixture = try Fixture(passwd: nil, group: nil)
        // The host's own file says something else than the root's.
        try File.makeDirectories("\(fixture.root)/real")
        try File.replace("\(fixture.root)/real/passwd", with: Array("root:x:0:0::/inside:\n".utf8))
        symlink("/real/passwd", "\(fixture.root)/etc/passwd")
        #expect(try resolveUser("root", root: fixture.root).home == "/inside")
        unlink("\(fixture.root)/etc/passwd")
        symlink("../../../../../../../../etc/passwd", "\(fixture.root)/etc/passwd")
        #expect(throws: ImageError.self) { try resolveUser("root", root: fixture.root) }
    }

    @Test func filesThatAreNoneAreRefusedAtOnce() throws {
        let fixture = try Fixture(passwd: nil, group: nil)
        let path = "\(fixture.root)/etc/passwd"
        mkfifo(path, 0o644)
        #expect(throws: ImageError.self) { try resolveUser("root", root: fixture.root) }
        unlink(path)
        mkdir(path, 0o755)
        #expect(throws: ImageError.self) { try resolveUser("root", root: fixture.root) }
        rmdir(path)
        try File.replace(path, with: Array("root:x:0:0::/:\n".utf8))
        truncate(path, 11 << 20)
        #expect(throws: ImageError.self) { try resolveUser("root", root: fixture.root) }
        truncate(path, 1 << 30)
        #expect(throws: ImageError.self) { try resolveUser("root", root: fixture.root) }
    }
}
