import ContainerRuntime
import Glibc

let status = RuntimeProgram.run(CommandLine.arguments)
fflush(nil)
// Nothing is left to do at the exit, and its handlers would touch much memory for that.
_exit(status)
