import JSON
import Model
import Testing
import Wire

@testable import MasterCore

@Suite struct Lists {
    /// All pages, each with at most `limit`.
    private func pages(
        _ cluster: inout Cluster, _ selection: ContainerSelection = ContainerSelection(), limit: Int = 3,
        between: (inout Cluster) throws -> Void = { _ in }
    ) throws -> [[ContainerSummary]] {
        var pages: [[ContainerSummary]] = []
        var position: ContainerPosition?
        repeat {
            guard
                case .containerPage(let page) = try cluster.query(
                    .containerPage(selection, after: position, limit: limit))
            else { throw Cluster.Unexpected() }
            pages.append(page.containers)
            position = page.next
            try between(&cluster)
        } while position != nil
        return pages
    }

    private func names(
        _ cluster: inout Cluster, _ change: (inout ContainerSelection) throws -> Void = { _ in }
    ) throws -> [String] {
        var selection = ContainerSelection()
        try change(&selection)
        return try pages(&cluster, selection).flatMap { $0 }.map(\.name)
    }

    private func cluster(_ names: [String]) throws -> Cluster {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        for name in names {
            cluster.now = cluster.now.adding(seconds: 1)
            try cluster.perform(.createContainer(CreateContainer(name: name, pod: cluster.pod(), start: false)))
        }
        return cluster
    }

    @Test func theNewestComesFirstInPartsOfAnySize() throws {
        var cluster = try cluster(["a", "b", "c", "d", "e"])
        for limit in 1...6 {
            let pages = try pages(&cluster, limit: limit)
            #expect(pages.allSatisfy { $0.count <= limit })
            #expect(pages.flatMap { $0 }.map(\.name) == ["e", "d", "c", "b", "a"])
        }
        #expect(try cluster.containers().map(\.name) == ["e", "d", "c", "b", "a"])
    }

    @Test func whatExistsAllTheTimeIsListedOnceWhileOthersComeAndGo() throws {
        var cluster = try cluster((0..<20).map { "old\($0)" })
        var round = 0
        let pages = try pages(&cluster, limit: 2) { cluster in
            try cluster.perform(
                .createContainer(CreateContainer(name: "new\(round)", pod: cluster.pod(), start: false)))
            // The oldest of all, and one from the parts that were read.
            if round < 3 { try cluster.perform(.removeContainer("old\(round)", force: true)) }
            if round == 5 { try cluster.perform(.removeContainer("old19", force: true)) }
            cluster.obey()
            round += 1
        }
        let listed = pages.flatMap { $0 }.map(\.name)
        #expect(Set(listed).count == listed.count)
        #expect(Set(listed).isSuperset(of: (3..<19).map { "old\($0)" }))
        #expect(!listed.contains { $0.hasPrefix("new") })
    }

    @Test func theOrderOutlivesARestart() throws {
        var cluster = try cluster(["a", "b", "c"])
        cluster.now = cluster.now.adding(seconds: 1)
        try cluster.perform(
            .createService(CreateService(name: "web", pod: cluster.pod(), scale: .replicated(3))))
        let before = try names(&cluster)
        #expect(before == ["web.3", "web.2", "web.1", "c", "b", "a"])
        try cluster.restart()
        #expect(try names(&cluster) == before)
    }

    @Test func filtersLookAtTheSpec() throws {
        var cluster = try cluster(["plain"])
        var pod = cluster.pod()
        pod.containers[0].labels = ["tier": "web", "a": "1"]
        pod.containers[0].mounts = [Mount(.volume(name: "data"), target: "/var/lib/data")]
        pod.containers[0].exposedPorts = ["9000/udp"]
        pod.ports = [PortMapping(hostPort: 8080, containerPort: 80)]
        cluster.now = cluster.now.adding(seconds: 1)
        try cluster.perform(
            .createContainer(CreateContainer(name: "full", pod: pod, labels: ["own": "yes"], start: false)))
        #expect(try names(&cluster) { $0.labels = ["tier=web", "own"] } == ["full"])
        #expect(try names(&cluster) { $0.labels = ["tier=db"] }.isEmpty)
        #expect(try names(&cluster) { $0.absentLabels = ["a=1"] } == ["plain"])
        #expect(try names(&cluster) { $0.volumes = ["data"] } == ["full"])
        #expect(try names(&cluster) { $0.volumes = ["/var/lib/data"] } == ["full"])
        #expect(try names(&cluster) { $0.networks = ["bridge"] } == ["full", "plain"])
        #expect(try names(&cluster) { $0.networks = ["host"] }.isEmpty)
        #expect(try names(&cluster) { $0.published = [.init(8079...8081, .tcp)] } == ["full"])
        #expect(try names(&cluster) { $0.published = [.init(80...80, .tcp)] }.isEmpty)
        #expect(try names(&cluster) { $0.published = [.init(9000...9000, .udp)] }.isEmpty)
        #expect(try names(&cluster) { $0.exposed = [.init(9000...9000, .udp)] } == ["full"])
        #expect(try names(&cluster) { $0.images = [Cluster.digest] } == ["full", "plain"])
        #expect(try names(&cluster) { $0.images = ["sha256:other"] }.isEmpty)
        #expect(try names(&cluster) { $0.ids = [try NamePattern("zz")] }.isEmpty)
        #expect(try names(&cluster) { $0.nodes = ["n1"] } == ["full", "plain"])
        #expect(try names(&cluster) { $0.nodes = ["n2"] }.isEmpty)
    }

