import Glibc
import Kernel
import Testing

@testable import Images

/// Debian's `docker-registry`, started on loopback with its own configuration and storage.
final class DebianRegistry: Sendable {
    static let program = "/usr/bin/docker-registry"
    private static let skopeo = "/usr/bin/skopeo"
    static var isInstalled: Bool { File.exists(program) && File.exists(skopeo) && geteuid() == 0 }

    struct Options: Sendable {
        /// bcrypt of the password, for the user `tester`.
        var password: String?
        var hasTLS = false
    }

    let directory: String
    let port: UInt16
    /// Of its own authority; nil without TLS.
    let authority: String?
    private let process: ChildProcess

    init(_ options: Options = Options()) throws {
        directory = try StoreFixture.newDirectory()
        var lines = [
            "version: 0.1", "log: {level: error}",
            "storage: {filesystem: {rootdirectory: \(directory)/storage}, delete: {enabled: true}}",
        ]
        if let password = options.password {
            try File.replace("\(directory)/htpasswd", with: Array("tester:\(password)\n".utf8))
            lines.append("auth: {htpasswd: {realm: test, path: \(directory)/htpasswd}}")
        }
        var tls = ""
        if options.hasTLS {
            try Self.makeCertificate(in: directory)
            tls = ", tls: {certificate: \(directory)/server.crt, key: \(directory)/server.key}"
        }
        authority = options.hasTLS ? "\(directory)/ca.crt" : nil
        port = try Self.freePort()
        lines.append("http: {addr: '127.0.0.1:\(port)'\(tls)}")
        let configuration = "\(directory)/config.yml"
        try File.replace(configuration, with: Array(lines.joined(separator: "\n").utf8))
        let log = try File.open("\(directory)/log", O_WRONLY | O_CREAT)
        process = try Spawn(
            Self.program, ["docker-registry", "serve", configuration], environment: ["PATH=/usr/bin:/bin"],
            descriptors: [-1, log.raw, log.raw]
        ).start()
        try waitUntilItListens()
    }

    deinit {
        try? process.signal(SIGKILL)
        _ = try? process.wait()
        _ = try? Tree.remove(directory)
    }

    var host: String { "127.0.0.1:\(port)" }

    func reference(_ name: String) throws -> ImageReference { try ImageReference("\(host)/\(name)") }

    /// Copies with skopeo, which is another implementation than ours.
    func skopeo(_ arguments: [String], _ location: SourceLocation = #_sourceLocation) throws {
        let program = Program(
            Self.skopeo, ["--insecure-policy", "--tmpdir", directory] + arguments,
            environment: ["PATH=/usr/bin:/bin", "HOME=\(directory)"], timeoutMilliseconds: 120_000)
        let result = try program.run()
        try #require(result.status == .exited(0), "skopeo: \(result.errorText)", sourceLocation: location)
    }

    /// Puts an image there, from an OCI layout that is made for it; its layers become gzip.
    func fill(_ name: String, _ image: SampleImage, format: String = "oci") throws {
        let layout = "\(directory)/layout-\(image.digest.hex.prefix(12))"
        try image.writeLayout(to: layout)
        try skopeo([
            "copy", "--format", format, "--dest-compress-format", "gzip", "--dest-tls-verify=false", "oci:\(layout):1",
            "docker://\(host)/\(name)",
        ])
    }

    private func waitUntilItListens() throws {
        for _ in 0..<2000 {
            try #require(
                try process.poll() == nil, "docker-registry ended: \((try? File.text("\(directory)/log")) ?? "")")
            let socket = OwnedFD(adopting: Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0))
            var address = Self.loopback(port)
            let result = withUnsafePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    connect(socket.raw, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
                }
            }
            if result == 0 { return }
            usleep(10_000)
        }
        Issue.record("docker-registry does not listen")
    }

    private static func loopback(_ port: UInt16) -> sockaddr_in {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        return address
    }

    /// A port that nobody listens on at this moment.
    private static func freePort() throws -> UInt16 {
        let socket = OwnedFD(adopting: Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0))
        var address = loopback(0)
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        return try withUnsafeMutablePointer(to: &address) { pointer in
            try pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
                try systemCall("bind") { bind(socket.raw, pointer, length) }
                try systemCall("getsockname") { getsockname(socket.raw, pointer, &length) }
            }
            return UInt16(bigEndian: pointer.pointee.sin_port)
        }
    }

    /// An authority, and a certificate of it for 127.0.0.1.
    private static func makeCertificate(in directory: String) throws {
        let extensions = "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n"
        try File.replace("\(directory)/extensions", with: Array(extensions.utf8))
        let commands = [
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.crt",
            "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=registry -keyout server.key -out server.csr",
            "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out server.crt",
        ]
        for command in commands {
            let arguments = command.split(separator: " ").map { word in
                ["key", "crt", "csr"].contains(word.split(separator: ".").last ?? "") || word == "extensions"
                    ? "\(directory)/\(word)" : String(word)
            }
            let result = try Program("/usr/bin/openssl", arguments, environment: ["HOME=\(directory)"]).run()
            try #require(result.status == .exited(0), "openssl: \(result.errorText)")
        }
    }
}

extension SampleImage {
    /// Writes an OCI layout with this image under the name `1`.
    func writeLayout(to path: String) throws {
        try File.makeDirectories("\(path)/blobs/sha256", mode: 0o755)
        for (digest, bytes) in blobs.merging([digest: manifest], uniquingKeysWith: { first, _ in first }) {
            try File.replace("\(path)/blobs/sha256/\(digest.hex)", with: bytes)
        }
        try File.replace("\(path)/oci-layout", with: Array(#"{"imageLayoutVersion":"1.0.0"}"#.utf8))
        let index = """
            {"schemaVersion":2,"manifests":[{"mediaType":"\(MediaType.manifest)","digest":"\(digest)",\
            "size":\(manifest.count),"annotations":{"org.opencontainers.image.ref.name":"1"}}]}
            """
        try File.replace("\(path)/index.json", with: Array(index.utf8))
    }
}
