import CNIPlugin
import Glibc
import LoopbackPlugin

exit(PluginProgram.run(LoopbackPlugin.self, CommandLine.arguments))
