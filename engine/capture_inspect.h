// Goes through a capture without any device.
#ifndef GODWIT_ENGINE_CAPTURE_INSPECT_H_
#define GODWIT_ENGINE_CAPTURE_INSPECT_H_

#include <absl/status/status.h>
#include <absl/types/span.h>

#include <cstdint>
#include <string>
#include <vector>

#include "engine/capture_reader.h"
#include "engine/packet.h"

namespace godwit {

struct InspectedPacket {
  uint64_t record = 0;
  uint64_t file_offset = 0;  // of its length
  size_t payload_bytes = 0;
  bool header_ok = false;
  PacketHeader header;      // where header_ok
  bool payload_ok = false;  // its CRCs
  std::string problem;      // why loading would refuse it; "": it would not
};

// What the packets of one device come to, as far as they are right.
struct InspectedDevice {
  uint64_t bytes = 0;
  uint64_t packets = 0;
  uint64_t bad_packets = 0;
  uint32_t stream_crc = 0;
  size_t config_bytes = 0;
  bool complete = false;  // the config packet has come, and all before it
};

class InspectSink {
 public:
  virtual ~InspectSink() = default;
  // `payload`: whatever the record holds after its header.
  virtual void OnPacket(const InspectedPacket& packet, absl::Span<const std::byte> payload) = 0;
};

// Tells `sink` of every packet, goes on after one that is damaged, and ends where it is no longer
// known where the next one would be: that is the error. `devices` has one for each of the table.
absl::Status InspectCapture(CaptureReader& reader, InspectSink& sink,
                            std::vector<InspectedDevice>& devices);

}  // namespace godwit

#endif  // GODWIT_ENGINE_CAPTURE_INSPECT_H_
