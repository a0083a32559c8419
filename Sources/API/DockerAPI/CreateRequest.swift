import JSON

/// `POST /containers/create`: Config of Moby's `api/swagger.yaml`, with HostConfig and NetworkingConfig inside it. What
/// is refused whatever its value stands in `CreateMembers`.
struct CreateRequest: Decodable, Sendable {
    var hostname: String?
    var domainname: String?
    var user: String?
    var exposedPorts: [String: JSONValue]?
    var tty: Bool?
    var openStdin: Bool?
    var stdinOnce: Bool?
    var env: [String]?
    var cmd: Words?
    var healthcheck: Healthcheck?
    var image: String?
    var volumes: [String: JSONValue]?
    var workingDir: String?
    var entrypoint: Words?
    var networkDisabled: Bool?
    var macAddress: String?
    var labels: [String: String]?
    var stopSignal: String?
    var stopTimeout: Int?
    var shell: [String]?
    var hostConfig: HostConfigRequest?
    var networkingConfig: NetworkingConfigRequest?

    enum CodingKeys: String, CodingKey, CaseIterable {
        case hostname = "Hostname"
        case domainname = "Domainname"
        case user = "User"
        case exposedPorts = "ExposedPorts"
        case tty = "Tty"
        case openStdin = "OpenStdin"
        case stdinOnce = "StdinOnce"
        case env = "Env"
        case cmd = "Cmd"
        case healthcheck = "Healthcheck"
        case image = "Image"
        case volumes = "Volumes"
        case workingDir = "WorkingDir"
        case entrypoint = "Entrypoint"
        case networkDisabled = "NetworkDisabled"
        case macAddress = "MacAddress"
        case labels = "Labels"
        case stopSignal = "StopSignal"
        case stopTimeout = "StopTimeout"
        case shell = "Shell"
        case hostConfig = "HostConfig"
        case networkingConfig = "NetworkingConfig"
    }

    init() {}

    /// - Throws: `DockerError` 400 for JSON of another shape, and for what is known and not supported.
    init(_ body: JSONValue, version: APIVersion = .newest) throws {
        self = try DockerCall.decode(Self.self, from: body)
        try CreateMembers.check(body, version)
    }

    /// A command: a list of words, or one word as a text.
    struct Words: Decodable, Sendable, Equatable {
        var list: [String]

        init(_ list: [String]) { self.list = list }

        init(from decoder: any Decoder) throws {
            let value = try decoder.singleValueContainer()
            if let word = try? value.decode(String.self) {
                list = [word]
            } else {
                list = try value.decode([String].self)
            }
        }
    }

    /// Times in nanoseconds; 0 means the image's.
    struct Healthcheck: Decodable, Sendable, Equatable {
        var test: [String]?
        var interval: Int64?
        var timeout: Int64?
        var startPeriod: Int64?
        var startInterval: Int64?
        var retries: Int64?

        enum CodingKeys: String, CodingKey, CaseIterable {
            case test = "Test"
            case interval = "Interval"
            case timeout = "Timeout"
            case startPeriod = "StartPeriod"
            case startInterval = "StartInterval"
            case retries = "Retries"
        }
    }
}

/// NetworkingConfig.
struct NetworkingConfigRequest: Decodable, Sendable {
    var endpointsConfig: [String: EndpointRequest?]?

    enum CodingKeys: String, CodingKey, CaseIterable {
        case endpointsConfig = "EndpointsConfig"
    }
}

/// What of EndpointSettings a user may ask for; the rest is what the server tells.
struct EndpointRequest: Decodable, Sendable {
    struct IPAM: Decodable, Sendable {
        var ipv4Address: String?
        var ipv6Address: String?

        enum CodingKeys: String, CodingKey, CaseIterable {
            case ipv4Address = "IPv4Address"
            case ipv6Address = "IPv6Address"
        }
    }

    var ipamConfig: IPAM?
    var links: [String]?
    var macAddress: String?
    var aliases: [String]?
    var gwPriority: Int?

    enum CodingKeys: String, CodingKey, CaseIterable {
        case ipamConfig = "IPAMConfig"
        case links = "Links"
        case macAddress = "MacAddress"
        case aliases = "Aliases"
        case gwPriority = "GwPriority"
    }

    init() {}
}
