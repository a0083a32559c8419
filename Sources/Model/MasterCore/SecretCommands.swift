import JSON
import Model
import Wire

/// Secrets and configs: made, removed, and found for the tasks that may have them. Values are sealed before they come
/// here.
extension MasterCore {
    // MARK: Making and removing

    /// - Parameter secret: complete but for `createdAt`.
    mutating func createSecret(_ secret: Secret, now: Timestamp) throws(APIProblem) -> PendingReply {
        try admitFile("secret", secret.name, group: secret.group, secret.labels, size: secret.size)
        if state.secrets.values.contains(where: { $0.name == secret.name }) { throw Self.taken("secret", secret.name) }
        var secret = secret
        secret.createdAt = now
        state.put(.secret(secret))
        note(kind: "secret", action: "create", id: secret.id.text, name: secret.name, now: now)
        return .secret(secret.id)
    }

    /// - Parameter config: complete but for `createdAt`.
    mutating func createConfig(_ config: Config, now: Timestamp) throws(APIProblem) -> PendingReply {
        try admitFile("config", config.name, group: config.group, config.labels, size: config.size)
        if state.configs.values.contains(where: { $0.name == config.name }) { throw Self.taken("config", config.name) }
        var config = config
        config.createdAt = now
        state.put(.config(config))
        note(kind: "config", action: "create", id: config.id.text, name: config.name, now: now)
        return .config(config.id)
    }

    mutating func removeSecret(_ ref: String, now: Timestamp) throws(APIProblem) -> PendingReply {
        let secret = try secret(ref)
        try requireUnused("secret", .secret(name: secret.name), named: secret.name)
        state.delete(.secret(secret.id))
        note(kind: "secret", action: "remove", id: secret.id.text, name: secret.name, now: now)
        return .done
    }

    mutating func removeConfig(_ ref: String, now: Timestamp) throws(APIProblem) -> PendingReply {
        let config = try config(ref)
        try requireUnused("config", .config(name: config.name), named: config.name)
        state.delete(.config(config.id))
        note(kind: "config", action: "remove", id: config.id.text, name: config.name, now: now)
        return .done
    }

    private func admitFile(
        _ kind: String, _ name: String, group: String, _ labels: [String: String], size: Int
    ) throws(APIProblem) {
        try admit { () throws(AdmissionError) in
            try admission.name(name)
            try admission.labels(labels)
        }
        _ = try self.group(group)
        guard size <= Secret.maximumSize else {
            throw APIProblem(
                .tooLarge, "the \(kind) \(name) has \(size) bytes, more than the \(Secret.maximumSize) allowed")
        }
    }

    private static func taken(_ kind: String, _ name: String) -> APIProblem {
        APIProblem(
            .conflict,
            "the name \(name) is taken by another \(kind), and a \(kind) never changes: choose another name, or remove "
                + "that one")
    }

    private func requireUnused(_ kind: String, _ source: Mount.Source, named name: String) throws(APIProblem) {
        if let users = filesInUse()[source] {
            let shown = users.prefix(5).joined(separator: ", ") + (users.count > 5 ? ", …" : "")
            throw APIProblem(
                .conflict, "the \(kind) \(name) is used by \(shown): remove them, or update them not to use it")
        }
    }

    /// Names of the workloads that mount secrets and configs: in their newest revision, in one that a task has, be it
    /// on its way out, and, while an update is going on that may be rolled back, in any.
    private func filesInUse() -> [Mount.Source: [String]] {
        var names: [Mount.Source: Set<String>] = [:]
        var used: [WorkloadID: Set<Int>] = [:]
        for revision in state.revisions.values {
            let mounts = revision.pod.containers.flatMap(\.mounts).filter(\.isFile)
            guard !mounts.isEmpty, let workload = state.workloads[revision.workload] else { continue }
            if revision.number != workload.revision, workload.updateState.phase == .settled {
                let revisions = used[workload.id] ?? state.usedRevisions(of: workload.id)
                used[workload.id] = revisions
                guard revisions.contains(revision.number) else { continue }
            }
            for mount in mounts { names[mount.source, default: []].insert(workload.name) }
        }
        return names.mapValues { $0.sorted() }
    }

    // MARK: Finding

    /// Finds a secret by name or id, among those that the caller reaches.
    func secret(_ ref: String) throws(APIProblem) -> Secret {
        let found = state.secrets[SecretID(ref)] ?? state.secrets.values.first { $0.name == ref }
        guard let found, acting.reaches(group: found.group) else {
            throw APIProblem(.notFound, "there is no secret '\(ref)'; see `martlet secret ls`")
        }
        return found
    }

