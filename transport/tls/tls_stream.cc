#include "transport/tls/tls_stream.h"

#include <absl/strings/str_cat.h>
#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <array>
#include <memory>
#include <utility>

#include "base/check.h"
#include "base/status_macros.h"

namespace godwit {
namespace {

constexpr int kNamesTold = 8;
constexpr size_t kNameBytesTold = 64;

struct FreeNames {
  void operator()(GENERAL_NAMES* names) const { GENERAL_NAMES_free(names); }
};

// A name in a peer's certificate can hold anything.
std::string Told(const unsigned char* bytes, int count) {
  std::string text(reinterpret_cast<const char*>(bytes), static_cast<size_t>(count));
  if (text.size() > kNameBytesTold) text = absl::StrCat(text.substr(0, kNameBytesTold), "…");
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return text;
}

// "host-b, 10.0.0.2": what a certificate says that it is for.
std::string NamesOf(const X509* certificate) {
  const std::unique_ptr<GENERAL_NAMES, FreeNames> names(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
  std::string text;
  for (int i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    if (i == kNamesTold) return absl::StrCat(text, ", …");
    const GENERAL_NAME* const name = sk_GENERAL_NAME_value(names.get(), i);
    const ASN1_STRING* const value = name->type == GEN_DNS     ? name->d.dNSName
                                     : name->type == GEN_IPADD ? name->d.iPAddress
                                                               : nullptr;
    if (value == nullptr) continue;
    const unsigned char* const bytes = ASN1_STRING_get0_data(value);
    const int count = ASN1_STRING_length(value);
    if (!text.empty()) text += ", ";
    if (name->type == GEN_DNS) {
      text += Told(bytes, count);
      continue;
    }
    char address[INET6_ADDRSTRLEN] = "?";
    if (count == 4 || count == 16) {
      ::inet_ntop(count == 4 ? AF_INET : AF_INET6, bytes, address, sizeof(address));
    }
    text += address;
  }
  return text.empty() ? "no name at all" : text;
}

// What the peer's alert means, where it is about what we have shown it.
std::string RefusedByPeer(TrustKind kind, int alert) {
  if (kind == TrustKind::kPsk) {
    return "it refuses our pre-shared key: give both hosts the same --psk-file";
  }
  switch (alert) {
    case SSL_AD_UNKNOWN_CA:
      return "it refuses our certificate, which is not from a CA that it believes: its --tls-ca "
             "and "
             "the CA of our --tls-cert must be the same";
    case SSL_AD_CERTIFICATE_EXPIRED:
      return "it refuses our certificate, which is not valid now: renew it, or are the two hosts' "
             "clocks wrong?";
    case SSL_AD_BAD_CERTIFICATE:
      return "it refuses our certificate: is it for the name that the other side expects "
             "(--tls-peer-name)?";
    default:
      return absl::StrCat("it refuses our certificate (", SSL_alert_desc_string_long(alert),
                          "): its own log says why");
  }
}

}  // namespace

TlsStream::TlsStream(SSL* ssl, TrustKind kind, std::string peer_name)
    : ssl_(ssl), kind_(kind), peer_name_(std::move(peer_name)) {
  wire_in_ = BIO_new(BIO_s_mem());
  wire_out_ = BIO_new(BIO_s_mem());
  GODWIT_CHECK(wire_in_ != nullptr && wire_out_ != nullptr);
  SSL_set_bio(ssl_, wire_in_, wire_out_);
  SSL_set_app_data(ssl_, this);
  SSL_set_verify(ssl_, SSL_get_verify_mode(ssl_), OnVerify);
}

int TlsStream::OnVerify(int verified, X509_STORE_CTX* context) {
  if (verified == 1) return 1;
  const auto* const ssl = static_cast<const SSL*>(
      X509_STORE_CTX_get_ex_data(context, SSL_get_ex_data_X509_STORE_CTX_idx()));
  const X509* const theirs = X509_STORE_CTX_get0_cert(context);
  if (theirs != nullptr) {
    static_cast<TlsStream*>(SSL_get_app_data(ssl))->refused_names_ = NamesOf(theirs);
  }
  return 0;
}

TlsStream::~TlsStream() { SSL_free(ssl_); }

absl::Status TlsStream::Fail(absl::Status status) {
  if (status_.ok()) status_ = std::move(status);
  ERR_clear_error();
  return status_;
}

std::string TlsStream::WhyRefused() const {
  const long error = SSL_get_verify_result(ssl_);
  const std::string why = X509_verify_cert_error_string(error);
  switch (error) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return absl::StrCat(why, ": renew it, or are the two hosts' clocks wrong?");
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
      return absl::StrCat("it is for ", refused_names_, ", not for ", peer_name_,
                          ": is this the right host? (--tls-peer-name says what to expect, `godwit "
                          "keygen --name` makes one for a name)");
    case X509_V_ERR_INVALID_PURPOSE:
      return absl::StrCat(why, ": its extended key usage must have serverAuth and clientAuth");
    default:
      return absl::StrCat(why, ": it must be from the CA in --tls-ca");
  }
}

// What a call of OpenSSL's that gave `result` means, where it is an error.
absl::Status TlsStream::FailAs(int result) {
  const int error = SSL_get_error(ssl_, result);
  if (error == SSL_ERROR_WANT_READ) return absl::OkStatus();
  if (error == SSL_ERROR_ZERO_RETURN) {
    // Anybody on the way can say so, before keys are agreed on.
    if (!established_) {
      return Fail(absl::UnavailableError("it ended the TLS handshake before its time"));
    }
    peer_ended_ = true;
    return absl::OkStatus();
  }
  const unsigned long code = ERR_peek_error();
  const int reason = ERR_GET_REASON(code);
  if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED) {
    return Fail(
        absl::UnauthenticatedError(absl::StrCat("its certificate is refused: ", WhyRefused())));
  }
  if (reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE) {
    return Fail(absl::UnauthenticatedError("it shows no certificate"));
  }
  if (kind_ == TrustKind::kPsk &&
      (reason == SSL_R_BINDER_DOES_NOT_VERIFY || reason == SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM ||
       reason == SSL_R_NO_SHARED_CIPHER)) {
    return Fail(absl::UnauthenticatedError(
        "it has another pre-shared key: give both hosts the same --psk-file"));
  }
  constexpr int kAlertsEnd = SSL_AD_REASON_OFFSET + 256;
  if (reason > SSL_AD_REASON_OFFSET && reason < kAlertsEnd) {
    return Fail(absl::UnauthenticatedError(RefusedByPeer(kind_, reason - SSL_AD_REASON_OFFSET)));
  }
  const char* const text = ERR_reason_error_string(code);
  return Fail(absl::InvalidArgumentError(
      absl::StrCat(established_ ? "its TLS broke: " : "its TLS handshake is wrong: ",
                   text != nullptr ? text : "unknown error")));
}

