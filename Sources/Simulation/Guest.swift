// The machine's truth: what it has written, wherever it ran, and what its clients have seen. Every machine that is about to
// run is compared with it.

internal import TurntableCore

final class Guest {
    /// A word of memory that the guest writes.
    struct Cell {
        var region: Int
        var page: Int
        var offset: Int
    }
    static let regionPages = [552, 3]
    private unowned let world: World
    private let cells: [Cell]
    private var values: [UInt64]
    /// What its devices have come to; also what the device state says.
    private(set) var devices: UInt64 = 1
    /// The highest count that a client was told; the first cell holds it.
    private(set) var seen: UInt64 = 1
    private var runsUnder: [Epoch: Machine] = [:]
    private var highestEpoch = Epoch(0)
    private(set) var running: Machine?
    private var written: UInt64 = 1

    init(_ world: World) {
        self.world = world
        var cells: [Cell] = []
        for _ in 0..<world.plan.hotPages {
            let region = world.chance.once(in: 6) ? 1 : 0
            let page = world.chance.pick(0..<Self.regionPages[region])
            guard !cells.contains(where: { $0.region == region && $0.page == page }) else { continue }
            // At a page's beginning, middle and end, so that half a page is told from all of it.
            for offset in [0, 2048, pageBytes - 8] { cells.append(Cell(region: region, page: page, offset: offset)) }
        }
        self.cells = cells
        values = cells.map { _ in 0 }
    }

    /// Fills the memory of the machine before it is first run.
    func begin(_ machine: Machine) {
        for index in cells.indices where index == 0 || !world.chance.once(in: 3) { write(UInt64(index + 1), index, machine) }
        written = UInt64(cells.count + 1)
        seen = 1
        machine.devices = devices
    }

    private func write(_ value: UInt64, _ index: Int, _ machine: Machine) {
        let cell = cells[index]
        machine.mark(cell.page, cell.region)
        machine.memory.store(value, cell)
        values[index] = value
    }

    /// Between two steps of anybody: the machine does something, if it runs.
    func step() {
        guard let machine = running, world.chance.once(in: world.plan.writesOnceIn) else { return }
        written += 1
        devices += 1
        machine.devices = devices
        switch world.chance.pick(0..<8) {
        case 0...1:
            // An answer to a client.
            seen += 1
            write(seen, 0, machine)
        case 2: write(0, world.chance.pick(1..<cells.count), machine)
        default: write(written &+ 1 << 32, world.chance.pick(1..<cells.count), machine)
        }
    }

    // MARK: - What must hold

    /// The machine's processors start.
    func starts(_ machine: Machine, _ epoch: Epoch) {
        world.tally.checks += 1
        if let other = running, other !== machine {
            return world.fail(
                "two owners: \(machine.name) runs under epoch \(epoch.value) while \(other.name) runs under \(other.epoch.value)")
        }
        if let before = runsUnder[epoch], before !== machine {
            return world.fail("epoch \(epoch.value) ran as \(before.name), and runs again as \(machine.name)")
        }
        if epoch < highestEpoch { return world.fail("\(machine.name) runs under epoch \(epoch.value) after \(highestEpoch.value) ran") }
        runsUnder[epoch] = machine
        highestEpoch = epoch
        if running === machine { return }
        compare(machine)
        running = machine
    }

    func stops(_ machine: Machine) {
        if running === machine { running = nil }
    }

    /// What a machine has that is not running, but is about to.
    func compare(_ machine: Machine) {
        world.tally.checks += 1
        let counted = machine.memory.load(cells[0])
        guard counted >= seen else {
            return world.fail("rolled back: \(machine.name) has counted to \(counted), and a client has seen \(seen)")
        }
        for (index, cell) in cells.enumerated() where machine.memory.load(cell) != values[index] {
            return world.fail(
                "\(machine.name) has \(machine.memory.load(cell)) in page \(cell.region):\(cell.page) + \(cell.offset), and it was \(values[index])"
            )
        }
        let nonzero = values.count { $0 != 0 }
        let found = machine.memory.nonzeroWords()
        guard found == nonzero else { return world.fail("\(machine.name) has \(found) words that are not zero, and there were \(nonzero)") }
        guard machine.devices == devices else {
            return world.fail("\(machine.name) has the devices of step \(machine.devices), and they were at \(devices)")
        }
    }
}

