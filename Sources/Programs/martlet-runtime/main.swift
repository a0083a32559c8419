import ContainerRuntime
import Glibc

exit(RuntimeProgram.run(CommandLine.arguments))