    @Test func filtersLookAtWhatHappens() throws {
        var cluster = try cluster(["made", "ended"])
        #expect(try names(&cluster) { $0.states = [.created] } == ["ended", "made"])
        try cluster.perform(.act("ended", .start, ContainerAction()))
        cluster.obey()
        #expect(try names(&cluster) { $0.states = [.running] } == ["ended"])
        try cluster.perform(.act("ended", .stop, ContainerAction()))
        cluster.obey()
        #expect(try names(&cluster) { $0.states = [.running] }.isEmpty)
        #expect(try names(&cluster) { $0.exitCodes = [143] } == ["ended"])
        #expect(try names(&cluster) { $0.exitCodes = [0] }.isEmpty)
        let newest = try #require(try pages(&cluster).first?.first)
        #expect(try names(&cluster) { $0.before = newest.position } == ["made"])
        #expect(try names(&cluster) { $0.since = newest.position }.isEmpty)
    }

    @Test func labelsOfAServiceAreThoseOfItsTasks() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        var pod = cluster.pod()
        pod.containers[0].labels = ["v": "1"]
        try cluster.perform(.createService(CreateService(name: "web", pod: pod, scale: .replicated(2))))
        cluster.obey()
        pod.containers[0].labels = ["v": "2"]
        try cluster.perform(.updateService("web", UpdateService(pod: pod)))
        // They are replaced one after another.
        let old = try names(&cluster) { $0.labels = ["v=1"] }
        let new = try names(&cluster) { $0.labels = ["v=2"] }
        #expect(!old.isEmpty)
        #expect(Set(old + new) == ["web.1", "web.2"])
        #expect(old.count + new.count == 2)
        cluster.pass(seconds: 10, heard: ["n1"])
        for _ in 0..<5 {
            cluster.obey()
            cluster.pass(seconds: 3, heard: ["n1"])
        }
        #expect(try names(&cluster) { $0.labels = ["v=2"] }.count == 2)
        #expect(try names(&cluster) { $0.ofServices = false }.isEmpty)
        #expect(try names(&cluster) { $0.ofServices = true }.count == 2)
    }

    @Test func aNewNameIsFoundAndTheOldIsNot() throws {
        var cluster = try cluster(["old"])
        var change = UpdateContainer()
        change.name = "new"
        let id = try cluster.container("old").id
        try cluster.perform(.updateContainer("old", change))
        #expect(try names(&cluster) { $0.names = [try NamePattern("^/new$")] } == ["new"])
        #expect(try names(&cluster) { $0.names = [try NamePattern("old")] }.isEmpty)
        #expect(try cluster.container("new").id == id)
        #expect(cluster.problem(.act("old", .start, ContainerAction()))?.code == .notFound)
    }

    @Test func othersGroupsAreNotSeen() throws {
        var cluster = try cluster(["ours"])
        let bob = Subject.user(TokenID("t"), name: "bob", role: .developer, group: "/bob")
        try cluster.perform(
            .createContainer(CreateContainer(name: "his", pod: cluster.pod(), start: false)), by: bob)
        let query = MasterQuery.containerPage(ContainerSelection(), after: nil, limit: 10)
        guard case .containerPage(let page) = try cluster.query(query, by: bob) else { throw Cluster.Unexpected() }
        #expect(page.containers.map(\.name) == ["his"])
        let id = try cluster.container("ours").id.text
        guard case .containerIDs(let ids) = try cluster.query(.containersBeginning(id, limit: 2), by: bob) else {
            throw Cluster.Unexpected()
        }
        #expect(ids.isEmpty)
    }

    @Test func volumesThatBelongToItGoWithIt() throws {
        var cluster = try cluster(["a", "b"])
        try cluster.perform(.removeContainer("a", force: false, volumes: true))
        try cluster.perform(.removeContainer("b", force: false))
        let told = cluster.assigned.values.flatMap(\.values)
        #expect(told.filter(\.removeVolumes).map(\.instanceName) == ["a"])
    }

    @Test func aBeginningOfAnIDIsFound() throws {
        var cluster = try cluster((0..<200).map { "c\($0)" })
        for view in try cluster.containers() {
            for length in [1, 2, 3, 5, 64] {
                let text = String(view.id.text.prefix(length))
                guard case .containerIDs(let ids) = try cluster.query(.containersBeginning(text, limit: .max)) else {
                    throw Cluster.Unexpected()
                }
                #expect(ids.contains(view.id))
                #expect(ids.allSatisfy { $0.text.hasPrefix(text) })
            }
        }
        guard case .containerIDs(let two) = try cluster.query(.containersBeginning("", limit: 2)) else {
            throw Cluster.Unexpected()
        }
        #expect(two.count == 2)
    }
}

