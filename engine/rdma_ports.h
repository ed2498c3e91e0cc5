// The RDMA ports of a session.
#ifndef GODWIT_ENGINE_RDMA_PORTS_H_
#define GODWIT_ENGINE_RDMA_PORTS_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/arena.h"
#include "base/clock.h"
#include "transport/lane.h"
#include "transport/verbs/verbs_device.h"
#include "transport/verbs/verbs_lane.h"

namespace godwit {

inline constexpr size_t kRdmaPortsMax = 8;
// How long a port may be down before its lanes are given up: a queue pair outlives a shorter break.
inline constexpr std::chrono::milliseconds kPortDownMax{500};

// "NAME[/PORT[/GID]][,…]", as `godwit devices` names them; "" is the best port that there is.
// InvalidArgument, saying what is wrong.
absl::StatusOr<std::vector<VerbsDeviceOptions>> ParseRdmaDevices(absl::string_view text);

// One or several ports, over which lanes are spread in turn; a region of the arena on each. Follows
// what the devices say of themselves.
//
// Ownership: owns the opened devices; outlives the lanes made on them. Borrows the arena.
// Threads:   one.
// Blocking:  Open() and MakeLane() make system calls; Follow() never blocks.
// Errors:    as VerbsDevice's and VerbsLane's. Unavailable: every port is down.
class RdmaPorts {
 public:
  // It was given up on by its device: `generation` of that lane can't send or receive any more.
  using Drop = std::function<void(size_t lane, uint16_t generation, absl::Status why)>;
  using Note = std::function<void(const std::string& line)>;

  static absl::StatusOr<std::unique_ptr<RdmaPorts>> Open(const std::string& devices,
                                                         const Arena& arena);

  // A queue pair for that lane, on the next port that is up.
  absl::StatusOr<std::unique_ptr<VerbsLane>> MakeLane(size_t lane, uint16_t generation,
                                                      LaneRole role, const LaneLimits& limits);
  // Call a few times a second.
  void Follow(const Note& note, const Drop& drop);

 private:
  struct Port {
    std::unique_ptr<VerbsDevice> device;
    Clock::Duration down_since{0};  // 0: it is up
    bool given_up = false;          // its lanes were, and it is not up again
    bool dead = false;              // for good
  };
  struct QueuePair {
    size_t port = 0;
    uint32_t number = 0;  // 0: none
    uint16_t generation = 0;
  };

  RdmaPorts() = default;
  void Take(size_t at, const VerbsEvent& event, const Note& note, const Drop& drop);
  void DropAll(size_t at, const absl::Status& why, const Drop& drop);

  std::vector<Port> ports_;
  std::vector<QueuePair> queue_pairs_;  // by lane: the last that was made
};

}  // namespace godwit

#endif  // GODWIT_ENGINE_RDMA_PORTS_H_