    /// Finds a config by name or id, among those that the caller reaches.
    func config(_ ref: String) throws(APIProblem) -> Config {
        let found = state.configs[ConfigID(ref)] ?? state.configs.values.first { $0.name == ref }
        guard let found, acting.reaches(group: found.group) else {
            throw APIProblem(.notFound, "there is no config '\(ref)'; see `martlet config ls`")
        }
        return found
    }

    func secretView(_ secret: Secret) -> SecretView {
        SecretView(secret, usedBy: filesInUse()[.secret(name: secret.name)] ?? [])
    }

    func configView(_ config: Config) -> ConfigView {
        ConfigView(config, usedBy: filesInUse()[.config(name: config.name)] ?? [], withData: true)
    }

    /// All that the caller reaches.
    func secretViews() -> [SecretView] {
        let users = filesInUse()
        return state.secrets.values.filter { acting.reaches(group: $0.group) }.sorted { $0.name < $1.name }
            .map { SecretView($0, usedBy: users[.secret(name: $0.name)] ?? []) }
    }

    /// All that the caller reaches, without their values.
    func configViews() -> [ConfigView] {
        let users = filesInUse()
        return state.configs.values.filter { acting.reaches(group: $0.group) }.sorted { $0.name < $1.name }
            .map { ConfigView($0, usedBy: users[.config(name: $0.name)] ?? [], withData: false) }
    }

    // MARK: Using

    /// Refuses a pod that names a secret or config which does not exist, or which a workload of this group, made by the
    /// present caller, may not have.
    func requireFiles(of pod: PodSpec, group: String) throws(APIProblem) {
        for container in pod.containers {
            var total = 0
            for mount in container.mounts {
                switch mount.source {
                case .secret(let name):
                    let secret = try secret(name)
                    try require(secret.group, allows: group, "secret \(name)")
                    total += secret.size
                case .config(let name):
                    let config = try config(name)
                    try require(config.group, allows: group, "config \(name)")
                    total += config.size
                case .bind, .volume, .tmpfs: break
                }
            }
            guard total <= Secret.maximumOfContainer else {
                throw APIProblem(
                    .badRequest,
                    "the container's secrets and configs have \(total) bytes, more than the \(Secret.maximumOfContainer) "
                        + "allowed for one")
            }
        }
    }

    private func require(_ owner: String, allows group: String, _ what: String) throws(APIProblem) {
        guard Group.path(owner, contains: group) else {
            throw APIProblem(
                .forbidden,
                "the \(what) belongs to the group \(owner), and a workload of the group \(group) may not use it")
        }
    }

    /// What a task's containers are given. Only the node to which the task is assigned now may have it; one that serves
    /// until its replacement does is still assigned.
    func filesForTask(_ id: TaskID, on node: NodeID) throws(APIProblem) -> MasterReply {
        let refusal = APIProblem(
            .forbidden, "the node \(node) may not have the secrets of the task \(id): the task is not assigned to it")
        switch acting {
        case .master, .local(uid: 0): break
        case .node(let own) where own == node: break
        case .node, .local, .user, .anonymous: throw refusal
        }
        guard let task = state.tasks[id], task.node == node, task.desired != .removed, task.status.phase != .removed,
            let pod = state.pod(of: task), let instance = state.instances[task.instance],
            instance.task == id || instance.displaced.contains(where: { $0.task == id && $0.cause != .lost })
        else { throw refusal }
        var secrets: [String: Secret] = [:]
        var configs: [String: Config] = [:]
        for mount in pod.containers.flatMap(\.mounts) {
            switch mount.source {
            case .secret(let name):
                guard let found = state.secrets.values.first(where: { $0.name == name }) else {
                    throw Self.gone("secret", name, id)
                }
                secrets[name] = found
            case .config(let name):
                guard let found = state.configs.values.first(where: { $0.name == name }) else {
                    throw Self.gone("config", name, id)
                }
                configs[name] = found
            case .bind, .volume, .tmpfs: break
            }
        }
        return .taskFiles(secrets: Array(secrets.values), configs: Array(configs.values))
    }

    private static func gone(_ kind: String, _ name: String, _ task: TaskID) -> APIProblem {
        APIProblem(
            .notFound, "the \(kind) '\(name)', which the task \(task) needs, does not exist any more: make it anew")
    }

    /// Every secret as it is stored, for whoever has the key.
    package var sealedSecrets: [Secret] { state.secrets.values.sorted { $0.name < $1.name } }
}
