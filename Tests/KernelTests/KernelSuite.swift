import Glibc
import Testing

/// All tests that use the kernel, one after another: they share its mounts, cgroups and process numbers.
@Suite(.serialized, .enabled(if: geteuid() == 0, "needs root")) struct KernelSuite {}
