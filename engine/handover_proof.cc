#include "engine/handover_proof.h"

#include <absl/strings/str_cat.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/check.h"

namespace godwit {
namespace {

absl::string_view WordText(HandoverWord word) {
  switch (word) {
    case HandoverWord::kCommit:
      return "commit";
    case HandoverWord::kDone:
      return "done";
    case HandoverWord::kRolledBack:
      return "rolled back";
    case HandoverWord::kForget:
      return "forget";
  }
  return "";
}

}  // namespace

std::string ProveHandover(const TrafficKey& key, HandoverWord word) {
  const std::string text = absl::StrCat("godwit handover proof 1 ", WordText(word));
  std::string proof(kHandoverProofBytes, '\0');
  unsigned bytes = 0;
  GODWIT_CHECK(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
                    reinterpret_cast<const unsigned char*>(text.data()), text.size(),
                    reinterpret_cast<unsigned char*>(proof.data()), &bytes) != nullptr &&
               bytes == proof.size());
  return proof;
}

bool IsHandoverProof(absl::string_view proof, const TrafficKey& key, HandoverWord word) {
  const std::string right = ProveHandover(key, word);
  return proof.size() == right.size() &&
         CRYPTO_memcmp(proof.data(), right.data(), right.size()) == 0;
}

}  // namespace godwit
