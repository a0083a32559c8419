extension DockerAPI {
    var inspectRoutes: [DockerRoute] { [] }
}
