internal import WireFormat

/// What an end is about to do, or has just done: where a fault can strike.
enum Point: String {
    case connect, say, said, heard
    case sendFrame, receiveFrame
    case append, appended, sync, synced
    case pause, paused, save, saved, reclaim, resume, resumed, discard, discarded, forget
    case prepare, prepared, load, loaded, run, ran, kept
    case drain, drained
    case freeze, frozen, readBlocks, writeBlocks, wroteBlocks

    /// Of a message, if it is more than a heartbeat.
    init?(_ message: ControlMessage) {
        switch message {
        case .ping, .pong: return nil
        default: self = .say
        }
    }
}
