// The source's worker: devices' streams in, lanes out.
#ifndef GODWIT_ENGINE_SOURCE_WORKER_H_
#define GODWIT_ENGINE_SOURCE_WORKER_H_

#include <absl/base/thread_annotations.h>

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/fixed_queue.h"
#include "base/mutex.h"
#include "engine/blocked_call.h"
#include "engine/lane_events.h"
#include "engine/lane_schedule.h"
#include "engine/packet.h"
#include "engine/state_reader.h"
#include "engine/worker_base.h"
#include "godwit/session.h"

namespace godwit {

// Reads every device's stream, numbers and sends the packets, and keeps each until the target's
// receipt for it. When a lane dies its unreceipted packets go out again on the others; a lane that
// is made in its place carries one packet at a time until the first receipt for it.
//
// A device's life here: Open() in PRE_COPY, then reads until it is dry and ReadAgain() for more,
// HoldReads(), EnterStopCopy(); or just Open() in STOP_COPY. SetConfig() before the stream can be
// closed by its config packet.
//
// Ownership, Threads, Blocking, Errors: as WorkerBase. Owns the data_fds. The calls that give a
// device's orders come from any thread. The death of lanes is no error, not even of all.
class SourceWorker final : public WorkerBase {
 public:
  struct Limits {
    size_t packet_bytes = 0;
    uint32_t chain_packets = 0;
    uint32_t window_packets = 0;
    uint32_t queue_packets = 0;
    uint32_t lanes = 0;
    LaneLimits lane_limits;                         // of lanes that are made again
    TransportKind transport = TransportKind::kTcp;  // of the first lanes
    bool crc = true;                                // of payloads and streams
    // Files in memory are read on the worker's thread, in packets of at most so many; 0: they are
    // not.
    size_t at_once_bytes = 0;
  };
  // What the session's thread may look at while the worker runs; all relaxed, all only grow.
  struct DeviceCounters {
    std::atomic<uint64_t> bytes{0};
    std::atomic<uint32_t> packets{0};
    std::atomic<uint32_t> stream_crc{0};  // of the whole stream, once all_sent()
    std::atomic<uint64_t> read_bytes{0};
    std::atomic<uint32_t> read_packets{0};
    // Times that the stream ran dry in PRE_COPY. Release, covering what was read; acquire by who
    // asks for more.
    std::atomic<uint64_t> times_dry{0};
    std::atomic<bool> dry{false};  // now
    // The packet whose trip is being timed is loaded when so many are; 0: none. Release by the
    // worker, with timed_since_ns; the session's thread makes it 0 again.
    std::atomic<uint32_t> timed_packets{0};
    std::atomic<int64_t> timed_since_ns{0};
  };
  struct LaneCounters {
    std::atomic<uint64_t> bytes{0};  // payload
    std::atomic<uint64_t> packets{0};
    std::atomic<uint32_t> queue_depth{0};  // now
    std::atomic<int64_t> waits_since{0};   // for a receipt, in ns of the clock; 0: for none
    std::atomic<uint64_t> sent_again{0};   // packets that another lane had before
    std::atomic<TransportKind> transport{TransportKind::kTcp};  // now
  };

  // `names` are the devices', for messages.
  static absl::StatusOr<std::unique_ptr<SourceWorker>> Make(std::vector<std::string> names,
                                                            const Limits& limits, Arena& arena,
                                                            const Notifier& events);
  ~SourceWorker() override { Stop(); }

  // The device is in `state`, PRE_COPY or STOP_COPY, and this is its stream. `when_dry`, where it
  // isn't null, is notified each time that the stream runs dry in PRE_COPY, and outlives the
  // worker. In STOP_COPY `bytes_expected` is what the stream will about have; 0: not known.
  void Open(size_t device, UniqueFd data_fd, DeviceState state, const Notifier* when_dry,
            uint64_t bytes_expected = 0);
  // A dry stream may have something again.
  void ReadAgain(size_t device);
  // From now on no stream in PRE_COPY is read; reads_held() once no such read is in flight, of
  // which `events` is notified. A driver may take its time with the read that it has.
  void HoldReads();
  bool reads_held() const { return reads_held_.load(std::memory_order_acquire); }
  // REQUIRES: reads_held(), and the device has gone from PRE_COPY to STOP_COPY. `bytes_expected`:
  // as for Open(), from here on.
  void EnterStopCopy(size_t device, uint64_t bytes_expected = 0);
  // At most kConfigBytesMax.
  void SetConfig(size_t device, std::string config);

  // Sends on `made` in the place of that lane once that has given back its buffers. One that comes
  // after its successor is dropped.
  void RemakeLane(NewLane made);
  // Gives that lane up, if it is of that generation still: the target has, or hears nothing on it.
  void DropLane(size_t lane, uint16_t generation, absl::Status why);
  std::vector<LaneChange> TakeLaneChanges() { return lane_events_.Take(); }

