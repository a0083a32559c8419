import CKernel
import DeviceDiscovery
import Glibc
import Kernel
import Reactor
import Synchronization

/// How AMD's and Intel's GPUs are used and what errors they count, read now and then on a thread of its own: only that
/// thread waits when a driver makes it wait, and what was read before grows old.
package final class CardWatch: Sendable {
    /// How one GPU was used when it was looked at last.
    package struct Usage: Sendable, Equatable {
        package var figures: CardFigures
        /// Also where its driver only counts what it has drawn; nil: not told, or not for long enough.
        package var milliwatts: UInt64?
    }

    private struct State {
        var cards: [PCIAddress] = []
        var isStarted = false
        var isStopped = false
        /// The newest, and when it was read, in milliseconds of CLOCK_MONOTONIC.
        var usage: [PCIAddress: Usage] = [:]
        var at: Int64 = 0
        /// By address, as far as that is known: a GPU that sleeps has those that it had.
        var errors: [PCIAddress: [String: UInt64]] = [:]
    }

    private let roots: DeviceRoots
    private let interval: Int64
    private let news: @Sendable () -> Void
    private let state = Mutex(State())
    /// An eventfd(2) that is readable once it shall stop.
    private let stopper: SharedFD

    /// - Parameters:
    ///   - intervalMilliseconds: from one look to the next.
    ///   - news: called on the watch's thread when a GPU counts other errors than before.
    package init(
        roots: DeviceRoots, intervalMilliseconds: Int = 10_000, news: @escaping @Sendable () -> Void
    ) throws(KernelError) {
        self.roots = roots
        interval = Int64(max(10, intervalMilliseconds))
        self.news = news
        stopper = SharedFD(OwnedFD(adopting: try systemCall("eventfd") { eventfd(0, Int32(EFD_CLOEXEC)) }))
    }

    /// Looks at those of these devices that it can tell something of; begins when there are any.
    package func follow(_ devices: [Device]) throws(KernelError) {
        let own = devices.filter { $0.vendor != .nvidia && $0.driver.map(Self.drivers.contains) ?? false }
        let cards = Set(own.compactMap(\.pciAddress)).sorted()
        let begins = state.withLock { state in
            state.cards = cards
            state.errors = state.errors.filter { cards.contains($0.key) }
            guard !cards.isEmpty, !state.isStarted, !state.isStopped else { return false }
            state.isStarted = true
            return true
        }
        guard begins else { return }
        do throws(KernelError) {
            try Thread.start(name: "cards") { self.loop() }
        } catch {
            state.withLock { $0.isStarted = false }
            throw error
        }
    }

    private static let drivers: Set<String> = ["amdgpu", "i915", "xe"]

    /// Ends soon.
    package func stop() {
        state.withLock { $0.isStopped = true }
        eventfd_write(stopper.raw, 1)
    }

    /// How the GPUs were used at the last look, by address; empty when that was more than three intervals ago.
    package var usage: [PCIAddress: Usage] {
        state.withLock { HelperRun.now() - $0.at < 3 * interval ? $0.usage : [:] }
    }

    /// Makes an inventory worse by the errors that its GPUs count.
    package func judge(_ inventory: inout DeviceInventory) {
        let errors = state.withLock { $0.errors }
        for device in inventory.devices where device.vendor != .nvidia {
            guard let parts = device.pciAddress.flatMap({ errors[$0] }), !parts.isEmpty else { continue }
            let words = parts.sorted { $0.key < $1.key }.map { "\($0.value) in \($0.key)" }.joined(separator: ", ")
            inventory.worsen(
                device.id, .degraded, "it had errors that could not be corrected since its driver was loaded: \(words)")
        }
    }

    private func loop() {
        while true {
            look()
            var wait = pollfd(fd: stopper.raw, events: Int16(POLLIN), revents: 0)
            if poll(&wait, 1, Int32(clamping: interval)) > 0 { return }
        }
    }

    private func look() {
        let (cards, last, lastAt) = state.withLock { ($0.cards, $0.usage, $0.at) }
        var sys = DeviceTree(roots.sys)
        let began = HelperRun.now()
        var usage: [PCIAddress: Usage] = [:]
        for card in cards {
            guard let figures = CardFigures.read(&sys, card) else { continue }
            let drawn = Self.power(from: last[card]?.figures.microjoules, to: figures.microjoules, in: began - lastAt)
            usage[card] = Usage(figures: figures, milliwatts: figures.milliwatts ?? drawn)
        }
        let isNews = state.withLock { state in
            state.usage = usage
            state.at = began
            let before = state.errors
            for (card, one) in usage { state.errors[card] = one.figures.uncorrectedErrors }
            return before.filter { !$0.value.isEmpty } != state.errors.filter { !$0.value.isEmpty }
        }
        if isNews { news() }
    }

    /// Microjoules in a millisecond are milliwatts.
    private static func power(from: UInt64?, to: UInt64?, in milliseconds: Int64) -> UInt64? {
        // A counter that went back has wrapped, or its driver was loaded anew.
        guard let from, let to, to >= from, milliseconds > 0 else { return nil }
        return (to - from) / UInt64(milliseconds)
    }
}
