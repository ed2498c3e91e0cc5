// Writes one device's packets to the device, in order, on a thread of its own.
#ifndef GODWIT_ENGINE_LOADER_H_
#define GODWIT_ENGINE_LOADER_H_

#include <absl/status/status.h>
#include <absl/strings/string_view.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/notifier.h"
#include "engine/blocked_call.h"
#include "engine/reorder_window.h"
#include "godwit/device.h"
#include "godwit/statistics.h"
#include "godwit/stream_check.h"
#include "godwit/unique_fd.h"

namespace godwit {

// From RESUMING to "loaded": writes the data packets, checks length and digest against the config
// packet, takes the device from RESUMING to STOP (where drivers validate), applies the config.
//
// A file in memory takes bytes by a copy, and waits for nothing. With few processors to run on it
// costs less when the thread that has just received a packet writes it, while it is in that
// processor's cache, than when another is woken to do so: the worker then helps. A driver may wait
// for its device: there the worker helps once eight writes of the thread's have taken little time,
// and never after one that has not.
//
// Ownership: owns the data_fd, the check and the thread; borrows device, window and notifier.
// Threads:   Start(), AskToStop(), Stop() and the destructor one at a time, the destructor after
//            the last Help(); Help() from who inserts into the window; the rest from any. While it
//            runs nobody else calls the device's methods. Lock order: window lock → device lock;
//            the window lock is never held across a write.
// Blocking:  Stop() waits for a write or state change that is under way; AskToStop() does not.
// Errors:    the first is final. The device is then still in RESUMING, STOP or ERROR: reset it.
class Loader {
 public:
  enum class Phase { kLoading, kLoaded, kFailed };

  // `progress` is notified when a receipt is due and when the phase changes. `check`, where it
  // isn't null, sees every payload before the device does.
  Loader(Device& device, UniqueFd data_fd, ReorderWindow& window, uint32_t window_packets,
         const Notifier& progress, std::unique_ptr<StreamCheck> check = nullptr);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  // Before Start(): the config packet's content goes there instead of to the device.
  void LoadConfigBy(std::function<absl::Status(absl::string_view config)> load_config) {
    load_config_ = std::move(load_config);
  }

  // Before Start(): where the spans of its writes go; `number` is the device's.
  void SetTrace(TraceSink* trace, uint32_t number) {
    trace_ = trace;
    number_ = number;
  }

  // Before Start() and the first packet: lets the worker help, if the data_fd is a file in memory
  // or, with `driver`, a driver's, and there is no check.
  void LetWorkerHelp(bool driver);
  // From now on that the next packet is not there makes no receipt due.
  void HoldReceipts() { hold_receipts_.store(true, std::memory_order_relaxed); }
  // Of how many the source has heard that they are loaded, or is to hear now.
  uint32_t announced_packets() const { return announced_packets_.load(std::memory_order_relaxed); }
  // The source hears that so many packets are loaded. From any thread.
  void AnnouncedLoaded(uint32_t packets) {
    announced_packets_.store(packets, std::memory_order_relaxed);
  }
  // After each packet that was put into the window: writes what can be written at once, or leaves
  // it to the loader's thread. What goes wrong is left to it as well. May run before Start(). True
  // if a receipt is due, held or not, since half of the window has been written since the last.
  bool Help();

  void Start();
  void AskToStop();
  void Stop();

  Phase phase() const { return phase_.load(std::memory_order_acquire); }
  // REQUIRES: phase() == kFailed
  const absl::Status& status() const { return status_; }
  // What Stop() has to wait for.
  const BlockedCall& blocked_call() const { return blocked_call_; }
  // In write(2) to the device.
  Clock::Duration write_time() const {
    return Clock::Duration(write_ns_.load(std::memory_order_relaxed));
  }
  // Packets that the worker has written.
  uint64_t helped_packets() const { return helped_packets_.load(std::memory_order_relaxed); }
  ReorderWindow& window() const { return window_; }
  uint64_t loaded_bytes() const { return loaded_bytes_.load(std::memory_order_relaxed); }
  // The digest of what was loaded. REQUIRES: phase() == kLoaded
  uint32_t stream_crc() const { return stream_crc_; }

 private:
  void Run();
  absl::Status LoadAll();
  absl::Status Check(const absl::Status& checked) const;
  absl::Status Write(absl::Span<const std::byte> bytes);
  bool ReceiptDue(uint32_t loaded_packets, bool next_is_there) const;
  bool Continues(const PacketHeader& header) const;
  bool WriteAtOnce(const Packet& packet);
  void NoteLoaded(const PacketHeader& header);
  Clock::Duration NoteWrite(const PacketHeader& header, Clock::Duration began, size_t bytes);
  absl::Status Finish(const Packet& config);

  Device& device_;
  ReorderWindow& window_;
  const uint32_t packets_a_receipt_;
  const uint32_t half_window_;
  // Both relaxed: an old value costs a receipt.
  std::atomic<bool> hold_receipts_{false};
  std::atomic<uint32_t> announced_packets_{0};
  const Notifier& progress_;
  const std::unique_ptr<StreamCheck> check_;  // the thread's while it runs
  std::function<absl::Status(absl::string_view config)> load_config_;
  TraceSink* trace_ = nullptr;
  uint32_t number_ = 0;

  // Of who has a packet out of the window, loader or worker; its lock hands them on.
  UniqueFd data_fd_;
  uint32_t stream_crc_ = 0;
  size_t next_done_bytes_ = 0;  // of the next packet: the worker wrote them before it gave up
  int next_error_ = 0;          // errno of the write with which it did, 0: of none
  // Relaxed, atomic for who looks without a packet: a write of whoever took its time; writes of the
  // thread's.
  std::atomic<bool> was_slow_{false};
  std::atomic<uint32_t> tried_writes_{0};
  // Owned by the thread while it runs.
  absl::Status status_;

  // The worker's.
  bool helped_ = false;
  bool drivers_ = false;       // the data_fd is
  uint32_t left_packets_ = 0;  // that are left to the thread before the worker helps again

  std::atomic<bool> stopped_{false};    // ends a wait for a full fd; relaxed, joined after
  const std::optional<Notifier> stop_;  // the same, at once; none where there was no fd for it
  BlockedCall blocked_call_;
  // Relaxed: for who writes, the window's lock orders it; for others it is a statistic.
  std::atomic<uint64_t> loaded_bytes_{0};
  std::atomic<int64_t> write_ns_{0};         // a statistic: relaxed
  std::atomic<uint64_t> helped_packets_{0};  // the same
  // Release by the loader, acquire by phase(): makes status_ and stream_crc_ readable.
  std::atomic<Phase> phase_{Phase::kLoading};
  std::thread thread_;
};

}  // namespace godwit

#endif  // GODWIT_ENGINE_LOADER_H_
