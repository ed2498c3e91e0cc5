// The target's worker: lanes in, reorder windows out.
#ifndef GODWIT_ENGINE_TARGET_WORKER_H_
#define GODWIT_ENGINE_TARGET_WORKER_H_

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "engine/lane_events.h"
#include "engine/loader.h"
#include "engine/packet.h"
#include "engine/worker_base.h"
#include "godwit/session.h"
#include "godwit/unique_fd.h"

namespace godwit {

// Receives packets, checks each fully, puts it into its device's window and helps the loader, where
// it lets itself be helped. What a lane brings that another has brought already is dropped: the
// source sends again what a dead lane may have lost.
//
// Ownership, Threads, Blocking, Errors: as WorkerBase. Borrows the loaders and their windows. A
// packet that fails a check changes nothing. Damage, and a lane that breaks or closes too early,
// cost the lane and no more; a packet that is whole and wrong ends the work.
class TargetWorker final : public WorkerBase {
 public:
  struct Limits {
    size_t packet_bytes = 0;
    uint32_t queue_packets = 0;
    uint32_t lanes = 0;
    LaneLimits lane_limits;                         // of lanes that are made again
    TransportKind transport = TransportKind::kTcp;  // of the first lanes
    bool crc = true;                                // of payloads and streams
  };
  // All relaxed.
  struct LaneCounters {
    std::atomic<uint64_t> bytes{0};       // payload
    std::atomic<uint64_t> packets{0};     // received, and a new receive posted for each
    std::atomic<uint64_t> duplicates{0};  // of them
    std::atomic<uint64_t> receipt{0};     // what the source is to hear: LaneCount()
    std::atomic<int64_t> last_at_ns{0};   // the last packet came, by the clock; 0: none did
    std::atomic<TransportKind> transport{TransportKind::kTcp};  // now
  };

  // Position in `loaders` is the device number.
  static absl::StatusOr<std::unique_ptr<TargetWorker>> Make(std::vector<Loader*> loaders,
                                                            const Limits& limits, Arena& arena,
                                                            const Notifier& events);
  ~TargetWorker() override { Stop(); }

  // Receives on `made` in the place of that lane, which is closed if it was not yet. When the
  // change to up is told receives are posted. REQUIRES: a greater generation than any before
  void RemakeLane(NewLane made);
  // Gives that lane up, if it is of that generation still.
  void DropLane(size_t lane, uint16_t generation, absl::Status why);
  // The VM stands still: from now on a receipt is for no more than so many packets (under 2: for
  // half of a lane's queue), and if `hold` fewer may wait a while, in place of being told of as
  // soon as there is nothing to do. If `packets` are then, for each lane, more than half of its
  // queue, a receipt is for up to three quarters of a lane's queue, and for 16 packets of all
  // lanes. Called once: what it has raised stays so.
  void SetReceiptPackets(uint32_t packets, bool hold);

  // How often it has notified `events` of receipts: those of lane_counters() are worth sending.
  // Relaxed: the notifier orders it.
  uint32_t receipts_due() const { return receipts_due_.load(std::memory_order_relaxed); }
  const LaneCounters& lane_counters(size_t lane) const { return lane_counters_[lane]; }
  std::vector<LaneChange> TakeLaneChanges() { return lane_events_.Take(); }

 private:
  TargetWorker(std::vector<Loader*> loaders, const Limits& limits, Arena& arena, Notifier inbox,
               const Notifier& events);
  absl::Status SetUp() override;
  absl::StatusOr<bool> Step() override;
  absl::StatusOr<bool> LookAtArmed(LaneSet lanes) override;
  void BeginTearDown() override {}
  bool Idle() override { return true; }
  void TearDown() override;

  struct LaneSlot {
    uint64_t received_packets = 0;  // of this generation: what the next lane_sequence must be
    uint32_t unannounced_packets = 0;
    uint16_t generation = 0;
    bool up = true;
  };

  absl::Status TakeNewLanes();
  void LoseLane(size_t lane, absl::Status why);
  std::chrono::nanoseconds OnIdle() override;
  absl::Status FeedLane(size_t at);
  absl::StatusOr<size_t> ReceiveFrom(size_t lane);
  absl::Status Accept(size_t lane, Buffer&& buffer, Clock::Duration now);
  absl::StatusOr<PacketHeader> OpenAndDecode(size_t lane, const Buffer& buffer);
  void TraceArrival(size_t lane, const PacketHeader& header);
  void CheckLanes();
  bool StreamsComplete() const;
  void NotifyOfReceipts();
  bool LooksAgain(bool received_over_tcp);
  bool HoldsReceipts() const;

  const Limits limits_;
  const std::vector<Loader*> loaders_;
  std::vector<LaneSlot> lane_slots_;
  std::vector<NewLane> taken_lanes_;  // whose places are not free yet
  std::array<Buffer, 8> received_;    // from a lane that is being polled: empty in between
  // Posted to a lane in one call: one doorbell of a NIC, and one system call of soft-RoCE. Empty in
  // between.
  std::array<Buffer, 16> to_post_;
  uint64_t received_packets_ = 0;  // on all lanes
  // There is a receipt once so many packets have come on one lane, or on all, that no other has
  // told of. Where lanes wait for receipts this side is idle, and sends them earlier, unless it
  // holds them.
  // All relaxed: an old value costs a receipt, since those only tell of less at once.
  std::atomic<uint32_t> packets_a_lane_;
  std::atomic<uint32_t> packets_a_receipt_;
  std::atomic<uint32_t> held_packets_{0};  // fewer are held when idle
  uint64_t announced_packets_ = 0;         // at the last events().Notify()
  bool receipt_due_ = false;              // some lane has its packets_a_lane_, or a window its half
  bool looked_again_ = true;              // since the last packet over TCP
  Clock::Duration received_at_{0};        // the last packet
  Clock::Duration unannounced_since_{0};  // the first packet came that is not announced
  bool first_of_lane_ = false;            // one of those is the first of its lane
  std::atomic<uint32_t> receipts_due_{0};
  std::vector<LaneCounters> lane_counters_;
  LaneEvents lane_events_;

  // Relaxed, a hint: the mutex orders what it is about.
  std::atomic<bool> lane_orders_wait_{false};
  Mutex new_lanes_mutex_;
  std::vector<NewLane> new_lanes_ ABSL_GUARDED_BY(new_lanes_mutex_);
  std::vector<LaneChange> dropped_ ABSL_GUARDED_BY(new_lanes_mutex_);
};

}  // namespace godwit

#endif  // GODWIT_ENGINE_TARGET_WORKER_H_
