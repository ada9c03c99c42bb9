internal import Testing
internal import TurntableCore

struct UnitTests {
    @Test(
        arguments: [
            ("4096", 4096), ("0", 0), ("1k", 1024), ("200M", 200 << 20), ("200MB", 200 << 20), ("200 MiB", 200 << 20), ("1.5GiB", 3 << 29),
            ("2t", 2 << 40), ("7B", 7), ("0.5k", 512),
        ] as [(String, Int)])
    func sizesAreRead(text: String, bytes: Int) { #expect(ByteCount(parsing: text)?.value == bytes) }

    @Test(arguments: ["", "M", "-1", "1x", "1.2.3M", "1e9", "0x10", "９M", "1 2", "99999999T", "nan", "inf", "1,5G"])
    func whatIsNoSizeIsNotRead(text: String) { #expect(ByteCount(parsing: text) == nil) }

    @Test(
        arguments: [("1gbit", 1e9), ("622mbit", 622e6), ("9.5Gb/s", 9.5e9), ("100M", 1e8), ("56kbit", 56e3), ("300bit", 300)]
            as [(String, Double)])
    func ratesAreReadInDecimalUnits(text: String, rate: Double) { #expect(BitRate(parsing: text)?.bitsPerSecond == rate) }

    @Test(arguments: ["", "0", "0gbit", "1000", "-1gbit", "1GiB", "fast"])
    func whatIsNoRateIsNotRead(text: String) { #expect(BitRate(parsing: text) == nil) }

    @Test(
        arguments: [
            ("300ms", 300_000_000), ("2s", 2_000_000_000), ("87.5ms", 87_500_000), ("150us", 150_000), ("150µs", 150_000), ("9ns", 9),
            ("3min", 180_000_000_000), ("1h", 3_600_000_000_000), ("0s", 0),
        ] as [(String, Int64)])
    func timesAreRead(text: String, nanoseconds: Int64) { #expect(Nanoseconds(parsing: text)?.value == nanoseconds) }

    /// Too much is no time, and no trap either.
    @Test(arguments: ["", "5", "ms", "-1s", "1d", "9999999999s", "8999999999min", "1e3ms", "999999999999999999999999999999ns"])
    func whatIsNoTimeIsNotRead(text: String) { #expect(Nanoseconds(parsing: text) == nil) }

    @Test(
        arguments: [
            (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (1 << 20, "1.0 MiB"), (200 << 20, "200.0 MiB"),
            (1 << 30, "1.00 GiB"), (3 << 29, "1.50 GiB"),
        ] as [(Int, String)])
    func sizesArePrintedInBinaryUnits(bytes: Int, text: String) { #expect("\(ByteCount(bytes))" == text) }

    @Test(arguments: [(56e3, "56.0 kb/s"), (622e6, "622.0 Mb/s"), (1e9, "1.00 Gb/s"), (9.876e9, "9.88 Gb/s")] as [(Double, String)])
    func ratesArePrintedInDecimalUnits(rate: Double, text: String) { #expect("\(BitRate(bitsPerSecond: rate))" == text) }

    @Test(
        arguments: [
            (0, "0 µs"), (150_000, "150 µs"), (1_000_000, "1.0 ms"), (87_540_000, "87.5 ms"), (2_345_000_000, "2.35 s"), (.max, "forever"),
        ] as [(Int64, String)])
    func timesArePrinted(nanoseconds: Int64, text: String) { #expect("\(Nanoseconds(nanoseconds))" == text) }

    @Test func timeForBytesAndBytesInTimeAgree() {
        let rate = BitRate(ByteCount(125_000_000), in: .seconds(1))
        #expect(rate.bitsPerSecond == 1e9)
        #expect(rate.time(for: ByteCount(125_000)) == .milliseconds(1))
        #expect(rate.time(for: ByteCount(0)) == .zero)
        #expect(BitRate(bitsPerSecond: 0).time(for: ByteCount(1)) == .forever)
        #expect(BitRate(ByteCount(1), in: .zero).bitsPerSecond == 0)
        #expect(BitRate(bitsPerSecond: 1e-9).time(for: ByteCount(.max)).value > 0)
    }

    /// A peer's numbers are added and subtracted too: the ends of the range hold.
    @Test func timesSaturate() {
        let least = Nanoseconds(.min)
        #expect(Nanoseconds.forever + .seconds(1) == .forever)
        #expect(least + Nanoseconds(-1) == least)
        #expect(Nanoseconds(5) - least == .forever)
        #expect(least - Nanoseconds(1) == least)
        #expect(Nanoseconds(5) - Nanoseconds(7) == Nanoseconds(-2))
    }

    /// Scripts depend on these: README and --help name them.
    @Test func exitCodesAreWhatTheyWere() {
        let kinds: [(TurntableError.Kind, Int32)] = [
            (.usage, 2), (.refused, 3), (.line, 4), (.protocol, 5), (.hypervisor, 6), (.unsupported, 7), (.relinquished, 8),
            (.cancelled, 130),
        ]
        for (kind, code) in kinds { #expect(kind.exitCode == code) }
        #expect(Set(kinds.map(\.1)).count == kinds.count)
    }

    @Test func anErrorSaysWhatWhyAndWhatToDo() {
        #expect(TurntableError(.line, "sending", "it broke").description == "sending: it broke")
        #expect(TurntableError(.line, "sending", "it broke", remedy: "mend it").description == "sending: it broke (mend it)")
    }
}
