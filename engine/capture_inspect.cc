#include "engine/capture_inspect.h"

#include <absl/strings/str_format.h>

#include <optional>

#include "base/status_macros.h"
#include "engine/buffer_budget.h"

namespace godwit {
namespace {

// Whether the packet is the next of its device; if so, counts it in.
absl::Status Continue(const PacketHeader& header, InspectedDevice& device) {
  if (device.complete) {
    return absl::DataLossError(absl::StrFormat(
        "packet %u of device %u comes after its config packet", header.index, header.device));
  }
  if (header.index != device.packets) {
    return absl::DataLossError(absl::StrFormat("packet %u of device %u, due is %u", header.index,
                                               header.device, device.packets));
  }
  if (header.stream_offset != device.bytes || header.crc_before != device.stream_crc) {
    return absl::DataLossError(
        absl::StrFormat("it does not continue the stream: it stands at byte %u with CRC 0x%08x "
                        "before it, but %u bytes with CRC 0x%08x have come",
                        header.stream_offset, header.crc_before, device.bytes, device.stream_crc));
  }
  return absl::OkStatus();
}

void Count(const PacketHeader& header, InspectedDevice& device) {
  ++device.packets;
  if (header.is_config()) {
    device.complete = true;
    device.config_bytes = header.payload_bytes - kConfigMarkBytes;
    return;
  }
  device.bytes += header.payload_bytes;
  device.stream_crc = header.crc_after;
}

}  // namespace

absl::Status InspectCapture(CaptureReader& reader, InspectSink& sink,
                            std::vector<InspectedDevice>& devices) {
  const CaptureHeader& capture = reader.header();
  const PacketLimits limits = {capture.packet_bytes, capture.devices.size()};
  devices.assign(capture.devices.size(), {});
  std::vector<std::byte> frame(kFrameHeaderBytes + PayloadBytesMax(capture.packet_bytes));
  while (true) {
    GODWIT_ASSIGN_OR_RETURN(const std::optional<size_t> frame_bytes, reader.NextFrameBytes());
    if (!frame_bytes.has_value()) return absl::OkStatus();
    GODWIT_RETURN_IF_ERROR(reader.ReadFrame(frame.data()));
    const auto payload =
        absl::MakeConstSpan(frame).subspan(kFrameHeaderBytes, *frame_bytes - kFrameHeaderBytes);
    InspectedPacket packet;
    packet.record = reader.record();
    packet.file_offset = reader.record_offset();
    packet.payload_bytes = payload.size();
    const auto header = DecodePacketHeader(frame.data(), payload.size());
    absl::Status judged = header.status();
    if (header.ok()) {
      packet.header_ok = true;
      packet.header = *header;
      packet.payload_ok = PayloadMatches(*header, payload);
      judged = CheckPacket(*header, payload, limits, packet.record);
    }
    if (judged.ok() && header->is_config()) judged = DecodeConfigPayload(payload).status();
    if (judged.ok()) judged = Continue(*header, devices[header->device]);
    if (judged.ok()) {
      Count(*header, devices[header->device]);
    } else {
      packet.problem = std::string(judged.message());
      if (header.ok() && header->device < devices.size()) ++devices[header->device].bad_packets;
    }
    sink.OnPacket(packet, payload);
  }
}

}  // namespace godwit
