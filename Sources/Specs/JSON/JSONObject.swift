/// The members of a JSON object in the order in which they were written.
///
/// Keys are compared as Swift strings, so canonically equivalent spellings are one key: what a `[String: T]` would
/// merge cannot be told apart here either, and a text with both is refused as having a duplicate.
package struct JSONObject: Sendable, ExpressibleByDictionaryLiteral {
    /// One member.
    package struct Member: Sendable, Equatable {
        /// The member's name.
        package let key: String
        /// The member's value.
        package var value: JSONValue
    }

    /// The members in order.
    package private(set) var members: [Member] = []
    /// Positions by key; kept only for objects too large for a linear search.
    private var positions: [String: Int] = [:]
    private static let linearSearch = 12

    /// An object without members.
    package init() {}

    /// The last value wins where a key is given twice.
    package init(dictionaryLiteral elements: (String, JSONValue)...) {
        for (key, value) in elements { self[key] = value }
    }

    /// How many members there are.
    package var count: Int { members.count }
    /// Whether there are no members.
    package var isEmpty: Bool { members.isEmpty }
    /// The keys in order.
    package var keys: [String] { members.map(\.key) }

    /// The value of a member. Setting nil removes it; setting a new key appends it.
    package subscript(key: String) -> JSONValue? {
        get { position(of: key).map { members[$0].value } }
        set {
            switch (position(of: key), newValue) {
            case (let position?, let value?): members[position].value = value
            case (let position?, nil):
                members.remove(at: position)
                positions = [:]
                if members.count > Self.linearSearch { indexAll() }
            case (nil, let value?): append(key, value)
            case (nil, nil): break
            }
        }
    }

    mutating func reserveCapacity(_ count: Int) { members.reserveCapacity(count) }

    /// Appends a member; false, and nothing changed, when the key is there already.
    mutating func insertNew(_ key: String, _ value: JSONValue) -> Bool {
        if position(of: key) != nil { return false }
        append(key, value)
        return true
    }

    /// The place of a key among the members.
    func position(of key: String) -> Int? {
        if members.count > Self.linearSearch { return positions[key] }
        return members.firstIndex { $0.key == key }
    }

    private mutating func append(_ key: String, _ value: JSONValue) {
        members.append(Member(key: key, value: value))
        if members.count == Self.linearSearch + 1 {
            indexAll()
        } else if members.count > Self.linearSearch {
            positions[key] = members.count - 1
        }
    }

    private mutating func indexAll() {
        positions.reserveCapacity(members.count)
        for (position, member) in members.enumerated() { positions[member.key] = position }
    }
}

extension JSONObject: Equatable {
    /// Objects are equal when they have the same members, in whatever order.
    package static func == (left: JSONObject, right: JSONObject) -> Bool {
        left.count == right.count && left.members.allSatisfy { right[$0.key] == $0.value }
    }
}
