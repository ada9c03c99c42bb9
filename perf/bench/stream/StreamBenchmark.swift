// What a transport carries, without a machine and without an engine: a memory file's stripes, pass after pass, from one
// program into another's memory file. Prints one JSON line at the source.
//
//   turntable-stream-benchmark receive ADDRESS:PORT tcp|rdma
//   turntable-stream-benchmark send ADDRESS:PORT tcp|rdma --mebibytes N --passes N --streams N [--rate BITRATE]
//
// Processor time is the program's own, and the whole host's from /proc/stat: interrupts do work in nobody's name.

import ArgumentParser
import Foundation
import Protection
import Transport
import TransportTCP
import TransportVerbs
import TurntableCore
import TurntableLinux
import WireFormat

@main
struct StreamBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "turntable-stream-benchmark", subcommands: [Send.self, Receive.self])
}

/// Memory of one region.
final class BenchmarkMemory: PageSource, PageSink, @unchecked Sendable {
    let regions: [MemoryRegion]
    private let file: MemoryFile

    init(mebibytes: Int) throws {
        let pages = PageCount(mebibytes << 20 / pageBytes)
        regions = [MemoryRegion(name: "ram", pages: pages)]
        file = try MemoryFile.create(name: "benchmark", bytes: pages.bytes.value)
        try file.populate(0..<file.bytes)
    }
    func address(of page: PageIndex, in region: RegionIndex) -> UnsafeRawPointer { unsafe UnsafeRawPointer(file.base + page.byteOffset) }
    func address(of page: PageIndex, in region: RegionIndex) -> UnsafeMutableRawPointer { unsafe file.base + page.byteOffset }
    func file(of region: RegionIndex) -> Int32? { file.descriptor.rawValue }
    func forEachPopulatedRun(in region: RegionIndex, within pages: Range<Int>, _ body: (Range<Int>) -> Void) { body(pages) }
    func populate(_ pages: Range<Int>, in region: RegionIndex) {}
    func fill() {
        for position in stride(from: 0, to: file.bytes, by: 8) {
            unsafe file.base.storeBytes(of: UInt64(position) &* 0x9E37_79B9_7F4A_7C15 | 1, toByteOffset: position, as: UInt64.self)
        }
    }
}

/// Seconds that this host's processors were busy since it began.
func busySeconds() throws -> Double {
    let fields = try String(contentsOfFile: "/proc/stat", encoding: .utf8).split(separator: "\n")[0].split(separator: " ").dropFirst()
    // user nice system idle iowait irq softirq steal, in hundredths of a second.
    let numbers = fields.prefix(8).compactMap { Double($0) }
    return (numbers.reduce(0, +) - numbers[3] - numbers[4] - numbers[7]) / 100
}

struct Send: ParsableCommand {
    @Argument var address: String
    @Argument var transport: String
    @Option var mebibytes = 256
    @Option var passes = 4
    @Option var streams = 1
    @Option(help: "Of the line, in Mb/s.") var rate: Double?

    func run() throws {
        guard let address = Address(parsing: address, defaultPort: 4906) else { throw ValidationError("no address") }
        var options = LineOptions()
        options.streams = streams
        options.rate = rate.map { BitRate(bitsPerSecond: $0 * 1e6) }
        let budget = PinBudget()
        let source: any SourceTransport =
            transport == "rdma"
            ? VerbsSourceTransport(address: address, options: options, security: .none, budget: budget)
            : TCPSourceTransport(address: address, options: options, security: .none)
        let memory = try BenchmarkMemory(mebibytes: mebibytes)
        memory.fill()
        let control = try source.connectControl()
        let sizes = memory.regions.map { Offer.Region(name: $0.name, bytes: UInt64($0.pages.bytes.value)) }
        try control.send(
            .offer(
                Offer(
                    session: .random(), epoch: Epoch(1), machine: "benchmark", streams: UInt16(streams), regions: sizes, populations: [],
                    description: [])))
        guard case .pong? = try control.receive(within: .seconds(30)) else { throw ValidationError("the target is not ready") }
        let senders = try (0..<streams).map { try source.connectStream($0, attachment: control.attachment, pages: memory) }
        let layout = MemoryLayoutTable(regionPages: [memory.regions[0].pages.value], streams: streams)
        let (busy, own, began) = (try busySeconds(), Clock.processTime, Clock.now)
        let failures = Monitor([TurntableError]())
        let threads = senders.enumerated().map { stream, sender in
            WorkerThread("stream") {
                do throws(TurntableError) { try sendPasses(stream, sender, layout) } catch { failures.update { $0.append(error) } }
            }
        }
        for thread in threads { thread.join() }
        if let failure = failures.read({ $0.first }) { throw failure }
        try control.send(.ping(1))
        guard case .pong? = try control.receive(within: .seconds(60)) else { throw ValidationError("the target did not get everything") }
        let seconds = (Clock.now - began).seconds
        let bytes = mebibytes << 20 * passes
        let figures: [String: Double] = [
            "mebibytesPerSecond": Double(bytes) / seconds / 1_048_576,
            "sourceBusySecondsPerGibibyte": (try busySeconds() - busy) / (Double(bytes) / 1_073_741_824),
            "sourceProcessSecondsPerGibibyte": (Clock.processTime - own).seconds / (Double(bytes) / 1_073_741_824),
            "seconds": seconds, "pinnedMebibytes": Double(budget.peak.value) / 1_048_576,
        ]
        let text = figures.map { "\"\($0.key)\":\(($0.value * 1000).rounded() / 1000)" }.sorted().joined(separator: ",")
        print("{\"transport\":\"\(transport)\",\"line\":\"\(senders[0].summary)\",\(text)}")
    }

