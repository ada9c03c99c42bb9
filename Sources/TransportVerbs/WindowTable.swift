// The source's view of the stripes that the target lets it write: which are asked for, granted, denied, and which make room.
// Pure arithmetic, for one stream: no device and no thread in it.
//
//   asked for ─ grant ─▶ granted ─ makes room ─▶ gone (given back)
//       └────── denial ─▶ denied ─ makes room ─▶ gone
//
// A frame goes by the ring as long as a stripe of it is not granted, so nothing ever waits for a grant. And it goes by the
// ring as long as an earlier frame, whose bytes the target's processor puts into the stripe, may not have been taken: the
// device would be faster, and the older bytes come last.

internal import TurntableCore

struct WindowTable {
    enum State: Equatable {
        case asked
        case granted(address: UInt64, key: UInt32)
        case denied
    }
    struct Window {
        var region: Int
        var stripe: Int
        var state: State
        /// The frame that last wrote it, or the one that is to.
        var lastFrame: UInt64
    }

    private(set) var windows: [Window?]
    /// Index into ``windows`` of each stripe of each region; -1 for none.
    private var places: [[Int16]]
    /// One more than the last frame whose bytes of the stripe the target's processor writes; 0 if there was none.
    private var touched: [[UInt64]]
    private(set) var requests: [WindowRequest] = []

    /// - Parameter capacity: windows at once.
    init(stripes: [Int], capacity: Int) {
        precondition(capacity > 0 && capacity < Int(Int16.max))
        windows = Array(repeating: nil, count: capacity)
        places = stripes.map { Array(repeating: -1, count: $0) }
        touched = stripes.map { Array(repeating: 0, count: $0) }
        requests.reserveCapacity(Limits.grantsPerFrame)
    }

    func place(of stripe: Int, in region: Int) -> Int? {
        let place = places[region][stripe]
        return place < 0 ? nil : Int(place)
    }

    /// Whether a device may write the stripe now. `taken`: frames that the target has taken.
    func isOpen(_ stripe: Int, in region: Int, taken: UInt64) -> Bool {
        guard let place = place(of: stripe, in: region), case .granted = windows[place]!.state else { return false }
        return touched[region][stripe] <= taken
    }

    func granted(_ place: Int) -> (address: UInt64, key: UInt32)? {
        guard case .granted(let address, let key)? = windows[place]?.state else { return nil }
        return (address, key)
    }

    mutating func use(_ place: Int, by frame: UInt64) { windows[place]!.lastFrame = frame }

    /// The target's processor will write into the stripe when it takes `frame`.
    mutating func touch(_ stripe: Int, in region: Int, by frame: UInt64) { touched[region][stripe] = frame + 1 }

    /// Asks for a stripe, in the next frame. What makes room for it is told to `evicted`.
    /// - Parameters:
    ///   - frame: the one that will write it.
    ///   - isFree: whether a frame is over, for the device and for the target.
    /// - Returns: false if nothing can make room now, or the frame asks for enough.
    mutating func want(_ stripe: Int, in region: Int, by frame: UInt64, isFree: (UInt64) -> Bool, evicted: (Int) -> Void) -> Bool {
        if place(of: stripe, in: region) != nil { return true }
        guard requests.count + 2 <= Limits.grantsPerFrame else { return false }
        guard let place = windows.firstIndex(where: { $0 == nil }) ?? oldest(isFree) else { return false }
        if let victim = windows[place] {
            if case .granted = victim.state {
                requests.append(WindowRequest(region: victim.region, stripe: victim.stripe, isWanted: false))
            }
            places[victim.region][victim.stripe] = -1
            evicted(place)
        }
        windows[place] = Window(region: region, stripe: stripe, state: .asked, lastFrame: frame)
        places[region][stripe] = Int16(place)
        requests.append(WindowRequest(region: region, stripe: stripe, isWanted: true))
        return true
    }

    /// The answer may still be on its way for one that was asked for: such a window makes no room.
    private func oldest(_ isFree: (UInt64) -> Bool) -> Int? {
        var found: (place: Int, frame: UInt64)?
        for place in windows.indices {
            guard let window = windows[place], window.state != .asked, window.lastFrame < found?.frame ?? .max, isFree(window.lastFrame) else {
                continue
            }
            found = (place, window.lastFrame)
        }
        return found?.place
    }

    /// The frame that carries the requests was sent.
    mutating func clearRequests() { requests.removeAll(keepingCapacity: true) }

    /// The target's answer. False if nobody asked.
    mutating func take(_ grant: Grant) -> Bool {
        guard grant.region < places.count, grant.stripe < places[grant.region].count, let place = place(of: grant.stripe, in: grant.region),
            windows[place]!.state == .asked
        else { return false }
        windows[place]!.state = grant.isGranted ? .granted(address: grant.address, key: grant.key) : .denied
        return true
    }
}
