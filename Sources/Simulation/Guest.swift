// The machine's truth: what it has written, wherever it ran, and what its clients have seen. Every machine that is about to
// run is compared with it.

internal import TurntableCore

final class Guest {
    /// A word of memory, or of the disk, that the guest writes.
    struct Cell {
        /// Nil: of the disk.
        var region: Int?
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
        for _ in 0..<(world.plan.hasDisk ? world.plan.hotPages : 0) {
            let page = world.chance.pick(0..<Volume.pages)
            guard !cells.contains(where: { $0.region == nil && $0.page == page }) else { continue }
            for offset in [0, 2048] { cells.append(Cell(region: nil, page: page, offset: offset)) }
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
        if let region = cell.region {
            machine.mark(cell.page, region)
            machine.memory.store(value, region, cell)
        } else {
            // A disk's marks are set when it has been written.
            machine.host.volume.content.store(value, 0, cell)
            machine.host.volume.mark(cell.page)
        }
        values[index] = value
    }

    private func load(_ cell: Cell, _ machine: Machine) -> UInt64 {
        cell.region.map { machine.memory.load($0, cell) } ?? machine.host.volume.content.load(0, cell)
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
        let counted = load(cells[0], machine)
        guard counted >= seen else {
            return world.fail("rolled back: \(machine.name) has counted to \(counted), and a client has seen \(seen)")
        }
        for (index, cell) in cells.enumerated() where load(cell, machine) != values[index] {
            let place = cell.region.map { "page \($0):\(cell.page)" } ?? "page \(cell.page) of its disk"
            return world.fail("\(machine.name) has \(load(cell, machine)) in \(place) + \(cell.offset), and it was \(values[index])")
        }
        if world.plan.hasDisk, machine.host.volume.isVolatile {
            return world.fail("\(machine.name) is about to run on a disk that a crash would change")
        }
        let nonzero = values.count { $0 != 0 }
        let found = machine.memory.nonzeroWords() + (world.plan.hasDisk ? machine.host.volume.content.nonzeroWords() : 0)
        guard found == nonzero else { return world.fail("\(machine.name) has \(found) words that are not zero, and there were \(nonzero)") }
        guard machine.devices == devices else {
            return world.fail("\(machine.name) has the devices of step \(machine.devices), and they were at \(devices)")
        }
    }
}

/// Memory of one machine, or the content of a disk.
final class SimulatedMemory: PageSource, PageSink, @unchecked Sendable {
    let regions: [MemoryRegion]
    let base: UnsafeMutableRawPointer
    private let regionPages: [Int]
    /// Pages that may not be zero.
    private let touched: [PageBitmap]

    init(_ base: UnsafeMutableRawPointer, _ regionPages: [Int]) {
        self.base = base
        self.regionPages = regionPages
        regions = regionPages.enumerated().map { MemoryRegion(name: "r\($0)", pages: PageCount($1)) }
        touched = regionPages.map { PageBitmap(pages: PageCount($0)) }
    }
    var pages: Int { regionPages.reduce(0, +) }

    private func position(_ page: Int, _ region: Int) -> UnsafeMutableRawPointer {
        base + ((region == 0 ? 0 : regionPages[0]) + page) * pageBytes
    }

    /// Somebody writes pages of the first region by their address.
    func touch(_ pages: Range<Int>) { touched[0].insert(pages) }

    func address(of page: PageIndex, in region: RegionIndex) -> UnsafeRawPointer {
        UnsafeRawPointer(position(page.value, region.value))
    }
    func address(of page: PageIndex, in region: RegionIndex) -> UnsafeMutableRawPointer {
        // An extent of a stripe's length may follow.
        touched[region.value].insert(page.value..<min(page.value + Limits.stripePages, regionPages[region.value]))
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

    func store(_ value: UInt64, _ region: Int, _ cell: Guest.Cell) {
        touched[region].insert(cell.page..<cell.page + 1)
        position(cell.page, region).storeBytes(of: value, toByteOffset: cell.offset, as: UInt64.self)
    }
    func load(_ region: Int, _ cell: Guest.Cell) -> UInt64 { position(cell.page, region).load(fromByteOffset: cell.offset, as: UInt64.self) }

    func nonzeroWords() -> Int {
        var count = 0
        for region in regionPages.indices {
            forEachTouched(region) { page in count += words(page, region).reduce(0) { $0 + ($1 == 0 ? 0 : 1) } }
        }
        return count
    }

    private func forEachTouched(_ region: Int, _ body: (Int) -> Void) {
        touched[region].forEachRun { for page in $0 { body(page) } }
    }

    /// All zero again.
    func clear() {
        for region in regionPages.indices {
            forEachTouched(region) { page in
                if !isZero(page, region) { position(page, region).initializeMemory(as: UInt8.self, repeating: 0, count: pageBytes) }
            }
            touched[region].remove(0..<regionPages[region])
        }
    }
}

/// Memories for one simulation after the other.
final class MemoryPool {
    /// By their pages.
    private var free: [Int: [UnsafeMutableRawPointer]] = [:]
    private var taken: [SimulatedMemory] = []

    func take(_ regionPages: [Int]) -> SimulatedMemory {
        let pages = regionPages.reduce(0, +)
        let memory = SimulatedMemory(free[pages]?.popLast() ?? Self.make(pages), regionPages)
        taken.append(memory)
        return memory
    }

    private static func make(_ pages: Int) -> UnsafeMutableRawPointer {
        let base = UnsafeMutableRawPointer.allocate(byteCount: pages * pageBytes, alignment: pageBytes)
        base.initializeMemory(as: UInt8.self, repeating: 0, count: pages * pageBytes)
        return base
    }

    /// Nobody uses any of them any more.
    func takeBack() {
        for memory in taken {
            memory.clear()
            free[memory.pages, default: []].append(memory.base)
        }
        taken = []
    }
    deinit { for base in free.values.joined() { base.deallocate() } }
}

/// What simulations on one thread use one after the other.
final class Pools {
    let stacks = StackPool()
    let memories = MemoryPool()
}