  // Receipts from the peer, cumulative and unchecked: the worker refuses those that lie. Any
  // number; call Wake() after a batch. A lane's is a LaneCount().
  void PutLaneReceipt(size_t lane, uint64_t receipt) {
    lane_receipts_[lane].store(receipt, std::memory_order_relaxed);
    receipts_wait_.store(true, std::memory_order_release);
  }
  void PutLoaded(size_t device, uint32_t packets) {
    device_loaded_[device].store(packets, std::memory_order_relaxed);
    receipts_wait_.store(true, std::memory_order_release);
  }

  // Lanes have had room and nothing was ready (starved), or nothing that may be sent (stalled): in
  // all, and since when without a break; 0: they don't wait.
  Clock::Duration starved_time() const { return starved_.time(); }
  Clock::Duration stalled_time() const { return stalled_.time(); }
  Clock::Duration starved_since() const { return starved_.since(); }
  Clock::Duration stalled_since() const { return stalled_.since(); }

  // Every packet, config packets included, is with a lane, or is just being given to one.
  bool all_sent() const { return all_sent_.load(std::memory_order_acquire); }
  // The data_fds are closed: soon after all_sent(), and `events` is notified of it.
  bool streams_closed() const { return streams_closed_.load(std::memory_order_acquire); }
  const DeviceCounters& device_counters(size_t device) const { return device_counters_[device]; }
  const LaneCounters& lane_counters(size_t lane) const { return lane_counters_[lane]; }
  // The read that Stop() has to wait for.
  const BlockedCall& blocked_call(size_t device) const { return blocked_calls_[device]; }
  // Where a packet's trip is over now that `loaded` are loaded: what it took from the order to read
  // it. One at a time is timed, the first after an order. Session's thread only.
  std::optional<Clock::Duration> TakeTrip(size_t device, uint32_t loaded);

 private:
  // Given to a lane at once: one doorbell of a NIC, and one system call of soft-RoCE.
  static constexpr size_t kBurstPacketsMax = 16;

  struct DeviceSlot {
    std::unique_ptr<StateReader> reader;  // once there is a stream
    const Notifier* when_dry = nullptr;
    bool was_dry = false;
    uint64_t end_expected = 0;      // of the stream, in bytes from its begin; 0: not known
    Clock::Duration trip_began{0};  // the last order to read, until something has been read
    std::optional<std::string> config;
    std::optional<Packet> config_packet;
    bool config_made = false;
    uint32_t loaded_packets = 0;
    bool window_full = false;  // and not yet worth going on
  };
  // What the session wants of a device, until the worker takes it.
  struct Orders {
    UniqueFd data_fd;
    DeviceState state = DeviceState::kStopCopy;
    uint64_t bytes_expected = 0;
    const Notifier* when_dry = nullptr;
    bool read_again = false;
    Clock::Duration at{0};  // of the last of those
    bool enter_stop_copy = false;
    std::optional<std::string> config;
  };
  // Time that is spent waiting. Written by the worker; relaxed, statistics.
  class WaitTime {
   public:
    void Set(bool waiting) {
      const int64_t since_ns = since_ns_.load(std::memory_order_relaxed);
      if (waiting == (since_ns != 0)) return;
      const int64_t now_ns = Clock::Steady().Now().count();
      if (!waiting) time_ns_.fetch_add(now_ns - since_ns, std::memory_order_relaxed);
      since_ns_.store(waiting ? now_ns : 0, std::memory_order_relaxed);
    }
    Clock::Duration time() const {
      return Clock::Duration(time_ns_.load(std::memory_order_relaxed));
    }
    Clock::Duration since() const {
      return Clock::Duration(since_ns_.load(std::memory_order_relaxed));
    }

   private:
    std::atomic<int64_t> time_ns_{0};
    std::atomic<int64_t> since_ns_{0};
  };
  struct Sent {  // a packet that is with a lane
    Clock::Duration at{0};
    PacketHeader header;
  };
  struct LaneSlot {
    explicit LaneSlot(uint32_t queue_packets)
        : unreceipted(queue_packets), with_lane(queue_packets) {}
    FixedQueue<Packet> unreceipted;  // sent, back from the lane, not yet receipted; oldest first
    FixedQueue<Sent> with_lane;      // the lane has their buffers
    // Chosen for it in this round of SendPackets(), in the order of their lane_sequence.
    std::array<Buffer, kBurstPacketsMax> burst;
    std::array<PacketHeader, kBurstPacketsMax> burst_headers;
    size_t burst_packets = 0;
    bool up = true;
    uint16_t generation = 0;  // how often it was made before
    // Of this generation.
    uint64_t receipted_packets = 0;  // the target has them
    uint64_t freed_packets = 0;      // and they are back from the lane
  };
  struct Next {                    // the packet that goes out next, where it lies
    Packet* packet = nullptr;      // null: there is none
    DeviceSlot* device = nullptr;  // null: it goes out again
  };

