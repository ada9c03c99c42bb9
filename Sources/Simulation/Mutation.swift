/// A mistake that is made on purpose, to show that the simulation finds it: in what surrounds the engine, where the same mistake
/// within it would show.
public enum Mutation: String, CaseIterable, Sendable {
    /// After a hand-off without an answer, the source's machine runs again.
    case reclaimsAfterTimeout
    /// Pages count as received before all of their bytes are.
    case countsEarly
    /// The dirty log's marks are cleared after their pages were read.
    case clearsMarksLate
    /// The marks of the last moment before the pause are not fetched.
    case missesLastMarks
    /// The pause returns while the machine still runs.
    case pausesLate
    /// The journal's writes stay in the process until it syncs.
    case buffersJournal
    /// A sync makes nothing durable.
    case lyingDisk
    /// A host that was restarted believes that it was not.
    case sameBoot
    /// What a killed sender noted last of what is on its way is lost.
    case staleLedger
    /// A killed receiver leaves a machine without some of what had arrived.
    case forgetfulTarget
    /// The line changes bytes, and nobody sees it.
    case damagesPages
    /// What the disk was written last before the pause is not told.
    case missesLastBlocks
    /// A disk says that it has written what it is about to write.
    case countsUnwrittenBlocks

    /// The faults in which it shows; none are needed if there are none.
    var faults: [Fault] {
        switch self {
        case .countsEarly, .clearsMarksLate, .missesLastMarks, .pausesLate, .damagesPages, .missesLastBlocks: []
        case .reclaimsAfterTimeout: [.reset, .halfReset, .longSilence, .killTarget]
        case .buffersJournal, .staleLedger: [.killSource]
        case .lyingDisk, .sameBoot: [.crashTargetHost]
        case .forgetfulTarget, .countsUnwrittenBlocks: [.killTarget]
        }
    }
    /// Whether they come in the hand-off; else somewhere on the way to it.
    var isOfHandOff: Bool { ![.staleLedger, .forgetfulTarget, .countsUnwrittenBlocks].contains(self) }
    var isOfDisk: Bool { [.missesLastBlocks, .countsUnwrittenBlocks].contains(self) }
}
