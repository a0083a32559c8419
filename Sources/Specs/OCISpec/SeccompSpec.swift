import JSON

/// `linux.seccomp`: a system call filter, see seccomp(2).
package struct SeccompSpec: OCIDocument {
    package var defaultAction: String
    package var defaultErrnoRet: UInt32?
    package var architectures: [String]
    /// nil: the runtime's choice; empty: none.
    package var flags: [String]?
    package var listenerPath: String?
    package var listenerMetadata: String?
    package var syscalls: [SyscallRule]

    package init(defaultAction: String) {
        self.defaultAction = defaultAction
        architectures = []
        syscalls = []
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        defaultAction = try reader.string("defaultAction")
        defaultErrnoRet = try reader.optionalUInt32("defaultErrnoRet")
        architectures = try reader.list("architectures")
        flags = try reader.optionalStrings("flags")
        listenerPath = try reader.optionalString("listenerPath")
        listenerMetadata = try reader.optionalString("listenerMetadata")
        syscalls = try reader.documents("syscalls")
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("defaultAction", defaultAction)
        writer.put("defaultErrnoRet", defaultErrnoRet)
        writer.put("architectures", architectures)
        writer.put("flags", flags.map { JSONValue.array($0.map { .string($0) }) })
        writer.put("listenerPath", listenerPath)
        writer.put("listenerMetadata", listenerMetadata)
        writer.put("syscalls", syscalls.map(\.json))
        return writer.value
    }
}

/// One action for some system calls, under all of the conditions.
package struct SyscallRule: OCIDocument {
    package var names: [String]
    package var action: String
    package var errnoRet: UInt32?
    package var args: [SyscallArgument]

    package init(names: [String], action: String, errnoRet: UInt32? = nil, args: [SyscallArgument] = []) {
        self.names = names
        self.action = action
        self.errnoRet = errnoRet
        self.args = args
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        names = try reader.strings("names")
        action = try reader.string("action")
        errnoRet = try reader.optionalUInt32("errnoRet")
        args = try reader.documents("args")
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("names", names)
        writer.put("action", action)
        writer.put("errnoRet", errnoRet)
        writer.put("args", args.map(\.json))
        return writer.value
    }
}

/// A condition on one argument (0 to 5) of a system call.
package struct SyscallArgument: OCIDocument {
    package var index: UInt32
    package var value: UInt64
    package var valueTwo: UInt64
    /// `SCMP_CMP_EQ`, …
    package var op: String

    package init(index: UInt32, value: UInt64, valueTwo: UInt64 = 0, op: String) {
        self.index = index
        self.value = value
        self.valueTwo = valueTwo
        self.op = op
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        index = try reader.uint32("index")
        value = try reader.uint64("value")
        valueTwo = try reader.optionalUInt64("valueTwo") ?? 0
        op = try reader.string("op")
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("index", index)
        writer.put("value", value)
        if valueTwo != 0 { writer.put("valueTwo", valueTwo) }
        writer.put("op", op)
        return writer.value
    }
}
