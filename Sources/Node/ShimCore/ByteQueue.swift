import Glibc
import StreamFrames

/// Bytes on their way to a non-blocking descriptor.
struct ByteQueue {
    private var bytes: [UInt8] = []
    private var start = 0

    var count: Int { bytes.count - start }
    var isEmpty: Bool { count == 0 }

    enum Progress: Equatable {
        /// Everything is written.
        case empty
        /// The other side must read first.
        case blocked
        /// The other side is gone, or the descriptor is bad: an error number.
        case failed(Int32)
    }

    mutating func append(_ data: some Collection<UInt8>) {
        compact()
        bytes.append(contentsOf: data)
    }

    mutating func append(_ frame: Frame) {
        compact()
        frame.append(to: &bytes)
    }

    mutating func append(_ data: ArraySlice<UInt8>, as kind: Frame.Kind) {
        compact()
        Frame.append(data, as: kind, to: &bytes)
    }

    mutating func removeAll() {
        bytes = []
        start = 0
    }

    /// Writes as much as `write` takes. Memory is given back when nothing is left.
    mutating func flush(_ write: (UnsafeRawPointer, Int) -> Int) -> (written: Int, progress: Progress) {
        var written = 0
        while !isEmpty {
            let from = start
            let count = bytes.withUnsafeBytes { buffer -> Int in
                // SAFETY: not empty, so there is a base address, and `from` is within the buffer.
                guard let base = buffer.baseAddress else { return 0 }
                return write(base + from, buffer.count - from)
            }
            if count < 0 {
                let number = errno
                if number == EINTR { continue }
                return (written, number == EAGAIN ? .blocked : .failed(number))
            }
            start += count
            written += count
        }
        removeAll()
        return (written, .empty)
    }

    private mutating func compact() {
        guard start > 0, start >= 64 << 10 || start == bytes.count else { return }
        bytes.removeSubrange(..<start)
        start = 0
    }
}
