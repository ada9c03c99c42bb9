internal import Foundation
internal import MigrationEngine
internal import TestSupport
internal import Testing
internal import TurntableCore
internal import WireFormat
internal import XenMove

/// What is done with a domain before it is moved, on a host whose libxl is a script and whose target nobody reaches.
struct DomainMoveTests {
    private static let uuid = "5bde0d9b-1c2d-4b44-9c3c-0d8b8f3f2a11"
    private static let session = SessionID(high: 2, low: 2)
    private static let unreachable = TurntableError(.refused, "asking the target", "it is not reached")

    /// A domain and its journal.
    private final class Site {
        let place: Place
        let store = MemoryStore()
        private let file: String

        init(_ standing: DomainStanding, _ kinds: [JournalRecord.Kind]) throws {
            place = try Place()
            file = "\(place.path)/standing"
            try standing.rawValue.write(toFile: file, atomically: true, encoding: .utf8)
            let libxl = """
                #!/bin/sh
                case $1 in
                describe) [ -e \(file) ] && echo "7 \(DomainMoveTests.uuid) $(cat \(file))" || exit 2 ;;
                resume) echo runs >\(file) ;;
                destroy) rm \(file) ;;
                save) exit 6 ;;
                esac
                """
            try libxl.write(toFile: "\(place.path)/libxl", atomically: true, encoding: .utf8)
            try FileManager.default.setAttributes([.posixPermissions: 0o700], ofItemAtPath: "\(place.path)/libxl")
            // What another test starts in this moment holds the script open for writing until it is a program of its own (ETXTBSY).
            for _ in 0..<1000 {
                if (try? program.describe("web")) != nil { break }
                usleep(1000)
            }
            let journal = try journals.open(DomainMoveTests.uuid)
            for kind in kinds { try journal.log(JournalRecord(role: .source, kind: kind, epoch: Epoch(1), session: DomainMoveTests.session, peer: "b:4909")) }
        }

        private var program: LibxlProgram { LibxlProgram(path: "\(place.path)/libxl") }

        var journals: Journals {
            Journals(host: HostID(high: 5, low: 5)) { [store] (machine) throws(TurntableError) in
                try Journal(of: machine, store: store, boot: BootID(high: 1, low: 1)) { 0 }
            }
        }

        /// Nil when it is gone.
        var standing: DomainStanding? {
            (try? String(contentsOfFile: file, encoding: .utf8)).flatMap { DomainStanding(rawValue: $0.trimmingCharacters(in: .newlines)) }
        }

        func move(isAnew: Bool) throws(TurntableError) {
            let settings = DomainMove.Settings(
                domain: "web", peer: "b:4909", journals: journals, lockDirectory: place.path, environment: [:], isAnew: isAnew, believes: { _, _ in false })
            let move = DomainMove(
                program, settings, connect: { () throws(TurntableError) in throw DomainMoveTests.unreachable }, event: { _ in })
            _ = try move.run()
        }
    }

    @Test(arguments: [[], [JournalRecord.Kind.offer, .withdrawn]]) func whatSomebodyElseSuspendedIsNotTouched(_ kinds: [JournalRecord.Kind]) throws {
        let site = try Site(.suspended, kinds)
        let error = #expect(throws: TurntableError.self) { try site.move(isAnew: false) }
        #expect(error?.kind == .refused && error?.remedy.contains("--anew") == true)
        #expect(site.standing == .suspended)
    }

    @Test(arguments: [[], [JournalRecord.Kind.offer, .withdrawn]]) func anOperatorWhoKnowsBetterHasItRunOn(_ kinds: [JournalRecord.Kind]) throws {
        let site = try Site(.suspended, kinds)
        #expect(throws: Self.unreachable) { try site.move(isAnew: true) }
        #expect(site.standing == .runs)
    }

    @Test func whatWasHandedOffIsAskedForWhateverTheOperatorSays() throws {
        let site = try Site(.suspended, [.offer, .handoff])
        #expect(throws: Self.unreachable) { try site.move(isAnew: true) }
        #expect(site.standing == .suspended)
    }

    @Test(arguments: [false, true]) func whatTheTargetHasIsEnded(isAnew: Bool) throws {
        let site = try Site(.suspended, [.offer, .handoff, .committed])
        try site.move(isAnew: isAnew)
        #expect(site.standing == nil)
    }

    @Test func whatRunsAtTheTargetAsWellIsMovedWhenTheOperatorKnowsBetter() throws {
        let site = try Site(.runs, [.offer, .handoff, .committed])
        let error = #expect(throws: TurntableError.self) { try site.move(isAnew: false) }
        #expect(error?.kind == .refused)
        #expect(throws: Self.unreachable) { try site.move(isAnew: true) }
        #expect(site.standing == .runs)
        #expect(try site.journals.open(Self.uuid).history().elsewhere == nil)
    }
}
