// Puts one device's packets back in order, whatever lanes they came on.
#ifndef GODWIT_ENGINE_REORDER_WINDOW_H_
#define GODWIT_ENGINE_REORDER_WINDOW_H_

#include <absl/base/thread_annotations.h>
#include <absl/status/status.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/mutex.h"
#include "engine/packet.h"

namespace godwit {

// Holds packets `loaded` ≤ index < `loaded + window`, where `loaded` counts those that are written.
// The worker inserts, the loader takes in index order; of a device that takes its bytes at once the
// worker may take them itself, which never has more than one packet out at a time.
//
// Ownership: owns the packets between Insert() and WaitNext() or TakeData().
// Threads:   Insert(), TakeData(), PutBack() and WakeLoader() from the worker; WaitNext() from the
//            loader; MarkLoaded() from who has the packet; the rest from any. What one of them did
//            before MarkLoaded() or PutBack() happens before the other has the next packet. Lock
//            order: window lock → device lock; both ways to take a packet return with it dropped.
// Blocking:  WaitNext() blocks until the next packet is there or the window is stopped, and while
//            the worker has one out.
// Errors:    a refused packet changes nothing and stays with the caller.
class ReorderWindow {
 public:
  // REQUIRES: window_packets > 0
  explicit ReorderWindow(uint32_t window_packets);

  // AlreadyExists: this index has been here. OutOfRange: at or past loaded + window, or after the
  // config packet. Otherwise takes the packet.
  absl::Status Insert(Packet&& packet);

  // The next packet in order, or nothing once Stop() was called.
  std::optional<Packet> WaitNext();
  // The packet that was taken last is written and its buffer free: the window moves on. Returns
  // whether the next packet is there already (if not, now is the time for a receipt).
  bool MarkLoaded();

  // From now on Insert() wakes no loader: whoever inserts calls TakeData() and then WakeLoader().
  // REQUIRES: no packet was inserted yet
  void LetInserterLoad();
  // The next packet in order for the worker, or nothing: if it is not there, if it is the config
  // packet, if the loader has one out, or once Stop() was called.
  std::optional<Packet> TakeData();
  // The packet from TakeData() goes back as the next one, for the loader, which is woken.
  void PutBack(Packet&& packet);
  // Wakes the loader if the next packet is there.
  void WakeLoader();

  // Makes WaitNext() return nothing from now on.
  void Stop();

  uint32_t loaded_packets() const;
  // Packets that had to wait for one with a lower index.
  uint64_t out_of_order_packets() const;
  // The most packets that were ever held at once.
  uint32_t depth_high_water() const;
  // Whether the config packet and all before it have been inserted.
  bool complete() const;

 private:
  Packet& Slot(uint32_t index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return slots_[index % slots_.size()];
  }
  // After the first that was missing has come. `end`: of the window.
  void FindContiguous(uint64_t end) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable Mutex mutex_;
  CondVar next_is_there_;
  std::vector<Packet> slots_ ABSL_GUARDED_BY(mutex_);  // an empty Buffer marks a free slot
  uint32_t loaded_packets_ ABSL_GUARDED_BY(mutex_) = 0;
  uint32_t next_index_ ABSL_GUARDED_BY(mutex_) = 0;  // what WaitNext() gives next
  uint32_t held_packets_ ABSL_GUARDED_BY(mutex_) = 0;
  uint32_t depth_high_water_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t out_of_order_packets_ ABSL_GUARDED_BY(mutex_) = 0;
  uint32_t contiguous_packets_ ABSL_GUARDED_BY(mutex_) = 0;  // all indexes below have come
  std::optional<uint32_t> config_index_ ABSL_GUARDED_BY(mutex_);
  std::optional<uint32_t> highest_index_ ABSL_GUARDED_BY(mutex_);
  bool inserter_loads_ ABSL_GUARDED_BY(mutex_) = false;
  bool worker_has_one_ ABSL_GUARDED_BY(mutex_) = false;  // from TakeData()
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace godwit

#endif  // GODWIT_ENGINE_REORDER_WINDOW_H_
