#include "engine/buffer_budget.h"

#include <algorithm>

#include "base/arena.h"
#include "base/units.h"
#include "engine/packet.h"

namespace godwit {
namespace {

// Enough for a round trip at the rates that a lane reaches; more only costs cache.
constexpr size_t kQueueBytes = 8 * kMiB;
// A device's window, in all lanes' queues: a lane that is late holds the others up only when each
// has carried its queue several times. One lane alone keeps its order: its window only covers what
// is loaded before the source hears of it. Memory that is never used still costs its first touch.
constexpr size_t kWindowQueues = 4;
constexpr size_t kWindowQueuesOfOneLane = 2;
constexpr size_t kChainBytes = 4 * kMiB;

uint32_t ClampTo(size_t value, uint32_t low, uint32_t high) {
  return static_cast<uint32_t>(std::clamp<size_t>(value, low, high));
}

}  // namespace

size_t PayloadBytesMax(size_t packet_bytes) {
  return std::max(packet_bytes, kConfigPayloadBytesMax);
}

TargetBudget PlanTarget(size_t arena_bytes, uint32_t devices, uint32_t lanes, size_t packet_bytes,
                        bool receives_are_posted_ahead) {
  const size_t buffers = arena_bytes / Arena::StrideBytes(PayloadBytesMax(packet_bytes));
  TargetBudget budget;
  budget.queue_packets =
      ClampTo(kQueueBytes / std::max<size_t>(packet_bytes, 1), kQueuePacketsMin, kQueuePacketsMax);
  budget.receive_packets = kTcpReceivePackets;
  if (receives_are_posted_ahead) {
    // Never so many that the windows' minimum would need a larger arena than was given.
    const size_t windows_min = size_t{devices} * kWindowPacketsMin;
    const size_t lanes_share =
        std::min(buffers / 2, buffers > windows_min ? buffers - windows_min : 0);
    budget.queue_packets = ClampTo(std::min<size_t>(budget.queue_packets, lanes_share / lanes),
                                   kQueuePacketsMin, kQueuePacketsMax);
    budget.receive_packets = budget.queue_packets;
  }
  const size_t for_lanes = size_t{lanes} * budget.receive_packets;
  const size_t for_windows = buffers > for_lanes ? buffers - for_lanes : 0;
  const size_t queues = lanes == 1 ? kWindowQueuesOfOneLane : kWindowQueues * lanes;
  const size_t window_of_use = queues * budget.queue_packets;
  budget.window_packets =
      ClampTo(std::min(for_windows / devices, window_of_use), kWindowPacketsMin, kWindowPacketsMax);
  budget.buffers = for_lanes + size_t{devices} * budget.window_packets;
  return budget;
}

SourceBudget PlanSource(size_t arena_bytes, uint32_t devices, uint32_t lanes, size_t packet_bytes,
                        uint32_t queue_packets) {
  const size_t buffers = arena_bytes / Arena::StrideBytes(PayloadBytesMax(packet_bytes));
  SourceBudget budget;
  // Three chains a device (one being read, two ahead) in three quarters of the arena at most.
  const size_t chain_share = buffers / 4 / devices;
  budget.chain_packets =
      ClampTo(std::min(kChainBytes / packet_bytes, chain_share), 1, kChainPacketsMax);
  const size_t readers = size_t{devices} * kSourceChains * budget.chain_packets;
  // More than every queue full is of no use; one a lane is enough to go on.
  budget.buffers = std::clamp(buffers, readers + lanes, readers + size_t{lanes} * queue_packets);
  budget.unreceipted_packets = static_cast<uint32_t>(budget.buffers - readers);
  return budget;
}

}  // namespace godwit
