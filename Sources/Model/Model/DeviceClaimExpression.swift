/// Why a text is no claim.
package struct DeviceClaimProblem: Error, Sendable, Hashable, CustomStringConvertible {
    package let description: String
}

extension DeviceClaim {
    /// Reads what people write behind `--gpus`: `2`, `all`, or terms between commas: `count=2`, `all`, `model=A100*`,
    /// `vendor=nvidia`, `memory>=40g`, `driver>=550.54`, `cuda>=12.4`, `capability>=8.0`, `profile=1g.18gb`, `id=GPU-…` (again
    /// for each), `sharing=whole|share`, `on-unhealthy=stay|restart|end`.
    ///
    /// A model with a comma in it cannot be written; a pattern can.
    package init(expression text: String) throws(DeviceClaimProblem) {
        self.init()
        guard text.utf8.count <= 4096 else { throw Self.problem("\(text.utf8.count) bytes are more than 4096") }
        var seen: Set<String> = []
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            let term = Term(Self.trimmed(part))
            guard term.name == "id" || seen.insert(term.name).inserted else {
                throw Self.problem("\(term.name) is said twice")
            }
            try take(term)
        }
        if all, count != nil { throw Self.problem("all and a count exclude each other") }
    }

    private mutating func take(_ term: Term) throws(DeviceClaimProblem) {
        let value = term.value
        if term.relation == nil {
            if term.name == "all" {
                all = true
            } else if term.name.utf8.first.map({ (0x30...0x39).contains($0) || $0 == 0x2D || $0 == 0x2E }) ?? false {
                guard count == nil else { throw Self.problem("a count is said twice") }
                count = try Self.number(term.name)
            } else {
                throw Self.problem("\(Admission.quoted(term.name)) is no term: write \(Self.form)")
            }
            return
        }
        switch term.name {
        case "count", "model", "vendor", "profile", "id", "sharing", "on-unhealthy":
            guard term.relation == .equal else { throw Self.problem("\(term.name) goes with = only") }
        case "memory", "driver", "cuda", "capability":
            guard term.relation == .least else {
                throw Self.problem("\(term.name) is a least one: write \(term.name)>=\(value)")
            }
        default: throw Self.problem("\(Admission.quoted(term.name)) is no attribute: write \(Self.form)")
        }
        guard !value.isEmpty else { throw Self.problem("\(term.name) has no value") }
        switch term.name {
        case "count":
            guard count == nil else { throw Self.problem("a count is said twice") }
            if value == "all" { all = true } else { count = try Self.number(value) }
        case "model": model = value
        case "vendor": vendor = value
        case "profile": profile = value
        case "id": ids.append(value)
        case "sharing": sharing = try Self.word(value, of: term.name)
        case "on-unhealthy": onUnhealthy = try Self.word(value, of: term.name)
        case "memory": memory = try Self.bytes(value)
        case "driver": driver = value
        case "cuda": runtime = value
        default: capability = value
        }
    }

    /// The claim as an expression that is read as the same one.
    package var expression: String {
        var terms: [String] = []
        if all { terms.append("all") }
        if let count { terms.append("count=\(count)") }
        terms += ids.map { "id=\($0)" }
        if let vendor { terms.append("vendor=\(vendor)") }
        if let model { terms.append("model=\(model)") }
        if let memory { terms.append("memory>=\(Self.text(ofBytes: memory))") }
        if let driver { terms.append("driver>=\(driver)") }
        if let runtime { terms.append("cuda>=\(runtime)") }
        if let capability { terms.append("capability>=\(capability)") }
        if let profile { terms.append("profile=\(profile)") }
        if sharing != .whole { terms.append("sharing=\(sharing.rawValue)") }
        if onUnhealthy != .stay { terms.append("on-unhealthy=\(onUnhealthy.rawValue)") }
        return terms.isEmpty ? "1" : terms.joined(separator: ",")
    }

    /// `40g` where it is a whole number of these, as in an expression.
    package static func text(ofBytes bytes: Int64) -> String {
        for (unit, shift) in [("t", 40), ("g", 30), ("m", 20), ("k", 10)] as [(String, Int64)]
        where bytes > 0 && bytes % (1 << shift) == 0 {
            return "\(bytes >> shift)\(unit)"
        }
        return "\(bytes)"
    }

    private static let form = "a number, all, or terms such as model=A100*,memory>=40g,count=2"

    private static func problem(_ text: String) -> DeviceClaimProblem {
        DeviceClaimProblem(description: "not a claim of devices: \(text)")
    }

    private static func number(_ text: String) throws(DeviceClaimProblem) -> Int {
        if let number = Int(text) { return number }
        guard Double(text) == nil else {
            throw problem(
                "\(text) is no whole number: devices are given whole; a share of one is asked for with sharing=share, where "
                    + "nodes declare shares")
        }
        throw problem("\(Admission.quoted(text)) is no number")
    }

    private static func word<Word: RawRepresentable & CaseIterable>(
        _ text: String, of name: String
    ) throws(DeviceClaimProblem) -> Word where Word.RawValue == String {
        guard let word = Word(rawValue: text) else {
            let words = Word.allCases.map(\.rawValue).joined(separator: ", ")
            throw problem("\(name) is one of \(words), not \(Admission.quoted(text))")
        }
        return word
    }

    /// `40g`, `512m`, `1024`: whole numbers, powers of 1024.
    private static func bytes(_ text: String) throws(DeviceClaimProblem) -> Int64 {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        let shifts: [String: Int64] = [
            "": 0, "b": 0, "k": 10, "kb": 10, "kib": 10, "m": 20, "mb": 20, "mib": 20, "g": 30, "gb": 30, "gib": 30,
            "t": 40, "tb": 40, "tib": 40,
        ]
        guard let shift = shifts[text.dropFirst(digits.count).lowercased()], let number = Int64(digits),
            number < 1 << (62 - shift)
        else { throw problem("\(Admission.quoted(text)) is no amount of memory: write it as 40g") }
        return number << shift
    }

    private static func trimmed(_ text: Substring) -> Substring {
        var text = text
        while text.first == " " { text.removeFirst() }
        while text.last == " " { text.removeLast() }
        return text
    }

    /// `name`, `name=value` or `name>=value`.
    private struct Term {
        enum Relation { case equal, least, other }

        let name: String
        let relation: Relation?
        let value: String

        init(_ text: Substring) {
            guard let sign = text.utf8.firstIndex(where: { $0 == UInt8(ascii: "=") || $0 == UInt8(ascii: ">") }) else {
                name = String(text)
                relation = nil
                value = ""
                return
            }
            name = String(text[..<sign])
            let isLeast = text[sign...].hasPrefix(">=")
            relation = isLeast ? .least : text[sign...].hasPrefix("=") ? .equal : .other
            value = String(DeviceClaim.trimmed(text[text.utf8.index(sign, offsetBy: isLeast ? 2 : 1)...]))
        }
    }
}
