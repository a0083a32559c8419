import ArgumentParser
import Glibc
import Model

/// `512`, `64k`, `64m`, `1g` as bytes: powers of 1024, as the docker CLI reads them.
struct ByteSize: ExpressibleByArgument {
    let bytes: Int64

    init?(argument: String) {
        let text = argument.lowercased()
        if text == "-1" {
            bytes = -1
            return
        }
        let digits = text.prefix { $0.isNumber || $0 == "." }
        let factors: [String: Int64] = [
            "": 1, "b": 1, "k": 1 << 10, "kb": 1 << 10, "kib": 1 << 10, "m": 1 << 20, "mb": 1 << 20, "mib": 1 << 20,
            "g": 1 << 30, "gb": 1 << 30, "gib": 1 << 30, "t": 1 << 40, "tb": 1 << 40, "tib": 1 << 40,
        ]
        guard let factor = factors[String(text.dropFirst(digits.count))], let number = Double(digits), number >= 0,
            number * Double(factor) < 9e18
        else { return nil }
        bytes = Int64(number * Double(factor))
    }

    /// As people read it: `64MiB`.
    static func text(_ bytes: Int64) -> String {
        let units = ["B", "KiB", "MiB", "GiB", "TiB"]
        var value = Double(bytes)
        var unit = 0
        while value >= 1024 && unit < units.count - 1 {
            value /= 1024
            unit += 1
        }
        return unit == 0 ? "\(bytes)B" : "\(value.rounded(toPlaces: value < 10 ? 2 : 1))\(units[unit])"
    }
}

/// `0.5`, `2` as nano-cores.
struct Cores: ExpressibleByArgument {
    let nano: Int64

    init?(argument: String) {
        guard let number = Double(argument), number >= 0, number < 1e6 else { return nil }
        nano = Int64((number * 1e9).rounded())
    }
}

/// `10`, `10s`, `1m30s`, `1h`, `500ms` as seconds.
struct Seconds: ExpressibleByArgument {
    let value: Double

    init?(argument: String) {
        if let number = Double(argument) {
            guard number >= 0, number < 1e9 else { return nil }
            value = number
            return
        }
        var rest = argument[...]
        var sum = 0.0
        let units: [(String, Double)] = [("ms", 0.001), ("h", 3600), ("m", 60), ("s", 1), ("d", 86400)]
        while !rest.isEmpty {
            let digits = rest.prefix { $0.isNumber || $0 == "." }
            guard let number = Double(digits) else { return nil }
            rest = rest.dropFirst(digits.count)
            guard let unit = units.first(where: { rest.hasPrefix($0.0) }) else { return nil }
            rest = rest.dropFirst(unit.0.count)
            sum += number * unit.1
        }
        guard sum < 1e9 else { return nil }
        value = sum
    }

    /// Whole seconds, rounded up: what a spec holds.
    var whole: Int { Int(value.rounded(.up)) }
}

/// `[address:][host[-last]:]container[-last][/tcp|udp|sctp]`, as `-p` of the docker CLI.
struct PublishedPort {
    let mappings: [PortMapping]

    init(parsing argument: String) throws {
        let halves = argument.split(separator: "/", omittingEmptySubsequences: false)
        guard halves.count <= 2,
            let transport = PortMapping.Transport(rawValue: halves.count == 2 ? String(halves[1]).lowercased() : "tcp")
        else { throw ValidationError("the protocol is tcp, udp or sctp") }
        guard let (address, host, container) = Self.parts(halves[0]) else {
            throw ValidationError("write [ADDRESS:][PORT[-LAST]:]CONTAINERPORT[/udp], an IPv6 address in brackets")
        }
        guard let inside = Self.range(container), let outside = host.isEmpty ? 0...0 : Self.range(host) else {
            throw ValidationError("a port is a number from 1 to 65535, a range two of them as 8080-8090")
        }
        if inside.count == 1 {
            mappings = [
                PortMapping(
                    hostAddress: address, hostPort: outside.lowerBound, hostPortEnd: outside.upperBound,
                    containerPort: inside.lowerBound, transport: transport)
            ]
        } else {
            guard outside == 0...0 || outside.count == inside.count else {
                throw ValidationError("the two ranges have different lengths, \(outside.count) and \(inside.count)")
            }
            mappings = inside.map { port in
                let host = outside == 0...0 ? 0 : outside.lowerBound + port - inside.lowerBound
                return PortMapping(hostAddress: address, hostPort: host, containerPort: port, transport: transport)
            }
        }
    }

