import ArgumentParser
import Foundation
import Protection
import TurntableCore

struct KeysCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "keys",
        abstract: "Make an authority and the keys of hosts, for a start.",
        discussion: """
            Hosts know each other by certificates of an authority that both trust. If you have one, use it: put authority.pem, \
            host.pem (with the host's name as subjectAltName) and host.key (P-256, mode 600) into /etc/turntable on each host. \
            Else make one here, on a computer that you trust, and copy to each host its three files, over a way that nobody \
            else can read.

            EXAMPLES
              turntable keys authority --in ./authority
              turntable keys host alpha.example --authority ./authority --in ./alpha --address 10.5.0.1
              turntable keys show --keys ./alpha
              turntable keys domain --in ./domain
              turntable keys link --in ./link
            """,
        subcommands: [Authority.self, Host.self, Domain.self, Link.self, Show.self])

    struct Authority: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Make an authority: authority.key, which stays here, and authority.pem.")
        @Option(help: ArgumentHelp("Where to put its files.", valueName: "directory")) var `in`: String
        @Option(help: ArgumentHelp("What it is called.", valueName: "text")) var name = "Turntable authority"
        @Option(help: ArgumentHelp("How long it is valid.", valueName: "n")) var days = 3650

        func run() throws {
            try reportingErrors {
                try KeyMaker.makeAuthority(named: name, in: `in`, days: days)
                print("\(`in`)/\(KeyMaker.authorityKeyFile): keep it here; \(`in`)/\(HostIdentity.authorityFile): every host gets a copy")
            }
        }
    }

    struct Host: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Make a host's key and certificate: host.key, host.pem, authority.pem.")
        @Argument(help: "The host's name, as its peers reach it.") var name: String
        @Option(help: ArgumentHelp("Where the authority's files are.", valueName: "directory")) var authority: String
        @Option(help: ArgumentHelp("Where to put the host's files.", valueName: "directory")) var `in`: String
        @Option(
            name: .customLong("address"),
            help: ArgumentHelp("An address that peers reach it by; repeatable. Without it they say --peer.", valueName: "address"))
        var addresses: [String] = []
        @Option(help: ArgumentHelp("How long it is valid.", valueName: "n")) var days = 825

        func run() throws {
            try reportingErrors {
                try KeyMaker.makeHost(named: name, addresses: addresses, authority: authority, in: `in`, days: days)
                print("\(`in`): \(HostIdentity.keyFile), \(HostIdentity.chainFile) and \(HostIdentity.authorityFile) of \(name)")
            }
        }
    }

    struct Domain: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Make a domain's key, which signs tokens: domain.key, for its orchestrators, and domain.pem.")
        @Option(help: ArgumentHelp("Where to put its files.", valueName: "directory")) var `in`: String

        func run() throws {
            try reportingErrors {
                try DomainKey.make(in: `in`)
                print("\(`in`)/\(DomainKey.keyFile): its orchestrators' alone; \(`in`)/\(DomainKey.publicKeyFile): every host that trusts it gets a copy")
            }
        }
    }

    struct Link: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Make a link element's key: link.key, for the element, and link.pem.")
        @Option(help: ArgumentHelp("Where to put its files.", valueName: "directory")) var `in`: String

        func run() throws {
            try reportingErrors {
                try LinkKey.make(in: `in`)
                print("\(`in`)/\(LinkKey.keyFile): the element's alone; \(`in`)/\(LinkKey.publicKeyFile): every host that sends over it gets a copy")
            }
        }
    }

    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Check a host's files, and say whose they are.")
        @OptionGroup var protection: ProtectionOptions
        @Flag(help: "Print one JSON object.") var json = false

        func run() throws {
            try reportingErrors(json: json) {
                let identity = try HostIdentity(directory: protection.keys)
                let end = identity.validUntil.formatted(.iso8601)
                if json {
                    print(jsonLine(["host": .text("\(identity.names)"), "validUntil": .text(end)]))
                } else {
                    print("\(identity.names), valid until \(end), vouched for by \(identity.issuer)")
                }
            }
        }
    }
}
