import Wire

/// How far a pull or push is, for the events: its client sees each line, everybody else now and then a sum.
struct TransferTally {
    /// Transfers that take less time tell their end only.
    static let period = Duration.seconds(5)

    private var layers: [String: (done: Int64, total: Int64)] = [:]
    private var next = ContinuousClock.now + Self.period

    /// Takes a line in.
    ///
    /// - Returns: attributes of an event that is due: the bytes `done` of the `total` of the layers known by now.
    mutating func take(_ line: TransferLine) -> [String: String]? {
        guard let layer = line.layer else { return nil }
        layers[layer.digest] = (layer.done, layer.total)
        guard ContinuousClock.now >= next else { return nil }
        next = .now + Self.period
        let (done, total) = layers.values.reduce((0, 0) as (Int64, Int64)) { sum, layer in
            (sum.0 + layer.done, sum.1 + layer.total)
        }
        return ["done": "\(done)", "total": "\(total)"]
    }
}