    /// Splits off the address, which may be an IPv6 one in brackets.
    private static func parts(_ text: Substring) -> (address: String, host: String, container: String)? {
        var rest = text
        var address = ""
        if rest.first == "[" {
            guard let end = rest.firstIndex(of: "]"), rest[rest.index(after: end)...].first == ":" else { return nil }
            address = String(rest[rest.index(after: rest.startIndex)..<end])
            rest = rest[end...].dropFirst(2)
            let words = rest.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
            return words.count == 2 ? (address, words[0], words[1]) : nil
        }
        let words = rest.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        switch words.count {
        case 1: return ("", "", words[0])
        case 2: return ("", words[0], words[1])
        case 3: return (words[0], words[1], words[2])
        default: return nil
        }
    }

    private static func range(_ text: String) -> ClosedRange<Int>? {
        let ends = text.split(separator: "-", omittingEmptySubsequences: false).map { Int($0) }
        guard let first = ends.first, let low = first, ends.count <= 2 else { return nil }
        guard let high = ends.count == 2 ? ends[1] : low else { return nil }
        guard (1...65535).contains(low), (low...65535).contains(high), high - low < 4096 else { return nil }
        return low...high
    }
}

extension Mount {
    /// Takes one of `-v`'s options; what is a flag of mount(8) the cluster knows, or refuses.
    fileprivate mutating func take(_ option: String) {
        switch option {
        case "ro": readOnly = true
        case "rw": readOnly = false
        case "nocopy": copyUp = false
        case "nonrecursive": recursive = false
        case "private", "rprivate", "shared", "rshared", "slave", "rslave": propagation = option
        default: options.append(option)
        }
    }
}

/// `source:target[:option,…]`: a bind when the source is a path, a named volume otherwise; a target alone is refused.
struct VolumeArgument {
    let mount: Mount

    init(parsing argument: String) throws {
        let words = argument.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        guard words.count == 2 || words.count == 3, !words[0].isEmpty else {
            throw ValidationError("write SOURCE:TARGET[:ro,…]; a volume without a name is not supported")
        }
        guard words[1].hasPrefix("/") else {
            throw ValidationError("the target '\(words[1])' is a path in the container: begin it with '/'")
        }
        var mount = Mount(try Self.source(words[0]), target: words[1])
        for option in words.dropFirst(2).flatMap({ $0.split(separator: ",") }) { mount.take(String(option)) }
        self.mount = mount
    }

    /// `.`, `./x` and `../x` are below this program's working directory, as in a shell.
    private static func source(_ text: String) throws -> Mount.Source {
        if text.hasPrefix("/") { return .bind(path: text) }
        guard text == "." || text == ".." || text.hasPrefix("./") || text.hasPrefix("../") else {
            return .volume(name: text)
        }
        guard let here = getcwd(nil, 0) else { throw ValidationError("the working directory is gone") }
        defer { free(here) }
        var parts = String(cString: here).split(separator: "/").map(String.init)
        for part in text.split(separator: "/") where part != "." {
            if part == ".." { _ = parts.popLast() } else { parts.append(String(part)) }
        }
        return .bind(path: "/" + parts.joined(separator: "/"))
    }
}

/// `/target[:size=64m,mode=1777]`.
struct TmpfsArgument {
    let mount: Mount

