import Testing

@testable import Storage

/// What every store does, whatever keeps it.
@Suite(.timeLimit(.minutes(2))) struct StoreContract {
    @Test(arguments: Backend.allCases)
    func aKeyHasItsRevisionsAndVersion(backend: Backend) async throws {
        try await backend.withStore { store in
            #expect(try await store.get("a") == nil)
            let first = try await store.put("a", [UInt8]("one"))
            let second = try await store.put("b", [UInt8]("other"))
            let third = try await store.put("a", [UInt8]("two"))
            #expect(first < second && second < third)
            #expect(
                try await store.get("a")
                    == StoreEntry(
                        key: "a", value: [UInt8]("two"), createRevision: first, modRevision: third, version: 2))
        }
    }

    @Test(arguments: Backend.allCases)
    func aDeletedKeyBeginsAnew(backend: Backend) async throws {
        try await backend.withStore { store in
            try await store.put("a", [1])
            try await store.put("a", [2])
            let deleted = try await store.delete("a")
            #expect(try await store.get("a") == nil)
            // Nothing to delete is no change.
            #expect(try await store.delete("a") == deleted)
            let made = try await store.put("a", [3])
            #expect(made == deleted + 1)
            let entry = try await store.get("a")
            #expect(entry?.version == 1 && entry?.createRevision == made)
        }
    }

    @Test(arguments: Backend.allCases)
    func valuesAreAnyBytes(backend: Backend) async throws {
        try await backend.withStore { store in
            let values: [[UInt8]] = [[], [0], Array(0...255), [UInt8](repeating: 0xFF, count: StoreLimits.value)]
            for (index, value) in values.enumerated() {
                try await store.put("v\(index)", value)
                #expect(try await store.get("v\(index)")?.value == value)
            }
        }
    }

    @Test(arguments: Backend.allCases)
    func aRangeIsAllKeysWithAPrefixInTheOrderOfBytes(backend: Backend) async throws {
        try await backend.withStore { store in
            let keys = [
                "a", "a/", "a/1", "a/10", "a/2", "a/é", "a/e\u{301}", "a/\u{10FFFF}x", "a0", "b", "aa/1", "A/1",
            ]
            for key in keys { try await store.put(key, [UInt8](key)) }
            let present = try await store.put("zz", [])
            let (entries, revision) = try await store.range(prefix: "a/")
            #expect(revision == present)
            #expect(
                entries.map { Array($0.key.utf8) }
                    == ["a/", "a/1", "a/10", "a/2", "a/e\u{301}", "a/é", "a/\u{10FFFF}x"].map { Array($0.utf8) })
            #expect(entries.allSatisfy { $0.value == [UInt8]($0.key) })
            #expect(try await store.range(prefix: "a/", limit: 2).entries.map(\.key) == ["a/", "a/1"])
            #expect(try await store.range(prefix: "").entries.count == keys.count + 1)
            #expect(try await store.range(prefix: "a/\u{10FFFF}").entries.count == 1)
            #expect(try await store.range(prefix: "nothing").entries.isEmpty)
        }
    }

    @Test(arguments: Backend.allCases)
    func aTransactionComparesAndDoesAllOrTheOther(backend: Backend) async throws {
        try await backend.withStore { store in
            let made = try await store.transaction(
                [.modRevision(key: "a", 0), .version(key: "b", 0)],
                then: [.put(key: "a", value: [1]), .put(key: "b", value: [2]), .get(key: "a"), .get(key: "c")],
                otherwise: [])
            #expect(made.succeeded)
            #expect(made.entries.map { $0?.value } == [[1], nil])
            // One revision for all of it.
            let both = try await store.range(prefix: "").entries
            #expect(both.map(\.modRevision) == [made.revision, made.revision])

            let again = try await store.transaction(
                [.modRevision(key: "a", 0)], then: [.delete(key: "a")], otherwise: [.get(key: "a"), .get(key: "b")])
            #expect(!again.succeeded)
            #expect(again.revision == made.revision)
            #expect(again.entries.map { $0?.value } == [[1], [2]])

            let moved = try await store.transaction(
                [.modRevision(key: "a", made.revision), .version(key: "a", 1), .value(key: "b", [2])],
                then: [.put(key: "a", value: [3]), .delete(key: "b")], otherwise: [])
            #expect(moved.succeeded && moved.revision == made.revision + 1)
            #expect(try await store.get("b") == nil)

            let partly = try await store.transaction(
                [.value(key: "a", [3]), .value(key: "b", [2])], then: [], otherwise: [.get(key: "a")])
            #expect(!partly.succeeded)
        }
    }

    @Test(arguments: Backend.allCases)
    func aFailedTransactionChangesNothing(backend: Backend) async throws {
        try await backend.withStore { store in
            let present = try await store.put("a", [1])
            await #expect(throws: StoreError.self) {
                try await store.transaction(
                    [], then: [.put(key: "a", value: [2]), .put(key: "b", value: [], lease: StoreLease(id: 999_999))],
                    otherwise: [])
            }
            #expect(try await store.get("a")?.value == [1])
            #expect(try await store.range(prefix: "").revision == present)
        }
    }

    @Test(arguments: Backend.allCases)
    func concurrentWritersDoNotLoseUpdates(backend: Backend) async throws {
        try await backend.withStore { store in
            let shared = store
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<10 {
                    group.addTask {
                        var done = 0
                        while done < 10 {
                            let entry = try await shared.get("count")
                            let value = entry.flatMap { Int(String(decoding: $0.value, as: UTF8.self)) } ?? 0
                            let result = try await shared.transaction(
                                [.modRevision(key: "count", entry?.modRevision ?? 0)],
                                then: [.put(key: "count", value: [UInt8]("\(value + 1)"))], otherwise: [])
                            if result.succeeded { done += 1 }
                        }
                    }
                }
                try await group.waitForAll()
            }
            #expect(try await store.get("count")?.value == [UInt8]("100"))
            #expect(try await store.get("count")?.version == 100)
        }
    }

    @Test(arguments: Backend.allCases)
    func oneOfManyClaimantsWins(backend: Backend) async throws {
        try await backend.withStore { store in
            let shared = store
            let winners = try await withThrowingTaskGroup(of: Bool.self) { group in
                for number in 0..<20 {
                    group.addTask {
                        try await shared.transaction(
                            [.modRevision(key: "claim", 0)],
                            then: [.put(key: "claim", value: [UInt8(number)])], otherwise: []
                        ).succeeded
                    }
                }
                return try await group.reduce(0) { $0 + ($1 ? 1 : 0) }
            }
            #expect(winners == 1)
        }
    }

    @Test(arguments: Backend.allCases)
    func aCancelledCallEitherHappensOrDoesNot(backend: Backend) async throws {
        try await backend.withStore { store in
            let shared = store
            for number in 0..<30 {
                let task = Task { try await shared.put("k\(number)", [1]) }
                if number % 2 == 0 { await Task.yield() }
                task.cancel()
                let result = await task.result
                let entry = try await store.get("k\(number)")
                switch result {
                case .success: #expect(entry != nil)
                case .failure(let error): #expect(error is CancellationError && entry == nil)
                }
            }
        }
    }

    @Test(arguments: Backend.allCases)
    func whatIsTooLargeOrMalformedIsRefused(backend: Backend) async throws {
        let bad: [[StoreOperation]] = [
            [.put(key: "a", value: [UInt8](repeating: 0, count: StoreLimits.value + 1))],
            [.put(key: "", value: [])], [.put(key: "a\u{0}b", value: [])],
            [.put(key: String(repeating: "k", count: StoreLimits.key + 1), value: [])],
            [.put(key: "a", value: []), .delete(key: "a")],
        ]
        try await backend.withStore { store in
            for operations in bad {
                let error = await #expect(throws: StoreError.self) {
                    try await store.transaction([], then: operations, otherwise: [])
                }
                guard case .invalid = error else {
                    Issue.record("\(operations.map(\.key)) ended with \(String(describing: error))")
                    continue
                }
            }
            #expect(try await store.range(prefix: "").entries.isEmpty)
            try await store.put(String(repeating: "k", count: StoreLimits.key), [])
            let most = (0..<StoreLimits.operations).map { StoreOperation.put(key: "k\($0)", value: []) }
            #expect(try await store.transaction([], then: most, otherwise: []).succeeded)
        }
    }
}