absl::Status TlsStream::Handshake() {
  ERR_clear_error();
  const int result = SSL_do_handshake(ssl_);
  answered_ = answered_ || BIO_ctrl_pending(wire_out_) > 0;
  if (result != 1) return FailAs(result);
  // With a pre-shared key both certificates and their checks are left out: only its use counts.
  if (kind_ == TrustKind::kPsk && SSL_session_reused(ssl_) != 1) {
    return Fail(absl::UnauthenticatedError("it did not use the pre-shared key"));
  }
  if (kind_ == TrustKind::kCertificates && SSL_get_verify_result(ssl_) != X509_V_OK) {
    return Fail(absl::UnauthenticatedError(WhyRefused()));
  }
  established_ = true;
  return absl::OkStatus();
}

absl::Status TlsStream::Take(absl::string_view wire, std::string* plain) {
  if (!status_.ok()) return status_;
  if (!established_) {
    handshake_bytes_ += wire.size();
    if (handshake_bytes_ > kHandshakeBytesMax) {
      return Fail(absl::InvalidArgumentError(
          absl::StrCat("its TLS handshake has more than ", kHandshakeBytesMax, " bytes")));
    }
  }
  if (!wire.empty()) {
    GODWIT_CHECK(BIO_write(wire_in_, wire.data(), static_cast<int>(wire.size())) ==
                 static_cast<int>(wire.size()));
  }
  if (!established_) {
    GODWIT_RETURN_IF_ERROR(Handshake());
    if (!established_) return absl::OkStatus();
  }
  // Ends with what was written: all that is read comes from there.
  while (!peer_ended_) {
    char bytes[16 * 1024];
    ERR_clear_error();
    const int got = SSL_read(ssl_, bytes, sizeof(bytes));
    if (got <= 0) return FailAs(got);
    if (plain != nullptr) plain->append(bytes, static_cast<size_t>(got));
  }
  return absl::OkStatus();
}

absl::Status TlsStream::Write(absl::string_view plain) {
  if (!status_.ok()) return status_;
  GODWIT_CHECK(established_ && !ended_);
  if (plain.empty()) return absl::OkStatus();
  ERR_clear_error();
  // Into memory, which takes all of it.
  const int written = SSL_write(ssl_, plain.data(), static_cast<int>(plain.size()));
  return written > 0 ? absl::OkStatus() : FailAs(written);
}

void TlsStream::MoveOutput(std::string& wire) {
  char bytes[16 * 1024];
  for (int got = BIO_read(wire_out_, bytes, sizeof(bytes)); got > 0;
       got = BIO_read(wire_out_, bytes, sizeof(bytes))) {
    wire.append(bytes, static_cast<size_t>(got));
  }
}

void TlsStream::End() {
  if (!established_ || ended_ || !status_.ok()) return;
  ended_ = true;
  ERR_clear_error();
  (void)SSL_shutdown(ssl_);
  ERR_clear_error();
}

absl::StatusOr<TrafficKey> TlsStream::ExportKey(absl::string_view label,
                                                absl::string_view context) const {
  GODWIT_CHECK(established_);
  TrafficKey key{};
  ERR_clear_error();
  if (SSL_export_keying_material(ssl_, key.data(), key.size(), label.data(), label.size(),
                                 reinterpret_cast<const unsigned char*>(context.data()),
                                 context.size(), 1) == 1) {
    return key;
  }
  ERR_clear_error();
  return absl::InternalError("OpenSSL exports no key from the TLS session");
}

}  // namespace godwit
