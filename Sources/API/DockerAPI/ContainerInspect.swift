import JSON
import MasterCore
import Model
import Wire

/// A container as `GET /containers/{id}/json` shows it, ContainerInspectResponse of Moby's `api/swagger.yaml`. What a
/// user asked for is read back from the spec, so that every face's containers look alike.
struct ContainerInspect {
    let view: ContainerView
    let version: APIVersion
    /// `sha256:…` of the image's configuration; the manifest's when no node has the image any more.
    var imageID: String
    /// Bytes.
    var imageSize: Int64 = 0
    var platform = "linux"
    /// By id.
    var networkNames: [String: String] = [:]
    /// Whether ports that name no address are published at the node's IPv6 addresses too.
    var publishesIPv6 = false
    /// Of those that it has links to, by id.
    var containerNames: [String: String] = [:]
    /// Where the container's volumes are on its node, by name.
    var volumePaths: [String: String] = [:]
    /// Its node where there are several: Swarm classic tells it so.
    var node: Node?
    /// Whether sizes were asked for.
    var measures = false
    /// Bytes that the container has written.
    var written: Int64 = 0
    /// Of its health check, oldest first.
    var probes: [ProbeResult] = []

    /// Ids of programs that were made in it and have not ended.
    var execs: [String] = []

    var spec: ContainerSpec { view.spec }

    init(view: ContainerView, version: APIVersion) {
        self.view = view
        self.version = version
        imageID = view.spec.imageDigest
    }

    var status: ContainerState { view.summaryState }

    /// Whether it has its network and ports now.
    var isUp: Bool { status == .running || status == .paused }

    var json: JSONValue {
        let words = (spec.entrypoint ?? []) + (spec.command ?? [])
        var object: JSONObject = [
            "Id": .string(view.id.text), "Created": .string("\(view.createdAt)"), "Path": .string(words.first ?? ""),
            "Args": .list(words.dropFirst()), "State": state, "Image": .string(imageID), "ResolvConfPath": "",
            "HostnamePath": "", "HostsPath": "", "LogPath": "", "Name": .string("/" + view.name),
            "RestartCount": .integer(Int64(view.container.restarts)), "Driver": "overlay2",
            "Platform": .string(platform), "MountLabel": "", "ProcessLabel": "",
            "AppArmorProfile": spec.privileged ? "unconfined" : "", "ExecIDs": .listOrNull(execs),
            "HostConfig": hostConfig,
            "GraphDriver": ["Data": [:], "Name": "overlay2"],
        ]
        if measures {
            object["SizeRw"] = .integer(written)
            object["SizeRootFs"] = .integer(imageSize + written)
        }
        object["Mounts"] = mounts
        object["Config"] = config
        object["NetworkSettings"] = networkSettings
        if let node {
            object["Node"] = [
                "ID": .string(node.id.text), "IP": .string(node.address), "Addr": .string(node.address),
                "Name": .string(node.name), "Cpus": .integer(node.capacity.cpu / 1_000_000_000),
                "Memory": .integer(node.capacity.memory), "Labels": .texts(node.labels),
            ]
        }
        return .object(object)
    }

    private var state: JSONValue {
        let container = view.container
        var object: JSONObject = [
            "Status": .string(status.rawValue), "Running": .bool(status.isActive), "Paused": .bool(status == .paused),
            "Restarting": .bool(status == .restarting), "OOMKilled": .bool(container.outOfMemory),
            "Dead": .bool(status == .dead), "Pid": .integer(isUp ? Int64(container.pid) : 0),
            "ExitCode": .integer(isUp ? 0 : Int64(container.exitCode ?? (view.status.phase == .failed ? 128 : 0))),
            "Error": .string(fault), "StartedAt": .time(container.startedAt),
            "FinishedAt": .time(container.finishedAt),
        ]
        if container.health != .none {
            object["Health"] = [
                "Status": .string(container.health.rawValue),
                "FailingStreak": .integer(Int64(container.failingStreak)),
                "Log": .array(
                    probes.map { probe in
                        [
                            "Start": .time(probe.start), "End": .time(probe.end),
                            "ExitCode": .integer(Int64(probe.exitCode)), "Output": .string(probe.output),
                        ]
                    }),
            ]
        }
        return .object(object)
    }

    /// Why it is not what it should be; empty when nothing is known.
    private var fault: String {
        if let unschedulable = view.unschedulable, view.task == nil { return unschedulable.message }
        if let since = view.unreachableSince {
            return "its node \(view.nodeName) is not heard of since \(since): this is what it was then"
        }
        return isUp ? "" : view.status.message
    }

    private var mounts: JSONValue {
        .array(
            spec.mounts.sorted { $0.target < $1.target }.compactMap { mount in
                var object: JSONObject
                switch mount.source {
                case .bind(let path): object = ["Type": "bind", "Source": .string(path)]
                case .volume(let name):
                    object = [
                        "Type": "volume", "Name": .string(name), "Source": .string(volumePaths[name] ?? ""),
                    ]
                case .tmpfs, .secret, .config: return nil
                }
                object["Destination"] = .string(mount.target)
                var propagation = ""
                if case .bind = mount.source {
                    propagation = mount.propagation ?? "rprivate"
                } else {
                    object["Driver"] = "local"
                }
                object["Mode"] = .string(Self.shownMode(of: mount))
                object["RW"] = .bool(!mount.readOnly)
                object["Propagation"] = .string(propagation)
                return .object(object)
            })
    }

    /// The same as dockerd shows it: a named volume without options has the mode of one that may be shared.
    static func shownMode(of mount: Mount) -> String {
        let mode = mode(of: mount)
        if mode.isEmpty, !mount.isAnonymous, case .volume = mount.source { return "z" }
        return mode
    }

    /// The options behind the second colon of `-v`.
    static func mode(of mount: Mount) -> String {
        var words: [String] = []
        if mount.readOnly { words.append("ro") }
        if let propagation = mount.propagation { words.append(propagation) }
        if case .volume = mount.source, !mount.copyUp, !mount.isAnonymous { words.append("nocopy") }
        return words.joined(separator: ",")
    }
}
