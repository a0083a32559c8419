import CNIPlugin
import Glibc
import OverlayPlugin

exit(PluginProgram.run(OverlayPlugin.self, CommandLine.arguments))
