/// What images' configurations say, by the manifest's digest, which never changes its meaning.
final class ImageConfigurations: Sendable {
}
