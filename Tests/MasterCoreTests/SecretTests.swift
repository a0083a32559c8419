import JSON
import MasterCore
import Model
import Testing
import Wire

@Suite struct SecretsInTheCluster {
    private func secret(_ name: String, group: String = Group.root, size: Int = 3) -> Secret {
        Secret(
            id: SecretID("id-of-\(name)"), name: name, group: group, size: size, sealed: "sealed-\(name)",
            createdAt: Timestamp(nanoseconds: 0))
    }

    private func config(_ name: String, group: String = Group.root) -> Config {
        Config(
            id: ConfigID("id-of-\(name)"), name: name, group: group, data: "YWI=",
            createdAt: Timestamp(nanoseconds: 0))
    }

    private func developer(of group: String) -> Subject {
        .user(TokenID("t"), name: "dev", role: .developer, group: group)
    }

    private func pod(_ sources: Mount.Source...) -> PodSpec {
        var container = ContainerSpec(image: "web")
        for (index, source) in sources.enumerated() {
            container.mounts.append(Mount(source, target: "/run/s/\(index)"))
        }
        return PodSpec(containers: [container])
    }

    @Test func theValueIsInNoView() throws {
        var cluster = try Cluster()
        guard case .secret(let view) = try cluster.perform(.createSecret(secret("password"))) else {
            throw Cluster.Unexpected()
        }
        #expect(view.size == 3 && view.name == "password")
        let text = String(decoding: try JSONCoding.encode(view), as: UTF8.self)
        #expect(!text.contains("sealed-"))
        guard case .secrets(let all) = try cluster.query(.secrets) else { throw Cluster.Unexpected() }
        #expect(all.map(\.name) == ["password"])
        #expect(cluster.keys("secrets/") == ["secrets/id-of-password"])
    }

    @Test func configsShowTheirValueToWhomeverInspectsThem() throws {
        var cluster = try Cluster()
        try cluster.perform(.createConfig(config("motd")))
        guard case .config(let one) = try cluster.query(.config("motd")),
            case .configs(let all) = try cluster.query(.configs)
        else { throw Cluster.Unexpected() }
        #expect(one.data == "YWI=" && one.size == 2)
        #expect(all.map(\.data) == [nil])
    }

    @Test func aNameIsTakenOnce() throws {
        var cluster = try Cluster()
        try cluster.perform(.createSecret(secret("a")))
        #expect(cluster.problem(.createSecret(secret("a")))?.code == .conflict)
        #expect(cluster.problem(.createSecret(secret("../a")))?.code == .badRequest)
        #expect(cluster.problem(.createSecret(secret("b", size: Secret.maximumSize + 1)))?.code == .tooLarge)
        #expect(cluster.problem(.createSecret(secret("b", group: "no/path")))?.code == .badRequest)
        try cluster.perform(.createConfig(config("a")))
    }

