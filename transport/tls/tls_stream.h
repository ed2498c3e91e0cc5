// One TLS connection, between bytes on the wire and bytes that are believed.
#ifndef GODWIT_TRANSPORT_TLS_TLS_STREAM_H_
#define GODWIT_TRANSPORT_TLS_TLS_STREAM_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <openssl/types.h>

#include <array>
#include <cstddef>
#include <string>

#include "godwit/trust.h"

namespace godwit {

inline constexpr size_t kTrafficKeyBytes = 32;
using TrafficKey = std::array<unsigned char, kTrafficKeyBytes>;

// Has no socket: its owner moves the bytes, so that nothing here can block.
//
// Ownership: owns the OpenSSL objects.
// Threads:   single-threaded. Blocking: never.
// Errors:    the first is final. Unauthenticated: one side does not believe the other; says why,
//            and what to do. InvalidArgument: what came is no TLS. What MoveOutput() has then still
//            tells the peer.
class TlsStream {
 public:
  // What a peer may send until it is believed; a certificate chain is a few KiB.
  static constexpr size_t kHandshakeBytesMax = size_t{64} << 10;

  // Takes `ssl`, which has its role and no BIOs.
  TlsStream(SSL* ssl, TrustKind kind, std::string peer_name);
  ~TlsStream();
  TlsStream(const TlsStream&) = delete;
  TlsStream& operator=(const TlsStream&) = delete;

  TrustKind kind() const { return kind_; }
  // A client speaks first.
  absl::Status Begin() { return Take("", nullptr); }
  // Takes what came on the wire; appends what it says to `plain`.
  absl::Status Take(absl::string_view wire, std::string* plain);
  // This side believes its peer. (A client's peer may still refuse the client.)
  bool established() const { return established_; }
  // This side has said something of the handshake: for a server, it has had one to answer.
  bool answered() const { return answered_; }
  // REQUIRES: established()
  absl::Status Write(absl::string_view plain);
  // Appends what is to go out on the wire.
  void MoveOutput(std::string& wire);
  // Says that nothing more will be written. Once is enough.
  void End();
  bool ended() const { return ended_; }
  // The peer has said so; what is cut off on the way has not.
  bool peer_ended() const { return peer_ended_; }

  // A key that only the two ends of this connection can know. REQUIRES: established()
  absl::StatusOr<TrafficKey> ExportKey(absl::string_view label, absl::string_view context) const;

 private:
  absl::Status Handshake();
  absl::Status Fail(absl::Status status);
  absl::Status FailAs(int result);
  std::string WhyRefused() const;
  // Keeps what a refused certificate is for: OpenSSL drops it.
  static int OnVerify(int verified, X509_STORE_CTX* context);

  SSL* const ssl_;
  const TrustKind kind_;
  const std::string peer_name_;
  BIO* wire_in_ = nullptr;   // ssl_'s
  BIO* wire_out_ = nullptr;  // ssl_'s
  size_t handshake_bytes_ = 0;
  std::string refused_names_;
  bool answered_ = false;
  bool established_ = false;
  bool ended_ = false;
  bool peer_ended_ = false;
  absl::Status status_;
};

}  // namespace godwit

#endif  // GODWIT_TRANSPORT_TLS_TLS_STREAM_H_
