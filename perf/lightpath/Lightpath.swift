import ArgumentParser

@main
struct Lightpath: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "turntable-lightpath")
}
