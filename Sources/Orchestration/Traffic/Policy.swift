// Who may have which machine moved, as a domain's keeper writes it: a text file, a rule a line, and # for remarks.
//
//   rule     = ("allow" | "deny") WHO "move" MACHINES { part }          each part once, in any order
//   part     = "from" SITES | "to" SITES | "during" HH:MM-HH:MM | "on" DAYS | "up-to" SIZE | "via" LINE
//
// WHO (hosts, as certificates name them), MACHINES and SITES are names with commas between, in which * stands for any letters. A time
// is UTC, may go over midnight, and its end is not part of it; DAYS are mon,tue,… of the same moment. SIZE bounds the machine's memory,
// and what may be moved altogether; LINE is the one that must be used: these two are of allow only.
//
// The first rule that fits decides. If none does, it is denied.

internal import Foundation
internal import TurntableCore

struct Policy: Sendable, Equatable {
    struct Rule: Sendable, Equatable {
        var line: Int
        var text: String
        var allows: Bool
        var who: Names
        var machines: Names
        var sources: Names?
        var targets: Names?
        var hours: Hours?
        var days: Set<Int>?
        var bytes: Int?
        var path: String?
    }

    /// Names with commas between.
    struct Names: Sendable, Equatable {
        var patterns: [String]

        func include(_ name: String) -> Bool { patterns.contains { Self.fits(Array(name.lowercased().utf8), Array($0.lowercased().utf8)) } }

        /// Goes back to the last * only, so that no pattern takes long.
        private static func fits(_ name: [UInt8], _ pattern: [UInt8]) -> Bool {
            var (n, p) = (0, 0)
            var star: (n: Int, p: Int)?
            while n < name.count {
                if p < pattern.count, pattern[p] == UInt8(ascii: "*") {
                    star = (n, p)
                    p += 1
                } else if p < pattern.count, pattern[p] == name[n] {
                    (n, p) = (n + 1, p + 1)
                } else if let last = star {
                    (n, p) = (last.n + 1, last.p + 1)
                    star = (last.n + 1, last.p)
                } else {
                    return false
                }
            }
            return pattern[p...].allSatisfy { $0 == UInt8(ascii: "*") }
        }
    }

    /// Minutes of a day, from the first to before the last.
    struct Hours: Sendable, Equatable {
        var first: Int
        var last: Int
        func include(_ minute: Int) -> Bool { first <= last ? (first..<last).contains(minute) : minute >= first || minute < last }
    }

    var rules: [Rule]

    // MARK: - Deciding

    struct Question: Sendable {
        var who: String
        var machine: String
        var source: String
        var target: String
        var memoryBytes: Int
        var time: Date
    }

    /// What is allowed, which may be less than was asked for.
    struct Grant: Sendable, Equatable {
        var path: String?
        var byteBudget: Int?
        var why: String
    }

    enum Decision: Sendable, Equatable {
        case allowed(Grant)
        case denied(String)
    }

    func decide(_ question: Question) -> Decision {
        var objections: [String] = []
        for rule in rules where rule.who.include(question.who) && rule.machines.include(question.machine) {
            guard let objection = rule.objection(to: question) else {
                guard rule.allows else { return .denied("line \(rule.line) of the policy denies it: \(rule.text)") }
                return .allowed(Grant(path: rule.path, byteBudget: rule.bytes, why: "line \(rule.line) of the policy allows it: \(rule.text)"))
            }
            if rule.allows { objections.append("line \(rule.line) would, but \(objection)") }
        }
        let why = objections.isEmpty ? "none is about \(question.who) moving \(question.machine)" : objections.joined(separator: "; ")
        return .denied("no rule of the policy allows it: \(why)")
    }
}

extension Policy.Rule {
    /// The part that does not fit.
    fileprivate func objection(to question: Policy.Question) -> String? {
        if let sources, !sources.include(question.source) { return "from \(sources.patterns.joined(separator: ",")), not from \(question.source)" }
        if let targets, !targets.include(question.target) { return "to \(targets.patterns.joined(separator: ",")), not to \(question.target)" }
        var calendar = Calendar(identifier: .gregorian)
        calendar.timeZone = .gmt
        let now = calendar.dateComponents([.weekday, .hour, .minute], from: question.time)
        let (minute, day) = ((now.hour ?? 0) * 60 + (now.minute ?? 0), now.weekday ?? 0)
        func clock(_ minute: Int) -> String { String(format: "%02d:%02d", minute / 60, minute % 60) }
        if let hours, !hours.include(minute) { return "during \(clock(hours.first))-\(clock(hours.last)), not at \(clock(minute)) UTC" }
        if let days, !days.contains(day) {
            let names = days.sorted().map { PolicyReader.days[$0 - 1] }.joined(separator: ",")
            return "on \(names), not on \(PolicyReader.days[day - 1])"
        }
        if let bytes, question.memoryBytes > bytes { return "up to \(ByteCount(bytes)), and it has \(ByteCount(question.memoryBytes))" }
        return nil
    }
}

