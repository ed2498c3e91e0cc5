// Packets in Buffers, made from wire images.
#ifndef GODWIT_TESTS_ENGINE_PACKETS_H_
#define GODWIT_TESTS_ENGINE_PACKETS_H_

#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "engine/packet.h"
#include "tests/engine/wire_image.h"

namespace godwit {

inline std::string PayloadOf(const Packet& packet) {
  return std::string(reinterpret_cast<const char*>(packet.buffer.payload()),
                     packet.buffer.payload_bytes());
}

// What a lane hands on: the image's fields and payload, in one of the arena's buffers.
inline Packet PacketOf(const wire::Frame& frame, Arena& arena) {
  Packet packet;
  packet.header.device = frame.device;
  packet.header.payload_bytes = static_cast<uint32_t>(frame.payload.size());
  packet.header.lane_sequence = frame.lane_sequence;
  packet.header.stream_offset = frame.stream_offset;
  packet.header.crc_before = frame.crc_before;
  packet.header.crc_after = frame.crc_after;
  packet.header.config_crc = frame.config_crc;
  packet.header.index = frame.index;
  packet.header.flags = frame.flags;
  packet.buffer = arena.TryAcquire();
  EXPECT_TRUE(packet.buffer) << "the test's arena is empty";
  std::memcpy(packet.buffer.payload(), frame.payload.data(), frame.payload.size());
  packet.buffer.set_payload_bytes(frame.payload.size());
  return packet;
}

}  // namespace godwit

#endif  // GODWIT_TESTS_ENGINE_PACKETS_H_
