#include "transport/hmac.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/check.h"

namespace godwit {

Hmac HmacSha256(const TrafficKey& key, absl::string_view text) {
  Hmac hmac;
  unsigned bytes = 0;
  GODWIT_CHECK(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
                    reinterpret_cast<const unsigned char*>(text.data()), text.size(),
                    reinterpret_cast<unsigned char*>(hmac.data()), &bytes) != nullptr &&
               bytes == hmac.size());
  return hmac;
}

bool IsHmac(absl::string_view claimed, const Hmac& right) {
  return claimed.size() == right.size() &&
         CRYPTO_memcmp(claimed.data(), right.data(), right.size()) == 0;
}

}  // namespace godwit
