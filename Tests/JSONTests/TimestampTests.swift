import JSON
import Testing

@Suite struct TimestampTests {
    @Test(arguments: [
        ("1970-01-01T00:00:00Z", 0), ("2000-02-29T23:59:59Z", 951_868_799_000_000_000),
        ("2026-01-31T08:15:30.25Z", 1_769_847_330_250_000_000), ("1969-12-31T23:59:59.999999999Z", -1),
        ("1900-03-01T00:00:00Z", -2_203_891_200_000_000_000), ("2262-04-11T23:47:16.854775807Z", Int64.max),
        ("1677-09-21T00:12:43.145224192Z", Int64.min), ("2024-12-31T00:00:00.000000001Z", 1_735_603_200_000_000_001),
    ])
    func textAndNumberAgree(_ text: String, _ nanoseconds: Int64) {
        #expect(Timestamp(rfc3339: text)?.nanoseconds == nanoseconds)
        #expect(Timestamp(nanoseconds: nanoseconds).description == text)
    }

    @Test func everyDayOfEightCenturiesRoundTrips() {
        for day in stride(from: Int64(-106_000), to: 106_000, by: 1) {
            let time = Timestamp(nanoseconds: day * 86_400_000_000_000 + 43_200_000_000_001)
            guard Timestamp(rfc3339: time.description) == time else {
                Issue.record("\(time) does not round-trip")
                return
            }
        }
    }

    @Test func offsetsAndLaxFormsAreRead() {
        let expected = Timestamp(rfc3339: "2026-01-01T00:00:00Z")
        #expect(Timestamp(rfc3339: "2026-01-01T01:30:00+01:30") == expected)
        #expect(Timestamp(rfc3339: "2025-12-31T19:00:00-05:00") == expected)
        #expect(Timestamp(rfc3339: "2025-12-31 23:59:60z") == expected)
        #expect(Timestamp(rfc3339: "2026-01-01t00:00:00.0000000009Z") == expected)
    }

    @Test(arguments: [
        "", "2026", "2026-01-01", "2026-01-01T00:00:00", "2026-13-01T00:00:00Z", "2026-02-29T00:00:00Z",
        "2026-01-01T24:00:00Z", "2026-01-01T00:60:00Z", "2026-01-01T00:00:61Z", "2026-01-01T00:00:00.Z",
        "2026-01-01T00:00:00+1:00", "2026-01-01T00:00:00Zx", "-026-01-01T00:00:00Z", "9999-01-01T00:00:00Z",
        "0001-01-01T00:00:00Z", "2026-01-00T00:00:00Z", "１970-01-01T00:00:00Z",
    ])
    func otherTextIsRefused(_ text: String) {
        #expect(Timestamp(rfc3339: text) == nil)
    }

    @Test func arithmeticStaysInRange() {
        let time = Timestamp(nanoseconds: 5)
        #expect((time + 3).nanoseconds == 8)
        #expect((time - 3).nanoseconds == 2)
        #expect(time.adding(seconds: 2) - time == 2_000_000_000)
        #expect((Timestamp(nanoseconds: .max) + 1).nanoseconds == .max)
        #expect(Timestamp(nanoseconds: 0).adding(seconds: .min).nanoseconds == .min)
        #expect(Timestamp(nanoseconds: .max) - Timestamp(nanoseconds: .min) == .max)
        #expect(time < time + 1)
    }

    @Test func theClockRuns() {
        #expect(Timestamp.now() > Timestamp(nanoseconds: 1_700_000_000_000_000_000))
    }
}
