internal import Foundation
internal import Testing

/// What a reviewer should not have to look for.
struct TidyTests {
    static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().path

    /// A tracked or trackable text file: its path from the root, and its lines.
    struct Source: Sendable {
        var path: String
        var text: String
        var lines: [Substring] { text.split(separator: "\n", omittingEmptySubsequences: false) }
    }

    static func files(under directories: [String], _ extensions: Set<String>) -> [Source] {
        directories.flatMap { directory -> [Source] in
            let names = FileManager.default.enumerator(atPath: "\(root)/\(directory)")?.compactMap { $0 as? String } ?? []
            return names.sorted().compactMap { name in
                guard extensions.contains((name as NSString).pathExtension), !name.contains(".build/"), !name.contains(".cache/") else {
                    return nil
                }
                return (try? String(contentsOfFile: "\(root)/\(directory)/\(name)", encoding: .utf8)).map {
                    Source(path: "\(directory)/\(name)", text: $0)
                }
            }
        }
    }
    static let swift = files(under: ["Sources", "perf"], ["swift"])
    static let tests = files(under: ["Tests"], ["swift"])
    static let shims = files(under: ["CShims"], ["c", "h"])

    /// Everything below would pass on an empty list.
    @Test func thereIsSomethingToLookAt() {
        #expect(Self.swift.count > 40 && Self.tests.count > 10 && Self.shims.count > 5)
    }

    // MARK: - Modules

    /// The module table of the architecture: what each target may import of ours. Imports point downwards only.
    static let mayImport: [String: Set<String>] = [
        "TurntableCore": [],
        "TurntableLinux": ["TurntableCore", "CTurntableLinux"],
        "WireFormat": ["TurntableCore"],
        "Transport": ["TurntableCore", "TurntableLinux", "WireFormat"],
        "Protection": ["TurntableCore", "TurntableLinux", "WireFormat", "CTurntableCipher"],
        "Capability": ["TurntableCore", "TurntableLinux", "Protection"],
        "TransportTCP": ["TurntableCore", "TurntableLinux", "WireFormat", "Transport", "Protection", "CTurntableLinux"],
        "TransportVerbs": ["TurntableCore", "TurntableLinux", "WireFormat", "Transport", "TransportTCP", "Protection", "CTurntableVerbs"],
        "BlockDelta": ["TurntableCore", "TurntableLinux", "CTurntableLinux", "CTurntableBlock"],
        // On its own: what it runs locks all memory and is not for threads.
        "turntable-lvm-helper": ["CTurntableLVM"],
        "LinkElement": ["TurntableCore", "TurntableLinux", "WireFormat", "Protection", "TransportTCP", "Capability", "CTurntableLinux"],
        "XLLine": ["TurntableCore", "TurntableLinux", "WireFormat", "Transport"],
        // The stream of Xen's helpers, without Xen's libraries.
        "XenStream": ["TurntableCore", "TurntableLinux", "WireFormat", "Transport"],
        // Knows no hypervisor and no socket by name.
        "MigrationEngine": ["TurntableCore", "TurntableLinux", "WireFormat", "Transport", "Protection"],
        "Hypervisors": ["TurntableCore", "TurntableLinux", "WireFormat", "MigrationEngine", "CTurntableLinux", "CTurntableNBD"],
        "ControlShim": ["TurntableCore", "TurntableLinux", "MigrationEngine", "CTurntableLinux"],
        "XenAdapter": ["TurntableCore", "TurntableLinux", "WireFormat", "MigrationEngine", "CTurntableXen"],
        "turntable-xen-helper": [
            "TurntableCore", "TurntableLinux", "WireFormat", "Transport", "TransportTCP", "Protection", "MigrationEngine", "XenAdapter",
            "XenStream", "XenMove", "BlockDelta", "CTurntableXen",
        ],
        "XenMove": ["TurntableCore", "TurntableLinux", "WireFormat", "Transport", "MigrationEngine", "XLLine"],
        // On its own: what it links to makes and ends domains, and is not for threads.
        "turntable-xen": ["TurntableCore", "TurntableLinux", "WireFormat", "MigrationEngine", "XenMove", "CTurntableLibxl"],
        "Endpoint": ["TurntableCore", "TurntableLinux", "WireFormat", "Protection"],
        "turntable-gateway": ["TurntableCore", "TurntableLinux", "Protection", "Endpoint"],
        "Lightpaths": ["TurntableCore", "TurntableLinux"],
        // Calls the engine's program, and knows nothing of its inside.
        "Orchestration": ["TurntableCore", "TurntableLinux", "Protection", "Capability", "Lightpaths"],
        "turntable-orchestrator": ["TurntableCore", "TurntableLinux", "Protection", "Orchestration"],
        "Simulation": ["TurntableCore", "TurntableLinux", "WireFormat", "Transport", "MigrationEngine", "CTurntableFibers"],
        "turntable": [
            "TurntableCore", "TurntableLinux", "WireFormat", "Transport", "TransportTCP", "TransportVerbs", "MigrationEngine",
            "Hypervisors", "ControlShim", "Protection", "BlockDelta", "Endpoint", "CTurntableLinux", "Capability", "XLLine",
            "XenMove", "LinkElement",
        ],
    ]
    static let ours = Set(mayImport.keys).union([
        "CTurntableLinux", "CTurntableCipher", "CTurntableBlock", "CTurntableLVM", "CTurntableNBD", "CTurntableVerbs", "CTurntableFibers",
        "CTurntableXen", "CTurntableLibxl", "TestSupport",
    ])
    /// What the pure format may use besides: nothing that opens, sleeps or spawns.
    static let pure: Set<String> = ["TurntableCore", "WireFormat"]

