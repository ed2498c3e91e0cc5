// The target's worker: lanes in, reorder windows out.
#ifndef GODWIT_ENGINE_TARGET_WORKER_H_
#define GODWIT_ENGINE_TARGET_WORKER_H_

#include <atomic>
#include <memory>
#include <vector>

#include "engine/reorder_window.h"
#include "engine/worker_base.h"

namespace godwit {

// Receives packets, checks each fully, and puts it into its device's window.
//
// Ownership, Threads, Blocking, Errors: as WorkerBase. Borrows the windows. A packet that fails a
// check changes nothing and ends the work.
class TargetWorker final : public WorkerBase {
 public:
  struct Limits {
    size_t packet_bytes = 0;
    uint32_t queue_packets = 0;
    uint32_t lanes = 0;
  };
  struct LaneCounters {
    std::atomic<uint64_t> bytes{0};    // payload; relaxed
    std::atomic<uint64_t> packets{0};  // received, and a new receive posted for each; relaxed
  };

  // Position in `windows` is the device number.
  static absl::StatusOr<std::unique_ptr<TargetWorker>> Make(std::vector<ReorderWindow*> windows,
                                                            const Limits& limits, Arena& arena,
                                                            const Notifier& events);
  ~TargetWorker() override { Stop(); }

  const LaneCounters& lane_counters(size_t lane) const { return lane_counters_[lane]; }

 private:
  TargetWorker(std::vector<ReorderWindow*> windows, const Limits& limits, Arena& arena,
               Notifier inbox, const Notifier& events);
  absl::Status SetUp() override { return FeedLanes(); }
  absl::StatusOr<bool> Step() override;
  void BeginTearDown() override {}
  bool Idle() override { return true; }
  void TearDown() override {}

  absl::Status FeedLanes();
  absl::StatusOr<bool> ReceiveFrom(size_t lane);
  absl::Status Accept(size_t lane, Buffer buffer);
  void TraceArrival(size_t lane, const PacketHeader& header);
  absl::Status CheckLanes();
  bool StreamsComplete() const;
  void NotifyOfReceipts(bool worked);

  const Limits limits_;
  const std::vector<ReorderWindow*> windows_;
  std::vector<uint64_t> received_packets_;  // by lane; what the next lane_sequence must be
  const uint64_t packets_a_receipt_;
  uint64_t announced_packets_ = 0;  // at the last events().Notify()
  std::vector<LaneCounters> lane_counters_;
};

}  // namespace godwit

#endif  // GODWIT_ENGINE_TARGET_WORKER_H_