// MARK: - Reading

extension Policy {
    static func text(ofFile path: String) throws(TurntableError) -> String {
        let size = (try? FileManager.default.attributesOfItem(atPath: path)[.size] as? NSNumber)?.intValue
        guard let size, size <= Limits.policyBytes, let text = try? String(contentsOfFile: path, encoding: .utf8) else {
            let why = size.map { "it has \($0) bytes, the most is \(Limits.policyBytes), or it is no text" } ?? "it is not there"
            throw TurntableError(.usage, "reading the policy \(path)", why)
        }
        return text
    }

    init(_ text: String, named name: String) throws(TurntableError) {
        rules = []
        for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            let words = line.prefix { $0 != "#" }.split(whereSeparator: \.isWhitespace).map(String.init)
            guard !words.isEmpty else { continue }
            do throws(PolicyReader.Failure) { rules.append(try PolicyReader(words: words[...]).rule(line: index + 1)) } catch {
                throw TurntableError(
                    .usage, "reading the policy \(name), line \(index + 1)", error.why,
                    remedy: "allow|deny WHO move MACHINES [from SITES] [to SITES] [during HH:MM-HH:MM] [on DAYS] [up-to SIZE] [via LINE]")
            }
        }
    }
}

private struct PolicyReader {
    struct Failure: Error { var why: String }
    static let days = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]

    var words: ArraySlice<String>

    func rule(line: Int) throws(Failure) -> Policy.Rule {
        var reader = self
        let text = words.joined(separator: " ")
        let verb = try reader.next("allow or deny")
        guard verb == "allow" || verb == "deny" else { throw Failure(why: "it begins with \"\(verb)\", not with allow or deny") }
        let who = try reader.names("hosts")
        guard try reader.next("move") == "move" else { throw Failure(why: "after who there is no \"move\"") }
        var rule = Policy.Rule(line: line, text: text, allows: verb == "allow", who: who, machines: try reader.names("machines"))
        var seen: Set<String> = []
        while let part = reader.words.popFirst() {
            guard seen.insert(part).inserted else { throw Failure(why: "\"\(part)\" is there twice") }
            switch part {
            case "from": rule.sources = try reader.names("sites")
            case "to": rule.targets = try reader.names("sites")
            case "during": rule.hours = try reader.hours()
            case "on": rule.days = try reader.daysOfWeek()
            case "up-to" where rule.allows: rule.bytes = try reader.size()
            case "via" where rule.allows: rule.path = try reader.name("a line")
            case "up-to", "via": throw Failure(why: "\"\(part)\" says what is granted, and deny grants nothing")
            default: throw Failure(why: "\"\(part)\" is no part of a rule")
            }
        }
        return rule
    }

    private mutating func next(_ what: String) throws(Failure) -> String {
        guard let word = words.popFirst() else { throw Failure(why: "it ends where \(what) should be") }
        return word
    }

    private mutating func name(_ what: String) throws(Failure) -> String {
        let word = try next(what)
        do throws(TurntableError) { try MachineName.check(word) } catch { throw Failure(why: "\"\(word)\" is no name of \(what)") }
        return word
    }

    private mutating func names(_ what: String) throws(Failure) -> Policy.Names {
        let word = try next(what)
        let patterns = word.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
        let isFine = patterns.allSatisfy { !$0.isEmpty && $0.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "._-*".contains($0)) } }
        guard isFine else { throw Failure(why: "\"\(word)\" are no names of \(what) with commas between") }
        return Policy.Names(patterns: patterns)
    }

    private mutating func hours() throws(Failure) -> Policy.Hours {
        let word = try next("a time")
        let minutes = word.split(separator: "-", omittingEmptySubsequences: false).map { time -> Int? in
            let parts = time.split(separator: ":", omittingEmptySubsequences: false)
            guard parts.count == 2, parts.allSatisfy({ $0.count == 2 && $0.allSatisfy { $0.isASCII && $0.isNumber } }), let hour = Int(parts[0]),
                let minute = Int(parts[1]), hour * 60 + minute <= 24 * 60, minute < 60
            else { return nil }
            return hour * 60 + minute
        }
        guard minutes.count == 2, let first = minutes[0], let last = minutes[1], first != last else { throw Failure(why: "\"\(word)\" is no HH:MM-HH:MM") }
        return Policy.Hours(first: first, last: last)
    }

    private mutating func daysOfWeek() throws(Failure) -> Set<Int> {
        let word = try next("days")
        var found: Set<Int> = []
        for day in word.split(separator: ",", omittingEmptySubsequences: false) {
            guard let index = Self.days.firstIndex(of: String(day)) else { throw Failure(why: "\"\(day)\" is no day: \(Self.days.joined(separator: ", "))") }
            found.insert(index + 1)
        }
        return found
    }

    private mutating func size() throws(Failure) -> Int {
        let word = try next("a size")
        guard let size = ByteCount(parsing: word), size.value > 0 else { throw Failure(why: "\"\(word)\" is no size such as 64G") }
        return size.value
    }
}
