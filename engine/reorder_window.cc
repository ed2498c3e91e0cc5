#include "engine/reorder_window.h"

#include <absl/strings/str_format.h>

#include <algorithm>

#include "base/check.h"

namespace godwit {

ReorderWindow::ReorderWindow(uint32_t window_packets) {
  GODWIT_CHECK(window_packets > 0);
  MutexLock lock(mutex_);
  slots_.resize(window_packets);
}

absl::Status ReorderWindow::Insert(Packet&& packet) {
  const uint32_t index = packet.header.index;
  MutexLock lock(mutex_);
  const uint64_t end = uint64_t{loaded_packets_} + slots_.size();
  if (index >= end || index == kPacketIndexInvalid) {
    return absl::OutOfRangeError(
        absl::StrFormat("packet index %u is past the window, which ends before %u", index, end));
  }
  // Taken but not yet loaded packets are in nobody's slot, so compare with next_index_.
  Packet& slot = Slot(index);
  if (index < next_index_ || slot.buffer) {
    return absl::AlreadyExistsError(absl::StrFormat("packet index %u has come before", index));
  }
  if (config_index_.has_value() && (index > *config_index_ || packet.header.is_config())) {
    return absl::OutOfRangeError(absl::StrFormat(
        "packet index %u comes after the config packet, %u", index, *config_index_));
  }
  if (packet.header.is_config() && highest_index_.has_value() && *highest_index_ > index) {
    return absl::OutOfRangeError(absl::StrFormat(
        "config packet has index %u, but packet %u has come before it", index, *highest_index_));
  }

  if (packet.header.is_config()) config_index_ = index;
  highest_index_ = std::max(highest_index_.value_or(0), index);
  if (index != contiguous_packets_) ++out_of_order_packets_;
  slot = std::move(packet);
  ++held_packets_;
  depth_high_water_ = std::max(depth_high_water_, held_packets_);
  if (index == contiguous_packets_) FindContiguous(end);
  if (index == next_index_ && !inserter_loads_) next_is_there_.NotifyOne();
  return absl::OkStatus();
}

void ReorderWindow::FindContiguous(uint64_t end) {
  while (++contiguous_packets_ < end) {
    const Packet& next = Slot(contiguous_packets_);
    if (!next.buffer || next.header.index != contiguous_packets_) return;
  }
}

std::optional<Packet> ReorderWindow::WaitNext() {
  MutexLock lock(mutex_);
  while (worker_has_one_ || (!stopped_ && !Slot(next_index_).buffer)) next_is_there_.Wait(mutex_);
  if (stopped_) return std::nullopt;
  Packet packet = std::move(Slot(next_index_));
  ++next_index_;
  --held_packets_;
  return packet;
}

bool ReorderWindow::MarkLoaded() {
  MutexLock lock(mutex_);
  GODWIT_CHECK(loaded_packets_ < next_index_);
  ++loaded_packets_;
  worker_has_one_ = false;
  if (stopped_) next_is_there_.NotifyAll();
  return static_cast<bool>(Slot(next_index_).buffer);
}

void ReorderWindow::LetInserterLoad() {
  MutexLock lock(mutex_);
  inserter_loads_ = true;
}

std::optional<Packet> ReorderWindow::TakeData() {
  MutexLock lock(mutex_);
  const bool one_is_out = loaded_packets_ != next_index_;
  if (stopped_ || one_is_out || !Slot(next_index_).buffer) return std::nullopt;
  if (Slot(next_index_).header.is_config()) return std::nullopt;
  Packet packet = std::move(Slot(next_index_));
  ++next_index_;
  --held_packets_;
  worker_has_one_ = true;
  return packet;
}

void ReorderWindow::PutBack(Packet&& packet) {
  MutexLock lock(mutex_);
  GODWIT_CHECK(worker_has_one_);
  worker_has_one_ = false;
  --next_index_;
  ++held_packets_;
  Slot(next_index_) = std::move(packet);
  next_is_there_.NotifyAll();
}

void ReorderWindow::WakeLoader() {
  MutexLock lock(mutex_);
  if (Slot(next_index_).buffer) next_is_there_.NotifyOne();
}

void ReorderWindow::Stop() {
  MutexLock lock(mutex_);
  stopped_ = true;
  next_is_there_.NotifyAll();
}

uint32_t ReorderWindow::loaded_packets() const {
  MutexLock lock(mutex_);
  return loaded_packets_;
}

uint64_t ReorderWindow::out_of_order_packets() const {
  MutexLock lock(mutex_);
  return out_of_order_packets_;
}

uint32_t ReorderWindow::depth_high_water() const {
  MutexLock lock(mutex_);
  return depth_high_water_;
}

bool ReorderWindow::complete() const {
  MutexLock lock(mutex_);
  return config_index_.has_value() && contiguous_packets_ > *config_index_;
}

}  // namespace godwit
