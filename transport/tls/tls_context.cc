#include "transport/tls/tls_context.h"

#include <absl/strings/str_cat.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

#include <cerrno>
#include <memory>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/errno_status.h"
#include "base/status_macros.h"

namespace godwit {
namespace {

// One suite: a pre-shared key is bound to its hash, and both sides are Godwit.
constexpr const char* kCipherSuite = "TLS_AES_256_GCM_SHA384";
constexpr unsigned char kCipherSuiteId[] = {0x13, 0x02};
constexpr absl::string_view kPskIdentity = "godwit";
constexpr long kCertificateListBytesMax = 32 << 10;
constexpr size_t kChainMax = 16;  // certificates in a file behind the first, and CAs

template <auto kFree>
struct Freer {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};
using BioPtr = std::unique_ptr<BIO, Freer<BIO_free_all>>;
using X509Ptr = std::unique_ptr<X509, Freer<X509_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY_free>>;
using SessionPtr = std::unique_ptr<SSL_SESSION, Freer<SSL_SESSION_free>>;

std::string LibraryError() {
  const unsigned long code = ERR_peek_last_error();
  ERR_clear_error();
  const char* const reason = ERR_reason_error_string(code);
  return reason != nullptr ? reason : "unknown error";
}

BioPtr Reading(absl::string_view text) {
  return BioPtr(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

// OpenSSL would ask on the terminal.
int NoPassphrase(char* /*buffer*/, int /*size*/, int /*writing*/, void* asked) {
  *static_cast<bool*>(asked) = true;
  return -1;
}

absl::StatusOr<std::vector<X509Ptr>> Certificates(const std::string& path, absl::string_view what) {
  GODWIT_ASSIGN_OR_RETURN(const Secret text, ReadTrustFile(path, what, FileIs::kPublic));
  const BioPtr bio = Reading(text.view());
  std::vector<X509Ptr> found;
  bool asked = false;
  ERR_clear_error();
  while (X509* const next = PEM_read_bio_X509(bio.get(), nullptr, NoPassphrase, &asked)) {
    found.emplace_back(next);
    if (found.size() > kChainMax) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, ", file ", path, ": it has more than ", kChainMax, " certificates"));
    }
  }
  // The end of the text looks like an error of its own.
  const bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  if (at_end && !found.empty()) {
    ERR_clear_error();
    return found;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      what, ", file ", path,
      at_end ? ": it has no certificate in PEM form" : ": a certificate in it is damaged: ",
      at_end ? "" : LibraryError()));
}

absl::StatusOr<KeyPtr> PrivateKey(const std::string& path) {
  GODWIT_ASSIGN_OR_RETURN(const Secret text, ReadTrustFile(path, "the key", FileIs::kSecret));
  const BioPtr bio = Reading(text.view());
  bool asked = false;
  ERR_clear_error();
  KeyPtr key(PEM_read_bio_PrivateKey(bio.get(), nullptr, NoPassphrase, &asked));
  if (key != nullptr) return key;
  ERR_clear_error();
  return absl::InvalidArgumentError(
      absl::StrCat("the key, file ", path,
                   asked ? ": it has a passphrase, which nobody would be there to type: give one "
                           "without"
                         : ": it has no private key in PEM form"));
}

// A session that stands for the pre-shared key; null where memory or OpenSSL fails.
SessionPtr SessionOf(SSL* ssl, absl::string_view key) {
  SessionPtr session(SSL_SESSION_new());
  const SSL_CIPHER* const cipher = SSL_CIPHER_find(ssl, kCipherSuiteId);
  if (session == nullptr || cipher == nullptr ||
      SSL_SESSION_set1_master_key(session.get(), reinterpret_cast<const unsigned char*>(key.data()),
                                  key.size()) != 1 ||
      SSL_SESSION_set_cipher(session.get(), cipher) != 1 ||
      SSL_SESSION_set_protocol_version(session.get(), TLS1_3_VERSION) != 1) {
    return nullptr;
  }
  return session;
}

absl::string_view PskOf(SSL* ssl) {
  return static_cast<const Secret*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)))->view();
}

int OfferPsk(SSL* ssl, const EVP_MD* hash, const unsigned char** identity, size_t* identity_bytes,
             SSL_SESSION** session) {
  *session = nullptr;
  SessionPtr made = SessionOf(ssl, PskOf(ssl));
  if (made == nullptr) return 0;
  // (A hash is named when the server has asked for another hello; ours is the only one.)
  if (hash != nullptr && !EVP_MD_is_a(hash, "SHA2-384")) return 1;
  *identity = reinterpret_cast<const unsigned char*>(kPskIdentity.data());
  *identity_bytes = kPskIdentity.size();
  *session = made.release();
  return 1;
}

