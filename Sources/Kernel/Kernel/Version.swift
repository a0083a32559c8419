/// The version of all of Martlet's programs: they are built and installed together, and a daemon starts no shim or
/// runtime of another one (shims that run already are taken over).
package enum Version {
    package static let number = "0.1.0"
    /// The unified API's.
    package static let api = "v1"
}
