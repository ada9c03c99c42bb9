public import TurntableCore

/// What `xl migrate -s` asks the other host to run: `xl [-t] [-v…] migrate-receive [-e] [-d] [-p]`, and nothing else.
public enum XLWords {
    private static let before: Set<String> = ["-t"]
    private static let after: Set<String> = ["-e", "-d", "-p"]

    /// - Parameter xl: the program that is started for it.
    public static func command(_ words: [String], xl: String) throws(TurntableError) -> [String] {
        let parts = words.split(separator: "migrate-receive", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, parts[0].first == "xl",
            parts[0].dropFirst().allSatisfy({ before.contains($0) || isVerbose($0) }), parts[1].allSatisfy(after.contains)
        else {
            throw TurntableError(
                .refused, "running `\(words.joined(separator: " "))`", "only xl's migrate-receive is run for others, without Remus and COLO")
        }
        return [xl] + words.dropFirst()
    }

    private static func isVerbose(_ word: String) -> Bool { word.count > 1 && word.first == "-" && word.dropFirst().allSatisfy { $0 == "v" } }
}
