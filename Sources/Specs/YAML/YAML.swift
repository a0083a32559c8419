import CYAML
import JSON

/// Bounds of a YAML text, beside those of `JSONLimits`.
package struct YAMLLimits: Sendable, Equatable {
    package var json: JSONLimits
    /// Values in the whole text, each alias counted with all that it stands for.
    package var values: Int

    package init(json: JSONLimits = .standard, values: Int = 1 << 18) {
        self.json = json
        self.values = values
    }
}

/// Reads YAML texts as the JSON values that they stand for, by libyaml.
///
/// Strict where YAML leaves room: one document, keys that are text, no key twice, no merge keys (`<<`), no tags but
/// those that change nothing. Where a text is wanted (`isText`), a plain word that versions of YAML read as different
/// numbers or booleans (`010`, `1.0`, `yes`) is refused: it has to be put into quotation marks.
package enum YAML {
    /// - Parameter isText: whether the scalar at a path, and whatever is below it, is a text also when it looks like a
    ///   number or a boolean.
    /// - Throws: `JSONError` with the path, and the line where the text is no YAML.
    package static func parse(
        _ bytes: [UInt8], limits: YAMLLimits = YAMLLimits(), isText: ([JSONPathElement]) -> Bool = { _ in false }
    ) throws(JSONError) -> JSONValue {
        guard bytes.count <= limits.json.bytes else {
            throw JSONError(.tooLarge, "\(bytes.count) bytes are more than the \(limits.json.bytes) allowed")
        }
        // SAFETY: both pointers are used inside these calls only, and libyaml's parser, which knows its own address, is deleted
        // before they end.
        return try withoutActuallyEscaping(isText) { (isText) throws(JSONError) in
            try bytes.withUnsafeBufferPointer { (buffer) throws(JSONError) in
                var memory = yaml_parser_t()
                return try withUnsafeMutablePointer(to: &memory) { (parser) throws(JSONError) in
                    guard yaml_parser_initialize(parser) == 1 else {
                        throw JSONError(.tooLarge, "there is no memory for a YAML parser")
                    }
                    defer { yaml_parser_delete(parser) }
                    // Not by the first bytes: UTF-16 is no format of ours.
                    yaml_parser_set_encoding(parser, YAML_UTF8_ENCODING)
                    // An empty array may have no address, and libyaml wants one.
                    let none: StaticString = ""
                    yaml_parser_set_input_string(parser, buffer.baseAddress ?? none.utf8Start, buffer.count)
                    var reader = YAMLReader(parser, limits, isText)
                    return try reader.document()
                }
            }
        }
    }
}

/// One pass over libyaml's events. Lives only inside `YAML.parse`, while its parser is valid.
private struct YAMLReader {
    private let parser: UnsafeMutablePointer<yaml_parser_t>
    private let limits: YAMLLimits
    private let isText: ([JSONPathElement]) -> Bool
    private var path: [JSONPathElement] = []
    private var depth = 0
    private var count = 0
    /// What anchors stand for, with how many values it is.
    private var anchors: [String: (value: JSONValue, count: Int)] = [:]

    init(
        _ parser: UnsafeMutablePointer<yaml_parser_t>, _ limits: YAMLLimits,
        _ isText: @escaping ([JSONPathElement]) -> Bool
    ) {
        self.parser = parser
        self.limits = limits
        self.isText = isText
    }

    /// What a parser event is, copied out of libyaml's memory.
    private enum Event {
        case end
        case documentStart, documentEnd
        case alias(String)
        case scalar(String, anchor: String?, tag: String?, isPlain: Bool)
        case sequence(anchor: String?, tag: String?)
        case mapping(anchor: String?, tag: String?)
        case sequenceEnd, mappingEnd
        case other
    }

    mutating func document() throws(JSONError) -> JSONValue {
        var value: JSONValue?
        while true {
            switch try next() {
            case .documentStart:
                guard value == nil else { throw failure(.syntax, "there is a second document; only one is read") }
                value = try self.value(try next())
            case .end:
                guard let value else { throw failure(.syntax, "there is no document") }
                return value
            default: continue
            }
        }
    }

    private mutating func value(_ event: Event) throws(JSONError) -> JSONValue {
        let before = count
        try add(1)
        let value: JSONValue
        let name: String?
        switch event {
        case .alias(let alias):
            guard let anchor = anchors[alias] else {
                throw failure(.syntax, "the alias *\(JSONPathElement.quoted(alias)) has no anchor before it")
            }
            try add(anchor.count)
            return anchor.value
        case .scalar(let text, let anchor, let tag, let isPlain):
            // A long text is as much as several values: aliases bring it again and again.
            try add(text.utf8.count / 64)
            value = try scalar(text, tag, isPlain)
            name = anchor
        case .sequence(let anchor, let tag):
            try check(tag, is: YAML_SEQ_TAG)
            value = .array(try sequence())
            name = anchor
        case .mapping(let anchor, let tag):
            try check(tag, is: YAML_MAP_TAG)
            value = .object(try mapping())
            name = anchor
        default: throw failure(.syntax, "there is no value")
        }
        if let name { anchors[name] = (value, count - before) }
        return value
    }