int FindPsk(SSL* ssl, const unsigned char* identity, size_t identity_bytes, SSL_SESSION** session) {
  *session = nullptr;
  const absl::string_view theirs(reinterpret_cast<const char*>(identity), identity_bytes);
  if (theirs != kPskIdentity) return 1;
  *session = SessionOf(ssl, PskOf(ssl)).release();
  return *session != nullptr ? 1 : 0;
}

bool IsAddress(const std::string& name) {
  in6_addr address{};
  return ::inet_pton(AF_INET, name.c_str(), &address) == 1 ||
         ::inet_pton(AF_INET6, name.c_str(), &address) == 1;
}

bool IsLoopback(const sockaddr_storage& address) {
  if (address.ss_family == AF_INET) {
    const uint32_t ip = ntohl(reinterpret_cast<const sockaddr_in&>(address).sin_addr.s_addr);
    return ip >> 24 == 127;
  }
  if (address.ss_family != AF_INET6) return true;  // a local socket
  const in6_addr& ip = reinterpret_cast<const sockaddr_in6&>(address).sin6_addr;
  return IN6_IS_ADDR_LOOPBACK(&ip) || (IN6_IS_ADDR_V4MAPPED(&ip) && ip.s6_addr[12] == 127);
}

}  // namespace

absl::string_view TrustKindName(TrustKind kind) {
  switch (kind) {
    case TrustKind::kPlain:
      return "plain";
    case TrustKind::kCertificates:
      return "certificates";
    case TrustKind::kPsk:
      return "psk";
  }
  return "?";
}

absl::string_view SealingName(Sealing sealing) {
  switch (sealing) {
    case Sealing::kOff:
      return "off";
    case Sealing::kTcpLanes:
      return "tcp";
    case Sealing::kAllLanes:
      return "on";
  }
  return "?";
}

absl::Status CheckTrust(const TrustOptions& trust) {
  const TrustKind kind = trust.kind();
  const int files = (trust.certificate_file.empty() ? 0 : 1) + (trust.key_file.empty() ? 0 : 1) +
                    (trust.ca_file.empty() ? 0 : 1);
  if (kind == TrustKind::kPsk && files > 0) {
    return absl::InvalidArgumentError(
        "certificates and a pre-shared key: a session is secured by one of them");
  }
  if (kind == TrustKind::kCertificates && files < 3) {
    return absl::InvalidArgumentError(absl::StrCat(
        "certificates need all three of --tls-cert, --tls-key and --tls-ca; missing:",
        trust.certificate_file.empty() ? " --tls-cert" : "",
        trust.key_file.empty() ? " --tls-key" : "", trust.ca_file.empty() ? " --tls-ca" : ""));
  }
  if (kind != TrustKind::kCertificates && !trust.peer_name.empty()) {
    return absl::InvalidArgumentError(
        "a peer's name is read from its certificate, and there are no certificates here");
  }
  if (kind == TrustKind::kPlain && trust.seal == SealMode::kOn) {
    return absl::InvalidArgumentError(
        "--seal on needs a key that only the two sides have: give certificates or --psk-file");
  }
  if (kind != TrustKind::kPlain && trust.insecure) {
    return absl::InvalidArgumentError(
        "--insecure asks for a plain session, and certificates or a pre-shared key for TLS: give "
        "one of them");
  }
  return absl::OkStatus();
}

bool IsOnLoopback(int socket) {
  sockaddr_storage ours{};
  sockaddr_storage theirs{};
  socklen_t ours_length = sizeof(ours);
  socklen_t theirs_length = sizeof(theirs);
  return ::getsockname(socket, reinterpret_cast<sockaddr*>(&ours), &ours_length) == 0 &&
         ::getpeername(socket, reinterpret_cast<sockaddr*>(&theirs), &theirs_length) == 0 &&
         IsLoopback(ours) && IsLoopback(theirs);
}

absl::Status CheckPlainAllowed(const TrustOptions& trust, int socket, bool peer) {
  if (trust.kind() != TrustKind::kPlain || trust.insecure) return absl::OkStatus();
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  const int failed = peer ? ::getpeername(socket, reinterpret_cast<sockaddr*>(&address), &length)
                          : ::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &length);
  if (failed != 0) return ErrnoStatus(errno, peer ? "getpeername" : "getsockname");
  if (IsLoopback(address)) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      peer ? "the target is not on this host" : "others than this host can connect here",
      ", and without TLS anybody on the network could read and change the devices' state: give "
      "--tls-cert, --tls-key and --tls-ca, or --psk-file (`godwit keygen` makes them), or "
      "--insecure where nobody else is on that network"));
}

