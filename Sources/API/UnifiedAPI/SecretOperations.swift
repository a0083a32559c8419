import HTTPService
import HTTPTypes
import Hummingbird
import JSON
import Master
import MasterCore
import Model
import Wire

extension UnifiedAPI {
    private static let secretsPath = APIPaths.secrets
    private static let configsPath = APIPaths.configs

    var secretOperations: [Operation] {
        [
            Operation(
                .get, access: .work, Self.secretsPath, "List secrets, without their values.",
                answer: .json([SecretView].self),
                statuses: [200]
            ) { _ in
                guard case .secrets(let views) = try await master.query(.secrets) else { throw APIProblem.unexpected }
                return try .json(views)
            },
            Operation(
                .post, access: .work, Self.secretsPath, "Make a secret; its value is never shown again.",
                body: .json(CreateFile.self),
                answer: .json(SecretView.self), statuses: [201, 403, 409, 413, 507]
            ) { call in
                try .json(try await master.createSecret(try await call.body(CreateFile.self)), status: .created)
            },
            Operation(
                .get, access: .work, "\(Self.secretsPath)/{secret}", "Inspect a secret, without its value.",
                answer: .json(SecretView.self), statuses: [200, 404]
            ) { call in
                guard case .secret(let view) = try await master.query(.secret(call.name("secret"))) else {
                    throw APIProblem.unexpected
                }
                return try .json(view)
            },
            Operation(
                .delete, access: .work, "\(Self.secretsPath)/{secret}", "Remove a secret that no workload uses.",
                statuses: [204, 404, 409, 507]
            ) { call in
                _ = try await master.perform(.removeSecret(call.name("secret")))
                return Response.empty
            },
        ]
    }

    var configOperations: [Operation] {
        [
            Operation(
                .get, access: .read, Self.configsPath, "List configs, without their values.",
                answer: .json([ConfigView].self),
                statuses: [200]
            ) { _ in
                guard case .configs(let views) = try await master.query(.configs) else { throw APIProblem.unexpected }
                return try .json(views)
            },
            Operation(
                .post, access: .work, Self.configsPath, "Make a config.", body: .json(CreateFile.self),
                answer: .json(ConfigView.self), statuses: [201, 403, 409, 413, 507]
            ) { call in
                try .json(try await master.createConfig(try await call.body(CreateFile.self)), status: .created)
            },
            Operation(
                .get, access: .read, "\(Self.configsPath)/{config}", "Inspect a config, with its value.",
                answer: .json(ConfigView.self), statuses: [200, 404]
            ) { call in
                guard case .config(let view) = try await master.query(.config(call.name("config"))) else {
                    throw APIProblem.unexpected
                }
                return try .json(view)
            },
            Operation(
                .delete, access: .work, "\(Self.configsPath)/{config}", "Remove a config that no workload uses.",
                statuses: [204, 404, 409, 507]
            ) { call in
                _ = try await master.perform(.removeConfig(call.name("config")))
                return Response.empty
            },
        ]
    }

    /// What agents are given for their tasks.
    var deliveryOperations: [Operation] {
        [
            Operation(
                .get, access: .node, "\(APIPaths.nodes)/{node}/tasks/{task}/secrets",
                "The values of a task's secrets and configs, for the node that it is assigned to.",
                answer: .json(TaskSecrets.self), statuses: [200, 403, 404]
            ) { call in
                let secrets = try await master.secrets(
                    of: TaskID(call.name("task")), on: NodeID(call.name("node")))
                var response = try Response.json(secrets)
                response.headers[.cacheControl] = "no-store"
                return response
            }
        ]
    }
}