    @Test func importsPointDownwards() {
        for file in Self.swift where file.path.hasPrefix("Sources/") {
            let target = String(file.path.split(separator: "/")[1])
            guard let allowed = Self.mayImport[target] else { continue }
            for module in imports(of: file) {
                #expect(!Self.ours.contains(module) || allowed.contains(module), "\(file.path) imports \(module)")
                #expect(!Self.pure.contains(target) || allowed.contains(module), "\(file.path) is pure and imports \(module)")
            }
        }
    }

    private func imports(of file: Source) -> [String] {
        file.lines.compactMap { line in
            let words = line.split(separator: " ")
            guard let at = words.firstIndex(of: "import"), at <= 2,
                words.prefix(at).allSatisfy({ ["public", "internal", "package", "private", "@testable", "@preconcurrency"].contains($0) })
            else { return nil }
            return words[at + 1].split(separator: ".").first.map(String.init)
        }
    }

    /// A misspelt upcoming feature passes silently.
    @Test func featureFlagsExist() throws {
        let known: Set<String> = [
            "ConciseMagicFile", "ForwardTrailingClosures", "StrictConcurrency", "ImplicitOpenExistentials", "BareSlashRegexLiterals",
            "ExistentialAny", "ImportObjcForwardDeclarations",
            "DisableOutwardActorInference", "InternalImportsByDefault", "IsolatedDefaultValues", "GlobalConcurrency",
            "InferSendableFromCaptures", "RegionBasedIsolation",
            "DynamicActorIsolation", "GlobalActorIsolatedTypesUsability", "MemberImportVisibility", "NonisolatedNonsendingByDefault",
            "InferIsolatedConformances", "NonfrozenEnumExhaustivity",
            "DeprecateApplicationMain",
        ]
        let manifest = try String(contentsOfFile: "\(Self.root)/Package.swift", encoding: .utf8)
        let named = manifest.components(separatedBy: "UpcomingFeature(\"").dropFirst().map { String($0.prefix { $0 != "\"" }) }
        #expect(!named.isEmpty)
        for name in named { #expect(known.contains(name), "no such feature: \(name)") }
    }

    /// What the threat model names as shown is there to be run.
    @Test func theThreatModelNamesTestsThatExist() throws {
        let model = try String(contentsOfFile: "\(Self.root)/docs/threat-model.md", encoding: .utf8)
        let texts = (Self.tests + Self.files(under: ["Tests"], ["py"])).map { $0.path + $0.text }.joined()
        let shown = model.split(separator: "\n").filter { $0.hasPrefix("|") }.compactMap { $0.split(separator: "|").last }
        let names = shown.flatMap { $0.split(separator: "`") }.filter { $0.contains(".") && !$0.contains(" ") && !$0.contains("/") }
        #expect(names.count >= 15)
        for name in names {
            for word in name.split(separator: ".") {
                #expect(texts.contains(word), "\(name)")
            }
        }
    }

    // MARK: - Texts

    static let mostColumns = 160
    /// Tables of cases are easier to read one to a line.
    static let mostColumnsInTests = 260
    static let mostLines = 400
    static let mostFunctionLines = 80

    @Test func filesAndLinesStayShort() {
        for file in Self.swift + Self.tests + Self.shims {
            let most = Self.mostLines
            #expect(file.lines.count <= most, "\(file.path) has \(file.lines.count) lines")
            let columns = file.path.hasPrefix("Tests/") ? Self.mostColumnsInTests : Self.mostColumns
            for (number, line) in file.lines.enumerated() where line.count > columns {
                Issue.record("\(file.path):\(number + 1) has \(line.count) columns")
            }
            for (number, line) in file.lines.enumerated() where line.hasSuffix(" ") || line.contains("\t") && !file.path.hasPrefix("CShims")
            {
                Issue.record("\(file.path):\(number + 1) ends in a space or holds a tab")
            }
        }
    }

    /// From the line of `func` or `init` to the closing brace at its indentation.
    @Test func functionsStayShort() {
        for file in Self.swift + Self.tests {
            let lines = file.lines
            for (number, line) in lines.enumerated() {
                let text = line.drop { $0 == " " }
                let words = text.prefix { $0 != "(" }.split(separator: " ")
                guard words.contains("func") || words.last == "init", !text.hasPrefix("//") else { continue }
                let indentation = line.count - text.count
                let closing = String(repeating: " ", count: indentation) + "}"
                guard !(line.hasSuffix("}")), let end = lines[(number + 1)...].firstIndex(where: { $0 == closing[...] }) else { continue }
                #expect(end - number < Self.mostFunctionLines, "\(file.path):\(number + 1) has \(end - number) lines")
            }
        }
    }

    @Test func nothingIsLeftUndone() {
        // Put together here, so that this file is not found itself.
        let banned = ["TO" + "DO", "FIX" + "ME", "X" + "XX:", "fatal" + "Error(", "not " + "implemented", "try" + "! "]
        for file in Self.swift + Self.shims {
            for (number, line) in file.lines.enumerated() {
                for word in banned where line.contains(word) { Issue.record("\(file.path):\(number + 1) has \(word)") }
            }
        }
    }

    /// The engine speaks through events and errors; only commands print.
    @Test func onlyCommandsPrint() {
        for file in Self.swift where file.path.hasPrefix("Sources/") && !file.path.hasPrefix("Sources/turntable") {
            for (number, line) in file.lines.enumerated() where line.contains(" print(") {
                Issue.record("\(file.path):\(number + 1) prints")
            }
        }
    }

    /// Where memory is handled by address. A new file here is a decision, not an accident.
    static let mayBeUnsafe: Set<String> = [
        "MigrationEngine/Arrival.swift", "MigrationEngine/HypervisorAdapter.swift", "MigrationEngine/StripeSender.swift",
        "MigrationEngine/StreamFrames.swift", "MigrationEngine/SourceDisk.swift", "MigrationEngine/OlderCopy.swift",
        "MigrationEngine/TargetDisks.swift", "MigrationEngine/LedgerMemory.swift",
        "MigrationEngine/SourceVerification.swift", "MigrationEngine/TargetTakeOver.swift",
        "Hypervisors/QEMU/QEMUMemory.swift", "Hypervisors/QEMU/QEMUTargetMachine.swift", "Hypervisors/QEMU/QMP.swift",
        "Hypervisors/QEMU/QEMUSourceMachine.swift", "Hypervisors/QEMU/BitmapSource.swift", "Hypervisors/QEMU/NBDConnection.swift",
        "Hypervisors/QEMU/TargetDisks.swift",
        "Transport/ByteConnection.swift", "Transport/Loopback.swift", "Transport/LoopbackStreams.swift", "TransportTCP/TCPFrameReceiver.swift",
        "TransportTCP/TCPFrameSender.swift", "TransportTCP/TCPSourceTransport.swift", "TransportTCP/Vectors.swift",
        "TransportTCP/SealedFrameSender.swift", "TransportTCP/StreamSocket.swift", "LinkElement/LinkRelay.swift", "LinkElement/SplicePipe.swift",
        "Protection/FrameCipher.swift", "Protection/HeaderMAC.swift", "Protection/ContentDigest.swift",
        "TurntableCore/PageBitmap.swift", "TurntableCore/AlignedBuffer.swift", "TurntableCore/Blocks.swift",
        "Transport/FrameDraft.swift", "WireFormat/LittleEndian.swift", "XenStream/PageWindow.swift", "XenStream/SavedStream.swift",
        "XenStream/RestoredStream.swift", "XenStream/StreamTarget.swift", "XenStream/WindowSink.swift",
    ]
    static let mayBeUnsafeThroughout = ["TurntableLinux", "TransportVerbs", "BlockDelta", "turntable-lvm-helper", "XenAdapter", "turntable-xen-helper", "turntable-xen"]

    @Test func unsafeCodeStaysInFewFiles() {
        for file in Self.swift where file.path.hasPrefix("Sources/") {
            let path = file.path.dropFirst("Sources/".count)
            guard !Self.mayBeUnsafe.contains(String(path)), !Self.mayBeUnsafeThroughout.contains(String(path.prefix { $0 != "/" })) else {
                continue
            }
            for (number, line) in file.lines.enumerated() where isCode(line, containing: "unsafe ") {
                Issue.record("\(file.path):\(number + 1) is unsafe")
            }
        }
    }

    private func isCode(_ line: Substring, containing word: String) -> Bool {
        guard let found = line.range(of: word) else { return false }
        if let comment = line.range(of: "//"), comment.lowerBound < found.lowerBound { return false }
        return found.lowerBound == line.startIndex || " (".contains(line[line.index(before: found.lowerBound)])
    }

    /// One prefix for what the shims export, so that a call to C is seen as one.
    @Test func shimsHaveOnePrefix() throws {
        let declaration = try NSRegularExpression(
            pattern: #"^(?:extern )?(?:unsigned |const |struct |enum )*[a-z_0-9]+ \**([a-z_0-9A-Z]+)\("#)
        for file in Self.shims where file.path.hasPrefix("CShims/CTurntableLinux/include/") {
            for (number, line) in file.lines.enumerated() {
                let text = String(line)
                guard let match = declaration.firstMatch(in: text, range: NSRange(text.startIndex..., in: text)),
                    let name = Range(match.range(at: 1), in: text)
                else { continue }
                #expect(text[name].hasPrefix("tt_"), "\(file.path):\(number + 1) declares \(text[name])")
            }
        }
    }

    /// What is true of one machine only has no place in a repository.
    @Test func noPathsOfOneMachine() throws {
        let places = ["/wo" + "rk/", "/ho" + "me/", "/ro" + "ot/", "/tmp/" + "bash_jobs", "/wt-" + "tests"]
        for file in Self.files(under: ["Sources", "Tests", "perf", "CShims", "docs"], ["swift", "c", "h", "md", "sh", "py", "json", ""]) {
            for (number, line) in file.lines.enumerated() {
                for place in places {
                    // A whole path from the root: what precedes it is no part of a path.
                    guard let found = line.range(of: place) else { continue }
                    let before = found.lowerBound == line.startIndex ? " " : line[line.index(before: found.lowerBound)]
                    if !before.isLetter, !before.isNumber, !"}.-_~".contains(before) {
                        Issue.record("\(file.path):\(number + 1) has \(place)")
                    }
                }
            }
        }
    }
}
