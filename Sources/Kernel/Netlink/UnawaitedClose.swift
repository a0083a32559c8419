import CNetlink
import Glibc
import Kernel

extension NetlinkSocket {
    /// Closes the socket without the wait of 5 to 30 ms that closing one of nfnetlink is after something of nf_tables was
    /// deleted: the kernel lets its readers finish before it frees that (RCU), and whoever closes such a socket waits for it.
    ///
    /// The socket goes into a message that is in the queue of a socket which is itself in that message: nobody can read
    /// it any more, and a worker of the kernel's closes what such messages hold (unix(7), `SCM_RIGHTS`; since Linux 6.9 it
    /// is a worker, before that it is the last of the closes here, which then waits as any other). A child process could
    /// wait as well, but somebody would have to reap it, and not every caller does.
    package consuming func closeUnawaited() {
        var ends: [Int32] = [-1, -1]
        let type = Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        guard socketpair(AF_UNIX, type, 0, &ends) == 0 else { return }
        try? UnixSocket.send(ends[0], [0], descriptors: [descriptor, ends[1]])
        // In this order: the socket must be in the message alone when the last close wakes the worker.
        _ = consume self
        close(ends[1])
        close(ends[0])
    }
}