    private func sendPasses(_ stream: Int, _ sender: any FrameSender, _ layout: MemoryLayoutTable) throws(TurntableError) {
        let frame = FrameDraft(limits: sender.limits)
        for _ in 0..<passes {
            for stripe in 0..<layout.stripes(in: 0) where layout.stream(ofStripe: stripe, region: 0) == stream {
                _ = frame.append(
                    Extent(
                        region: RegionIndex(0), firstPage: PageIndex(stripe * Limits.stripePages), pageCount: PageCount(Limits.stripePages),
                        encoding: .raw))
                try sender.send(frame)
                frame.startNext()
            }
        }
        // Says that this stream is over.
        frame.setDeviceState([1], offset: 0)
        try sender.send(frame)
        try sender.flush()
    }
}

struct Receive: ParsableCommand {
    @Argument var address: String
    @Argument var transport: String

    func run() throws {
        guard let address = Address(parsing: address, defaultPort: 4906) else { throw ValidationError("no address") }
        let tcp = try TCPTargetTransport(listening: address, security: .none) { FileHandle.standardError.write(Data("\($0)\n".utf8)) }
        let target: any TargetTransport =
            transport == "rdma"
            ? try VerbsTargetTransport(tcp, listening: address, protection: .none) { FileHandle.standardError.write(Data("\($0)\n".utf8)) }
            : tcp
        FileHandle.standardOutput.write(Data("listening\n".utf8))
        while true { try serve(target) }
    }

    private func serve(_ target: any TargetTransport) throws {
        guard case .control(let control, _)? = try target.accept(within: .seconds(1)) else { return }
        guard case .offer(let offer)? = try control.receive(within: .seconds(10)) else { return }
        let memory = try BenchmarkMemory(mebibytes: Int(offer.regions[0].bytes >> 20))
        let sink = BenchmarkSink(memory, streams: Int(offer.streams))
        try control.send(.pong(Pong(stamp: 0, received: [])))
        var threads: [WorkerThread] = []
        while threads.count < Int(offer.streams) {
            guard case .data(let receiver, _)? = try target.accept(within: .seconds(10)) else { return }
            threads.append(
                WorkerThread("stream") {
                    do throws(TurntableError) {
                        while true { if try receiver.receive(into: sink)?.kind == .deviceState { return } }
                    } catch {
                        FileHandle.standardError.write(Data("\(error)\n".utf8))
                    }
                })
        }
        for thread in threads { thread.join() }
        guard case .ping? = try control.receive(within: .seconds(60)) else { return }
        try control.send(.pong(Pong(stamp: 1, received: [])))
        _ = try? control.receive(within: .seconds(5))
    }
}

final class BenchmarkSink: FrameSink, @unchecked Sendable {
    let layout: MemoryLayoutTable
    private let memory: BenchmarkMemory
    private let state = UnsafeMutableRawPointer.allocate(byteCount: 16, alignment: 16)
    init(_ memory: BenchmarkMemory, streams: Int) {
        self.memory = memory
        layout = MemoryLayoutTable(regionPages: [memory.regions[0].pages.value], streams: streams)
    }
    deinit { state.deallocate() }
    func destination(of extent: Extent) -> UnsafeMutableRawPointer { unsafe memory.address(of: extent.firstPage, in: extent.region) }
    func zero(_ extent: Extent) {}
    func deviceStateDestination(offset: Int, count: Int) -> UnsafeMutableRawPointer { state }
    func writable(_ pages: Range<Int>, in region: RegionIndex) -> UnsafeMutableRawPointer? {
        unsafe memory.address(of: PageIndex(pages.lowerBound), in: region)
    }
}
