import CNISpec
import Glibc
import Kernel
import Reactor
import Synchronization
import Testing

@testable import Networking

@Suite struct TaskFilesTests {
    @Test func `a pod's hosts file leads its name to its address`() throws {
        var files = TaskFiles(hostname: "web-0")
        files.address = IPAddress("10.213.0.5")
        files.extraHosts = [("db", try #require(IPAddress("10.0.0.9"))), ("six", try #require(IPAddress("fd00::1")))]
        let lines = files.hostsFile(hostsOwn: nil).split(separator: "\n")
        #expect(lines.first == "127.0.0.1\tlocalhost")
        #expect(lines.contains("10.213.0.5\tweb-0"))
        #expect(lines.suffix(2) == ["10.0.0.9\tdb", "fd00::1\tsix"])
    }

    @Test func `a pod in the host's network sees the host's names, one without network itself`() throws {
        var files = TaskFiles(hostname: "web-0")
        #expect(files.hostsFile(hostsOwn: nil).contains("127.0.0.1\tweb-0\n"))
        files.isHostNetwork = true
        files.extraHosts = [("db", try #require(IPAddress("10.0.0.9")))]
        #expect(files.hostsFile(hostsOwn: "127.0.0.1 me") == "127.0.0.1 me\n10.0.0.9\tdb\n")
    }

    @Test func `name servers on the host's loopback are left out`() {
        let host = "# c\nnameserver 127.0.0.53\nnameserver 192.0.2.1\nnameserver ::1\nsearch a.b c\noptions ndots:2\n"
        let text = TaskFiles(hostname: "a").resolverFile(hostFiles: [host])
        #expect(text == "nameserver 192.0.2.1\nsearch a.b c\noptions ndots:2\n")
    }

    @Test func `behind a local server the file of systemd-resolved is used`() {
        let files = ["nameserver 127.0.0.53\noptions edns0\n", "nameserver 192.0.2.7\nsearch x\n"]
        #expect(TaskFiles(hostname: "a").resolverFile(hostFiles: files) == "nameserver 192.0.2.7\nsearch x\n")
        let none = TaskFiles(hostname: "a").resolverFile(hostFiles: ["nameserver 127.0.0.53\nsearch y\n"])
        #expect(none == "# the host has no name server that a container can reach\nsearch y\n")
        #expect(TaskFiles(hostname: "a").resolverFile(hostFiles: []).hasPrefix("#"))
    }

    @Test func `zones, garbage and unspecified servers are left out`() {
        let host =
            "nameserver fe80::1%eth0\nnameserver x\nnameserver 0.0.0.0\nnameserver\nnameserver 192.0.2.1 more\nnonsense"
        #expect(TaskFiles(hostname: "a").resolverFile(hostFiles: [host]) == "nameserver 192.0.2.1\n")
    }

    @Test func `in the host's network the file is the host's, byte for byte`() {
        var files = TaskFiles(hostname: "a")
        files.isHostNetwork = true
        let text = "# local\nnameserver 127.0.0.53\nsortlist 10.0.0.0\n"
        #expect(files.resolverFile(hostFiles: [text]) == text)
    }

    @Test func `settings of the workload replace the host's`() throws {
        var files = TaskFiles(hostname: "a")
        files.nameService.servers = [try #require(IPAddress("9.9.9.9"))]
        files.nameService.search = ["mine"]
        let text = files.resolverFile(hostFiles: ["nameserver 192.0.2.1\nsearch x\noptions ndots:2\n"])
        #expect(text == "nameserver 9.9.9.9\nsearch mine\noptions ndots:2\n")
    }

    @Test func `files are written readable for all and keep their inode`() throws {
        let directory = "/tmp/martlet-test-files-\(getpid())"
        defer { _ = try? Tree.remove(directory) }
        try TaskFiles(hostname: "one").write(to: directory)
        var before = stat()
        stat("\(directory)/hostname", &before)
        try TaskFiles(hostname: "two").write(to: directory)
        var after = stat()
        stat("\(directory)/hostname", &after)
        #expect(before.st_ino == after.st_ino)
        #expect(after.st_mode & 0o777 == 0o644)
        #expect(try File.text("\(directory)/hostname") == "two")
        #expect(try Set(File.list(directory)) == ["hosts", "resolv.conf", "hostname"])
    }

    @Test func `who reads hosts while it is written never finds it empty, and nothing of a longer one stays`() throws {
        let directory = "/tmp/martlet-test-hosts-\(getpid())"
        defer { _ = try? Tree.remove(directory) }
        var files = TaskFiles(hostname: "one")
        try files.write(to: directory)
        let short = try File.text("\(directory)/hosts")
        var long = files
        long.peers = (0..<50).map { TaskFiles.Peer(address: "10.0.0.\($0)", names: ["peer\($0)"]) }
        let (isOver, hasEnded, wasEmpty) = (Flag(), Flag(), Flag())
        try Thread.start(name: "reader") {
            while !isOver.isUp {
                if (try? File.read("\(directory)/hosts"))?.isEmpty == true { wasEmpty.raise() }
            }
            hasEnded.raise()
        }
        for _ in 0..<500 {
            try long.writeHosts(to: directory)
            try files.writeHosts(to: directory)
        }
        isOver.raise()
        hasEnded.wait()
        #expect(!wasEmpty.isUp)
        #expect(try File.text("\(directory)/hosts") == short)
        // Of a pod that is going.
        try Tree.remove(directory)
        files.hostname = "gone"
        try files.writeHosts(to: directory)
        #expect(!File.exists(directory))
    }

    @Test(arguments: ["", "a b", "a\n127.0.0.1 bank", "a#b", String(repeating: "a", count: 65)])
    func `names that would change the file are refused`(name: String) {
        #expect(throws: NetworkError.self) { try TaskFiles(hostname: name).write(to: "/nonexistent/x") }
        var files = TaskFiles(hostname: "a")
        files.nameService.search = [name + " "]
        #expect(throws: NetworkError.self) { try files.write(to: "/nonexistent/x") }
    }
}

/// Between threads.
private final class Flag: Sendable {
    private let value = Atomic(false)

    var isUp: Bool { value.load(ordering: .acquiring) }
    func raise() { value.store(true, ordering: .releasing) }
    func wait() { while !isUp { usleep(1000) } }
}
