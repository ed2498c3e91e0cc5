// One migration, all of it, as a seed wants it.
#ifndef GODWIT_TESTS_SIMULATION_MIGRATION_H_
#define GODWIT_TESTS_SIMULATION_MIGRATION_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "godwit/session.h"
#include "tests/simulation/network.h"
#include "tests/simulation/scheduler.h"

namespace godwit::simulation {

inline constexpr int kNobodysHost = 0;
inline constexpr int kSourceHost = 1;
inline constexpr int kTargetHost = 2;

// What is to happen to whom, from outside.
enum class Deed {
  kCancel,    // the session's Cancel()
  kKill,      // SIGKILL: its kernel closes its connections
  kPowerOff,  // the host falls silent
  kBreak      // a connection between the two is reset
};
struct PlannedDeed {
  Deed deed = Deed::kCancel;
  int host = kSourceHost;
  int connection = 0;  // kBreak: its number; 0 is the control channel, then come the lanes
  Duration at{0};
};

// Everything about a run that is not chance while it runs.
struct MigrationPlan {
  std::vector<std::string> source_devices;  // soft: options, by position
  std::vector<std::string> target_devices;
  SourceOptions source;
  TargetOptions target;
  NetworkPlan network;
  int processors = 1;  // of each host
  std::vector<PlannedDeed> deeds;
};

std::string Describe(const MigrationPlan& plan);

// A file in memory with a pre-shared key, for as long as the process lives.
const std::string& PskFile();

// Mistakes to be made on purpose, to see that they are found.
enum class Mistake {
  kNone,
  kTwoOwners,    // the VMM at the source starts its VM again after a while, whatever happens
  kDeafVmm,      // the VMM at the source never comes back from stop_vcpus
  kShortStream,  // a device whose stream ends early, and whose driver doesn't mind
};

struct MigrationResult {
  std::string violation;  // what must not be; empty: nothing
  // What happened, for the tally.
  std::optional<SessionOutcome> source;  // nothing: its process was killed
  std::optional<SessionOutcome> target;
  bool pre_copied = false;
  uint64_t out_of_order_packets = 0;
  uint64_t packets = 0;
  uint64_t lanes_remade = 0;
  uint64_t packets_sent_again = 0;
  uint64_t duplicates = 0;  // of them, those that had come before
  uint64_t seals = 0;       // put on packets
  uint64_t sealed_again = 0;
  int breaks = 0;
  bool frame_fault = false;
  Duration time{0};
  // When the source's lanes were there, when it stopped its devices, and when it handed over; 0: it
  // did not come to that.
  Duration lanes_up_at{0};
  Duration stopped_at{0};
  Duration committed_at{0};
  uint64_t turns = 0;
  uint64_t fingerprint = 0;
};

// Runs it. A run with a killed host leaves what that host had; and one with a violation leaves all.
// With `tell` what the sessions tell their observers goes to stdout.
MigrationResult Simulate(const MigrationPlan& plan, uint64_t seed, Mistake mistake,
                         bool tell = false);

// What a seed stands for: nothing goes wrong. It ends with the devices at the target, or gives up
// where it was told to if pre-copy does not converge.
MigrationPlan CalmPlanOf(uint64_t seed);
// The same with something going wrong, when there is something to disturb: `calm` is the calm
// plan's result.
MigrationPlan TroubledPlanOf(uint64_t seed, const MigrationResult& calm);

}  // namespace godwit::simulation

#endif  // GODWIT_TESTS_SIMULATION_MIGRATION_H_
