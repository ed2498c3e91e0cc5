// What a handover's messages prove in a session inside TLS: docs/wire-format.md, section 4.
#ifndef GODWIT_ENGINE_HANDOVER_PROOF_H_
#define GODWIT_ENGINE_HANDOVER_PROOF_H_

#include <absl/strings/string_view.h>

#include <cstddef>
#include <string>

#include "transport/hmac.h"

namespace godwit {

// What the TLS exporter is asked for.
inline constexpr absl::string_view kHandoverKeyLabel = "EXPORTER-godwit-handover";
inline constexpr size_t kHandoverProofBytes = kHmacBytes;

// The messages of the handover. Each is true from the first time it is said and for as long as its
// session is remembered: to say it again, as who overheard its proof could, does no harm.
enum class HandoverWord { kCommit, kDone, kRolledBack, kForget };

// kHandoverProofBytes: HMAC-SHA256 under `key`, which only the ends of the connection that the
// session began on can know. TLS itself proves no more than that a peer is *some* host that is
// believed.
std::string ProveHandover(const TrafficKey& key, HandoverWord word);
// In the same time for every wrong one of that length.
bool IsHandoverProof(absl::string_view proof, const TrafficKey& key, HandoverWord word);

}  // namespace godwit

#endif  // GODWIT_ENGINE_HANDOVER_PROOF_H_
