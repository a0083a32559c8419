/// Objects by their ids. Each has a place of its own in memory, so that the free places of a large table, and its growth,
/// cost little.
struct ObjectTable<ID: Hashable & Sendable, Object: Sendable>: Sendable {
    private final class Place: Sendable {
        let object: Object
        init(_ object: Object) { self.object = object }
    }

    private var places: [ID: Place] = [:]

    subscript(id: ID) -> Object? {
        get { places[id]?.object }
        set { places[id] = newValue.map(Place.init) }
    }

    var count: Int { places.count }
    var keys: some Collection<ID> { places.keys }
    var values: some Collection<Object> { places.values.lazy.map(\.object) }
}
