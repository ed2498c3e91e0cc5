// Whom a session believes, and what it hides: docs/trust.md.
#ifndef GODWIT_TRUST_H_
#define GODWIT_TRUST_H_

#include <absl/strings/string_view.h>

#include <string>

namespace godwit {

// How the two sides of a session know each other. Both must be of the same kind.
enum class TrustKind {
  kPlain,         // not at all
  kCertificates,  // TLS 1.3, each side with a certificate of the same CA
  kPsk,           // TLS 1.3 with a key that both have, and with fresh ephemeral keys
};
absl::string_view TrustKindName(TrustKind kind);  // "plain", "certificates", "psk"

// Whether packets are sealed on their way, each by itself, with AES-256-GCM.
enum class SealMode {
  kAuto,  // on TCP lanes, if either side's address is not a loopback address and neither says kOff
  kOn,    // the session is refused where the peer says kOff, or where it is plain
  kOff,
};
// What the two sides have agreed on.
enum class Sealing {
  kOff,
  kTcpLanes,  // of a session over queue pairs: those that take the place of queue pairs
  kAllLanes,
};
absl::string_view SealingName(Sealing sealing);  // "off", "tcp", "on"

// Either the three files of certificates, or psk_file, or none of them: then the session is plain,
// and refused anywhere but on loopback addresses unless `insecure` is set.
struct TrustOptions {
  // PEM. The certificate may have its chain behind it.
  std::string certificate_file;
  std::string key_file;  // no passphrase, and nothing that others may read
  std::string ca_file;   // whose certificates are believed
  // A DNS name or an address that the peer's certificate must have. Source: "" is the host that it
  // connects to. Target: "" is any certificate of the CA.
  std::string peer_name;
  // One line: 64 to 128 hexadecimal digits. As key_file nothing that others may read.
  std::string psk_file;
  SealMode seal = SealMode::kAuto;
  bool insecure = false;  // plain is meant, also where others can listen and speak

  TrustKind kind() const {
    if (!psk_file.empty()) return TrustKind::kPsk;
    const bool certificates = !certificate_file.empty() || !key_file.empty() || !ca_file.empty();
    return certificates ? TrustKind::kCertificates : TrustKind::kPlain;
  }
};

}  // namespace godwit

#endif  // GODWIT_TRUST_H_
