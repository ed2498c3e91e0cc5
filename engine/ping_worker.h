// Fills lanes with packets of zeros, or empties them: what a ping measures a rate with.
#ifndef GODWIT_ENGINE_PING_WORKER_H_
#define GODWIT_ENGINE_PING_WORKER_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "base/arena.h"
#include "base/notifier.h"
#include "engine/worker_base.h"
#include "transport/lane.h"

namespace godwit {

// Ownership: as WorkerBase.
// Threads:   as WorkerBase; the counters and EndSending() from the control thread.
// Blocking:  the destructor, as Stop().
// Errors:    a lane's first.
class PingWorker final : public WorkerBase {
 public:
  // `packet_bytes`: of payload in each that a sender sends.
  static absl::StatusOr<std::unique_ptr<PingWorker>> Make(LaneRole role, const LaneLimits& limits,
                                                          size_t packet_bytes, size_t lanes,
                                                          Arena& arena, const Notifier& events);
  ~PingWorker() override { Stop(); }

  // A sender's: packets that a lane took; a receiver's: packets that came on it, each with a
  // receive posted in its place.
  uint64_t packets(size_t lane) const { return counters_[lane].packets.load(); }
  // Sender: so many of that lane's have come. As many more as its queue has may be on the way.
  void TakeReceipt(size_t lane, uint64_t packets);
  // Sender: from now on no more are sent. True once that holds.
  void EndSending() { ending_.store(true); }
  bool ended() const { return ended_.load(); }

 private:
  struct LaneCounters {
    std::atomic<uint64_t> packets{0};
    std::atomic<uint64_t> receipts{0};
  };

  PingWorker(LaneRole role, const LaneLimits& limits, size_t packet_bytes, size_t lanes,
             Arena& arena, Notifier inbox, const Notifier& events)
      : WorkerBase(arena, std::move(inbox), events),
        role_(role),
        limits_(limits),
        packet_bytes_(packet_bytes),
        taken_(lanes),
        counters_(lanes) {}
  absl::Status SetUp() override;
  absl::StatusOr<bool> Step() override;
  absl::StatusOr<bool> LookAtArmed(LaneSet /*lanes*/) override { return Step(); }
  void BeginTearDown() override {}
  bool Idle() override { return true; }
  void TearDown() override {}

  bool SendOn(size_t at);
  bool ReceiveOn(size_t at);
  void Feed(size_t at);

  const LaneRole role_;
  const LaneLimits limits_;
  const size_t packet_bytes_;
  std::vector<uint64_t> taken_;  // by lane; the worker's thread only
  std::vector<LaneCounters> counters_;
  std::atomic<bool> ending_{false};
  std::atomic<bool> ended_{false};
};

}  // namespace godwit

#endif  // GODWIT_ENGINE_PING_WORKER_H_
