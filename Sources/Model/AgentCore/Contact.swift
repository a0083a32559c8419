import JSON
import Model
import Wire

/// What the agent knows of its contact with the master, for tasks that must end without it. Their shims keep the same
/// time by a clock of the kernel's and end them when their agent does not; the agent's part is to do it gracefully, and to
/// start none meanwhile.
struct Contact: Sendable {
    /// When something was sent that the master confirmed, or the agent began.
    var last = Timestamp(nanoseconds: 0)
    /// The master has confirmed something since the agent connected.
    var isConfirmed = false
}

extension TaskMachine {
    /// Nanoseconds that it may run without contact; nil: for ever.
    var stopAfter: Int64? { assignment.pod.loss?.stopAfter.map { Pace.seconds($0) } }

    /// When its time without contact is over; nil: there is contact, or it needs none.
    func leaseEnd(_ contact: Contact) -> Timestamp? {
        guard let stopAfter, !contact.isConfirmed else { return nil }
        return contact.last + stopAfter
    }

    /// It may not be started now. That the connection seems to be open is not enough: when nothing has been confirmed for
    /// as long as it may run without contact, its shim has ended it, and would end it again. A clock that was set ahead
    /// holds it up until the next contact, no longer.
    func lacksContact(_ contact: Contact, _ now: Timestamp) -> Bool {
        guard let stopAfter else { return false }
        return !contact.isConfirmed || contact.last + stopAfter <= now
    }
}
