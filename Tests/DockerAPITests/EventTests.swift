import Client
import JSON
import Model
import NIOHTTP1
import Testing
import Wire

@testable import DockerAPI

@Suite struct EventsForDocker {
    private func event(
        _ kind: String, _ action: String, id: String = "4f5e6d", name: String = "web",
        attributes: [String: String] = [:], group: String? = "/"
    ) -> Event {
        var event = Event(
            time: Timestamp(nanoseconds: 1_700_000_000_123_456_789), kind: kind, action: action, id: id, name: name,
            attributes: attributes)
        event.group = group
        return event
    }

    private func container(_ action: String, _ attributes: [String: String] = [:]) -> Event {
        event(
            "container", action,
            attributes: [
                "name": "web", "image": "redis:7", "tier": "back", "node.name": "n1", "node.id": "1d",
                "node.ip": "10.0.0.1",
            ].merging(attributes) { $1 })
    }

    private func json(_ event: Event, _ version: Int = 41) throws -> JSONValue {
        let shown = try #require(DockerEvent(event))
        return try JSONValue.parse(
            String(decoding: shown.line(for: APIVersion(minor: version)), as: UTF8.self),
            limits: JSONLimits(bytes: 4096))
    }

    @Test func oldAndNewClientsFindTheirMembers() throws {
        let old = try json(container("start"))
        #expect(
            old == [
                "Type": "container", "Action": "start", "scope": "local", "time": 1_700_000_000,
                "timeNano": 1_700_000_000_123_456_789, "status": "start", "id": "4f5e6d", "from": "redis:7",
                "Actor": [
                    "ID": "4f5e6d",
                    "Attributes": [
                        "name": "web", "image": "redis:7", "tier": "back", "node.name": "n1", "node.id": "1d",
                        "node.ip": "10.0.0.1",
                    ],
                ],
                "node": ["Name": "n1", "Id": "1d", "Addr": "10.0.0.1", "Ip": "10.0.0.1"],
            ])
        #expect(try json(container("start"), 51) == old)
        let new = try json(container("start"), 52).objectValue
        #expect(new?["status"] == nil && new?["id"] == nil && new?["from"] == nil)
        #expect(new?["Action"] == "start")
    }

    @Test(arguments: [
        (51, ["application/json-seq"], JSONStreamType.json), (52, [], .newlines), (52, ["*/*"], .newlines),
        (52, ["application/jsonl"], .newlines), (52, ["application/json-seq"], .sequence), (53, [], .lines),
        (53, ["application/jsonl"], .lines), (56, ["text/plain, Application/X-NDJSON;q=0.5"], .newlines),
        (56, ["application/jsonl; q=0.5", "application/json-seq ; q=0.8"], .sequence),
        (56, ["application/x-ndjson;q=0"], .lines),
    ])
    func clientsChooseTheMediaType(minor: Int, accept: [String], type: JSONStreamType) {
        #expect(JSONStreamType.events(APIVersion(minor: minor), accept: accept) == type)
    }

    @Test func aSequenceHasSeparatorsInFrontOfItsRecords() {
        #expect(JSONStreamType.sequence.framed([1]) == [0x1E, 1])
        #expect(JSONStreamType.lines.framed([1]) == [1])
    }

    @Test func theMediaTypeIsSaid() async throws {
        try await DockerBench.run { bench in
            _ = try await PlayedNode(bench)
            for (version, type) in [(51, "application/json"), (52, "application/x-ndjson"), (53, "application/jsonl")] {
                let answer = try await bench.client.request(.GET, "/v1.\(version)/events?until=1")
                #expect(answer.headers.first(name: "content-type") == type)
            }
        }
    }

    @Test(arguments: [
        ("health_status", ["health": "healthy"], "health_status: healthy"), ("die", ["exitCode": "1"], "die"),
        ("exec_create: sh -c ls", ["execID": "1"], "exec_create: sh -c ls"),
    ])
    func actionsAreDockers(action: String, attributes: [String: String], shown: String) {
        #expect(DockerEvent(container(action, attributes))?.action == shown)
    }

    @Test func signalsAreNumbers() {
        #expect(DockerEvent(container("kill", ["signal": "SIGTERM"]))?.attributes["signal"] == "15")
    }

    @Test(arguments: [
        ("node", "register", "node", "create"), ("node", "unreachable", "node", "update"),
        ("service", "rollback", "service", "update"), ("cluster", "configure", "daemon", "reload"),
        ("volume", "destroy", "volume", "destroy"),
    ])
    func otherKindsHaveDockersNames(kind: String, action: String, type: String, shown: String) {
        let event = DockerEvent(event(kind, action))
        #expect(event?.type == type)
        #expect(event?.action == shown)
    }

    @Test func tokensAreNoneOfDockersBusiness() { #expect(DockerEvent(event("token", "create")) == nil) }

    private func shows(_ event: Event, _ filters: String, subject: Subject = .local(uid: 0)) throws -> Bool {
        let filter = EventFilter(
            filters: try DockerFilters(filters, allowed: EventFilter.keys), subject: subject, since: nil, until: nil)
        return filter.shows(try #require(DockerEvent(event)), of: event)
    }

    @Test(arguments: [
        (#"{}"#, true), (#"{"type":["container"]}"#, true), (#"{"type":["image"]}"#, false),
        (#"{"container":["web"]}"#, true), (#"{"container":["4f5"]}"#, true), (#"{"container":["other"]}"#, false),
        (#"{"event":["start","die"]}"#, true), (#"{"event":["stop"]}"#, false),
        (#"{"image":["redis"]}"#, true), (#"{"image":["redis:7"]}"#, true), (#"{"image":["redis:8"]}"#, false),
        (#"{"image":["docker.io/library/redis:7"]}"#, true),
        (#"{"label":["tier=back"]}"#, true), (#"{"label":["tier"]}"#, true), (#"{"label":["tier=front"]}"#, false),
        (#"{"label":["tier","none"]}"#, false), (#"{"node":["n1"]}"#, true), (#"{"node":["n2"]}"#, false),
        (#"{"scope":["local"]}"#, true), (#"{"scope":["swarm"]}"#, false), (#"{"volume":["web"]}"#, false),
        (#"{"daemon":["x"]}"#, false), (#"{"container":{"web":true},"event":{"start":true}}"#, true),
        (#"{"container":["web"],"event":["stop"]}"#, false), (#"{"plugin":["x"]}"#, false),
    ])
    func filtersChoose(filters: String, isShown: Bool) throws {
        #expect(try shows(container("start"), filters) == isShown)
    }

    @Test func aKindOfHealthIsItsAction() throws {
        let event = container("health_status", ["health": "unhealthy"])
        #expect(try shows(event, #"{"event":["health_status"]}"#))
        #expect(try shows(event, #"{"event":["health_status: unhealthy"]}"#))
        #expect(try !shows(event, #"{"event":["health_status: healthy"]}"#))
    }

    @Test func whoeverIsConfinedHearsOfItsGroup() throws {
        let developer = Subject.user(TokenID("t"), name: "", role: .developer, group: "/team")
        #expect(try !shows(event("container", "start", group: "/"), "", subject: developer))
        #expect(try shows(event("container", "start", group: "/team/web"), "", subject: developer))
        #expect(try !shows(event("node", "ready", group: nil), "", subject: developer))
    }

    @Test func anUnknownFilterIsRefused() {
        #expect(throws: DockerError.self) { try shows(container("start"), #"{"colour":["red"]}"#) }
    }
}