    private mutating func sequence() throws(JSONError) -> [JSONValue] {
        try enter()
        var elements: [JSONValue] = []
        while true {
            let event = try next()
            if case .sequenceEnd = event { break }
            path.append(.index(elements.count))
            elements.append(try value(event))
            path.removeLast()
        }
        depth -= 1
        return elements
    }

    private mutating func mapping() throws(JSONError) -> JSONObject {
        try enter()
        var object = JSONObject()
        while true {
            let event = try next()
            if case .mappingEnd = event { break }
            guard case .scalar(let key, _, let tag, let isPlain) = event, tag == nil else {
                throw failure(.syntax, "a key is not plain text")
            }
            if isPlain, key == "<<" { throw failure(.syntax, "merge keys (<<) are not read: write the members out") }
            path.append(.key(key))
            guard object[key] == nil else { throw failure(.syntax, "the member is there twice") }
            object[key] = try value(try next())
            path.removeLast()
        }
        depth -= 1
        return object
    }

    private func scalar(_ text: String, _ tag: String?, _ isPlain: Bool) throws(JSONError) -> JSONValue {
        if tag == YAML_STR_TAG || tag == "!" || !isPlain {
            try check(tag, is: YAML_STR_TAG)
            return .string(text)
        }
        try check(tag, is: YAML_STR_TAG)
        switch (YAMLScalar(text), isText(path)) {
        case (.null, _): return .null
        case (.text, _): return .string(text)
        case (.bool(let flag), false): return .bool(flag)
        case (.number(let number), false): return number
        case (.bool(let flag), true) where text == "\(flag)": return .string(text)
        case (.number(.integer(let number)), true) where text == "\(number)": return .string(text)
        default:
            throw failure(
                .type,
                "versions of YAML read \(JSONPathElement.quoted(text)) differently: put it into quotation marks, or write "
                    + "a plain number")
        }
    }

    private func check(_ tag: String?, is own: String) throws(JSONError) {
        guard let tag, tag != own, tag != "!" else { return }
        throw failure(.type, "the tag \(JSONPathElement.quoted(tag)) is not read here")
    }

    private mutating func enter() throws(JSONError) {
        depth += 1
        if depth > limits.json.depth {
            throw failure(.tooDeep, "it is nested deeper than the \(limits.json.depth) levels allowed")
        }
    }

    private mutating func add(_ values: Int) throws(JSONError) {
        count += values
        if count > limits.values { throw failure(.tooLarge, "there are more than the \(limits.values) values allowed") }
    }

    private mutating func next() throws(JSONError) -> Event {
        var event = yaml_event_t()
        guard yaml_parser_parse(parser, &event) == 1 else {
            let why = parser.pointee.problem.map { String(cString: $0) } ?? "it cannot be read"
            let place = parser.pointee.problem_mark
            throw failure(.syntax, "no YAML at line \(place.line + 1), column \(place.column + 1): \(why)")
        }
        // What is returned holds copies.
        defer { yaml_event_delete(&event) }
        switch event.type {
        case YAML_STREAM_END_EVENT: return .end
        case YAML_DOCUMENT_START_EVENT: return .documentStart
        case YAML_DOCUMENT_END_EVENT: return .documentEnd
        case YAML_ALIAS_EVENT: return .alias(text(event.data.alias.anchor) ?? "")
        case YAML_SCALAR_EVENT:
            let scalar = event.data.scalar
            guard scalar.length <= limits.json.stringBytes else {
                throw failure(.tooLarge, "a text is longer than the \(limits.json.stringBytes) bytes allowed")
            }
            // SAFETY: libyaml's event has so many bytes there until it is deleted below; it checked that they are UTF-8.
            let words = String(
                decoding: UnsafeBufferPointer(start: scalar.value, count: scalar.length), as: UTF8.self)
            return .scalar(
                words, anchor: text(scalar.anchor), tag: text(scalar.tag),
                isPlain: scalar.style == YAML_PLAIN_SCALAR_STYLE)
        case YAML_SEQUENCE_START_EVENT:
            let start = event.data.sequence_start
            return .sequence(anchor: text(start.anchor), tag: text(start.tag))
        case YAML_SEQUENCE_END_EVENT: return .sequenceEnd
        case YAML_MAPPING_START_EVENT:
            let start = event.data.mapping_start
            return .mapping(anchor: text(start.anchor), tag: text(start.tag))
        case YAML_MAPPING_END_EVENT: return .mappingEnd
        default: return .other
        }
    }

    private func text(_ bytes: UnsafeMutablePointer<UInt8>?) -> String? { bytes.map { String(cString: $0) } }

    private func failure(_ kind: JSONError.Kind, _ message: String) -> JSONError { JSONError(kind, message, at: path) }
}