@Suite struct ManyContainers {
    /// As many containers as a large cluster has: each is listed once, whatever is looked for, and no part
    /// of a list is larger than was asked for.
    @Test func areListedInParts() throws {
        let count = 50_000
        let begin = Timestamp(nanoseconds: 1_700_000_000_000_000_000)
        var core = try MasterCore(records: [], revision: 0)
        for number in 0..<count {
            let (workload, instance) = (WorkloadID("w\(number)"), InstanceID("i\(number)"))
            // The oldest do not come first.
            let time = begin.adding(seconds: Int64(number / 100 * 100 + (number * 37) % 100))
            var spec = ContainerSpec(image: "web")
            spec.labels = ["number": "\(number)", "project": "p\(number / 50)"]
            let id = String(number, radix: 16)
            let container = ContainerID(id + String(repeating: "0", count: 64 - id.count))
            core.state.put(
                .workload(
                    Workload(
                        id: workload, kind: .container, name: "c\(number)", scale: .replicated(1), desired: .prepared,
                        createdAt: time)))
            let pod = PodSpec(containers: [spec])
            core.state.put(.revision(Revision(workload: workload, number: 1, pod: pod, createdAt: time)))
            core.state.put(
                .instance(
                    Instance(
                        id: instance, workload: workload, slot: 1, name: "c\(number)", containers: [container],
                        createdAt: time)))
        }
        var position: ContainerPosition?
        var names: Set<String> = []
        var last = Timestamp(nanoseconds: .max)
        repeat {
            let page = core.page(ContainerSelection(), after: position, limit: 500, now: begin)
            #expect(page.containers.count <= 500)
            for container in page.containers {
                #expect(container.createdAt < last)
                last = container.createdAt
                names.insert(container.name)
            }
            position = page.next
        } while position != nil
        #expect(names.count == count)
        func found(_ change: (inout ContainerSelection) throws -> Void) throws -> [String] {
            var selection = ContainerSelection()
            try change(&selection)
            var names: [String] = []
            var position: ContainerPosition?
            repeat {
                let page = core.page(selection, after: position, limit: 500, now: begin)
                names += page.containers.map(\.name)
                position = page.next
            } while position != nil
            return names
        }
        #expect(try found { $0.labels = ["project=p7"] }.count == 50)
        #expect(try found { $0.labels = ["project=p7", "number"] }.count == 50)
        #expect(try found { $0.labels = ["project=p7", "other"] }.isEmpty)
        #expect(try found { $0.absentLabels = ["project"] }.isEmpty)
        #expect(try found { $0.absentLabels = ["number=17"] }.count == count - 1)
        #expect(try found { $0.images = ["web"] }.count == count)
        #expect(try found { $0.images = ["other"] }.isEmpty)
        #expect(try found { $0.names = [try NamePattern("^/c4711$")] } == ["c4711"])
        #expect(
            try found { $0.names = [try NamePattern("^c[0-9]+4711$")] }.sorted() == [
                "c14711", "c24711", "c34711", "c44711",
            ])
        #expect(try found { $0.states = [.running] }.isEmpty)
        #expect(core.containers(beginning: "c34f0", limit: 10).count == 1)
    }
}

@Suite struct NamePatterns {
    @Test(arguments: [
        ("web", "myweb1", true), ("web", "we", false), ("^web", "web1", true), ("^web", "myweb", false),
        ("web$", "myweb", true), ("web$", "web1", false), ("^/web$", "web", true), ("^/?web$", "web", true),
        ("^/web$", "web1", false), ("/web", "web1", true), ("/web", "myweb", false), ("web.1", "web.1", true),
        ("web\\.1", "webx1", false), ("web.1", "webx1", true), ("^(a|b)$", "b", true), ("a+b", "aab", true),
        ("", "anything", true), ("^$", "x", false), (".web", "web", true), ("^.web$", "web", true),
        ("w[ea]b", "wab", true), ("^\\d+$", "12", true), ("^/web-[0-9]+$", "web-12", true),
    ])
    func matches(pattern: String, name: String, found: Bool) throws {
        #expect(try NamePattern(pattern).matches(name) == found)
    }

    @Test func whatIsNoExpressionIsRefused() {
        #expect(throws: RegularExpression.Problem.self) { try NamePattern("a(") }
    }
}
