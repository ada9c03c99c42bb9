internal import Glibc
public import TurntableCore
internal import TurntableLinux

/// Guest memory of a test, at either end: memory files, as a hypervisor's would be.
public final class TestMemory: PageSource, PageSink, @unchecked Sendable {
    /// Owns one file; arrays hold no owners themselves.
    private final class Owner {
        let file: MemoryFile
        init(_ file: consuming MemoryFile) { self.file = file }
    }

    public let regions: [MemoryRegion]
    private let files: [Owner]

    public init(pages: [Int]) throws {
        regions = pages.enumerated().map { MemoryRegion(name: "region\($0)", pages: PageCount($1)) }
        files = try regions.map { Owner(try MemoryFile.create(name: $0.name, bytes: $0.pages.bytes.value)) }
    }

    public func address(of page: PageIndex, in region: RegionIndex) -> UnsafeRawPointer {
        UnsafeRawPointer(files[region.value].file.base + page.byteOffset)
    }
    public func address(of page: PageIndex, in region: RegionIndex) -> UnsafeMutableRawPointer {
        files[region.value].file.base + page.byteOffset
    }
    public func file(of region: RegionIndex) -> Int32? { files[region.value].file.descriptor.rawValue }

    public func forEachPopulatedRun(in region: RegionIndex, within pages: Range<Int>, _ body: (Range<Int>) -> Void) {
        files[region.value].file.forEachDataRange(in: pages.lowerBound * pageBytes..<pages.upperBound * pageBytes) {
            body($0.pagesOfBytes)
        }
    }

    public func populate(_ pages: Range<Int>, in region: RegionIndex) throws(TurntableError) {
        try files[region.value].file.populate(pages.lowerBound * pageBytes..<pages.upperBound * pageBytes)
    }

    // MARK: - For tests

    public func copy(from other: TestMemory) {
        for region in regions.indices {
            mutableAddress(0, region).copyMemory(from: other.mutableAddress(0, region), byteCount: regions[region].pages.bytes.value)
        }
    }

    public func mutableAddress(_ page: Int, _ region: Int) -> UnsafeMutableRawPointer { files[region].file.base + page * pageBytes }

    public func fill(_ page: Int, _ region: Int, with generator: inout SeededGenerator) {
        let words = mutableAddress(page, region).assumingMemoryBound(to: UInt64.self)
        for word in 0..<pageBytes / 8 { words[word] = generator.next() }
    }

    public func fillAll(with generator: inout SeededGenerator) {
        for (region, pages) in regions.map(\.pages.value).enumerated() { for page in 0..<pages { fill(page, region, with: &generator) } }
    }

    public func clear(_ page: Int, _ region: Int) { memset(mutableAddress(page, region), 0, pageBytes) }

    public func bytes(_ page: Int, _ region: Int) -> [UInt8] {
        Array(UnsafeRawBufferPointer(start: mutableAddress(page, region), count: pageBytes))
    }

    /// The pages that differ, as `region:page`; the first few.
    public func differences(from other: TestMemory) -> [String] {
        guard regions == other.regions else { return ["the regions differ"] }
        var found: [String] = []
        for (region, pages) in regions.map(\.pages.value).enumerated() {
            for page in 0..<pages where memcmp(mutableAddress(page, region), other.mutableAddress(page, region), pageBytes) != 0 {
                found.append("\(region):\(page)")
                if found.count == 8 { return found }
            }
        }
        return found
    }
}
