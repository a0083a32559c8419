import Testing

@testable import Storage

/// A watch hears of every change of its keys from a revision on, once, in order.
@Suite(.timeLimit(.minutes(2))) struct WatchContract {
    @Test(arguments: Backend.allCases)
    func aWatchTellsThePastAndThenThePresent(backend: Backend) async throws {
        try await backend.withStore { store in
            let first = try await store.put("a/1", [UInt8]("x"))
            try await store.put("b/1", [UInt8]("not watched"))
            let deleted = try await store.delete("a/1")
            var batches = try await store.watch(prefix: "a/", from: first).makeAsyncIterator()
            let made = try await batches.next()
            #expect(made?.revision == first && made?.summary == ["+a/1=x"])
            let gone = try await batches.next()
            #expect(gone?.revision == deleted && gone?.summary == ["-a/1"])

            try await store.put("b/2", [])
            let both = try await store.transaction(
                [], then: [.put(key: "a/3", value: [UInt8]("z")), .put(key: "a/2", value: [UInt8]("y"))], otherwise: [])
            let batch = try await batches.next()
            // One transaction is one batch.
            #expect(batch?.revision == both.revision && batch?.summary == ["+a/2=y", "+a/3=z"])
            guard case .put(let entry)? = batch?.changes.first else { throw StoreError.invalid("no put") }
            #expect(try await store.get("a/2") == entry)
        }
    }

    @Test(arguments: Backend.allCases)
    func thePastIsToldAsThePresentWas(backend: Backend) async throws {
        try await backend.withStore { store in
            let start = try await store.range(prefix: "").revision + 1
            var live = try await store.watch(prefix: "", from: start).makeAsyncIterator()
            try await store.put("a", [])
            _ = try await store.transaction(
                [], then: [.put(key: "c", value: [1]), .delete(key: "a"), .put(key: "b", value: [0])], otherwise: [])
            try await store.put("b", [1])
            var past = try await store.watch(prefix: "", from: start).makeAsyncIterator()
            for _ in 0..<3 {
                let batch = try await live.next()
                #expect(try await past.next() == batch)
            }
        }
    }

    @Test(arguments: Backend.allCases)
    func aWatchFromTheFutureLeavesOutWhatComesBefore(backend: Backend) async throws {
        try await backend.withStore { store in
            let present = try await store.put("a", [])
            var batches = try await store.watch(prefix: "", from: present + 3).makeAsyncIterator()
            for number in 1...3 { try await store.put("k\(number)", []) }
            #expect(try await batches.next()?.summary == ["+k3="])
        }
    }

    @Test(arguments: Backend.allCases)
    func nothingIsLostOrDoubledWhenAWatchBeginsAmongWrites(backend: Backend) async throws {
        try await backend.withStore { store in
            let shared = store
            let first = try await store.put("k/0", [])
            async let writing: Void = {
                for number in 1...300 { try await shared.put("k/\(number)", []) }
            }()
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<8 {
                    group.addTask {
                        var expected = first
                        for try await batch in try await shared.watch(prefix: "k/", from: first) {
                            #expect(batch.revision == expected)
                            expected += 1
                            if expected > first + 300 { return }
                        }
                    }
                    try await Task.sleep(for: .milliseconds(10))
                }
                try await group.waitForAll()
            }
            try await writing
        }
    }

    @Test(arguments: Backend.allCases)
    func aCompactedRevisionCannotBeWatched(backend: Backend) async throws {
        try await backend.withStore { store in
            let first = try await store.put("a", [1])
            let second = try await store.put("a", [2])
            let third = try await store.put("a", [3])
            try await store.compact(second)
            await #expect(throws: StoreError.compacted(oldest: third)) {
                _ = try await store.watch(prefix: "", from: first)
            }
            await #expect(throws: StoreError.compacted(oldest: third)) {
                _ = try await store.watch(prefix: "", from: second)
            }
            var batches = try await store.watch(prefix: "", from: third).makeAsyncIterator()
            #expect(try await batches.next()?.revision == third)
            // The present is not touched, nor are its revisions.
            let entry = try await store.get("a")
            #expect(entry?.createRevision == first && entry?.version == 3)
            await #expect(throws: StoreError.self) { try await store.compact(third + 10) }
        }
    }

    @Test(arguments: Backend.allCases)
    func aWatchThatIsLeftCostsNothing(backend: Backend) async throws {
        try await backend.withStore { store in
            for _ in 0..<100 { _ = try await store.watch(prefix: "", from: 1) }
            try await store.put("a", [])
            var batches = try await store.watch(prefix: "", from: 1).makeAsyncIterator()
            #expect(try await batches.next()?.summary == ["+a="])
        }
    }
}
