#include "transport/lane_proof.h"

#include <absl/strings/str_cat.h>
#include <openssl/rand.h>

#include <algorithm>

#include "base/check.h"
#include "base/errno_status.h"
#include "base/status_macros.h"

namespace godwit {
namespace {

constexpr absl::string_view kProofLabel = "godwit lane proof 1";

}  // namespace

LaneChallenge NewLaneChallenge() {
  LaneChallenge challenge;
  GODWIT_CHECK(RAND_bytes(reinterpret_cast<unsigned char*>(challenge.data()),
                          static_cast<int>(challenge.size())) == 1);
  return challenge;
}

LaneProof ProveLane(const TrafficKey& key, const LaneChallenge& challenge, const LaneHello& lane) {
  // Every part has its length once and for all: no two lanes have the same text.
  const auto preface = LanePreface(lane.session_id, lane.lane, lane.generation);
  const std::string text =
      absl::StrCat(kProofLabel, absl::string_view(challenge.data(), challenge.size()),
                   absl::string_view(preface.data(), preface.size()));
  return HmacSha256(key, text);
}

bool IsLaneProof(const char* proof, const TrafficKey& key, const LaneChallenge& challenge,
                 const LaneHello& lane) {
  return IsHmac({proof, kLaneProofBytes}, ProveLane(key, challenge, lane));
}

absl::Status LaneGreeting::Announce(int socket, uint16_t lane, uint16_t generation,
                                    Deadline deadline) const {
  const auto preface = LanePreface(session_id_, lane, generation);
  return WriteAll(socket, {reinterpret_cast<const std::byte*>(preface.data()), preface.size()},
                  deadline);
}

absl::Status LaneGreeting::Prove(int socket, uint16_t lane, uint16_t generation, Deadline deadline,
                                 int cancel_fd) const {
  GODWIT_CHECK(proves());
  LaneChallenge challenge;
  GODWIT_RETURN_IF_ERROR(Annotate(
      ReadExactly(socket, {reinterpret_cast<std::byte*>(challenge.data()), challenge.size()},
                  deadline, cancel_fd),
      absl::StrCat("lane ", lane, ", waiting for the target to ask for its proof")));
  const LaneProof proof = ProveLane(*key_, challenge, {session_id_, lane, generation});
  return WriteAll(socket, {reinterpret_cast<const std::byte*>(proof.data()), proof.size()},
                  deadline);
}

}  // namespace godwit
