internal import Crypto
internal import Foundation
internal import Testing
internal import TurntableCore
@testable internal import Capability
@testable internal import Orchestration

/// The language of policies: what is read, what is decided, and how a refusal is explained.
struct PolicyTests {
    private let policy = try! Policy(
        """
        # The payroll stays.
        deny * move payroll
        allow alice.example,carol.* move web-*,db from amsterdam to sandiego   # by day and by night
        allow bob.example move * to sandiego,*lab during 22:00-06:00 on fri,sat up-to 8G via west
        """, named: "test")

    private func ask(
        _ who: String, _ machine: String, from source: String = "amsterdam", to target: String = "sandiego", bytes: Int = 1 << 30,
        at time: String = "2026-01-30T23:00:00Z"
    ) throws -> Policy.Decision {
        policy.decide(
            Policy.Question(who: who, machine: machine, source: source, target: target, memoryBytes: bytes, time: try Date(time, strategy: .iso8601)))
    }

    private func whyDenied(_ decision: Policy.Decision) -> String {
        if case .denied(let why) = decision { why } else { "allowed" }
    }

    @Test func theFirstRuleThatFitsDecides() throws {
        guard case .allowed(let plain) = try ask("alice.example", "web-1") else { return #expect(Bool(false)) }
        #expect(plain == Policy.Grant(why: "line 3 of the policy allows it: allow alice.example,carol.* move web-*,db from amsterdam to sandiego"))
        guard case .allowed(let bounded) = try ask("bob.example", "anything", to: "lab") else { return #expect(Bool(false)) }
        #expect(bounded.path == "west" && bounded.byteBudget == 8 << 30)
        #expect(try whyDenied(ask("bob.example", "payroll")) == "line 2 of the policy denies it: deny * move payroll")
        guard case .allowed = try ask("carol.test", "db") else { return #expect(Bool(false)) }
    }

    @Test func whatNoRuleAllowsIsDeniedAndExplained() throws {
        #expect(try whyDenied(ask("mallory.example", "web-1")) == "no rule of the policy allows it: none is about mallory.example moving web-1")
        let cases = try [
            (ask("alice.example", "web-1", from: "paris"), "line 3 would, but from amsterdam, not from paris"),
            (ask("alice.example", "web-1", to: "paris"), "line 3 would, but to sandiego, not to paris"),
            (ask("bob.example", "x", bytes: 9 << 30), "line 4 would, but up to 8.00 GiB, and it has 9.00 GiB"),
            (ask("bob.example", "x", at: "2026-01-30T12:00:00Z"), "line 4 would, but during 22:00-06:00, not at 12:00 UTC"),
            (ask("bob.example", "x", at: "2026-01-29T23:00:00Z"), "line 4 would, but on fri,sat, not on thu"),
        ]
        for (decision, why) in cases { #expect(whyDenied(decision) == "no rule of the policy allows it: \(why)") }
    }

    @Test(arguments: [("22:00", true), ("21:59", false), ("05:59", true), ("06:00", false)]) func aTimeMayGoOverMidnight(_ time: String, _ isAllowed: Bool) throws {
        #expect(try (whyDenied(ask("bob.example", "x", at: "2026-01-31T\(time):00Z")) == "allowed") == isAllowed)
    }

    private func standing(_ text: String) throws -> StandingPolicy {
        let file = FileManager.default.temporaryDirectory.appending(path: "policy-\(UUID())")
        try text.write(to: file, atomically: true, encoding: .utf8)
        defer { try? FileManager.default.removeItem(at: file) }
        return try StandingPolicy(file: file.path)
    }

    /// An empty policy is none that allows anything.
    @Test func anEmptyOneDeniesAll() throws {
        let question = Policy.Question(who: "a", machine: "m", source: "s", target: "t", memoryBytes: 1, time: .now)
        guard case .denied = try Policy("# nothing\n\n", named: "test").decide(question) else { return #expect(Bool(false)) }
        let authority = Authority(domain: "d", operators: ["a"], policy: try standing(""))
        guard case .denied = authority.decide(question) else { return #expect(Bool(false)) }
        guard case .allowed = Authority(domain: "d", operators: ["a"]).decide(question) else { return #expect(Bool(false)) }
        guard case .denied = Authority(domain: "d", operators: ["b"]).decide(question) else { return #expect(Bool(false)) }
    }

    @Test(arguments: [
        ("permit a move b", "begins with"), ("allow", "ends where hosts"), ("allow a migrate b", "no \"move\""), ("allow a move", "ends where machines"),
        ("allow a move b to", "ends where sites"), ("allow a move b to c to d", "twice"), ("allow a move b near c", "no part"), ("allow a,,b move c", "no names"),
        ("allow a/b move c", "no names"), ("allow a move b during 22-6", "HH:MM"), ("allow a move b during 22:00-24:01", "HH:MM"), ("allow a move b during 10:00-10:00", "HH:MM"),
        ("allow a move b on caturday", "no day"), ("allow a move b up-to much", "no size"), ("allow a move b via w*", "no name"), ("deny a move b via west", "grants nothing"),
        ("deny a move b up-to 1G", "grants nothing"),
    ]) func whatIsNoRuleIsNamed(_ line: String, _ words: String) throws {
        let error = #expect(throws: TurntableError.self) { try Policy("\n\(line)\n", named: "rules") }
        #expect(error?.what == "reading the policy rules, line 2" && error?.why.contains(words) == true, "\(error?.why ?? "")")
    }

    @Test(arguments: [("web-*", "web-1", true), ("web-*", "web-", true), ("web-*", "db", false), ("*", "", true), ("a*b*c", "aXbYbZc", true), ("a*b*c", "aXcYb", false), ("WEB", "web", true)])
    func namesFit(_ pattern: String, _ name: String, _ fits: Bool) {
        #expect(Policy.Names(patterns: [pattern]).include(name) == fits)
    }

    /// Many stars over a long name are no way to take an orchestrator's time.
    @Test func noPatternTakesLong() {
        let pattern = String(repeating: "a*", count: 200) + "b"
        let begun = ContinuousClock.now
        #expect(!Policy.Names(patterns: [pattern]).include(String(repeating: "a", count: 5000)))
        #expect(ContinuousClock.now - begun < .seconds(2))
    }

    /// What a rule grants is what the token says.
    @Test func aTokenSaysWhatIsGranted() throws {
        let key = Curve25519.Signing.PrivateKey()
        let grant = Policy.Grant(path: "west", byteBudget: 77, why: "")
        let holder = [UInt8](repeating: 1, count: 32)
        let issued = try Authority(domain: "home", operators: [], key: key).token(
            machine: "web", epoch: 6, source: "a.test", target: "b.test", holder: holder, grant)
        let token = try #require(issued)
        let use = Claims.Use(machine: "web", epoch: Epoch(6), source: "a.test", target: "b.test", holder: holder)
        try token.verify(use, TrustedDomains(["home": [key.publicKey]]), at: Int(Date.now.timeIntervalSince1970))
        #expect(token.claims.path == "west" && token.claims.byteBudget == 77)
        #expect(try Authority(domain: "home", operators: []).token(machine: "web", epoch: 6, source: "a", target: "b", holder: holder, grant) == nil)
    }
}