/// Memory of one machine, of the guest's size.
final class SimulatedMemory: PageSource, PageSink, @unchecked Sendable {
    static let bytes = Guest.regionPages.reduce(0, +) * pageBytes
    let regions = Guest.regionPages.enumerated().map { MemoryRegion(name: "r\($0)", pages: PageCount($1)) }
    let base: UnsafeMutableRawPointer
    /// Pages that may not be zero.
    private let touched = Guest.regionPages.map { PageBitmap(pages: PageCount($0)) }

    init(_ base: UnsafeMutableRawPointer) { self.base = base }

    private func position(_ page: Int, _ region: Int) -> UnsafeMutableRawPointer {
        base + ((region == 0 ? 0 : Guest.regionPages[0]) + page) * pageBytes
    }

    func address(of page: PageIndex, in region: RegionIndex) -> UnsafeRawPointer {
        UnsafeRawPointer(position(page.value, region.value))
    }
    func address(of page: PageIndex, in region: RegionIndex) -> UnsafeMutableRawPointer {
        // An extent of a stripe's length may follow.
        touched[region.value].insert(page.value..<min(page.value + Limits.stripePages, Guest.regionPages[region.value]))
        return position(page.value, region.value)
    }
    func file(of region: RegionIndex) -> Int32? { nil }
    func populate(_ pages: Range<Int>, in region: RegionIndex) {}

    func forEachPopulatedRun(in region: RegionIndex, within pages: Range<Int>, _ body: (Range<Int>) -> Void) {
        touched[region.value].forEachRun(in: pages) { run in
            for page in run where !isZero(page, region.value) { body(page..<page + 1) }
        }
    }

    private func isZero(_ page: Int, _ region: Int) -> Bool { words(page, region).allSatisfy { $0 == 0 } }
    private func words(_ page: Int, _ region: Int) -> UnsafeBufferPointer<UInt64> {
        UnsafeBufferPointer(start: UnsafePointer(position(page, region).assumingMemoryBound(to: UInt64.self)), count: pageBytes / 8)
    }

    func store(_ value: UInt64, _ cell: Guest.Cell) {
        touched[cell.region].insert(cell.page..<cell.page + 1)
        position(cell.page, cell.region).storeBytes(of: value, toByteOffset: cell.offset, as: UInt64.self)
    }
    func load(_ cell: Guest.Cell) -> UInt64 { position(cell.page, cell.region).load(fromByteOffset: cell.offset, as: UInt64.self) }

    func nonzeroWords() -> Int {
        var count = 0
        for region in Guest.regionPages.indices {
            forEachTouched(region) { page in count += words(page, region).reduce(0) { $0 + ($1 == 0 ? 0 : 1) } }
        }
        return count
    }

    private func forEachTouched(_ region: Int, _ body: (Int) -> Void) {
        var next = 0
        while let run = touched[region].nextRun(from: next, to: Guest.regionPages[region]) {
            for page in run { body(page) }
            next = run.upperBound
        }
    }

    /// All zero again.
    func clear() {
        for region in Guest.regionPages.indices {
            forEachTouched(region) { page in
                if !isZero(page, region) { position(page, region).initializeMemory(as: UInt8.self, repeating: 0, count: pageBytes) }
            }
            touched[region].remove(0..<Guest.regionPages[region])
        }
    }
}

/// Memories for one simulation after the other.
final class MemoryPool {
    private var free: [UnsafeMutableRawPointer] = []
    private var taken: [SimulatedMemory] = []

    func take() -> SimulatedMemory {
        let base = free.popLast() ?? Self.make()
        let memory = SimulatedMemory(base)
        taken.append(memory)
        return memory
    }

    private static func make() -> UnsafeMutableRawPointer {
        let base = UnsafeMutableRawPointer.allocate(byteCount: SimulatedMemory.bytes, alignment: pageBytes)
        base.initializeMemory(as: UInt8.self, repeating: 0, count: SimulatedMemory.bytes)
        return base
    }

    /// Nobody uses any of them any more.
    func takeBack() {
        for memory in taken {
            memory.clear()
            free.append(memory.base)
        }
        taken = []
    }
    deinit { for base in free { base.deallocate() } }
}

/// What simulations on one thread use one after the other.
final class Pools {
    let stacks = StackPool()
    let memories = MemoryPool()
}
