// How a stream's last packets get smaller, so that lanes end together.
#ifndef GODWIT_ENGINE_LAST_PACKETS_H_
#define GODWIT_ENGINE_LAST_PACKETS_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace godwit {

// Smaller ones cost more by their number than they win.
inline constexpr size_t kLastPacketBytesMin = size_t{64} << 10;
// What is unread is cut into so many packets a lane, and so many chains of them, at least.
inline constexpr uint64_t kLastPackets = 2;

// Of the next packet, where `unread_bytes` are left of all devices: the less, the smaller, in whole
// pages, since device memory is read in these; at most `packet_bytes`, and no smaller than that
// or kLastPacketBytesMin. REQUIRES: lanes > 0
inline size_t PacketBytesTowardsTheEnd(uint64_t unread_bytes, uint32_t lanes,
                                       uint32_t chain_packets, size_t packet_bytes) {
  constexpr size_t kPageBytes = 4096;
  const uint64_t share = unread_bytes / (kLastPackets * std::max(lanes, chain_packets));
  if (share >= packet_bytes) return packet_bytes;
  const size_t smallest = std::min(packet_bytes, kLastPacketBytesMin);
  return std::max<size_t>(share / kPageBytes * kPageBytes, smallest);
}

}  // namespace godwit

#endif  // GODWIT_ENGINE_LAST_PACKETS_H_
