extension Admission {
    /// Seconds: 366 days.
    private static let longest = 366 * 86_400

    /// What becomes of instances whose node is not heard of: times in bounds and in order, and, where two of them must
    /// never run at the same time, enough between the end of one and the beginning of the other.
    func loss(_ pod: PodSpec, at path: String) throws(AdmissionError) {
        guard let loss = pod.loss else { return }
        if let replace = loss.replaceAfter {
            try range(replace, LossPolicy.patience...Self.longest, at: "\(path).replaceAfter")
        }
        if let giveUp = loss.giveUpAfter {
            try range(giveUp, LossPolicy.patience...Self.longest, at: "\(path).giveUpAfter")
            if let replace = loss.replaceAfter, giveUp < replace {
                throw AdmissionError(
                    "\(path).giveUpAfter",
                    "\(giveUp) s are less than replaceAfter, \(replace) s: what is given up is not replaced")
            }
        }
        guard let stop = loss.stopAfter else { return }
        try range(stop, 5...Self.longest, at: "\(path).onDisconnect.stopAfter")
        guard loss.onReturn != .keepOriginal else {
            throw AdmissionError(
                "\(path).onReturn",
                "keepOriginal does not go with stopAfter: the original has been stopped by the time it could return")
        }
        let grace = pod.containers.map(\.stopGrace).max() ?? 0
        let least = LossPolicy.leastReplaceAfter(stopAfter: stop, grace: grace)
        if let replace = loss.replaceAfter, replace < least {
            throw AdmissionError(
                "\(path).replaceAfter",
                "\(replace) s are too few beside stopAfter \(stop) s and a grace of \(grace) s: the replacement could run "
                    + "beside the original; the least is \(least)")
        }
        if let giveUp = loss.giveUpAfter, giveUp < least {
            throw AdmissionError(
                "\(path).giveUpAfter",
                "\(giveUp) s are too few beside stopAfter \(stop) s and a grace of \(grace) s; the least is \(least)")
        }
    }
}