    init(parsing argument: String) throws {
        let words = argument.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        guard words[0].hasPrefix("/") else {
            throw ValidationError("the target '\(words[0])' is a path in the container: begin it with '/'")
        }
        var size: Int64?
        var mode: String?
        var options: [String] = []
        var readOnly = false
        for option in words.dropFirst().flatMap({ $0.split(separator: ",") }) {
            let pair = option.split(separator: "=", maxSplits: 1).map(String.init)
            switch (pair[0], pair.count) {
            case ("size", 2):
                guard let bytes = ByteSize(argument: pair[1])?.bytes, bytes > 0 else {
                    throw ValidationError("size is a number of bytes such as 64m, not '\(pair[1])'")
                }
                size = bytes
            case ("mode", 2): mode = pair[1]
            case ("ro", 1): readOnly = true
            case ("rw", 1): readOnly = false
            default: options.append(String(option))
            }
        }
        var mount = Mount(.tmpfs(size: size, mode: mode), target: words[0], readOnly: readOnly)
        mount.options = options
        self.mount = mount
    }
}

/// `no`, `on-failure[:n]`, `always`, `unless-stopped`.
struct RestartArgument: ExpressibleByArgument {
    let policy: RestartPolicy

    init?(argument: String) {
        let words = argument.split(separator: ":", maxSplits: 1).map(String.init)
        guard let first = words.first, let condition = RestartPolicy.Condition(rawValue: first) else { return nil }
        var retries: Int?
        if words.count == 2 {
            guard condition == .onFailure, let number = Int(words[1]), number >= 0 else { return nil }
            retries = number
        }
        policy = RestartPolicy(condition, maximumRetries: retries)
    }
}

/// `key=value`; a key alone has an empty value.
struct LabelArgument: ExpressibleByArgument {
    let key: String
    let value: String

    init?(argument: String) {
        let words = argument.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        guard !words[0].isEmpty else { return nil }
        key = words[0]
        value = words.count == 2 ? words[1] : ""
    }
}

extension [LabelArgument] {
    var dictionary: [String: String] { Dictionary(map { ($0.key, $0.value) }) { $1 } }
}

/// `label==value` or `label!=value`.
struct ConstraintArgument: ExpressibleByArgument {
    let constraint: Constraint

    init?(argument: String) {
        guard let constraint = Constraint(argument) else { return nil }
        self.constraint = constraint
    }
}

/// `nofile=1024[:2048]`.
struct RLimitArgument: ExpressibleByArgument {
    let limit: RLimit

    init?(argument: String) {
        let words = argument.split(separator: "=", maxSplits: 1).map(String.init)
        guard words.count == 2 else { return nil }
        let numbers = words[1].split(separator: ":").map { $0 == "-1" || $0 == "unlimited" ? UInt64.max : UInt64($0) }
        guard (1...2).contains(numbers.count), let first = numbers[0], let last = numbers[numbers.count - 1] else {
            return nil
        }
        limit = RLimit(name: words[0], soft: first, hard: last)
    }
}

extension Double {
    /// `1.25` without Foundation's formatters.
    func rounded(toPlaces places: Int) -> String {
        var factor = 1.0
        for _ in 0..<places { factor *= 10 }
        let whole = Int64((self * factor).rounded())
        let sign = whole < 0 ? "-" : ""
        let digits = String(whole.magnitude)
        guard places > 0 else { return sign + digits }
        let padded = String(repeating: "0", count: max(0, places + 1 - digits.count)) + digits
        return sign + padded.dropLast(places) + "." + padded.suffix(places)
    }
}

/// `2m=512m`: huge pages of a size.
struct HugepagesArgument {
    /// As the cluster writes it: `2m`.
    let size: String
    let bytes: Int64

    init(parsing text: String) throws {
        let words = text.split(separator: "=", omittingEmptySubsequences: false).map(String.init)
        guard words.count == 2, let page = ByteSize(argument: words[0]), let size = HugepageSize.name(page.bytes),
            let amount = ByteSize(argument: words[1]), amount.bytes >= 0
        else { throw ValidationError("--hugepages takes SIZE=AMOUNT, such as 2m=512m, not '\(text)'") }
        self.size = size
        bytes = amount.bytes
    }
}
