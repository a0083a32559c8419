import Model
import Testing

@Suite struct LimitsOnTraffic {
    private func problem(_ body: () throws(TrafficLimits.Problem) -> TrafficLimits) -> String {
        do throws(TrafficLimits.Problem) {
            return "taken as \(try body())"
        } catch {
            return error.description
        }
    }

    @Test func ratesAreBitsASecondAndUnitsThousands() throws {
        let limits = try TrafficLimits(expression: "in=10m,out=512k,out-burst=2M")
        #expect(limits == TrafficLimits(ingressRate: 10_000_000, egressRate: 512_000, egressBurst: 2_000_000))
        #expect(try TrafficLimits(expression: "in=1g").ingressRate == 1_000_000_000)
    }

    @Test(arguments: [
        ("", "'' is no limit such as in=10m"), ("in", "'in' is no limit"), ("in=", "'in=' is no limit"),
        ("in=ten", "'in=ten'"), ("in=0", "'in=0'"), ("in=-1", "'in=-1'"), ("in=1.5m", "'in=1.5m'"),
        ("in=9223372036854775807k", "is no limit"), ("in=1m,in=2m", "in is given twice"),
        ("up=1m", "'up' is none of in, out, in-burst and out-burst"), ("in=1m,", "'' is no limit"),
    ])
    func whatIsNoLimitIsNamed(text: String, words: String) {
        let found = problem { () throws(TrafficLimits.Problem) in try TrafficLimits(expression: text) }
        #expect(found.contains(words), "\(found)")
    }

    @Test func aRateWithoutABurstGetsATenthOfASecondInBounds() throws {
        #expect(try TrafficLimits(ingressRate: 100_000_000).completed().ingressBurst == 10_000_000)
        #expect(try TrafficLimits(egressRate: 8).completed() == TrafficLimits(egressRate: 8, egressBurst: 1_048_576))
        #expect(
            try TrafficLimits(ingressRate: TrafficLimits.rates.upperBound).completed().ingressBurst
                == TrafficLimits.bursts.upperBound)
        let given = TrafficLimits(ingressRate: 8, ingressBurst: 8)
        #expect(try given.completed() == given)
    }

    @Test func whatPluginsWouldRefuseIsRefusedBefore() {
        func says(_ words: String, _ limits: TrafficLimits) {
            let found = problem { () throws(TrafficLimits.Problem) in try limits.completed() }
            #expect(found.contains(words), "\(found)")
        }
        says("neither is given", TrafficLimits())
        says("ingressBurst: 8 has no ingressRate", TrafficLimits(ingressBurst: 8, egressRate: 8))
        says("egressRate: 7 bits a second is not between 8", TrafficLimits(egressRate: 7))
        says("ingressRate: -1 bits", TrafficLimits(ingressRate: -1))
        says("egressBurst: 7 bits is not between", TrafficLimits(egressRate: 8, egressBurst: 7))
        says("ingressBurst: -1", TrafficLimits(ingressRate: 8, ingressBurst: -1))
    }
}
