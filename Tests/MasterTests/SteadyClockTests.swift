import JSON
import Testing

@testable import Master

/// The time that the master decides by.
@Suite struct SteadyClockTests {
    static let second: Int64 = 1_000_000_000

    static let wall: Int64 = 1_800_000_000 * second

    @Test(arguments: [3600, -3600, 315_360_000, -315_360_000])
    func aWallClockThatIsSetMovesItByAHundredthOfTheTimeThatPasses(jump: Int64) {
        var clock = SteadyClock(wall: Self.wall, boot: 0)
        var last = Timestamp(nanoseconds: Self.wall)
        for tick in 1...100 as ClosedRange<Int64> {
            let now = clock.advance(wall: Self.wall + (tick + jump) * Self.second, boot: tick * Self.second)
            let step = now - last
            #expect(step >= Self.second / 100 * 99 && step <= Self.second / 100 * 101)
            last = now
        }
    }

    @Test func itCatchesUpWithTheWallClock() {
        var clock = SteadyClock(wall: Self.wall, boot: 0)
        var last = Timestamp(nanoseconds: Self.wall)
        for tick in 1...200 as ClosedRange<Int64> {
            last = clock.advance(wall: Self.wall + (tick + 1) * Self.second, boot: tick * Self.second)
        }
        #expect(last == Timestamp(nanoseconds: Self.wall + 201 * Self.second))
    }
}