absl::StatusOr<std::unique_ptr<TlsContext>> TlsContext::Make(const TrustOptions& trust,
                                                             TlsRole role) {
  GODWIT_RETURN_IF_ERROR(CheckTrust(trust));
  if (trust.kind() == TrustKind::kPlain) return nullptr;
  SSL_CTX* const raw = SSL_CTX_new(TLS_method());
  if (raw == nullptr) return absl::InternalError(absl::StrCat("OpenSSL: ", LibraryError()));
  std::unique_ptr<TlsContext> context(new TlsContext(trust.kind(), role, raw));
  SSL_CTX_set_options(raw, SSL_OP_NO_TICKET);
  SSL_CTX_set_session_cache_mode(raw, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_max_cert_list(raw, kCertificateListBytesMax);
  // Also with a pre-shared key: who answers with a certificate instead finds nothing that we
  // believe.
  SSL_CTX_set_verify(raw, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  if (SSL_CTX_set_min_proto_version(raw, TLS1_3_VERSION) != 1 ||
      SSL_CTX_set_max_proto_version(raw, TLS1_3_VERSION) != 1 ||
      SSL_CTX_set_ciphersuites(raw, kCipherSuite) != 1 || SSL_CTX_set_num_tickets(raw, 0) != 1) {
    return absl::InternalError(absl::StrCat("OpenSSL: ", LibraryError()));
  }
  GODWIT_RETURN_IF_ERROR(trust.kind() == TrustKind::kPsk ? context->UsePsk(trust)
                                                         : context->UseCertificates(trust));
  return context;
}

TlsContext::~TlsContext() { SSL_CTX_free(context_); }

absl::Status TlsContext::UseCertificates(const TrustOptions& trust) {
  GODWIT_ASSIGN_OR_RETURN(const auto chain,
                          Certificates(trust.certificate_file, "the certificate"));
  GODWIT_ASSIGN_OR_RETURN(const KeyPtr key, PrivateKey(trust.key_file));
  GODWIT_ASSIGN_OR_RETURN(const auto authorities, Certificates(trust.ca_file, "the CA"));
  if (SSL_CTX_use_certificate(context_, chain[0].get()) != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("the certificate, file ", trust.certificate_file, ": ", LibraryError()));
  }
  for (size_t i = 1; i < chain.size(); ++i) {
    GODWIT_CHECK(SSL_CTX_add1_chain_cert(context_, chain[i].get()) == 1);
  }
  if (SSL_CTX_use_PrivateKey(context_, key.get()) != 1 ||
      SSL_CTX_check_private_key(context_) != 1) {
    ERR_clear_error();
    return absl::InvalidArgumentError(absl::StrCat("the key, file ", trust.key_file,
                                                   ": it does not belong to the certificate in ",
                                                   trust.certificate_file));
  }
  X509_STORE* const store = SSL_CTX_get_cert_store(context_);
  for (const X509Ptr& authority : authorities) {
    GODWIT_CHECK(X509_STORE_add_cert(store, authority.get()) == 1);
  }
  return absl::OkStatus();
}

absl::Status TlsContext::UsePsk(const TrustOptions& trust) {
  GODWIT_ASSIGN_OR_RETURN(const Secret text,
                          ReadTrustFile(trust.psk_file, "the pre-shared key", FileIs::kSecret));
  GODWIT_ASSIGN_OR_RETURN(Secret key, ParsePsk(text.view(), trust.psk_file));
  psk_ = std::make_unique<Secret>(std::move(key));
  SSL_CTX_set_app_data(context_, psk_.get());
  // A server that looks for sessions at all has to say what it is; a client must not.
  if (role_ == TlsRole::kServer) {
    GODWIT_CHECK(SSL_CTX_set_session_id_context(
                     context_, reinterpret_cast<const unsigned char*>(kPskIdentity.data()),
                     static_cast<unsigned>(kPskIdentity.size())) == 1);
  }
  // (SSL_OP_ALLOW_NO_DHE_KEX is not set: psk_dhe_ke is the only way.)
  SSL_CTX_set_psk_use_session_callback(context_, OfferPsk);
  SSL_CTX_set_psk_find_session_callback(context_, FindPsk);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<TlsStream>> TlsContext::NewStream(
    const std::string& peer_name) const {
  ERR_clear_error();
  SSL* const ssl = SSL_new(context_);
  if (ssl == nullptr) return absl::InternalError(absl::StrCat("OpenSSL: ", LibraryError()));
  auto stream = std::make_unique<TlsStream>(ssl, kind_, peer_name);
  role_ == TlsRole::kClient ? SSL_set_connect_state(ssl) : SSL_set_accept_state(ssl);
  if (kind_ != TrustKind::kCertificates || peer_name.empty()) return stream;
  X509_VERIFY_PARAM* const wanted = SSL_get0_param(ssl);
  X509_VERIFY_PARAM_set_hostflags(
      wanted, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  const int set = IsAddress(peer_name)
                      ? X509_VERIFY_PARAM_set1_ip_asc(wanted, peer_name.c_str())
                      : X509_VERIFY_PARAM_set1_host(wanted, peer_name.data(), peer_name.size());
  if (set != 1) {
    ERR_clear_error();
    return absl::InvalidArgumentError(
        absl::StrCat("\"", peer_name, "\" is no name that a certificate could have"));
  }
  return stream;
}

}  // namespace godwit
