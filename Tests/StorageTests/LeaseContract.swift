import Testing

@testable import Storage

/// Keys with a lease live as long as it is kept alive.
@Suite(.timeLimit(.minutes(2))) struct LeaseContract {
    @Test(arguments: Backend.allCases)
    func keysVanishTogetherWhenTheirLeaseRunsOut(backend: Backend) async throws {
        try await backend.withStore { store in
            let lease = try await store.grantLease(seconds: 4)
            let made = try await store.transaction(
                [],
                then: [
                    .put(key: "a", value: [], lease: lease), .put(key: "b", value: [], lease: lease),
                    .put(key: "c", value: []),
                ], otherwise: [])
            #expect(try await store.get("a")?.lease == lease)
            var batches = try await store.watch(prefix: "", from: made.revision + 1).makeAsyncIterator()
            #expect(try await batches.next()?.summary == ["-a", "-b"])
            #expect(try await store.range(prefix: "").entries.map(\.key) == ["c"])
            await #expect(throws: StoreError.noSuchLease(lease.id)) { try await store.keepAlive(lease) }
            await #expect(throws: StoreError.noSuchLease(lease.id)) { try await store.put("a", [], lease: lease) }
        }
    }

    @Test(arguments: Backend.allCases)
    func aShortLeaseRunsOutBesideALongOne(backend: Backend) async throws {
        try await backend.withStore { store in
            let long = try await store.grantLease(seconds: 3600)
            try await store.put("long", [], lease: long)
            let short = try await store.grantLease(seconds: 4)
            let made = try await store.put("short", [], lease: short)
            var batches = try await store.watch(prefix: "", from: made + 1).makeAsyncIterator()
            #expect(try await batches.next()?.summary == ["-short"])
            #expect(try await store.get("long") != nil)
        }
    }

    @Test(arguments: Backend.allCases)
    func aLeaseThatIsKeptAliveOutlivesOthers(backend: Backend) async throws {
        try await backend.withStore { store in
            let kept = try await store.grantLease(seconds: 10)
            try await store.put("kept", [], lease: kept)
            for number in 0..<3 {
                let other = try await store.grantLease(seconds: 4)
                let made = try await store.put("other\(number)", [], lease: other)
                try await store.keepAlive(kept)
                var batches = try await store.watch(prefix: "", from: made + 1).makeAsyncIterator()
                #expect(try await batches.next()?.summary == ["-other\(number)"])
            }
            #expect(try await store.get("kept") != nil)
        }
    }

    @Test(arguments: Backend.allCases)
    func revokingEndsALeaseWithItsKeys(backend: Backend) async throws {
        try await backend.withStore { store in
            let lease = try await store.grantLease(seconds: 600)
            try await store.put("a", [], lease: lease)
            try await store.revoke(lease)
            #expect(try await store.get("a") == nil)
            await #expect(throws: StoreError.noSuchLease(lease.id)) { try await store.revoke(lease) }
            await #expect(throws: StoreError.noSuchLease(lease.id)) { try await store.keepAlive(lease) }
        }
    }

    @Test(arguments: Backend.allCases)
    func aKeyPutWithoutItsLeaseStays(backend: Backend) async throws {
        try await backend.withStore { store in
            let lease = try await store.grantLease(seconds: 600)
            try await store.put("a", [1], lease: lease)
            try await store.put("a", [2])
            try await store.revoke(lease)
            #expect(try await store.get("a")?.value == [2])
        }
    }

    @Test(arguments: Backend.allCases)
    func aLeaseOfNoOrTooMuchTimeIsRefused(backend: Backend) async throws {
        try await backend.withStore { store in
            for seconds in [0, -1, 1_000_001] {
                await #expect(throws: StoreError.self) { try await store.grantLease(seconds: seconds) }
            }
        }
    }
}
