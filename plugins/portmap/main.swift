import CNIPlugin
import Glibc
import PortmapPlugin

exit(PluginProgram.run(PortmapPlugin.self, CommandLine.arguments))
