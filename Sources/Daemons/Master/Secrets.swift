import ClusterSecurity
import JSON
import MasterCore
import Model
import NIOPosix
import Synchronization
import Wire

/// Where the key of the secrets lies, and the key once it is needed. Blocks.
final class SecretVault: Sendable {
    private let path: String
    private let box: Mutex<SecretBox?>

    /// - Throws: `SecurityError` for a key that others may read, or that is damaged.
    init(keyFile path: String) throws(SecurityError) {
        self.path = path
        box = Mutex(try SecretBox(keyFile: path))
    }

    /// - Parameter others: the secrets that there are, whose key must not be replaced by a new one.
    func seal(_ value: [UInt8], as secret: Secret, beside others: [Secret]) throws(SecurityError) -> String {
        let box = try box.withLock { box throws(SecurityError) in
            if let known = try load(&box) { return known }
            guard others.isEmpty else { throw missing(others) }
            let made = try SecretBox(makingKeyFile: path)
            box = made
            return made
        }
        return try box.seal(value, id: secret.id.text, name: secret.name)
    }

    func open(_ secret: Secret) throws(SecurityError) -> [UInt8] {
        let box = try box.withLock { box throws(SecurityError) in try load(&box) }
        guard let box else { throw missing([secret]) }
        return try box.open(secret.sealed, id: secret.id.text, name: secret.name)
    }

    /// A key that was missing may have been brought back.
    private func load(_ box: inout SecretBox?) throws(SecurityError) -> SecretBox? {
        if box == nil { box = try SecretBox(keyFile: path) }
        return box
    }

    private func missing(_ secrets: [Secret]) -> SecurityError {
        let names = secrets.prefix(5).map(\.name).joined(separator: ", ") + (secrets.count > 5 ? ", …" : "")
        return SecurityError(
            "the key \(path) is missing, and secrets are sealed with it (\(names)): restore it from a backup, or remove "
                + "these secrets and make them anew")
    }
}

extension ClusterMaster {
    /// Seals a value and keeps it.
    package nonisolated func createSecret(_ wish: CreateFile) async throws -> SecretView {
        let value = try value(of: wish)
        var secret = Secret(
            id: makeID(), name: wish.name, group: group(of: wish), labels: wish.labels, size: value.count, sealed: "",
            createdAt: .now())
        let (vault, unsealed, others) = (vault, secret, await core.sealedSecrets)
        secret.sealed = try await blocking { () throws in try vault.seal(value, as: unsealed, beside: others) }
        guard case .secret(let view) = try await perform(.createSecret(secret)) else { throw APIProblem.unexpected }
        return view
    }

    package nonisolated func createConfig(_ wish: CreateFile) async throws -> ConfigView {
        _ = try value(of: wish)
        let config = Config(
            id: makeID(), name: wish.name, group: group(of: wish), labels: wish.labels, data: wish.data,
            createdAt: .now())
        guard case .config(let view) = try await perform(.createConfig(config)) else { throw APIProblem.unexpected }
        return view
    }

    /// The values that a task's containers are given, for the node that the task is assigned to.
    ///
    /// - Throws: `APIProblem`: `forbidden` for any other node, `unavailable` when a secret cannot be opened.
    package nonisolated func secrets(of task: TaskID, on node: NodeID) async throws -> TaskSecrets {
        guard case .taskFiles(let secrets, let configs) = try await query(.filesForTask(task, on: node)) else {
            throw APIProblem.unexpected
        }
        var result = TaskSecrets()
        for config in configs { result.configs[config.name] = config.data }
        guard !secrets.isEmpty else { return result }
        let vault = vault
        result.secrets = try await blocking { () throws in
            try Dictionary(uniqueKeysWithValues: secrets.map { ($0.name, Base64.encode(try vault.open($0))) })
        }
        return result
    }

    /// A secret's value, for something that the master does itself in the caller's name.
    ///
    /// - Throws: `APIProblem` when there is none that the caller reaches, or it cannot be opened.
    package nonisolated func openSecret(_ name: String) async throws -> [UInt8] {
        guard case .sealedSecret(let secret) = try await query(.sealedSecret(name)) else { throw APIProblem.unexpected }
        let vault = vault
        return try await blocking { () throws in try vault.open(secret) }
    }

    /// Why stored secrets cannot be opened, a sentence for each.
    func unreadableSecrets() async throws -> [String] {
        let (vault, secrets) = (vault, core.sealedSecrets)
        return try await NIOThreadPool.singleton.runIfActive {
            secrets.compactMap { secret in
                do throws(SecurityError) {
                    _ = try vault.open(secret)
                    return nil
                } catch {
                    return error.description
                }
            }
        }
    }

    private nonisolated func value(of wish: CreateFile) throws(APIProblem) -> [UInt8] {
        // Nothing of the value may be in a message.
        guard let value = Base64.decode(wish.data) else {
            throw APIProblem(.badRequest, "$.data: is not base64 with padding, as RFC 4648 has it")
        }
        guard value.count <= Secret.maximumSize else {
            throw APIProblem(
                .tooLarge, "$.data: the value has \(value.count) bytes, more than the \(Secret.maximumSize) allowed")
        }
        return value
    }

    private nonisolated func group(of wish: CreateFile) -> String {
        wish.group ?? Subject.current.confinement ?? Group.root
    }

    private nonisolated func makeID<Kind>() -> Identifier<Kind> {
        var random = SystemRandomNumberGenerator()
        return .make(&random)
    }

    private nonisolated func blocking<Value: Sendable>(
        _ work: @escaping @Sendable () throws -> Value
    ) async throws -> Value {
        do {
            return try await NIOThreadPool.singleton.runIfActive(work)
        } catch let error as SecurityError {
            throw APIProblem(.unavailable, error.description)
        }
    }
}
