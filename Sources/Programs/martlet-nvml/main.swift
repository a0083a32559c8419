import Glibc
import NVMLProbe

exit(NVMLProgram.run(CommandLine.arguments))
