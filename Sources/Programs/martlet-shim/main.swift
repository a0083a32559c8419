import Glibc
import ShimCore

exit(ShimProgram.run(CommandLine.arguments))
