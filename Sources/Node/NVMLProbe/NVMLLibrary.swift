import CNVML
import Glibc
import Kernel
import NVMLReport

/// NVML, open and initialised until this value goes away. One thread at a time.
struct NVMLLibrary: ~Copyable {
    let functions: cn_library

    /// The library's name for the linker.
    static let name = "libnvidia-ml.so.1"

    /// Without these nothing can be said of any GPU.
    private static let needed = ["nvmlInit_v2", "nvmlDeviceGetCount_v2", "nvmlDeviceGetHandleByIndex_v2"]

    /// Where a driver's libraries may be that the linker was not told of; its environment does not come here.
    private static let others = ["/usr/local/nvidia/lib64", "/run/opengl-driver/lib"]

    /// Opens the first that is there.
    ///
    /// - Parameter folders: where to look; empty: where the linker does, and then in the folders of `others`.
    init(folders: [String]) throws(NVMLFailure) {
        var library = cn_library()
        try Self.open(folders, &library)
        let missing = Self.missing(library)
        if let name = missing.first(where: { Self.needed.contains($0) }) {
            throw NVMLFailure(
                .libraryBroken, "\(Self.name) has no function \(name): is it NVIDIA's? Install its driver anew")
        }
        let code = library.`init`?() ?? Int32(CN_FUNCTION_NOT_FOUND)
        guard code == CN_SUCCESS else { throw Self.failure(of: code, words: Self.words(library, code)) }
        functions = library
    }

    deinit { _ = functions.shutdown?() }

    /// Functions that the library lacks, by their newest name.
    var missingFunctions: [String] { Self.missing(functions) }

    /// What the library calls an error, and its number.
    func words(_ code: Int32) -> String { Self.words(functions, code) }

    private static func open(_ folders: [String], _ library: inout cn_library) throws(NVMLFailure) {
        let paths = (folders.isEmpty ? [name] : []) + (folders.isEmpty ? others : folders).map { "\($0)/\(name)" }
        for path in paths {
            if path.utf8.contains(UInt8(ascii: "/")), !File.exists(path) { continue }
            guard let words = cn_open(path, &library) else { return }
            let text = ByteName.text(String(cString: words).utf8)
            // The linker's words when it finds no file of that name anywhere; one that it cannot open has other ones.
            if text.hasPrefix("\(name): "), text.contains(String(errno: ENOENT)) { continue }
            throw NVMLFailure(
                .libraryBroken, "\(path) cannot be loaded: \(text): install NVIDIA's driver anew")
        }
        throw NVMLFailure(
            .libraryMissing,
            folders.isEmpty
                ? "there is no \(name)" : "there is no \(name) in \(folders.joined(separator: ", "))")
    }

    private static func missing(_ library: cn_library) -> [String] {
        withUnsafePointer(to: library) { library in
            (0..<cn_symbol_count()).filter { cn_has_symbol(library, $0) == 0 }.compactMap { index in
                cn_symbol(index).map { String(String(cString: $0).prefix { $0 != " " }) }
            }
        }
    }

    private static func words(_ library: cn_library, _ code: Int32) -> String {
        let text = library.error_string?(code).map { ByteName.text(String(cString: $0).utf8) } ?? ""
        return text.isEmpty ? "error \(code)" : "\(text) (\(code))"
    }

    /// What to tell of an error of the library as a whole.
    static func failure(of code: Int32, words: String) -> NVMLFailure {
        switch code {
        case Int32(CN_DRIVER_NOT_LOADED):
            NVMLFailure(
                .driverNotLoaded,
                "NVIDIA's kernel driver is not loaded: \(words): modprobe nvidia, and see dmesg when that fails")
        case Int32(CN_LIB_RM_VERSION_MISMATCH):
            NVMLFailure(
                .versionMismatch,
                "\(name) and NVIDIA's kernel driver are of different versions: \(words): "
                    + "reboot, or unload and load the driver")
        case Int32(CN_NO_PERMISSION):
            NVMLFailure(.noPermission, "NVML refuses: \(words): the agent must be root and may open /dev/nvidiactl")
        default: NVMLFailure(.other, "NVML failed: \(words): see dmesg for what the driver says")
        }
    }
}

/// Reads one thing after another of a device, and keeps what failed. Not supported is no failure.
struct NVMLReader {
    private(set) var problems: [String] = []
    /// An error said that the GPU is gone or has to be reset.
    private(set) var isLost = false

    /// Problems that are kept; what is more says nothing new.
    private static let limit = 16

    /// Calls `body` with room for the value.
    ///
    /// - Parameter body: nil when the library has no such function.
    mutating func value<Value>(
        _ name: String, _ initial: Value, _ library: borrowing NVMLLibrary, _ body: ((inout Value) -> Int32)?
    ) -> Value? {
        guard let body else { return nil }
        var value = initial
        let code = body(&value)
        if code == CN_SUCCESS { return value }
        note(name, code, library)
        return nil
    }

    /// A text of at most 95 bytes; nil too when it is empty.
    mutating func text(
        _ name: String, _ library: borrowing NVMLLibrary,
        _ body: ((UnsafeMutablePointer<CChar>, UInt32) -> Int32)?
    ) -> String? {
        guard let body else { return nil }
        var buffer = [CChar](repeating: 0, count: Int(CN_TEXT_SIZE) + 1)
        let code = buffer.withUnsafeMutableBufferPointer { bytes in
            bytes.baseAddress.map { body($0, UInt32(CN_TEXT_SIZE)) } ?? Int32(CN_INVALID_ARGUMENT)
        }
        guard code == CN_SUCCESS else {
            note(name, code, library)
            return nil
        }
        let text = ByteName.text(buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) })
        return text.isEmpty ? nil : text
    }

    private mutating func note(_ name: String, _ code: Int32, _ library: borrowing NVMLLibrary) {
        if [CN_NOT_SUPPORTED, CN_FUNCTION_NOT_FOUND, CN_ARGUMENT_VERSION_MISMATCH].map({ Int32($0) }).contains(code) {
            return
        }
        if [CN_GPU_IS_LOST, CN_RESET_REQUIRED].map({ Int32($0) }).contains(code) { isLost = true }
        if problems.count < Self.limit { problems.append("\(name): \(library.words(code))") }
    }
}
