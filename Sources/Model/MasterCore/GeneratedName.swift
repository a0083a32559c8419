/// Names for containers whose users gave none.
enum GeneratedName {
    private static let first = [
        "amber", "brisk", "calm", "clear", "deft", "early", "fleet", "gentle", "glad", "high", "keen", "light",
        "lively",
        "lone", "merry", "mild", "nimble", "northern", "pale", "quick", "quiet", "rapid", "russet", "sharp", "silent",
        "silver", "slender", "soaring", "southern", "steady", "sunny", "swift", "tawny", "tireless", "western", "windy",
    ]
    private static let second = [
        "bunting", "crane", "curlew", "dipper", "dunlin", "egret", "falcon", "fieldfare", "finch", "fulmar", "gannet",
        "goldcrest", "grebe", "harrier", "heron", "hobby", "kestrel", "kite", "knot", "lapwing", "lark", "linnet",
        "merlin", "nightjar", "osprey", "petrel", "pipit", "plover", "puffin", "redstart", "sanderling", "shearwater",
        "skua", "snipe", "swallow", "tern", "turnstone", "wagtail", "whimbrel", "wren",
    ]

    static func make(_ random: inout some RandomNumberGenerator) -> String {
        "\(first.randomElement(using: &random) ?? first[0])-\(second.randomElement(using: &random) ?? second[0])"
    }
}
