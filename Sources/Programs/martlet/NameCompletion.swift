import ArgumentParser

/// What a shell offers where a name is wanted: it asks this program, quietly.
extension CompletionKind {
    static var containers: CompletionKind { names("ps --all --format '{{.Name}}'") }
    static var services: CompletionKind { names("service ls --quiet") }
    static var images: CompletionKind { names("images --format '{{.Name}}'") }
    static var volumes: CompletionKind { names("volume ls --quiet") }
    static var networks: CompletionKind { names("network ls --quiet") }
    static var secrets: CompletionKind { names("secret ls --quiet") }
    static var configs: CompletionKind { names("config ls --quiet") }
    static var devices: CompletionKind { names("device ls --quiet") }
    static var nodes: CompletionKind { names("node ls --quiet") }

    private static func names(_ list: String) -> CompletionKind { .shellCommand("martlet \(list) 2>/dev/null") }
}
