// Makes keys and certificates for trying out, and for who has no CA.
#ifndef GODWIT_TOOLS_KEY_MAKER_H_
#define GODWIT_TOOLS_KEY_MAKER_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <openssl/types.h>

#include <memory>
#include <string>
#include <vector>

namespace godwit {

struct FreeKey {
  void operator()(EVP_PKEY* key) const;
};
struct FreeCertificate {
  void operator()(X509* certificate) const;
};

// A certificate and its key.
struct Identity {
  std::unique_ptr<X509, FreeCertificate> certificate;
  std::unique_ptr<EVP_PKEY, FreeKey> key;
};

// A new CA with a P-256 key, valid for `days` from yesterday on.
absl::StatusOr<Identity> MakeAuthority(int days);
// A certificate of it for these DNS names and addresses, for either side of a session.
// InvalidArgument: a name that no certificate can have.
absl::StatusOr<Identity> MakeIdentity(const Identity& authority, absl::string_view subject,
                                      const std::vector<std::string>& names, int days);
absl::StatusOr<std::string> CertificatePem(const Identity& identity);
absl::StatusOr<std::string> KeyPem(const Identity& identity);
// A line of 64 random hexadecimal digits.
absl::StatusOr<std::string> MakePsk();

// A new file of mode 0600. AlreadyExists: nothing is overwritten.
absl::Status WriteNewFile(const std::string& path, absl::string_view text);

}  // namespace godwit

#endif  // GODWIT_TOOLS_KEY_MAKER_H_