    @Test func aWorkloadMayOnlyNameWhatIsThere() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        let missing = cluster.problem(.createContainer(CreateContainer(name: "c", pod: pod(.secret(name: "gone")))))
        #expect(missing?.code == .notFound && missing?.message.contains("'gone'") == true)
        #expect(
            cluster.problem(.createService(CreateService(name: "s", pod: pod(.config(name: "gone")))))?.code
                == .notFound)
        #expect(cluster.keys("workloads/").isEmpty)
        try cluster.perform(.createService(CreateService(name: "s", pod: pod())))
        #expect(
            cluster.problem(.updateService("s", UpdateService(pod: pod(.secret(name: "gone")))))?.code == .notFound)
        #expect(try cluster.service("s").service.revision == 1)
    }

    @Test func oneContainerIsGivenABoundedAmount() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        var sources: [Mount.Source] = []
        for number in 0..<5 {
            try cluster.perform(.createSecret(secret("s\(number)", size: Secret.maximumSize)))
            sources.append(.secret(name: "s\(number)"))
        }
        var container = ContainerSpec(image: "web")
        container.mounts = sources.map { Mount($0, target: "/run/s/\($0)") }
        let wish = CreateContainer(name: "c", pod: PodSpec(containers: [container]))
        #expect(cluster.problem(.createContainer(wish))?.message.contains("allowed for one") == true)
    }

    @Test func whatIsUsedIsNotRemoved() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(.createSecret(secret("a")))
        try cluster.perform(.createConfig(config("b")))
        try cluster.perform(
            .createService(CreateService(name: "web", pod: pod(.secret(name: "a"), .config(name: "b")))))
        cluster.obey()
        for command in [MasterCommand.removeSecret("a"), .removeConfig("b")] {
            let problem = cluster.problem(command)
            #expect(problem?.code == .conflict && problem?.message.contains("web") == true)
        }
        // A revision that nothing runs any more does not count, one that may come back does.
        try cluster.perform(.updateService("web", UpdateService(pod: pod())))
        #expect(cluster.problem(.removeSecret("a"))?.code == .conflict)
        for _ in 0..<10 {
            cluster.obey()
            cluster.now = cluster.now.adding(seconds: 5)
            cluster.step(.tick)
        }
        #expect(try cluster.service("web").service.updateState.phase == .settled)
        try cluster.perform(.removeSecret("a"))
        try cluster.perform(.removeConfig("id-of-b"))
        #expect(cluster.keys("secrets/").isEmpty && cluster.keys("configs/").isEmpty)
    }

    @Test func aDeveloperStaysInTheGroup() throws {
        var cluster = try Cluster()
        let dev = developer(of: "/team")
        #expect(cluster.problem(.createSecret(secret("root")), by: dev)?.code == .forbidden)
        #expect(cluster.problem(.createSecret(secret("x", group: "/team2")), by: dev)?.code == .forbidden)
        try cluster.perform(.createSecret(secret("inner", group: "/team/web")), by: dev)
        try cluster.perform(.createSecret(secret("root")))
        guard case .secrets(let all) = try cluster.query(.secrets, by: dev) else { throw Cluster.Unexpected() }
        #expect(all.map(\.name) == ["inner"])
        #expect(throws: APIProblem.self) { try cluster.query(.secret("root"), by: dev) }
        #expect(cluster.problem(.removeSecret("root"), by: dev)?.code == .notFound)
    }

    @Test func aWorkloadOutsideOfTheGroupMayNotUseIt() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(.createSecret(secret("inner", group: "/team")))
        let wish = CreateContainer(name: "c", pod: pod(.secret(name: "inner")))
        let problem = cluster.problem(.createContainer(wish))
        #expect(problem?.code == .forbidden && problem?.message.contains("/team") == true)
    }

    @Test func onlyTheNodeOfATaskIsGivenItsSecrets() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.addNode("n2")
        try cluster.perform(.createSecret(secret("a")))
        try cluster.perform(.createSecret(secret("other")))
        try cluster.perform(.createContainer(CreateContainer(name: "c", pod: pod(.secret(name: "a")))))
        cluster.obey()
        let view = try cluster.container("c")
        let (task, node) = (try #require(view.task), try #require(view.node))
        let stranger = NodeID(node.text == "n1" ? "n2" : "n1")
        let reply = try cluster.query(.filesForTask(task, on: node), by: .node(node))
        guard case .taskFiles(let secrets, let configs) = reply else { throw Cluster.Unexpected() }
        #expect(secrets.map(\.name) == ["a"] && configs.isEmpty)
        _ = try cluster.query(.filesForTask(task, on: node), by: .local(uid: 0))

        let subjects: [Subject] = [
            .node(stranger), .local(uid: 1000), .anonymous, .user(TokenID("t"), name: "", role: .admin, group: "/"),
        ]
        for subject in subjects {
            #expect(refusal(&cluster, task, node, by: subject) == .forbidden)
        }
        #expect(refusal(&cluster, task, stranger, by: .node(stranger)) == .forbidden)
        #expect(refusal(&cluster, TaskID("unknown"), node, by: .node(node)) == .forbidden)
        #expect(refusal(&cluster, task, node, by: .node(node)) == nil)
        try cluster.perform(.removeContainer("c", force: true))
        #expect(refusal(&cluster, task, node, by: .node(node)) == .forbidden, "being removed, it starts no more")
    }

    @Test("What serves until its replacement does keeps its secrets, what is lost does not") func displaced() throws {
        var cluster = try Cluster()
        for node in ["n1", "n2"] { try cluster.addNode(node) }
        try cluster.perform(.createSecret(secret("a")))
        let pod = cluster.pod { $0.containers[0].mounts = [Mount(.secret(name: "a"), target: "/run/secrets/a")] }
        try cluster.perform(.createService(CreateService(name: "web", pod: pod)))
        cluster.obey()
        let view = try cluster.container("web.1")
        let (task, node) = (try #require(view.task), try #require(view.node))
        var lost = cluster
        try cluster.perform(.updateNode(node.text, UpdateNode(drain: DrainOrder())))
        #expect(cluster.keys("tasks/").count == 2)
        #expect(refusal(&cluster, task, node, by: .node(node)) == nil)
        lost.away = [node.text]
        lost.pass(seconds: 70, heard: [node.text == "n1" ? "n2" : "n1"])
        #expect(lost.keys("tasks/").count == 2)
        #expect(refusal(&lost, task, node, by: .node(node)) == .forbidden)
    }

    private func refusal(
        _ cluster: inout Cluster, _ task: TaskID, _ node: NodeID, by subject: Subject
    ) -> APIProblem.Code? {
        do {
            _ = try cluster.query(.filesForTask(task, on: node), by: subject)
            return nil
        } catch {
            return (error as? APIProblem)?.code
        }
    }
}
