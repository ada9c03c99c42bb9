internal import Testing
internal import TurntableCore

@testable import BlockDelta

/// What other programs print: taken from the tools of Debian 12.
struct TextTests {
    static let delta = """
        <superblock uuid="" time="2" transaction="3" data_block_size="128" nr_data_blocks="0">
          <diff left="2" right="3">
            <same begin="0" length="3"/>
            <different begin="3" length="1"/>
            <same begin="4" length="6"/>
            <left_only begin="10" length="2"/>
            <same begin="12" length="52"/>
            <right_only begin="300" length="1"/>
          </diff>
        </superblock>

        """
    static let dump = """
        <superblock uuid="" time="2" transaction="3" flags="0" version="2" data_block_size="128" nr_data_blocks="0">
          <device dev_id="1" mapped_blocks="63" transaction="0" creation_time="0" snap_time="2">
            <range_mapping origin_begin="0" data_begin="0" length="3" time="0"/>
            <single_mapping origin_block="300" data_block="65" time="1"/>
          </device>
        </superblock>

        """
    static let size = ByteCount(64 << 20)

    private func read(_ text: String, size: ByteCount = Self.size, inPiecesOf piece: Int = .max) throws(ThinMappingError) -> ChunkSet {
        var reader = ThinMappingReader(size: size)
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            try reader.take(Array(rest.prefix(piece)))
            rest = rest.dropFirst(piece)
        }
        return try reader.finish()
    }

    @Test(arguments: [1, 7, 64, 100_000]) func thinTools(piece: Int) throws {
        let changed = try read(Self.delta, inPiecesOf: piece)
        #expect(changed.chunkBytes == 65536 && changed.members == [3, 10, 11, 300])
        #expect(try read(Self.dump, inPiecesOf: piece).members == [0, 1, 2, 300])
    }

    @Test func thinToolsThatFail() {
        let long = "<same begin=\"0\"" + String(repeating: " ", count: Limits.toolLineBytes) + "/>\n"
        let cases: [(String, ThinMappingError.Kind)] = [
            ("", .cutOff), (String(Self.delta.prefix(300)), .cutOff), (String(Self.delta.dropLast(14)), .cutOff),
            ("  <different begin=\"3\" length=\"1\"/>\n", .noSuperblock), (long, .lineTooLong),
            (Self.delta.replacing("length=\"1\"", with: "length=\"-1\""), .badNumber),
            (Self.delta.replacing("begin=\"300\"", with: "begin=\"\""), .badNumber),
            (Self.delta.replacing("begin=\"300\"", with: "begin=\"9223372036854775807\""), .outOfRange),
            (Self.delta.replacing("begin=\"300\"", with: "begin=\"1024\""), .outOfRange),
            (Self.delta.replacing("size=\"128\"", with: "size=\"0\""), .badBlockSize),
            (Self.delta.replacing("size=\"128\"", with: "size=\"100\""), .badBlockSize),
            (Self.delta.replacing("size=\"128\"", with: "size=\"9223372036854775807\""), .badBlockSize),
            (Self.delta.replacing("<diff", with: "<def"), .unexpectedElement), (Self.delta + Self.delta, .badBlockSize),
        ]
        for (text, kind) in cases {
            let error = #expect(throws: ThinMappingError.self) { try read(text) }
            #expect(error?.kind == kind, "\(text.prefix(200))")
        }
    }

    @Test func snapshotStatus() {
        #expect(SnapshotStatus(parsing: "32/32768 16") == .used(.kibi(16), of: .mebi(16), table: .kibi(8)))
        #expect(SnapshotStatus(parsing: "Invalid") == .invalid("Invalid"))
        #expect(SnapshotStatus(parsing: "Overflow") == .invalid("Overflow"))
        #expect(SnapshotStatus(parsing: "Merge failed") == .invalid("Merge failed"))
        for text in ["", "Unknown", "1/", "/", "1/2/3 4", "-1/2 3", "99999999999999999999/1 0"] {
            #expect(SnapshotStatus(parsing: text) == nil, "\(text)")
        }
    }

    @Test func deviceNames() {
        #expect(deviceMapperName(group: "vg", volume: "lv") == "vg-lv")
        #expect(deviceMapperName(group: "my-vg", volume: "a--b", layer: "cow") == "my--vg-a----b-cow")
        #expect(deviceMapperName(group: "a-", volume: "-b") == "a-----b")
    }

    @Test func reports() throws {
        let row = """
            {"vg_name":"vg", "lv_name":"t0s1", "lv_size":"134217728", "lv_attr":"Vri-a-tz--", "lv_active":"active", "origin":"t0", "pool_lv":"pool", \
            "thin_id":"2", "chunk_size":"0", "segtype":"thin", "lv_tags":"turntable,other", "lv_time":"", "vg_free":"188743680", "vg_extent_size":"4194304"}
            """
        let volume = try #require(try LVM.volumes(inReport: "{\"report\":[{\"lv\":[\(row)]}]}").first)
        #expect(volume.fullName == "vg/t0s1" && volume.thinIdentifier == 2 && volume.tags == ["turntable", "other"] && volume.isActive)
        #expect(volume.kind == "V" && volume.origin == "t0" && volume.groupFree.value == 188_743_680 && volume.size == .mebi(128))
        #expect(try LVM.volumes(inReport: "{\"report\":[{\"lv\":[]}]}").isEmpty)
        for text in ["", "{}", "[]", "{\"report\":[{\"lv\":[{}]}]}", "{\"report\":[{\"lv\":[\(row.replacing("134217728", with: "-1"))]}]}"]
        {
            #expect(throws: TurntableError.self) { try LVM.volumes(inReport: text) }
        }
    }

    /// Whose snapshot it is, and whether that process is still the one that it was.
    @Test func snapshotOwners() {
        let own = SnapshotOwner.own
        #expect(SnapshotOwner(tags: ["backup", "turntable", "turntable.untold", own.tag]) == own && own.isRunning)
        for tag in ["turntable", "turntable.untold", "turntable.1.2", "turntable.x.2.3", "other.1.2.3", "turntable.1.2.3.4"] {
            #expect(SnapshotOwner(tags: [tag]) == nil, "\(tag)")
        }
        for tag in ["turntable.\(own.process).\(own.startTime + 1).\(own.boot)", "turntable.\(own.process).\(own.startTime).00000000"] {
            #expect(SnapshotOwner(tags: [tag])?.isRunning == false, "\(tag)")
        }
    }
}
