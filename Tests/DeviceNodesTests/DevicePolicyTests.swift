import DeviceNodes
import Testing

@Suite struct DevicePolicyTests {
    /// The rules of a container as Docker writes them, with the runtime's own behind.
    static let docker: [DeviceRule] =
        [
            .denyAll,
            DeviceRule(allow: true, .char, major: 1, minor: 5),
            DeviceRule(allow: true, .char, major: 1, minor: 3),
            DeviceRule(allow: false, .char, major: 10, minor: 229),
        ] + DeviceRule.containerDefaults

    @Test func withoutRulesNothingIsAllowed() {
        let policy = DevicePolicy([])
        #expect(!policy.allows(.char, major: 1, minor: 3, .read))
        #expect(!policy.allowsEverything)
    }

    @Test func aContainerUsesItsDefaultDevicesAndMakesNodesOnly() {
        let policy = DevicePolicy(Self.docker)
        for minor in [3, 5, 7, 8, 9] as [UInt32] { #expect(policy.allows(.char, major: 1, minor: minor, .all)) }
        #expect(policy.allows(.char, major: 5, minor: 0, .all))
        #expect(policy.allows(.char, major: 5, minor: 2, .all))
        #expect(policy.allows(.char, major: 136, minor: 77, [.read, .write]))
        #expect(policy.allows(.block, major: 8, minor: 0, .mknod))
        #expect(!policy.allows(.block, major: 8, minor: 0, .read))
        #expect(!policy.allows(.char, major: 1, minor: 1, .read))
        #expect(!policy.allows(.char, major: 10, minor: 229, .write))
        #expect(!policy.allows(.char, major: 1, minor: 1, [.mknod, .read]))
    }

    @Test func aPrivilegedContainerUsesEverything() {
        let policy = DevicePolicy([.denyAll, DeviceRule(allow: true, .all)] + DeviceRule.containerDefaults)
        #expect(policy.allowsEverything)
        #expect(policy.allows(.all, major: 8, minor: 1, .all))
    }

    @Test func theLastMatchingRuleDecidesForEachKindOfAccess() {
        let policy = DevicePolicy([
            .denyAll,
            DeviceRule(allow: true, .char, major: 195, access: [.read, .write]),
            DeviceRule(allow: false, .char, major: 195, minor: 1, access: .write),
        ])
        #expect(policy.allows(.char, major: 195, minor: 0, [.read, .write]))
        #expect(policy.allows(.char, major: 195, minor: 1, .read))
        #expect(!policy.allows(.char, major: 195, minor: 1, [.read, .write]))
        #expect(!policy.allows(.char, major: 195, minor: 0, .mknod))
    }

    @Test func rulesThatTogetherGrantAnAccessAreJoined() {
        let policy = DevicePolicy([
            DeviceRule(allow: true, .char, major: 1, minor: 3, access: .read),
            DeviceRule(allow: true, .char, major: 1, minor: 3, access: .write),
        ])
        #expect(policy.allows(.char, major: 1, minor: 3, [.read, .write]))
        #expect(policy.exceptions.count == 1)
    }

    @Test func aRuleWithoutLettersSaysNothing() {
        #expect(DevicePolicy([DeviceRule(allow: true, .all, access: [])]) == DevicePolicy([]))
    }

    @Test func version1HoldsAContainersRules() {
        let (rules, inexpressible) = DevicePolicy(Self.docker).forVersion1()
        #expect(inexpressible == nil)
        #expect(!rules.contains { !$0.allow })
        #expect(rules.map(\.kernelText).contains("c 136:* rwm"))
        #expect(!rules.contains { $0.major == 10 })
    }

    @Test func version1CannotExceptPartOfARange() {
        let hole = DeviceRule(allow: false, .char, major: 195, minor: 1)
        let policy = DevicePolicy([.denyAll, DeviceRule(allow: true, .char, major: 195), hole])
        #expect(policy.forVersion1().inexpressible == hole)
        let island = DeviceRule(allow: true, .block, major: 8, minor: 1)
        let reverse = DevicePolicy([DeviceRule(allow: true, .all), DeviceRule(allow: false, .block, major: 8), island])
        #expect(reverse.forVersion1().inexpressible == island)
    }

    @Test(arguments: 0..<400) func shorteningKeepsTheMeaning(seed: Int) {
        var generator = Numbers(seed: UInt64(seed))
        let rules = generator.rules()
        let policy = DevicePolicy(rules)
        for question in Question.all {
            let expected = question.answer(rules)
            let answer = policy.allows(question.device, major: question.major, minor: question.minor, question.access)
            #expect(answer == expected, "\(question) under \(rules)")
        }
    }

    @Test(arguments: 0..<400) func theProgramDecidesAsThePolicyDoes(seed: Int) {
        var generator = Numbers(seed: UInt64(seed))
        let policy = DevicePolicy(generator.rules())
        let program = DeviceProgram(policy)
        for question in Question.all {
            let expected = policy.allows(question.device, major: question.major, minor: question.minor, question.access)
            let answer = run(program.instructions, question)
            #expect(answer == (expected ? 1 : 0), "\(question) under \(policy.exceptions)")
        }
    }

    @Test func aContainersProgramIsSmall() {
        #expect(DeviceProgram(DevicePolicy(Self.docker)).instructions.count < 100)
        #expect(DeviceProgram(DevicePolicy([DeviceRule(allow: true, .all)])).instructions.count == 2)
    }
}

@Suite struct DeviceTextTests {
    @Test func accessIsReadInAnyOrderAndWrittenInTheKernels() {
        #expect(DeviceAccess("mwr")?.description == "rwm")
        #expect(DeviceAccess("") == [])
        #expect(DeviceAccess("rr") == nil)
        #expect(DeviceAccess("x") == nil)
    }

    @Test func classesAreReadAsTheSpecificationHasThem() {
        #expect(DeviceClass("u") == .char)
        #expect(DeviceClass("a") == .all)
        #expect(DeviceClass("p") == nil)
        #expect(DeviceNode.Kind("u") == .char)
        #expect(DeviceNode.Kind("p") == .fifo)
    }

    @Test func aRuleReadsAsInDevicesAllow() {
        #expect(DeviceRule(allow: true, .char, major: 1, minor: 3, access: [.read, .mknod]).kernelText == "c 1:3 rm")
        #expect(DeviceRule.denyAll.kernelText == "a *:* rwm")
    }

    @Test func defaultNodesCanBeUsedByDefault() throws {
        let policy = DevicePolicy(DeviceRule.containerDefaults)
        for node in DeviceNode.containerDefaults {
            #expect(policy.allows(.char, major: node.major, minor: node.minor, .all), "\(node.path)")
            #expect(node.mode == 0o666)
            let rule = try #require(node.rule())
            #expect(DevicePolicy([rule]).allows(.char, major: node.major, minor: node.minor, .all))
        }
        #expect(DeviceNode("/dev/pipe", .fifo).rule() == nil)
    }

    @Test func theHostsNullIsFound() throws {
        let node = try DeviceNode.discover("/dev/null")
        #expect(node.kind == .char && node.major == 1 && node.minor == 3)
    }

    @Test func whatIsNoDeviceIsRefusedByName() {
        let error = #expect(throws: DeviceError.self) { try DeviceNode.discover("/etc/passwd") }
        #expect(error.map { "\($0)".contains("/etc/passwd") } == true)
        #expect(throws: DeviceError.self) { try DeviceNode.discover("/dev/there-is-no-such-device") }
    }
}
