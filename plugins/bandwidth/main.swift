import BandwidthPlugin
import CNIPlugin
import Glibc

exit(PluginProgram.run(BandwidthPlugin.self, CommandLine.arguments))
