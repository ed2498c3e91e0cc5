// What one side has for its TLS connections: its own certificate, or key, and whom it believes.
#ifndef GODWIT_TRANSPORT_TLS_TLS_CONTEXT_H_
#define GODWIT_TRANSPORT_TLS_TLS_CONTEXT_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <openssl/types.h>

#include <memory>
#include <string>

#include "godwit/trust.h"
#include "transport/tls/secret_file.h"
#include "transport/tls/tls_stream.h"

namespace godwit {

enum class TlsRole { kClient, kServer };

// TLS 1.3 and nothing before it, always with fresh ephemeral keys, never resumed.
//
// Ownership: shares the OpenSSL context with the streams that it makes.
// Threads:   single-threaded.
// Blocking:  Make() reads files; else never.
// Errors:    InvalidArgument: options that don't go together, or a file that is not what it should
//            be. PermissionDenied: a secret that is none. All name the file and say what to do.
class TlsContext {
 public:
  // Null for TrustKind::kPlain.
  static absl::StatusOr<std::unique_ptr<TlsContext>> Make(const TrustOptions& trust, TlsRole role);
  ~TlsContext();
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;

  TrustKind kind() const { return kind_; }
  // `peer_name`: the DNS name or address that the peer's certificate must have; "": any.
  absl::StatusOr<std::unique_ptr<TlsStream>> NewStream(const std::string& peer_name) const;

 private:
  TlsContext(TrustKind kind, TlsRole role, SSL_CTX* context)
      : kind_(kind), role_(role), context_(context) {}
  absl::Status UseCertificates(const TrustOptions& trust);
  absl::Status UsePsk(const TrustOptions& trust);

  const TrustKind kind_;
  const TlsRole role_;
  SSL_CTX* const context_;
  std::unique_ptr<Secret> psk_;  // the context's callbacks read it
};

// InvalidArgument where options don't go together.
absl::Status CheckTrust(const TrustOptions& trust);

// Whether both ends of a connection are loopback addresses.
bool IsOnLoopback(int socket);

// FailedPrecondition if a plain session on this socket would not be for this host alone, and
// nobody has asked for that by name. `peer`: look at the address of its peer, not at its own.
absl::Status CheckPlainAllowed(const TrustOptions& trust, int socket, bool peer);

}  // namespace godwit

#endif  // GODWIT_TRANSPORT_TLS_TLS_CONTEXT_H_
