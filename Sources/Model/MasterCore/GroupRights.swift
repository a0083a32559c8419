import Model
import Wire

/// What a caller who is confined to a group sees and may make. What lies outside does not exist for it.
extension MasterCore {
    /// The group of a new workload.
    func group(_ asked: String?) throws(APIProblem) -> String {
        let group = asked ?? acting.confinement ?? Group.root
        try requirePath(group)
        guard acting.reaches(group: group) else {
            throw APIProblem(
                .forbidden, "\(acting.title) may not make anything in the group \(group): it is outside of its own")
        }
        return group
    }

    func requirePath(_ group: String) throws(APIProblem) {
        guard Group.isPath(group) else {
            throw APIProblem(
                .badRequest,
                "$.group: \(Admission.quoted(group)) is no path such as / or /team/web, of letters, digits, '_', '.' and '-'"
            )
        }
    }

    func sees(_ workload: Workload) -> Bool { acting.reaches(group: workload.group) }

    func sees(_ instance: Instance) -> Bool {
        acting.confinement == nil || state.workloads[instance.workload].map { sees($0) } ?? false
    }
}
