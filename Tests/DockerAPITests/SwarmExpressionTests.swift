import Model
import Testing

@testable import DockerAPI

@Suite struct SwarmExpressionsOfContainers {
    private func take(
        _ environment: [String], labels: [String: String] = [:]
    ) throws -> (found: SwarmExpressions, environment: [String], labels: [String: String]) {
        var environment = environment
        var labels = labels
        let found = try SwarmExpressions.take(from: &environment, labels: &labels)
        return (found, environment, labels)
    }

    @Test func variablesBecomeLabels() throws {
        let (found, environment, labels) = try take([
            "A=b", "constraint:storage==ssd", "affinity:container!=~db*", "constraint:node==/n[12]/",
            "reschedule:on-node-failure", "constraints=x",
        ])
        #expect(environment == ["A=b", "constraints=x"])
        #expect(
            labels == [
                "com.docker.swarm.constraints": #"["storage==ssd","node==/n[12]/"]"#,
                "com.docker.swarm.affinities": #"["container!=~db*"]"#,
                "com.docker.swarm.reschedule-policies": #"["on-node-failure"]"#,
            ])
        #expect(found.constraints.map(\.description) == ["storage==ssd", "node==/n[12]/"])
        #expect(found.affinities.map(\.description) == ["container!=~db*"])
        #expect(found.affinities.first?.isSoft == true)
        #expect(found.reschedules == true)
    }

    @Test func labelsCountWithoutVariables() throws {
        let (found, _, labels) = try take(
            ["constraint:b==2"], labels: ["com.docker.swarm.constraints": #"["a==1"]"#, "x": "y"])
        #expect(found.constraints.map(\.description) == ["a==1", "b==2"])
        #expect(labels == ["com.docker.swarm.constraints": #"["a==1","b==2"]"#, "x": "y"])
        // What is stored is read again as it was.
        #expect(try take([], labels: labels).found == found)
    }

    @Test func nothingSaidIsNothing() throws {
        let (found, environment, labels) = try take(["PATH=/bin"], labels: ["a": "b"])
        #expect(found == SwarmExpressions())
        #expect(environment == ["PATH=/bin"])
        #expect(labels == ["a": "b"])
        #expect(try take(["reschedule:off"]).found.reschedules == false)
    }

    @Test func aWhitelistIsAConstraintOnTheNode() throws {
        let constraint = try #require(try take(["whitelist:node==node-1|n.2"]).found.constraints.first)
        #expect(constraint.label == "node")
        #expect(
            ["node-1", "n.2", "n-2", "node-11", "x"].map { constraint.matches($0) } == [
                true, true, false, false, false,
            ])
        #expect(try take(["whitelist:node==~a|b"]).found.constraints.first?.isSoft == true)
    }

    @Test(arguments: [
        "constraint:", "constraint:zone", "constraint:zone=b", "constraint:zone===b", "constraint:zone==",
        "constraint:zo ne==b", "constraint:zone==/(/", "affinity:container==~/[/", "whitelist:zone==b",
        "reschedule:always", "reschedule:", "affinity:a==/\\1/",
    ])
    func whatIsNoneIsRefused(expression: String) {
        #expect {
            try take([expression])
        } throws: { error in
            (error as? DockerError)?.status == 400
        }
    }

    @Test func policiesExcludeEachOther() {
        #expect {
            try take(["reschedule:off", "reschedule:on-node-failure"])
        } throws: { error in
            "\(error)".contains("too many reschedule policies")
        }
        #expect(throws: DockerError.self) {
            try take([], labels: ["com.docker.swarm.constraints": "zone==b"])
        }
        #expect(throws: DockerError.self) { try take((0..<65).map { "constraint:a==\($0)" }) }
    }
}
