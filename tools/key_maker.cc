#include "tools/key_maker.h"

#include <absl/strings/escaping.h>
#include <absl/strings/str_cat.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "godwit/unique_fd.h"

namespace godwit {
namespace {

constexpr long kSecondsADay = 24L * 60 * 60;
constexpr size_t kPskBytes = 32;
constexpr int kSerialBits = 159;  // 20 bytes, positive

absl::Status OpensslError(absl::string_view doing) {
  const char* const reason = ERR_reason_error_string(ERR_peek_last_error());
  ERR_clear_error();
  return absl::InternalError(
      absl::StrCat(doing, ": OpenSSL: ", reason != nullptr ? reason : "unknown error"));
}

bool SetSerial(X509* certificate) {
  BIGNUM* const number = BN_new();
  const bool set = number != nullptr &&
                   BN_rand(number, kSerialBits, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) == 1 &&
                   BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate)) != nullptr;
  BN_free(number);
  return set;
}

bool AddExtension(X509* certificate, const X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, const_cast<X509*>(issuer), certificate, nullptr, nullptr, 0);
  X509_EXTENSION* const extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
  const bool added = extension != nullptr && X509_add_ext(certificate, extension, -1) == 1;
  X509_EXTENSION_free(extension);
  return added;
}

// What all certificates have: a key of their own, a serial number, a subject and a time.
absl::StatusOr<Identity> Begin(absl::string_view subject, int days) {
  Identity made;
  made.key.reset(EVP_EC_gen("P-256"));
  made.certificate.reset(X509_new());
  X509* const certificate = made.certificate.get();
  if (made.key == nullptr || certificate == nullptr) return OpensslError("making a key");
  const std::string name(subject);
  const bool begun =
      X509_set_version(certificate, X509_VERSION_3) == 1 && SetSerial(certificate) &&
      X509_gmtime_adj(X509_getm_notBefore(certificate), -kSecondsADay) != nullptr &&
      X509_gmtime_adj(X509_getm_notAfter(certificate), days * kSecondsADay) != nullptr &&
      X509_set_pubkey(certificate, made.key.get()) == 1 &&
      X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_UTF8,
                                 reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1,
                                 0) == 1;
  if (!begun) return OpensslError("making a certificate");
  return made;
}

absl::Status Sign(Identity& made, const Identity& authority) {
  const bool signed_now =
      X509_set_issuer_name(made.certificate.get(),
                           X509_get_subject_name(authority.certificate.get())) == 1 &&
      AddExtension(made.certificate.get(), authority.certificate.get(),
                   NID_authority_key_identifier, "keyid:always") &&
      X509_sign(made.certificate.get(), authority.key.get(), EVP_sha256()) > 0;
  return signed_now ? absl::OkStatus() : OpensslError("signing a certificate");
}

// A certificate's names are a list of OpenSSL's own grammar: what could mean more in it is no name.
absl::StatusOr<std::string> AlternativeName(const std::string& name) {
  std::array<unsigned char, sizeof(in6_addr)> address{};
  if (::inet_pton(AF_INET, name.c_str(), address.data()) == 1 ||
      ::inet_pton(AF_INET6, name.c_str(), address.data()) == 1) {
    return absl::StrCat("IP:", name);
  }
  constexpr const char* kInNames =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_*";
  constexpr size_t kNameBytesMax = 253;
  if (name.empty() || name.size() > kNameBytesMax ||
      name.find_first_not_of(kInNames) != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("--name '", name, "': wanted is a DNS name or an address"));
  }
  return absl::StrCat("DNS:", name);
}

struct FreeBio {
  void operator()(BIO* bio) const { BIO_free_all(bio); }
};
using BioPtr = std::unique_ptr<BIO, FreeBio>;

std::string TextOf(BIO* bio) {
  char* text = nullptr;
  const long count = BIO_get_mem_data(bio, &text);
  return {text, static_cast<size_t>(count)};
}

}  // namespace

void FreeKey::operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
void FreeCertificate::operator()(X509* certificate) const { X509_free(certificate); }

absl::StatusOr<Identity> MakeAuthority(int days) {
  GODWIT_ASSIGN_OR_RETURN(Identity made, Begin("Godwit test CA", days));
  X509* const certificate = made.certificate.get();
  const bool extended =
      AddExtension(certificate, certificate, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
      AddExtension(certificate, certificate, NID_key_usage, "critical,keyCertSign,cRLSign") &&
      AddExtension(certificate, certificate, NID_subject_key_identifier, "hash");
  if (!extended) return OpensslError("making a CA");
  GODWIT_RETURN_IF_ERROR(Sign(made, made));
  return made;
}

absl::StatusOr<Identity> MakeIdentity(const Identity& authority, absl::string_view subject,
                                      const std::vector<std::string>& names, int days) {
  std::string list;
  for (const std::string& name : names) {
    GODWIT_ASSIGN_OR_RETURN(const std::string entry, AlternativeName(name));
    absl::StrAppend(&list, list.empty() ? "" : ",", entry);
  }
  GODWIT_ASSIGN_OR_RETURN(Identity made, Begin(subject, days));
  X509* const certificate = made.certificate.get();
  const X509* const issuer = authority.certificate.get();
  const bool extended =
      AddExtension(certificate, issuer, NID_basic_constraints, "critical,CA:FALSE") &&
      AddExtension(certificate, issuer, NID_key_usage, "critical,digitalSignature") &&
      AddExtension(certificate, issuer, NID_ext_key_usage, "serverAuth,clientAuth") &&
      AddExtension(certificate, issuer, NID_subject_key_identifier, "hash") &&
      AddExtension(certificate, issuer, NID_subject_alt_name, list);
  if (!extended) return OpensslError(absl::StrCat("a certificate for ", list));
  GODWIT_RETURN_IF_ERROR(Sign(made, authority));
  return made;
}

absl::StatusOr<std::string> CertificatePem(const Identity& identity) {
  const BioPtr bio(BIO_new(BIO_s_mem()));
  if (bio == nullptr || PEM_write_bio_X509(bio.get(), identity.certificate.get()) != 1) {
    return OpensslError("writing a certificate");
  }
  return TextOf(bio.get());
}

absl::StatusOr<std::string> KeyPem(const Identity& identity) {
  const BioPtr bio(BIO_new(BIO_s_secmem()));
  if (bio == nullptr || PEM_write_bio_PKCS8PrivateKey(bio.get(), identity.key.get(), nullptr,
                                                      nullptr, 0, nullptr, nullptr) != 1) {
    return OpensslError("writing a key");
  }
  return TextOf(bio.get());
}

absl::StatusOr<std::string> MakePsk() {
  std::string key(kPskBytes, '\0');
  if (RAND_priv_bytes(reinterpret_cast<unsigned char*>(key.data()), static_cast<int>(key.size())) !=
      1) {
    return OpensslError("making a pre-shared key");
  }
  return absl::StrCat(absl::BytesToHexString(key), "\n");
}

absl::Status WriteNewFile(const std::string& path, absl::string_view text) {
  constexpr mode_t kOwnersAlone = 0600;
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, kOwnersAlone));
  if (!fd.valid() && errno == EEXIST) {
    return absl::AlreadyExistsError(
        absl::StrCat(path, " is there already, and nothing is overwritten: give another --out"));
  }
  if (!fd.valid()) return ErrnoStatus(errno, absl::StrCat(path, ": it can't be made"));
  while (!text.empty()) {
    const ssize_t written = ::write(fd.get(), text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return ErrnoStatus(errno, absl::StrCat(path, ": writing failed"));
    text.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

}  // namespace godwit
