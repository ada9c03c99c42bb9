import ArgumentParser

@main
struct Turntable: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "turntable")
}
