import JSON
import Wire

/// A line of a pull, push, import or load, as Docker's clients read it.
struct ProgressLine: Encodable, Sendable {
    struct Detail: Encodable, Sendable {
        var current: Int64?
        var total: Int64?
    }

    struct Pushed: Encodable, Sendable {
        var tag: String
        var digest: String
        var size: Int64

        enum CodingKeys: String, CodingKey {
            case tag = "Tag"
            case digest = "Digest"
            case size = "Size"
        }
    }

    var stream: String?
    var status: String?
    var progressDetail: Detail?
    /// The same for clients that do not draw themselves.
    var progress: String?
    var id: String?
    var aux: Pushed?
}

/// Puts a transfer's steps into Docker's words.
struct ProgressLines {
    enum Direction { case pull, push }

    let direction: Direction
    private let configuration: String?
    private var phases: [String: String] = [:]

    /// - Parameter configuration: the digest of what is sent besides the layers, which is not told.
    init(_ direction: Direction, configuration: String? = nil) {
        self.direction = direction
        self.configuration = configuration
    }

    /// The lines that a step is worth.
    mutating func take(_ layer: TransferLine.Layer) -> [ProgressLine] {
        guard layer.digest != configuration else { return [] }
        let id = String(layer.digest.drop { $0 != ":" }.dropFirst().prefix(12))
        let before = phases.updateValue(layer.phase, forKey: layer.digest)
        // Of what is there already nothing is done.
        if before == "present" { return [] }
        var lines: [ProgressLine] = []
        if before == nil, direction == .push || layer.phase != "present" {
            lines.append(
                ProgressLine(
                    status: direction == .pull ? "Pulling fs layer" : "Preparing", progressDetail: .init(), id: id))
        }
        let (word, moves) = words(layer.phase)
        guard moves || before != layer.phase else { return lines }
        var line = ProgressLine(status: word, progressDetail: .init(), id: id)
        if moves, layer.total > 0 {
            line.progressDetail = .init(current: layer.done, total: layer.total)
            line.progress = Self.bar(layer.done, layer.total)
        }
        lines.append(line)
        return lines
    }

    /// What a phase is called, and whether it is told how far it is.
    private func words(_ phase: String) -> (String, Bool) {
        switch phase {
        case "downloading": ("Downloading", true)
        case "downloaded": ("Download complete", false)
        case "unpacking": ("Extracting", true)
        case "uploading": ("Pushing", true)
        case "present": (direction == .pull ? "Already exists" : "Layer already exists", false)
        case "done": (direction == .pull ? "Pull complete" : "Pushed", false)
        default: (phase, false)
        }
    }

    private static func bar(_ done: Int64, _ total: Int64) -> String {
        let width: Int64 = 50
        let filled = Int(max(0, min(width, Int64(Double(done) / Double(total) * Double(width)))))
        let bar = String(repeating: "=", count: max(0, filled - 1)) + (filled > 0 ? ">" : "")
        return "[\(bar)\(String(repeating: " ", count: Int(width) - filled))] \(size(done))/\(size(total))"
    }

    /// Three digits and a unit of the powers of 1000: `1.23MB`.
    private static func size(_ bytes: Int64) -> String {
        var value = Double(bytes)
        var units = ["B", "kB", "MB", "GB", "TB"][...]
        while value >= 1000, units.count > 1 {
            value /= 1000
            units = units.dropFirst()
        }
        let digits = value >= 100 || units.first == "B" ? 1.0 : value >= 10 ? 10.0 : 100.0
        let text = "\((value * digits).rounded() / digits)"
        return (text.hasSuffix(".0") ? String(text.dropLast(2)) : text) + (units.first ?? "B")
    }
}
