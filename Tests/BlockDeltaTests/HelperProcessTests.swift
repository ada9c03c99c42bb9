internal import Foundation
internal import Testing
internal import TurntableCore
internal import TurntableLinux

@testable import BlockDelta

/// The supervision of LVM's helper, with shell scripts that behave as a broken one does.
struct HelperProcessTests {
    private func helper(_ script: String, within limit: Nanoseconds = .seconds(20)) -> HelperProcess {
        HelperProcess(["sh", "-c", "while read number verb rest; do \(script); done"], within: limit)
    }

    @Test func answers() throws {
        let helper = helper("echo \"$number = a b\"; echo \"$number = $verb-$rest\"; echo \"$number ok\"")
        #expect(try helper.call("first x y") == ["a b", "first-x y"])
        let process = helper.process
        #expect(try helper.call("second") == ["a b", "second-"])
        #expect(process != nil && helper.process == process, "one process serves all requests")
    }

    @Test func refusalsAreNotTheHelpersEnd() throws {
        let helper = helper("echo \"$number failed Insufficient free space: 9 extents\"")
        let error = #expect(throws: TurntableError.self) { try helper.call("create") }
        #expect(error?.kind == .refused && error?.why == "Insufficient free space: 9 extents")
        #expect(helper.process != nil)
    }

    /// It ends in the middle of an answer, says something else, answers another request, or floods: an error that says so, and
    /// the next request finds a helper that works.
    @Test(arguments: [
        ("echo \"$number = half\"; exit 9", "it ended"), ("echo hello there", "unknown"), ("echo \"99 ok\"", "unknown"),
        ("echo \"$number what\"", "unknown"), ("head -c 100000 /dev/zero | tr '\\0' x", "unknown"),
    ]) func troubles(script: String, text: String) throws {
        let mark = FileManager.default.temporaryDirectory.appending(path: "turntable-helper-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: mark) }
        let helper = helper("if [ ! -e \(mark) ]; then touch \(mark); \(script); else echo \"$number ok\"; fi")
        let error = #expect(throws: TurntableError.self) { try helper.call("create") }
        #expect(
            error?.kind == .unsupported && error?.why.contains(text) == true && error?.remedy.contains("gc") == true,
            "\(String(describing: error))")
        #expect(helper.process == nil)
        #expect(try helper.call("report").isEmpty)
    }

    @Test func aHelperThatHangsIsEnded() throws {
        let helper = helper("exec sleep 1000", within: .milliseconds(300))
        _ = try? helper.call("none")  // starts it, and is not answered either
        let began = Clock.now
        let error = #expect(throws: TurntableError.self) { try helper.call("create") }
        #expect(error?.why.contains("no answer within") == true)
        #expect((Clock.now - began).seconds < 20 && helper.process == nil)
    }

    @Test func itEndsWithItsOwner() throws {
        var helper: HelperProcess? = helper("echo \"$number ok\"")
        _ = try helper?.call("x")
        let process = try #require(helper?.process)
        helper = nil
        #expect(kill(process, 0) == -1 && errno == ESRCH)
    }

    @Test func thereIsNoHelper() {
        let error = #expect(throws: TurntableError.self) { try HelperProcess(["/nonexistent/turntable-lvm-helper"]).call("list") }
        #expect(error?.what.contains("starting /nonexistent") == true)
    }

    @Test func namesThatAreNone() {
        let lvm = LVM(helper: HelperProcess(["/nonexistent"]))
        for name in ["", "vg", "vg/", "/lv", "vg/lv/x", "vg/a b", "vg/-x", "vg/$(x)", "/dev/mapper/vg-lv", "vg/.."] {
            let error = #expect(throws: TurntableError.self) { try lvm.volume(name) }
            #expect(error?.kind == .usage, "\(name)")
        }
    }

    /// A kernel without device-mapper, as this test's may be, is a clear error; with it, a device that is not there is none.
    @Test func deviceMapperOfThisHost() throws {
        do {
            #expect(try DeviceMapper.status(of: "turntable-no-such-device") == nil)
        } catch {
            #expect(error.kind == .unsupported && error.description.contains("dm_mod"), "\(error)")
        }
    }
}
