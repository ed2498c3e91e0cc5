// A session by chance: its devices, its options, and what happens to it.
#ifndef GODWIT_TESTS_SOAK_SESSION_PLAN_H_
#define GODWIT_TESTS_SOAK_SESSION_PLAN_H_

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "godwit/session.h"

namespace godwit {

// Besides lanes that die. A side that is killed is one in a process of its own, by SIGKILL.
enum class Harm { kNone, kCancelSource, kCancelTarget, kKillSource, kKillTarget };

// What all sessions of a soak have in common.
struct SoakSetting {
  TransportKind transport = TransportKind::kTcp;
  std::string address = "127.0.0.1";
  std::string keys_folder;  // with what WriteKeys() writes
};

// A PSK, and a certificate for `address`, for either side, in the folder. Ends the process where
// that fails.
void WriteKeys(const SoakSetting& setting);

struct SessionPlan {
  std::vector<std::string> specs;
  TargetOptions target;  // listens on a free port
  SourceOptions source;  // whoever runs it fills `to` in
  Harm harm = Harm::kNone;
  std::chrono::milliseconds harm_after{0};  // the source has begun
  uint64_t lane_killer_seed = 0;
  uint64_t lane_killer_every_ms_max = 0;
};

// The same one for the same seed.
SessionPlan MakePlan(uint64_t seed, const SoakSetting& setting);

}  // namespace godwit

#endif  // GODWIT_TESTS_SOAK_SESSION_PLAN_H_
