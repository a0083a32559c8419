import ArgumentParser
import Glibc
import Images
import JSON
import Kernel
import Wire

struct Login: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "login", abstract: "Check a login at a registry and store it for this user.",
        discussion: """
            It is stored in Docker's configuration file (~/.docker/config.json, or under DOCKER_CONFIG), mode 0600.
            Example: martlet login registry.lan:5000 --username alice --password-stdin < password
            """)
    @OptionGroup var connection: ConnectionOptions
    @Option(name: .shortAndLong) var username: String
    @Flag(help: "Read the password from standard input; asked for on a terminal otherwise.") var passwordStdin = false
    @Argument(help: "host[:port]; docker.io for Docker Hub.") var registry: String

    func run() async throws {
        try ProcessMemory.hide()
        let password = try Self.password(fromInput: passwordStdin)
        try await connection.cluster.perform(
            "POST", "\(APIPaths.root)/registries/login",
            body: CheckLogin(registry: registry, login: RegistryLogin(username: username, password: password)))
        try StoredLogins.store(registry, username: username, password: password)
        Output.line("The login at \(registry) is stored.")
    }

    private static func password(fromInput: Bool) throws -> String {
        if !fromInput {
            guard isatty(0) == 1, let entered = getpass("Password: ") else {
                throw ValidationError("give the password on standard input, with --password-stdin")
            }
            return String(cString: entered)
        }
        guard let line = readLine(strippingNewline: true), !line.isEmpty else {
            throw ValidationError("there is no password on standard input")
        }
        return line
    }
}

struct Logout: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "logout", abstract: "Forget this user's login at a registry.")
    @Argument(help: "host[:port]; docker.io for Docker Hub.") var registry: String

    func run() async throws {
        guard try StoredLogins.remove(registry) else { throw CommandFailure("no login at \(registry) is stored") }
        Output.line("The login at \(registry) is forgotten.")
    }
}

/// Docker's configuration file as the place of this user's logins; all else in it stays as it is.
enum StoredLogins {
    private static func variable(_ name: String) -> String? {
        getenv(name).map { String(cString: $0) }.flatMap { $0.isEmpty ? nil : $0 }
    }

    private static var path: String {
        "\(variable("DOCKER_CONFIG") ?? "\(variable("HOME") ?? "/root")/.docker")/config.json"
    }

    static func read() throws -> DockerLogins { try DockerLogins(reading: path) }

    /// The key under which Docker keeps a registry's login.
    private static func key(_ registry: String) -> String {
        registry == "docker.io" ? "https://index.docker.io/v1/" : registry
    }

    static func store(_ registry: String, username: String, password: String) throws {
        let login = Base64.encode(Array("\(username):\(password)".utf8))
        try change { auths in
            auths[key(registry)] = .object(["auth": .string(login)])
            return true
        }
    }

    /// - Returns: whether there was one.
    static func remove(_ registry: String) throws -> Bool {
        try change { auths in
            defer { auths[key(registry)] = nil }
            return auths[key(registry)] != nil
        }
    }

    @discardableResult
    private static func change(_ body: (inout JSONObject) -> Bool) throws -> Bool {
        var contents = JSONObject()
        if File.exists(path) {
            guard let found = try JSONValue.parse(File.read(path, limit: 1 << 20)).objectValue else {
                throw CommandFailure("\(path) is no JSON object: it is not changed")
            }
            contents = found
        }
        var auths = contents["auths"]?.objectValue ?? JSONObject()
        guard body(&auths) else { return false }
        contents["auths"] = .object(auths)
        try File.makeDirectories(String(path.dropLast("/config.json".count)), mode: 0o700)
        try File.replace(path, with: JSONValue.object(contents).serialized(pretty: true), mode: 0o600)
        return true
    }
}
