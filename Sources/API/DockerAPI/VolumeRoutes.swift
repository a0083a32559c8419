extension DockerAPI {
    var volumeRoutes: [DockerRoute] { [] }
}
