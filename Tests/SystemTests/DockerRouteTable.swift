extension RouteTable {
    /// What each route of the Docker API asks for, see `holders`.
    static let docker: [String: String] = [
        "GET /_ping": "read", "HEAD /_ping": "read", "GET /version": "read", "GET /info": "read",
        "GET /events?until=1": "read", "GET /system/df": "read", "POST /auth": "work",

        "GET /containers/json": "read", "GET /containers/ps": "read",
        "POST /containers/create": "work", "POST /containers/prune": "work",
        "GET /containers/{id}/json": "read", "GET /containers/{id}/top": "read",
        "GET /containers/{id}/logs?stdout=1": "read", "GET /containers/{id}/stats": "read",
        "GET /containers/{id}/changes": "read", "GET /containers/{id}/export": "work",
        "POST /containers/{id}/start": "work", "POST /containers/{id}/stop": "work",
        "POST /containers/{id}/restart": "work", "POST /containers/{id}/kill": "work",
        "POST /containers/{id}/pause": "work", "POST /containers/{id}/unpause": "work",
        "POST /containers/{id}/rename?name=other": "work", "POST /containers/{id}/update": "work",
        "POST /containers/{id}/wait": "read", "POST /containers/{id}/resize?h=1&w=1": "work",
        "POST /containers/{id}/attach": "work", "GET /containers/{id}/attach/ws": "work",
        "DELETE /containers/{id}": "work", "POST /commit?container=nothing-there": "work",
        "HEAD /containers/{id}/archive?path=/": "work", "GET /containers/{id}/archive?path=/": "work",
        "PUT /containers/{id}/archive?path=/": "work",
        "POST /containers/{id}/exec": "work", "POST /exec/{id}/start": "work",
        "POST /exec/{id}/resize?h=1&w=1": "work", "GET /exec/{id}/json": "work",
        "GET /containers/{id}/checkpoints": "read",

        "GET /images/json": "read", "GET /images/search": "work", "GET /images/get": "work",
        "POST /images/create": "work", "POST /images/load": "operate", "POST /images/prune": "operate",
        "GET /images/{id}/json": "read", "GET /images/a/b/{id}/json": "read", "GET /images/{id}/history": "read",
        "GET /images/{id}/get": "work", "POST /images/{id}/push": "work", "POST /images/{id}/tag": "work",
        "DELETE /images/{id}": "operate", "DELETE /images/a/b/{id}": "operate",
        "GET /distribution/UPPER/json": "work",

        "GET /networks": "read", "GET /networks/{id}": "read", "POST /networks/create": "work",
        "POST /networks/prune": "work", "DELETE /networks/{id}": "work",
        "POST /networks/{id}/connect": "work", "POST /networks/{id}/disconnect": "work",

        "GET /volumes": "read", "GET /volumes/{id}": "read", "POST /volumes/create": "work",
        "POST /volumes/prune": "work", "PUT /volumes/{id}": "work", "DELETE /volumes/{id}": "work",

        "GET /swarm": "read", "GET /nodes": "read", "GET /services": "read", "GET /tasks": "read",
        "GET /secrets": "read", "GET /configs": "read", "GET /plugins": "read", "POST /plugins/pull": "read",
        "POST /build": "read", "POST /build/prune": "operate", "POST /session": "read", "POST /grpc": "read",
    ]
}
