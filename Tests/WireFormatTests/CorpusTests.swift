internal import Foundation
internal import Testing
internal import TurntableCore

@testable import WireFormat

/// The fuzzer's corpus, without the fuzzer: each input gives a value or a typed error, and a value is written as it was read.
struct CorpusTests {
    private func corpus(_ target: String) throws -> [(name: String, bytes: [UInt8])] {
        let directory = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../../perf/fuzz/corpus/\(target)")
            .standardizedFileURL.path
        let names = try FileManager.default.contentsOfDirectory(atPath: directory).sorted()
        #expect(names.count >= 5)
        return try names.map { ($0, Array(try Data(contentsOf: URL(filePath: "\(directory)/\($0)")))) }
    }

    @Test func prefaces() throws {
        var read = 0
        for (name, bytes) in try corpus("Preface") {
            guard let preface = try? Preface.decode(bytes) else { continue }
            read += 1
            #expect(preface.encoded() == bytes, "\(name)")
        }
        #expect(read >= 4)
    }

    @Test func announcementsAndTunnels() throws {
        var announcements = 0, packets = 0
        for (name, bytes) in try corpus("Announcement") {
            if let (announcement, mac) = try? Announcement.decode(bytes) {
                announcements += 1
                #expect(announcement.signedBytes + mac == bytes, "\(name)")
            }
            guard TunnelHeader.read(bytes, at: 0, count: bytes.count) != nil else { continue }
            if IPAddress.ends(of: bytes, at: TunnelHeader.bytes, count: bytes.count - TunnelHeader.bytes) != nil { packets += 1 }
        }
        #expect(announcements == 2 && packets == 3)
    }

    @Test func linkPassesAndAnswers() throws {
        var passes = 0, answers = 0
        for (name, bytes) in try corpus("LinkPass") {
            if let body = try? LinkPass.bodyBytes(Array(bytes.prefix(LinkPass.headBytes))), bytes.count == LinkPass.headBytes + body,
                let pass = try? LinkPass(decodingBody: Array(bytes.dropFirst(LinkPass.headBytes)))
            {
                passes += 1
                #expect(pass.encoded() == bytes, "\(name)")
            }
            guard let answer = try? LinkAnswer(decoding: bytes) else { continue }
            answers += 1
            #expect(answer.encoded() == bytes, "\(name)")
        }
        #expect(passes == 2 && answers == 2)
    }

    @Test func greetingsAndOutlines() throws {
        var greetings: [Bool] = [], pages = 0, ends = 0
        for (name, bytes) in try corpus("Libxc") {
            if let (greeting, end) = try StreamGreeting.find(in: bytes) {
                greetings.append(greeting.isPV)
                #expect(bytes.prefix(end).suffix(greeting.encoded().count).elementsEqual(greeting.encoded()), "\(name)")
                continue
            }
            try LibxcHeaders.check(Array(bytes.prefix(LibxcHeaders.bytes)))
            var reader = MessageReader(Array(bytes.dropFirst(LibxcHeaders.bytes)))
            while let head = try? reader.read(raw: LibxcRecord.headBytes), let record = try? LibxcRecord(decoding: head) {
                #expect(record.encoded() == head, "\(name)")
                ends += record.isEnd ? 1 : 0
                guard record.isPages else {
                    _ = try reader.read(raw: record.paddedBytes)
                    continue
                }
                let count = try reader.read(raw: LibxcPageList.headBytes)
                let listed = count + (try reader.read(raw: try LibxcPageList.entriesBytes(after: count)))
                guard let list = try? LibxcPageList(decoding: listed, of: record, isOutline: true) else { break }
                #expect(list.encoded(isOutline: true) == listed, "\(name)")
                pages += list.pageCount
            }
        }
        #expect(greetings == [true, false] && pages == 3 + 9 + 2 && ends == 4)
    }

    @Test func controlMessages() throws {
        var kinds: Set<UInt16> = []
        for (name, bytes) in try corpus("Control") {
            var rest = bytes[...]
            while rest.count >= 8, let (length, type) = try? ControlMessage.decodeHeader(Array(rest.prefix(8))),
                let message = try? ControlMessage.decode(type: type, body: Array(rest.dropFirst(8).prefix(length)))
            {
                kinds.insert(type)
                #expect(message.encoded() == Array(rest.prefix(8 + length)), "\(name)")
                rest = rest.dropFirst(8 + length)
            }
        }
        #expect(kinds == Set(1...18))
    }

    @Test func frames() throws {
        let layout = MemoryLayoutTable(regionPages: [1000, 256, 1, Limits.regionPages], disks: [777], streams: 3)
        var headers = 0, extents = 0, blocks = 0
        for (name, bytes) in try corpus("Frame") {
            var position = 0
            var sequence: UInt64 = 0
            while position < bytes.count, let header = try? decodeHeader(Array(bytes[position...]), expecting: sequence) {
                headers += 1
                #expect(WireFormatTests.bytes(of: header) == Array(bytes[position..<position + FrameHeader.bytes]), "\(name)")
                position += FrameHeader.bytes
                for _ in 0..<header.extentCount {
                    for stream in 0..<3 {
                        let extent = try? Extent.decode(bytes.span.bytes, at: position, of: header.kind, layout: layout, stream: stream)
                        if extent != nil { extents += 1 }
                        if extent != nil, header.kind == .blocks { blocks += 1 }
                    }
                    position += Extent.bytes
                }
                sequence += 1
            }
        }
        #expect(headers >= 10 && extents >= 10 && blocks > 0)
    }
}