  SourceWorker(std::vector<std::string> names, const Limits& limits, Arena& arena, Notifier inbox,
               const Notifier& events);
  absl::Status SetUp() override;
  absl::StatusOr<bool> Step() override;
  absl::StatusOr<bool> LookAtArmed(LaneSet lanes) override;
  void BeginTearDown() override;
  bool Idle() override;
  void TearDown() override;

  void Order(size_t device, const std::function<void(Orders&)>& put);
  void TakeOrders();
  absl::Status TakeReceipts();
  void ReadAtOnce();
  bool EnoughToSend() const;
  absl::Status PumpReaders();
  void PumpReader(size_t device);
  size_t NextPacketBytes() const;
  void TimeTrip(size_t device);
  void NoteHeld();
  absl::Status SendPackets();
  absl::Status GiveBurst(size_t lane);
  bool CollectSent(size_t lane);
  void NoteWaits();
  void NoteReceiptDue(size_t lane, bool progress);
  void NoteRest(size_t lane);
  void CountSent(size_t lane, const PacketHeader& header, size_t payload_bytes);
  void SendAgain(size_t lane, Packet packet);
  absl::Status MakeReadyAgain();
  void TraceReturn(size_t lane, const Sent& sent);
  void TakeLaneOrders() ABSL_EXCLUSIVE_LOCKS_REQUIRED(orders_mutex_);
  bool ForgetNewLane(size_t lane, uint16_t generation);
  void BringUpLanes();
  void LoseLane(size_t lane, absl::Status why);
  void CheckLanes();
  void NoteCompletion();
  void CloseStreams();
  // The next packet that may go out: what a dead lane had, then devices in turn; or nothing.
  Next FindNext();
  // Once its buffer has been taken.
  void Drop(const Next& next);
  bool MayTake(DeviceSlot& device, const Packet& packet) const;

  const Limits limits_;
  const uint64_t window_part_;  // what a full window opens by
  const std::vector<std::string> names_;
  std::vector<DeviceSlot> devices_;
  std::vector<LaneSlot> lane_slots_;
  LaneSchedule schedule_;
  Clock::Duration now_{0};  // as last looked
  size_t next_device_ = 0;
  bool lanes_wanted_ = false;   // a packet waits for a lane
  bool sends_first_ = false;    // before anything more is read at once
  bool look_again_ = false;     // another round has something to do
  bool reads_at_once_ = false;  // some reader does, or did
  bool ending_ = false;         // packets get smaller, so that lanes end together
  struct Again {
    size_t lane = 0;  // that it was on
    Packet packet;
  };
  std::array<Buffer, 16> returned_;  // by a lane that is being polled: empty in between
  FixedQueue<Again> again_;          // what dead lanes had, to be sent again
  std::vector<NewLane> new_lanes_;   // whose places are not free yet
  LaneEvents lane_events_;

  Mutex orders_mutex_;
  std::vector<Orders> orders_ ABSL_GUARDED_BY(orders_mutex_);
  struct LaneOrder {
    NewLane made;       // with a socket or a lane: to be used
    absl::Status drop;  // else why it is to be given up
  };
  std::vector<LaneOrder> lane_orders_ ABSL_GUARDED_BY(orders_mutex_);
  std::atomic<bool> orders_wait_{false};  // relaxed, a hint: the mutex orders what it is about
  std::atomic<bool> hold_reads_{false};   // relaxed: the notifier orders it
  std::atomic<bool> reads_held_{false};   // release by the worker, acquire by reads_held()

  // Written by the session's thread, read by the worker. Relaxed: the notifier orders them, and an
  // old value only delays.
  std::vector<std::atomic<uint64_t>> lane_receipts_;
  std::vector<std::atomic<uint32_t>> device_loaded_;
  std::atomic<bool> receipts_wait_{false};  // release covers the two before it, acquire to see them
  // Written by the worker.
  std::vector<DeviceCounters> device_counters_;
  std::vector<LaneCounters> lane_counters_;
  std::vector<BlockedCall> blocked_calls_;   // by device
  std::atomic<bool> all_sent_{false};        // release; covers the final counters
  std::atomic<bool> streams_closed_{false};  // release by the worker, acquire by streams_closed()
  WaitTime starved_;
  WaitTime stalled_;
};

}  // namespace godwit

#endif  // GODWIT_ENGINE_SOURCE_WORKER_H_
