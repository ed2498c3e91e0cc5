// How many buffers each side of a session has, and what they are for: docs/buffer-budget.md.
#ifndef GODWIT_ENGINE_BUFFER_BUDGET_H_
#define GODWIT_ENGINE_BUFFER_BUDGET_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace godwit {

inline constexpr uint32_t kWindowPacketsMin = 4;
inline constexpr uint32_t kWindowPacketsMax = 4096;
inline constexpr uint32_t kQueuePacketsMin = 4;
inline constexpr uint32_t kQueuePacketsMax = 256;
inline constexpr uint32_t kChainPacketsMax = 8;
// Receives that a TCP lane needs: the message that is coming in. The next one waits in the socket
// until this one has been taken; and the buffer that is free by then is in the near caches.
inline constexpr uint32_t kTcpReceivePackets = 1;

// REQUIRES (both): devices, lanes and packet_bytes within the limits of docs/wire-format.md.
struct TargetBudget {
  uint32_t window_packets = 0;   // a device
  uint32_t queue_packets = 0;    // unreceipted frames a lane: what Welcome says
  uint32_t receive_packets = 0;  // receives posted a lane
  size_t buffers = 0;            // the arena's
};
// Gives half of `arena_bytes` at most to the lanes' receives and the rest to the windows. Where the
// minimum of 4 packets each needs more than `arena_bytes`, the arena is that much larger.
TargetBudget PlanTarget(size_t arena_bytes, uint32_t devices, uint32_t lanes, size_t packet_bytes,
                        bool receives_are_posted_ahead);

struct SourceBudget {
  uint32_t chain_packets = 0;        // reads a chain
  size_t buffers = 0;                // the arena's
  uint32_t unreceipted_packets = 0;  // so many may be so, and all readers still read ahead
};
// What a reader can hold: a chain being read into, and two that are ready to be sent.
inline constexpr uint32_t kSourceChains = 3;
// As much as keeps every reader and every lane busy, within `arena_bytes`; but never less than
// three packets a device and one a lane, with which the session still goes on.
SourceBudget PlanSource(size_t arena_bytes, uint32_t devices, uint32_t lanes, size_t packet_bytes,
                        uint32_t queue_packets);

// What a buffer must hold: a data packet or the config packet, whichever is larger.
size_t PayloadBytesMax(size_t packet_bytes);

// Of a device's window: what is worth a receipt, and going on for, once it is full. An eighth; of a
// small one up to four packets, so that they don't come one by one.
constexpr uint32_t WindowPart(uint32_t window_packets) {
  return std::max({window_packets / 8, std::min<uint32_t>(window_packets / 4, 4), uint32_t{1}});
}

}  // namespace godwit

#endif  // GODWIT_ENGINE_BUFFER_BUDGET_H_
