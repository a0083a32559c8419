import JSON
import Kernel
import Testing

/// Asks a port of a fabric over TLS with whatever credential, without the command line's manners.
struct Caller {
    /// What is shown.
    enum Credential {
        case none
        /// The value of the Authorization header field.
        case header(String)
        case token(String)
        /// The credentials of a node, from its data directory.
        case node(Machine)
    }

    struct Request: Hashable {
        var method: String
        var path: String
        var body: String?

        init(_ method: String, _ path: String, body: String? = nil) {
            self.method = method
            self.path = path
            self.body = body
        }
    }

    struct Answer {
        /// 0: there was none, since the other end did not want to speak.
        let status: Int
        let body: [UInt8]

        var text: String { String(decoding: body, as: UTF8.self) }
        var message: String {
            (try? JSONValue.parse(body))?["error"]?["message"]?.stringValue ?? ""
        }
    }

    let base: String
    let credential: Credential
    /// From where.
    let machine: Machine
    private let folder: String

    /// - Parameter base: `https://address:port`.
    init(_ credential: Credential, at base: String, from machine: Machine) throws {
        self.base = base
        self.credential = credential
        self.machine = machine
        folder = "\(machine.folder)/caller"
        try File.makeDirectories(folder)
    }

    /// All of them by one program, one after another.
    func ask(_ requests: [Request]) throws -> [Answer] {
        let flags = try flags()
        var lines: [String] = []
        for (index, request) in requests.enumerated() {
            if index > 0 { lines.append("next") }
            lines += ["insecure", "silent", "globoff", "path-as-is", "max-time = 20"] + flags
            lines += ["url = \"\(base)\(request.path)\"", "output = \"\(folder)/\(index)\""]
            lines.append(request.method == "HEAD" ? "head" : "request = \"\(request.method)\"")
            if let body = request.body {
                try File.replace("\(folder)/\(index).body", with: Array(body.utf8))
                lines += [
                    "data-binary = \"@\(folder)/\(index).body\"", "header = \"Content-Type: application/json\"",
                ]
            }
            lines.append("write-out = \"%{http_code}\\n\"")
            try Tree.remove("\(folder)/\(index)")
        }
        try File.replace("\(folder)/requests", with: Array(lines.joined(separator: "\n").utf8))
        let outcome = try machine.run(["curl", "-K", "\(folder)/requests"])
        let statuses = outcome.output.split(separator: "\n").map { Int($0) ?? 0 }
        try #require(statuses.count == requests.count, "\(outcome)")
        return statuses.enumerated().map { index, status in
            Answer(status: status, body: (try? File.read("\(folder)/\(index)", limit: 64 << 20)) ?? [])
        }
    }

    func ask(_ method: String, _ path: String, body: String? = nil) throws -> Answer {
        try #require(try ask([Request(method, path, body: body)]).first)
    }

    private func flags() throws -> [String] {
        switch credential {
        case .none: return []
        case .header(let value): return ["header = \"Authorization: \(value)\""]
        case .token(let text): return ["header = \"Authorization: Bearer \(text)\""]
        case .node(let node):
            let kept = try JSONValue.parse(
                File.read("\(node.dataDirectory)/identity/credentials.json", limit: 64 << 10))
            for part in ["certificate", "key"] {
                let text = try #require(kept[part]?.stringValue)
                try File.replace("\(folder)/\(node.name).\(part)", with: Array(text.utf8))
            }
            return ["cert = \"\(folder)/\(node.name).certificate\"", "key = \"\(folder)/\(node.name).key\""]
        }
    }
}
