import JSON
import Kernel
import Testing

/// `layers.json` in words: who may import whom.
struct Layers: Decodable {
    struct Layer: Decodable {
        let folder: String
        let layer: Int
    }
    struct Sibling: Decodable {
        let from: String
        let to: String
        let reason: String
    }
    let layers: [Layer]
    let small: [String]
    let bannedInSmall: [String]
    let banned: [String]
    let siblings: [Sibling]

    static func load(_ tree: SourceTree) throws -> Layers {
        try JSONCoding.decode(
            Layers.self, from: Kernel.File.read("\(tree.root)/Tests/RepositoryTests/layers.json"), strict: true)
    }
}

@Suite("The layers of the house")
struct LayerTests {
    let tree = SourceTree()

    @Test("a target imports lower layers only; a sibling is listed with its reason")
    func imports() throws {
        let rules = try Layers.load(tree)
        var layerOfTarget: [String: Int] = [:]
        for layer in rules.layers {
            for target in try tree.directories(layer.folder) { layerOfTarget[target] = layer.layer }
        }
        var used: Set<String> = []
        for layer in rules.layers where layer.layer > 0 {
            for target in try tree.directories(layer.folder) {
                for file in try tree.files("\(layer.folder)/\(target)") {
                    for imported in file.imports where imported != target {
                        guard let other = layerOfTarget[imported] else { continue }
                        if other == layer.layer {
                            let listed = rules.siblings.contains {
                                $0.from == target && $0.to == imported && !$0.reason.isEmpty
                            }
                            #expect(
                                listed,
                                "\(file.path) imports its sibling \(imported): list it in layers.json with the reason")
                            used.insert("\(target) \(imported)")
                        } else {
                            #expect(other < layer.layer, "\(file.path) imports \(imported), which is a layer above it")
                        }
                    }
                }
            }
        }
        for sibling in rules.siblings {
            #expect(
                used.contains("\(sibling.from) \(sibling.to)"),
                "layers.json lists \(sibling.from) → \(sibling.to), which nobody imports")
        }
    }

    @Test("the small programs and what they are made of import neither Foundation nor concurrency nor NIO")
    func smallPrograms() throws {
        let rules = try Layers.load(tree)
        for folder in rules.small {
            for file in try tree.files(folder) {
                for imported in file.imports {
                    #expect(!rules.bannedInSmall.contains(imported), "\(file.path) imports \(imported)")
                }
                let concurrent = file.lines.contains { line in
                    let code = line.split(separator: "//", maxSplits: 1, omittingEmptySubsequences: false)[0]
                    return code.contains(" await ") || code.contains(" async ") || code.contains("Task {")
                }
                #expect(!concurrent, "\(file.path) uses Swift Concurrency")
            }
        }
    }

    @Test("full Foundation is nowhere")
    func foundation() throws {
        let rules = try Layers.load(tree)
        for file in try tree.files("Sources") + tree.files("Tests") {
            for imported in file.imports {
                #expect(!rules.banned.contains(imported), "\(file.path) imports \(imported)")
            }
        }
    }

    @Test("agent and master know each other only through the model and the wire")
    func daemons() throws {
        for file in try tree.files("Sources/Daemons/Agent") {
            #expect(!file.imports.contains { ["Master", "MasterCore", "Storage"].contains($0) }, "\(file.path)")
        }
        for file in try tree.files("Sources/Daemons/Master") {
            #expect(
                !file.imports.contains { ["Agent", "AgentCore", "Images", "Networking"].contains($0) }, "\(file.path)")
        }
    }

    /// A library that asks `#if canImport(Security)` for Apple's would take ours, when it is built after ours once more.
    @Test("no target has the name of a module that a library looks for")
    func names() throws {
        let rules = try Layers.load(tree)
        let found: ProgramResult = try Program(
            "/bin/grep",
            ["-rhoE", "--include=*.swift", "canImport\\([A-Za-z_]+\\)", "\(tree.root)/.build/checkouts"]
        ).run()
        let wanted = Set(
            String(decoding: found.output, as: UTF8.self).split(separator: "\n").map { $0.dropFirst(10).dropLast() })
        #expect(wanted.contains("Glibc"))
        for layer in rules.layers {
            for target in try tree.directories(layer.folder) {
                #expect(!wanted.contains(Substring(target)), "give \(layer.folder)/\(target) another name")
            }
        }
    }
}
