extension DockerAPI {
    var imageRoutes: [DockerRoute] { [] }
}
