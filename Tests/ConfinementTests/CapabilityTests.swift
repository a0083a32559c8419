import CCapabilities
import Confinement
import Glibc
import Testing

@Suite struct CapabilityTests {
    @Test func everyNameIsLibcapsName() throws {
        #expect(Capability.all.count == 41)
        for capability in Capability.all {
            let text = try #require(cap_to_name(cap_value_t(capability.number)))
            defer { cap_free(text) }
            #expect(capability.name.lowercased() == String(cString: text))
        }
    }

    @Test func namesAreReadWithAndWithoutPrefixInAnyCase() {
        #expect(Capability(name: "CAP_SYS_ADMIN")?.number == 21)
        #expect(Capability(name: "sys_admin")?.number == 21)
        #expect(Capability(name: "CAP_FLY") == nil)
        #expect(Capability(name: "CAP_") == nil)
        #expect(Capability(number: 64) == nil)
    }

    @Test func theDefaultSetIsDockers() {
        #expect(CapabilitySet.containerDefaults.rawValue == 0x0000_0000_a804_25fb)
        #expect(CapabilitySet.containerDefaults.members.count == 14)
    }

    @Test func theSetsOfThisProcessAreThoseInProc() throws {
        let sets = try CapabilitySets.current()
        #expect(sets.permitted.rawValue == procMask("CapPrm"))
        #expect(sets.effective.rawValue == procMask("CapEff"))
        #expect(sets.bounding.rawValue == procMask("CapBnd"))
        #expect(sets.ambient.rawValue == procMask("CapAmb"))
        #expect(sets.inheritable.rawValue == procMask("CapInh"))
    }

    @Test func aPlanGrantsWhatThereIsAndListsTheRest() {
        let plan = CapabilityPlan(
            bounding: ["CAP_CHOWN", "CAP_SYS_RESOURCE", "CAP_FLY"], effective: ["CAP_CHOWN", "CAP_FLY"],
            inheritable: [], permitted: ["CAP_CHOWN", "CAP_KILL"], ambient: ["CAP_KILL"],
            available: CapabilitySet(["CHOWN", "KILL"].compactMap { Capability(name: $0) }))
        #expect(plan.sets.bounding.names == ["CAP_CHOWN"])
        #expect(plan.sets.permitted.names == ["CAP_CHOWN", "CAP_KILL"])
        #expect(plan.unknown == ["CAP_FLY"])
        #expect(plan.sets.ambient.isEmpty, "an ambient capability must be inheritable")
        #expect(plan.unavailable.map(\.name) == ["CAP_KILL", "CAP_SYS_RESOURCE"])
    }

    @Test func ambientCapabilitiesThatAreInheritableAreKept() {
        let name = ["CAP_NET_BIND_SERVICE"]
        let plan = CapabilityPlan(
            bounding: name, effective: name, inheritable: name, permitted: name, ambient: name,
            available: CapabilitySet.containerDefaults)
        #expect(plan.sets.ambient.names == name)
        #expect(plan.unavailable.isEmpty)
    }

    private func procMask(_ key: String) -> UInt64? {
        guard let file = fopen("/proc/self/status", "r") else { return nil }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 4096)
        while fgets(&line, Int32(line.count), file) != nil {
            let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            guard text.hasPrefix(key + ":") else { continue }
            return UInt64(text.split(whereSeparator: { $0 == "\t" || $0 == "\n" })[1], radix: 16)
        }
        return nil
    }
}

@Suite struct ResourceLimitTests {
    @Test func numbersAreThoseOfTheCLibrary() throws {
        #expect(try ResourceLimit(name: "RLIMIT_NOFILE", soft: 1, hard: 2).resource == Int32(RLIMIT_NOFILE.rawValue))
        #expect(try ResourceLimit(name: "RLIMIT_CORE", soft: 1, hard: 2).resource == Int32(RLIMIT_CORE.rawValue))
        #expect(try ResourceLimit(name: "RLIMIT_AS", soft: 1, hard: 2).resource == Int32(RLIMIT_AS.rawValue))
        #expect(try ResourceLimit(name: "RLIMIT_RTTIME", soft: 1, hard: 2).resource == 15)
        #expect(try ResourceLimit(name: "RLIMIT_MEMLOCK", soft: 1, hard: 2).resource == 8)
    }

    @Test func anUnknownLimitIsRefusedByName() {
        let error = #expect(throws: ResourceLimitError.self) {
            try ResourceLimit(name: "RLIMIT_WINGS", soft: 1, hard: 2)
        }
        #expect(error.map { "\($0)".contains("RLIMIT_WINGS") } == true)
    }

    @Test func aSoftLimitAboveTheHardOneIsRefused() {
        #expect(throws: ResourceLimitError.self) { try ResourceLimit(name: "RLIMIT_CPU", soft: 3, hard: 2) }
        #expect(throws: Never.self) { try ResourceLimit(name: "RLIMIT_CPU", soft: .max, hard: .max) }
    }

    @Test func aRefusalNamesTheLimitAndTheMissingCapability() throws {
        let text = try ResourceLimit(name: "RLIMIT_NOFILE", soft: 1024, hard: .max).refusal(errno: EPERM)
        #expect(text.contains("RLIMIT_NOFILE"))
        #expect(text.contains("hard unlimited"))
        #expect(text.contains("CAP_SYS_RESOURCE"))
        #expect(text.contains("Operation not permitted"))
    }
}
