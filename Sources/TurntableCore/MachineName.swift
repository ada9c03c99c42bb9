/// What a machine may be called: its name is part of paths at both ends.
public enum MachineName {
    public static func check(_ name: String) throws(TurntableError) {
        let isFine =
            !name.isEmpty && name.utf8.count <= 64 && name.first != "." && !name.hasSuffix(".log")
            && name.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "._-".contains($0)) }
        guard isFine else {
            throw TurntableError(
                .usage, "naming a machine \"\(name)\"",
                "a name has 1 to 64 letters, digits, dots, dashes or underscores, begins with no dot and does not end in .log",
                remedy: "choose one with --name")
        }
    }
}
