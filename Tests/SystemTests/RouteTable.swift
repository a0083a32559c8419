/// What each route of the master asks for, and of whom. A route that is not named here fails the test: whoever adds one
/// says here who may use it.
enum RouteTable {
    static let master: [String: String] = [
        "GET /healthz": "open",
        "GET /metrics": "observe",
        "GET /api/v1/events": "observe",
        "GET /api/v1/version": "read",
        "GET /api/v1/cluster": "read",
        "PUT /api/v1/cluster/settings": "administer",
        "GET /api/v1/cluster/members": "contents",

        "GET /api/v1/containers": "read",
        "POST /api/v1/containers": "work",
        "GET /api/v1/containers/{container}": "read",
        "DELETE /api/v1/containers/{container}": "work",
        "POST /api/v1/containers/{container}/start": "work",
        "POST /api/v1/containers/{container}/stop": "work",
        "POST /api/v1/containers/{container}/restart": "work",
        "POST /api/v1/containers/{container}/kill": "work",
        "POST /api/v1/containers/{container}/pause": "work",
        "POST /api/v1/containers/{container}/unpause": "work",
        "POST /api/v1/containers/{container}/wait": "read",
        "GET /api/v1/containers/{container}/logs": "read",
        "GET /api/v1/containers/{container}/stats": "read",
        "GET /api/v1/containers/{container}/top": "read",
        "POST /api/v1/containers/{container}/attach": "work",
        "POST /api/v1/containers/{container}/exec": "work",
        "GET /api/v1/containers/{container}/archive": "work",
        "HEAD /api/v1/containers/{container}/archive": "work",
        "PUT /api/v1/containers/{container}/archive": "work",
        "GET /api/v1/containers/{container}/changes": "read",
        "GET /api/v1/containers/{container}/export": "work",
        "POST /api/v1/containers/{container}/commit": "work",

        "GET /api/v1/services": "read",
        "POST /api/v1/services": "work",
        "GET /api/v1/services/{service}": "read",
        "PATCH /api/v1/containers/{container}": "work",
        "PATCH /api/v1/services/{service}": "work",
        "DELETE /api/v1/services/{service}": "work",
        "GET /api/v1/services/{service}/revisions": "read",
        "GET /api/v1/services/{service}/logs": "read",

        "GET /api/v1/nodes": "read",
        "GET /api/v1/nodes/{node}": "read",
        "PATCH /api/v1/nodes/{node}": "operate",
        "DELETE /api/v1/nodes/{node}": "operate",
        "POST /api/v1/nodes": "node",
        "GET /api/v1/nodes/{node}/tasks": "node",
        "GET /api/v1/nodes/{node}/peers": "node",
        "POST /api/v1/nodes/{node}/network-check": "operate",
        "POST /api/v1/nodes/{node}/status": "node",
        "POST /api/v1/nodes/{node}/certificate": "node",
        "GET /api/v1/nodes/{node}/tasks/{task}/secrets": "node",
        "POST /api/v1/nodes/join": "join",

        "GET /api/v1/devices": "read",
        "GET /api/v1/devices/{device}": "read",
        "POST /api/v1/nodes/{node}/devices/{device}/clear": "operate",

        "GET /api/v1/images": "read",
        "GET /api/v1/images/{image}": "read",
        "POST /api/v1/images/import": "work",
        "POST /api/v1/images/load": "operate",
        "GET /api/v1/images/save": "work",
        "POST /api/v1/images/pull": "work",
        "POST /api/v1/images/{image}/push": "work",
        "POST /api/v1/images/{image}/tag": "work",
        "DELETE /api/v1/images/{image}": "operate",
        "POST /api/v1/images/prune": "operate",
        "GET /api/v1/images/{image}/sources": "contents",
        "POST /api/v1/registries/login": "work",

        "GET /api/v1/volumes": "read",
        "POST /api/v1/volumes": "work",
        "GET /api/v1/volumes/{volume}": "read",
        "DELETE /api/v1/volumes/{volume}": "work",

        "GET /api/v1/networks": "read",
        "POST /api/v1/networks": "work",
        "POST /api/v1/networks/prune": "work",
        "GET /api/v1/networks/{network}": "read",
        "DELETE /api/v1/networks/{network}": "work",
        "POST /api/v1/networks/{network}/connect": "work",
        "POST /api/v1/networks/{network}/disconnect": "work",

        "GET /api/v1/secrets": "work",
        "POST /api/v1/secrets": "work",
        "GET /api/v1/secrets/{secret}": "work",
        "DELETE /api/v1/secrets/{secret}": "work",
        "GET /api/v1/configs": "read",
        "POST /api/v1/configs": "work",
        "GET /api/v1/configs/{config}": "read",
        "DELETE /api/v1/configs/{config}": "work",

        "GET /api/v1/tokens": "administer",
        "POST /api/v1/tokens": "administer",
        "DELETE /api/v1/tokens/{token}": "administer",
    ]

    /// Routes that the document does not describe.
    static let undescribed = ["GET /api/v1/openapi.json": "read"]

    /// Who has a right; `node` is meant for the caller's own node.
    static let holders: [String: Set<String>] = [
        "open": ["viewer", "developer", "operator", "admin", "joining", "node"],
        "read": ["viewer", "developer", "operator", "admin"],
        "observe": ["viewer", "operator", "admin"],
        "work": ["developer", "operator", "admin"],
        "operate": ["operator", "admin"],
        "administer": ["admin"],
        "contents": ["node"],
        "node": ["node"],
        "join": ["joining"],
    ]

    /// The agent's stream port on the network: for the master, and of all this the last for nodes.
    static let agent = [
        "GET /node/v1/ping", "GET /node/v1/images", "GET /node/v1/images/save?name=busybox",
        "GET /node/v1/images/busybox",
        "POST /node/v1/images/import?name=x", "POST /node/v1/images/load", "POST /node/v1/images/busybox/tag?name=x",
        "POST /node/v1/images/pull", "POST /node/v1/images/busybox/push", "POST /node/v1/images/fetch",
        "DELETE /node/v1/images/busybox", "POST /node/v1/collect", "POST /node/v1/registries/login",
        "POST /node/v1/registries/resolve", "POST /node/v1/registries/tags", "POST /node/v1/registries/search",
        "GET /node/v1/tasks/{task}/changes", "GET /node/v1/tasks/{task}/export", "POST /node/v1/tasks/{task}/commit",
        "POST /node/v1/sizes", "POST /node/v1/network-check", "POST /node/v1/devices/x/clear",
        "GET /node/v1/volumes", "POST /node/v1/volumes", "GET /node/v1/volumes/x", "DELETE /node/v1/volumes/x",
        "GET /node/v1/tasks/{task}/logs", "POST /node/v1/tasks/{task}/attach", "POST /node/v1/tasks/{task}/exec",
        "POST /node/v1/tasks/{task}/signal?signal=SIGKILL", "GET /node/v1/tasks/{task}/stats",
        "GET /node/v1/tasks/{task}/top", "GET /node/v1/tasks/{task}/archive?path=/",
        "HEAD /node/v1/tasks/{task}/archive?path=/", "PUT /node/v1/tasks/{task}/archive?path=/",
        // What does not exist, and what is not what it looks like.
        "GET /node/v1/added/later", "POST /node/v1/content/blobs/x", "GET /", "GET /healthz",
        "GET /node/v1/content/../tasks/{task}/logs", "GET /node/v1//content/blobs/x",
        "GET /node/v1/content%2fblobs/x",
    ]
}
