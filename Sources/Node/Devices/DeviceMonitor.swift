import CKernel
import DeviceDiscovery
import Glibc
import Kernel
import Reactor
import Synchronization

/// Keeps the inventory of a node's devices, on a thread of its own: looks at the beginning, when the kernel tells of a
/// change, and now and then. Only this thread waits when a driver makes it wait, and `state` says so.
package final class DeviceMonitor: Sendable {
    /// What it knows.
    package struct State: Sendable {
        /// Of the newest look that came to its end; nil: none did yet.
        package var inventory: DeviceInventory?
        package var table = DeviceTable()
        /// When the look that is under way began, in milliseconds of CLOCK_MONOTONIC; nil: none is. One that lasts longer
        /// than the helper's time-out waits inside a driver.
        package var lookingSince: Int64?
        /// How many looks came to their end.
        package var looks = 0
    }

    private let roots: DeviceRoots
    private let helper: NVMLHelper
    private let times: Times
    private let judge: @Sendable (inout DeviceInventory) -> Void
    private let deliver: @Sendable (DeviceInventory, [DeviceChange]) -> Void
    private let shared = Mutex(State())
    /// An eventfd(2): 1 to look again, `stopWord` to stop.
    private let waker: SharedFD
    private static let stopWord: UInt64 = 1 << 32

    /// How long it waits, in milliseconds.
    package struct Times: Sendable {
        /// From an event to the look: a driver that is loaded tells of each of its devices.
        package var settle: Int64 = 500
        /// The longest that it goes on being put off by further events.
        package var settleLimit: Int64 = 5000
        /// From one look to the next without any event.
        package var rescan: Int64 = 300_000

        /// Half a second, five seconds, five minutes.
        package init() {}
    }

    /// - Parameters:
    ///   - judge: called on the monitor's thread with each inventory, which it may make worse by what else is known.
    ///   - deliver: called on the monitor's thread after each look, with what it found changed; the first one changes
    ///     nothing to something.
    package init(
        roots: DeviceRoots = DeviceRoots(), helper: NVMLHelper, times: Times = Times(),
        judge: @escaping @Sendable (inout DeviceInventory) -> Void = { _ in },
        deliver: @escaping @Sendable (DeviceInventory, [DeviceChange]) -> Void
    ) throws(KernelError) {
        self.roots = roots
        self.helper = helper
        self.times = times
        self.judge = judge
        self.deliver = deliver
        waker = SharedFD(
            OwnedFD(adopting: try systemCall("eventfd") { eventfd(0, Int32(EFD_CLOEXEC) | Int32(EFD_NONBLOCK)) }))
    }

    /// What it knows now.
    package var state: State { shared.withLock { $0 } }

    /// Begins, once; until `stop` its thread keeps it.
    ///
    /// - Returns: why changes are seen only now and then, when the kernel's events cannot be had.
    /// - Throws: when there is no thread to be had.
    package func start() throws(KernelError) -> KernelError? {
        var (events, problem): (SharedEvents?, KernelError?)
        do throws(KernelError) {
            events = SharedEvents(try KernelEventSocket())
        } catch {
            problem = error
        }
        let heard = events
        try Thread.start(name: "devices") { self.loop(heard) }
        return problem
    }

    /// Looks again soon.
    package func lookAgain() { eventfd_write(waker.raw, 1) }

    /// Ends soon; a look that is under way comes to its end.
    package func stop() { eventfd_write(waker.raw, Self.stopWord) }

    private func loop(_ events: SharedEvents?) {
        while true {
            look()
            guard wait(events) else { return }
        }
    }

    private func look() {
        shared.withLock { $0.lookingSince = HelperRun.now() }
        let host = HostDevices.read(roots)
        // Where there is no driver its library knows nothing, and may try to load one.
        let nvml =
            host.hasNVIDIADriver ? helper.inventory() : NVMLOutcome.absent("NVIDIA's driver is not loaded")
        var inventory = DeviceInventory(host, nvml: nvml).lookingAtNodes(in: roots)
        judge(&inventory)
        let changes = shared.withLock { state in
            state.inventory = inventory
            state.lookingSince = nil
            state.looks += 1
            return state.table.update(inventory)
        }
        deliver(inventory, changes)
    }

    /// Until it is time to look again; false: to stop.
    private func wait(_ events: SharedEvents?) -> Bool {
        let began = HelperRun.now()
        var due = began + times.rescan
        var latest: Int64?
        while true {
            let now = HelperRun.now()
            guard due > now else { return true }
            var polls = [
                pollfd(fd: events?.socket.descriptor ?? -1, events: Int16(POLLIN), revents: 0),
                pollfd(fd: waker.raw, events: Int16(POLLIN), revents: 0),
            ]
            _ = poll(&polls, 2, Int32(min(due - now, 60_000)))
            var isNews = false
            if polls[1].revents != 0 {
                var word: UInt64 = 0
                eventfd_read(waker.raw, &word)
                if word >= Self.stopWord { return false }
                isNews = true
            }
            if polls[0].revents != 0, let events { isNews = isNews || newsOfDevices(events) }
            guard isNews else { continue }
            let last = latest ?? (HelperRun.now() + times.settleLimit)
            latest = last
            due = min(due, last, HelperRun.now() + times.settle)
        }
    }

    /// Reads what the kernel has told. Events that were lost may have been about devices.
    private func newsOfDevices(_ events: SharedEvents) -> Bool {
        var isNews = false
        while true {
            do throws(KernelError) {
                guard let event = try events.socket.next() else { return isNews }
                isNews = isNews || event.mayChangeDevices
            } catch {
                isNews = true
                // Anything but lost events would come again at once.
                if error.errno != ENOBUFS { return true }
            }
        }
    }

    private final class SharedEvents: Sendable {
        let socket: KernelEventSocket
        init(_ socket: consuming KernelEventSocket) { self.socket = socket }
    }
}
