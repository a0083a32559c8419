import CKernel
import Glibc
import Kernel
import NVMLReport
import Reactor
import Synchronization

/// What the watch of NVIDIA's GPUs tells.
package enum NVMLWatchReport: Sendable, Equatable {
    /// The watch began, or began anew, and this is what there is.
    case began(NVMLInventory)
    case event(NVMLEvent)
    case sample(NVMLSample)
    /// It tells nothing until it begins anew: nothing is known of any GPU's health meanwhile.
    case broken(NVMLTrouble)
    /// There is no library; it is over.
    case absent(String)
}

/// Keeps martlet-nvml watching, on a thread of its own: begins anew after each end, later each time that it does not last.
package final class NVMLWatch: Sendable {
    private let helper: NVMLHelper
    private let interval: Int
    private let firstPause: Int64
    private let deliver: @Sendable (NVMLWatchReport) -> Void
    /// An eventfd(2) that is readable once it shall stop.
    private let stopper: SharedFD

    /// Longest time between two beginnings.
    private static let longestPause: Int64 = 60_000
    /// Intervals without a line after which it counts as hung, beside the time for an inventory.
    private static let silentIntervals = 3

    /// - Parameters:
    ///   - intervalMilliseconds: from one sample to the next.
    ///   - firstPauseMilliseconds: before it begins anew the first time; it doubles each time.
    ///   - deliver: called on the watch's thread; while it runs nothing more is read.
    package init(
        _ helper: NVMLHelper, intervalMilliseconds: Int = 10_000, firstPauseMilliseconds: Int = 1000,
        deliver: @escaping @Sendable (NVMLWatchReport) -> Void
    ) throws(KernelError) {
        self.helper = helper
        interval = max(100, intervalMilliseconds)
        firstPause = Int64(max(1, firstPauseMilliseconds))
        self.deliver = deliver
        stopper = SharedFD(OwnedFD(adopting: try systemCall("eventfd") { eventfd(0, Int32(EFD_CLOEXEC)) }))
    }

    /// Begins, once; until `stop` its thread keeps it.
    package func start() throws(KernelError) {
        try Thread.start(name: "nvml") { self.loop() }
    }

    /// Ends it soon; what is under way may still be delivered.
    package func stop() { eventfd_write(stopper.raw, 1) }

    private func loop() {
        var pause = firstPause
        while true {
            let began = HelperRun.now()
            switch watch() {
            case .none: return
            case .some(let trouble):
                if trouble.kind == .refused(.libraryMissing) { return deliver(.absent(trouble.description)) }
                deliver(.broken(trouble))
            }
            // One that went well for a while had a reason of its own to end.
            if HelperRun.now() - began > Self.longestPause { pause = firstPause }
            var wait = pollfd(fd: stopper.raw, events: Int16(POLLIN), revents: 0)
            if poll(&wait, 1, Int32(pause)) > 0 { return }
            pause = min(2 * pause, Self.longestPause)
        }
    }

    /// One helper from its start to its end; nil: it was told to stop.
    private func watch() -> NVMLTrouble? {
        let run: HelperRun
        do throws(NVMLTrouble) {
            run = try helper.start("watch", ["--interval", String(interval)])
        } catch {
            return error
        }
        var failure: NVMLTrouble?
        while true {
            let deadline = HelperRun.now() + helper.silence(intervals: Self.silentIntervals, of: interval)
            switch run.next(until: deadline, waker: stopper.raw) {
            case .line(let bytes):
                do {
                    switch try NVMLLine(bytes) {
                    case .inventory(let inventory): deliver(.began(inventory))
                    case .event(let event): deliver(.event(event))
                    case .sample(let sample): deliver(.sample(sample))
                    case .failure(let words): failure = NVMLHelper.trouble(words)
                    }
                } catch {
                    return helper.end(
                        run, NVMLTrouble(.garbled, "martlet-nvml wrote what is no line of its protocol: \(error)"))
                }
            case .ended(let status): return failure ?? helper.crash(status, run)
            case .tooLong: return helper.end(run, NVMLHelper.tooLong("martlet-nvml"))
            case .late: return helper.end(run, helper.late("to tell how the GPUs are"))
            case .failed(let error): return helper.end(run, NVMLTrouble(.crashed, "\(error)"))
            case .woken:
                _ = helper.end(run, NVMLTrouble(.hung, "the watch was stopped"))
                return nil
            }
        }
    }
}
