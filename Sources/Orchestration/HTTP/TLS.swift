internal import Crypto
internal import Foundation
internal import NIOSSL
internal import Protection
internal import SwiftASN1
internal import TurntableCore
internal import X509

/// TLS 1.3 with both certificates, as this host: the keys that `turntable keys` makes serve for machines and for control.
extension HostIdentity {
    func serverConfiguration(for peers: Peers) throws(TurntableError) -> TLSConfiguration {
        let material = try material()
        var configuration =
            switch peers {
            case .certificates:
                TLSConfiguration.makeServerConfigurationWithMTLS(
                    certificateChain: material.chain, privateKey: material.key, trustRoots: material.authorities)
            case .tokens: TLSConfiguration.makeServerConfiguration(certificateChain: material.chain, privateKey: material.key)
            }
        configuration.minimumTLSVersion = .tlsv13
        return configuration
    }

    /// The other end's certificate must be for the name or address that it is reached by.
    func clientConfiguration() throws(TurntableError) -> TLSConfiguration {
        let material = try material()
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.certificateChain = material.chain
        configuration.privateKey = material.key
        configuration.trustRoots = material.authorities
        configuration.certificateVerification = .fullVerification
        configuration.minimumTLSVersion = .tlsv12
        return configuration
    }

    private func material() throws(TurntableError) -> (
        chain: [NIOSSLCertificateSource], key: NIOSSLPrivateKeySource, authorities: NIOSSLTrustRoots
    ) {
        do {
            func converted(_ certificates: [Certificate]) throws -> [NIOSSLCertificate] {
                try certificates.map { try NIOSSLCertificate(bytes: Array($0.serializeAsPEM().pemString.utf8), format: .pem) }
            }
            return (
                try converted(chain).map { .certificate($0) },
                .privateKey(try NIOSSLPrivateKey(bytes: Array(key.pemRepresentation.utf8), format: .pem)), .certificates(try converted(authorities))
            )
        } catch {
            throw TurntableError(.usage, "using this host's certificate", "\(error)")
        }
    }
}
