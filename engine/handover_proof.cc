#include "engine/handover_proof.h"

#include <absl/strings/str_cat.h>

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

Hmac ProofOf(const TrafficKey& key, HandoverWord word) {
  return HmacSha256(key, absl::StrCat("godwit handover proof 1 ", WordText(word)));
}

}  // namespace

std::string ProveHandover(const TrafficKey& key, HandoverWord word) {
  const Hmac proof = ProofOf(key, word);
  return {proof.data(), proof.size()};
}

bool IsHandoverProof(absl::string_view proof, const TrafficKey& key, HandoverWord word) {
  return IsHmac(proof, ProofOf(key, word));
}

}  // namespace godwit
