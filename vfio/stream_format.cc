#include "vfio/stream_format.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "vfio/step_parser.h"

namespace godwit {
namespace {

using Bytes = absl::Span<const std::byte>;

struct NamedFormat {
  StreamFormat format;
  absl::string_view name;
};
constexpr std::array<NamedFormat, 8> kFormats = {{{StreamFormat::kRaw, "raw"},
                                                  {StreamFormat::kMlx5, "mlx5"},
                                                  {StreamFormat::kVirtio, "virtio"},
                                                  {StreamFormat::kMtty, "mtty"},
                                                  {StreamFormat::kQat, "qat"},
                                                  {StreamFormat::kXe, "xe"},
                                                  {StreamFormat::kHisi, "hisi"},
                                                  {StreamFormat::kPds, "pds"}}};

constexpr size_t kFrameHeadBytes = 16;  // of mlx5's and virtio's records
constexpr uint32_t kFrameOptional = 1U << 0;
constexpr uint32_t kTagData = 0;      // both: the device's own state
constexpr uint32_t kTagStopCopy = 1;  // mlx5: how much is expected to come after PRE_COPY
constexpr uint64_t kStopCopyBytes = 8;

constexpr size_t kPartHeadBytes = 16;
constexpr uint8_t kPartOptional = 1;
constexpr uint16_t kPartDeviceSpecific = 0x200;  // and above: what it means depends on the device
constexpr std::array<absl::string_view, 6> kPartNames = {
    "DEV_FEATURES", "DRV_FEATURES", "PCI_COMMON_CFG", "DEVICE_STATUS", "VQ_CFG", "VQ_NOTIFY_CFG"};
constexpr uint16_t kPartFirst = 0x100;

constexpr uint8_t kXeDescriptor = 1;
constexpr uint8_t kXeTrailer = 2;
constexpr std::array<absl::string_view, 7> kXeNames = {"",     "DESCRIPTOR", "TRAILER", "GGTT",
                                                       "MMIO", "GUC",        "VRAM"};

uint64_t Little(Bytes bytes, size_t at, size_t size) {
  uint64_t value = 0;
  for (size_t i = size; i-- > 0;) value = value << 8 | std::to_integer<uint64_t>(bytes[at + i]);
  return value;
}
uint16_t Little16(Bytes bytes, size_t at) { return static_cast<uint16_t>(Little(bytes, at, 2)); }
uint32_t Little32(Bytes bytes, size_t at) { return static_cast<uint32_t>(Little(bytes, at, 4)); }
uint64_t Little64(Bytes bytes, size_t at) { return Little(bytes, at, 8); }

bool IsCommonPart(uint16_t type) {
  return type >= kPartFirst && type < kPartFirst + kPartNames.size();
}

class RawParser final : public StepParser {
 public:
  RawParser(StreamSink& sink, uint64_t bytes_max) : StepParser(sink) { SkipRest("", bytes_max); }

 private:
  void OnHead(Bytes /*head*/) override {}
  void OnSkipped() override {}
  bool MayEnd() const override { return true; }
};

// mlx5 and virtio: le64 size, le32 flags, le32 tag, payload; and so on until the end.
class FramedParser final : public StepParser {
 public:
  FramedParser(StreamSink& sink, StreamFormat format)
      : StepParser(sink), virtio_(format == StreamFormat::kVirtio) {
    NextRecord();
  }

 private:
  void OnHead(Bytes head) override { in_parts_ ? OnPart(head) : OnRecord(head); }
  void OnSkipped() override { in_parts_ ? NextPart() : NextRecord(); }
  bool MayEnd() const override { return !in_parts_; }

  void NextRecord() {
    in_parts_ = false;
    Collect(kFrameHeadBytes, "a record's header");
  }

  void OnRecord(Bytes head) {
    const uint32_t flags = Little32(head, 8);
    const uint32_t tag = Little32(head, 12);
    StreamRecord record;
    record.kind = "record";
    record.header_bytes = kFrameHeadBytes;
    record.payload_bytes = Little64(head, 0);
    record.fields = {
        {"size", record.payload_bytes}, {"flags", flags, true}, {"tag", tag, /*hex=*/true}};
    const bool optional = (flags & kFrameOptional) != 0;
    if (tag == kTagData) {
      record.name = virtio_ ? "DEVICE_DATA" : "FW_DATA";
    } else if (tag == kTagStopCopy && !virtio_) {
      record.name = "STOP_COPY_SIZE";
    } else if (!optional) {
      record.problem = absl::StrFormat("its tag 0x%x is mandatory, and %s does not know it", tag,
                                       virtio_ ? "virtio" : "mlx5");
    }
    record_left_ = record.payload_bytes;
    in_parts_ = virtio_ && tag == kTagData && record_left_ > 0;
    Begin(std::move(record));
    in_parts_ ? NextPart() : SkipPayload();
  }

  void NextPart() {
    if (record_left_ == 0) return NextRecord();
    if (record_left_ < kPartHeadBytes) {
      const uint64_t cut = std::exchange(record_left_, 0);
      return SkipAs("bytes", "", cut, /*depth=*/1, "its record ends in a device part's header");
    }
    Collect(kPartHeadBytes, "a device part's header");
  }

  void OnPart(Bytes head) {
    record_left_ -= kPartHeadBytes;
    const uint16_t type = Little16(head, 0);
    const auto flags = std::to_integer<uint8_t>(head[2]);
    const auto reserved = std::to_integer<unsigned>(head[3]);
    StreamRecord part;
    part.kind = "part";
    part.depth = 1;
    part.header_bytes = kPartHeadBytes;
    part.payload_bytes = Little32(head, 12);
    part.fields = {{"type", type, true},
                   {"flags", flags, true},
                   {"selector", Little64(head, 4)},
                   {"length", part.payload_bytes}};
    if (IsCommonPart(type)) {
      part.name = std::string(kPartNames[type - kPartFirst]);
    } else if (type >= kPartDeviceSpecific) {
      part.name = "device specific";
    } else if ((flags & kPartOptional) == 0) {
      part.problem =
          absl::StrFormat("its type 0x%x is mandatory, and virtio does not know it", type);
    }
    if (reserved != 0) part.problem = absl::StrFormat("its reserved byte is 0x%02x", reserved);
    const uint64_t length = part.payload_bytes;
    if (length > record_left_) {
      part.problem = absl::StrFormat("its value has %u bytes, but its record ends after %u", length,
                                     record_left_);
      part.payload_bytes = record_left_;
    }
    record_left_ -= part.payload_bytes;
    Begin(std::move(part));
    SkipPayload();
  }

  const bool virtio_;
  bool in_parts_ = false;
  uint64_t record_left_ = 0;
};

// The kernel's sample device: magic, versions, number of ports; then the ports.
class MttyParser final : public StepParser {
 public:
  explicit MttyParser(StreamSink& sink) : StepParser(sink) {
    Collect(kMttyHeaderBytes, "its header");
  }

 private:
  bool MayEnd() const override { return false; }

  void OnHead(Bytes head) override {
    const uint64_t magic = Little64(head, 0);
    const uint32_t major = Little32(head, 8);
    ports_left_ = Little32(head, 16);
    StreamRecord header;
    header.kind = "header";
    header.header_bytes = kMttyHeaderBytes;
    header.fields = {{"magic", magic, true},
                     {"major_version", major},
                     {"minor_version", Little32(head, 12)},
                     {"ports", ports_left_},
                     {"flags", Little32(head, 20), true}};
    if (magic != kMttyMagic) {
      header.problem = absl::StrFormat("its magic is 0x%016x, expected 0x%016x", magic, kMttyMagic);
    } else if (major != kMttyMajorVersion) {
      header.problem =
          absl::StrFormat("its version is %u, mtty knows %u", major, kMttyMajorVersion);
    } else if (ports_left_ < 1 || ports_left_ > kMttyPortsMax) {
      header.problem =
          absl::StrFormat("it has %u ports, mtty has 1 to %u", ports_left_, kMttyPortsMax);
    } else {
      header.name = "mtty";
    }
    const bool right = header.problem.empty();
    Begin(std::move(header));
    right ? OnSkipped() : SkipRest("");
  }

  void OnSkipped() override {
    if (ports_left_ == 0) return ExpectEnd();
    --ports_left_;
    SkipAs("port", "", kMttyPortBytes, /*depth=*/0, "");
  }

  uint32_t ports_left_ = 0;
};

// A preamble, sections, padding: 4096 bytes together.
class QatParser final : public StepParser {
 public:
  explicit QatParser(StreamSink& sink) : StepParser(sink) {
    Collect(kQatPreambleBytes, "its preamble");
  }

 private:
  bool MayEnd() const override { return false; }

  void OnHead(Bytes head) override { in_sections_ ? OnSection(head) : OnPreamble(head); }

  void OnPreamble(Bytes head) {
    const uint32_t magic = Little32(head, 0);
    const uint32_t version = Little32(head, 4);
    const uint16_t head_bytes = Little16(head, 8);
    sections_left_ = Little16(head, 10);
    bytes_left_ = Little32(head, 12);
    StreamRecord preamble;
    preamble.kind = "header";
    preamble.header_bytes = kQatPreambleBytes;
    preamble.fields = {{"magic", magic, true},
                       {"version", version},
                       {"header_bytes", head_bytes},
                       {"sections", sections_left_},
                       {"size", bytes_left_}};
    if (magic != kQatMagic) {
      preamble.problem = absl::StrFormat("its magic is 0x%08x, expected 0x%08x", magic, kQatMagic);
    } else if (version > kQatVersion) {
      preamble.problem = absl::StrFormat("its version is %u, qat knows %u", version, kQatVersion);
    } else if (head_bytes < kQatPreambleBytes || head_bytes + bytes_left_ > kQatBytes) {
      preamble.problem = absl::StrFormat(
          "its header of %u and sections of %u bytes are not within "
          "the state's %u",
          head_bytes, bytes_left_, kQatBytes);
    } else {
      preamble.name = "qat";
      preamble.payload_bytes = head_bytes - kQatPreambleBytes;
    }
    const bool right = preamble.problem.empty();
    Begin(std::move(preamble));
    if (!right) return SkipRest("");
    in_sections_ = true;
    SkipPayload();
  }

  void OnSection(Bytes head) {
    --sections_left_;
    bytes_left_ -= kQatSectionHeaderBytes;
    StreamRecord section;
    section.kind = "section";
    section.header_bytes = kQatSectionHeaderBytes;
    for (size_t i = 0; i < kQatIdBytes && head[i] != std::byte{0}; ++i) {
      const auto c = std::to_integer<unsigned char>(head[i]);
      section.name.push_back(c >= 0x20 && c < 0x7f ? static_cast<char>(c) : '?');
    }
    section.payload_bytes = Little32(head, 8);
    section.fields = {{"size", section.payload_bytes}, {"sections", Little32(head, 12)}};
    if (section.payload_bytes > bytes_left_) {
      section.problem = absl::StrFormat("it has %u bytes, but the sections end after %u",
                                        section.payload_bytes, bytes_left_);
      section.payload_bytes = bytes_left_;
    }
    bytes_left_ -= section.payload_bytes;
    Begin(std::move(section));
    SkipPayload();
  }

  void OnSkipped() override {
    if (position() == kQatBytes) return ExpectEnd();
    if (sections_left_ > 0 && bytes_left_ >= kQatSectionHeaderBytes) {
      return Collect(kQatSectionHeaderBytes, "a section's header");
    }
    const bool cut = std::exchange(sections_left_, 0) > 0;
    SkipAs(cut ? "bytes" : "padding", "", kQatBytes - position(), /*depth=*/0,
           cut ? "the sections end before all of them have come" : "");
  }

  bool in_sections_ = false;
  uint32_t sections_left_ = 0;
  uint64_t bytes_left_ = 0;  // of all sections
};

// Packets; the first is the descriptor, the last the trailer.
class XeParser final : public StepParser {
 public:
  explicit XeParser(StreamSink& sink) : StepParser(sink) { NextPacket(); }

 private:
  bool MayEnd() const override { return false; }

  void NextPacket() {
    Collect(kXeHeaderBytes, position() == 0 ? "its descriptor" : "its next packet or its trailer");
  }

  void OnHead(Bytes head) override {
    const auto version = std::to_integer<uint8_t>(head[0]);
    const auto type = std::to_integer<uint8_t>(head[1]);
    const bool first = position() == kXeHeaderBytes;
    ended_ = type == kXeTrailer;
    StreamRecord packet;
    packet.kind = "packet";
    packet.header_bytes = kXeHeaderBytes;
    packet.payload_bytes = Little64(head, 16);
    packet.fields = {{"version", version},
                     {"type", type},
                     {"tile", std::to_integer<uint8_t>(head[2])},
                     {"gt", std::to_integer<uint8_t>(head[3])},
                     {"flags", Little32(head, 4), true},
                     {"resource_offset", Little64(head, 8)},
                     {"size", packet.payload_bytes}};
    const bool known = type > 0 && type < kXeNames.size();
    if (known) packet.name = std::string(kXeNames[type]);
    const bool right = version == kXeVersion && (!first || type == kXeDescriptor);
    if (version != kXeVersion) {
      packet.problem = absl::StrFormat("its version is %u, xe knows %u", version, kXeVersion);
    } else if (!right) {
      packet.problem =
          absl::StrFormat("its type is %u, but the first is a descriptor, %u", type, kXeDescriptor);
    } else if (!known) {
      packet.problem = absl::StrFormat("its type %u is not known to xe", type);
    }
    if (!right) packet.payload_bytes = 0;
    Begin(std::move(packet));
    right ? SkipPayload() : SkipRest("");
  }

  void OnSkipped() override { ended_ ? ExpectEnd() : NextPacket(); }

  bool ended_ = false;
};

// A match block, by which the driver tells whether it may load the rest; then the rest.
class HisiParser final : public StepParser {
 public:
  explicit HisiParser(StreamSink& sink) : StepParser(sink) {
    Collect(kHisiMatchBytes, "its match block");
  }

 private:
  bool MayEnd() const override { return false; }

  void OnHead(Bytes head) override {
    const uint64_t magic = Little64(head, 0);
    const uint16_t major = Little16(head, 28);
    StreamRecord match;
    match.kind = "header";
    match.header_bytes = kHisiMatchBytes;
    match.fields = {{"magic", magic, true},
                    {"queue_pairs", Little32(head, 8)},
                    {"device_id", Little32(head, 12), true},
                    {"queue_isolation", Little32(head, 16), true},
                    {"queue_base", Little32(head, 20)},
                    {"qm_state", Little32(head, 24)},
                    {"major_version", major},
                    {"minor_version", Little16(head, 30)}};
    if (magic != kHisiMagicV1 && magic != kHisiMagicV2) {
      match.problem = absl::StrFormat("its magic is 0x%016x, expected 0x%016x or 0x%016x", magic,
                                      kHisiMagicV2, kHisiMagicV1);
    } else if (magic == kHisiMagicV2 && major != kHisiMajorVersion) {
      match.problem = absl::StrFormat("its version is %u, hisi knows %u", major, kHisiMajorVersion);
    } else {
      match.name = "hisi";
    }
    const bool right = match.problem.empty();
    Begin(std::move(match));
    right ? SkipAs("state", "", kHisiBytes - kHisiMatchBytes, /*depth=*/0, "") : SkipRest("");
  }

  void OnSkipped() override { ExpectEnd(); }
};

// Whether a stream, which may be cut off, can go on with such a record.
bool LooksFramed(Bytes bytes) {
  if (bytes.size() < kFrameHeadBytes) return false;
  const uint64_t size = Little64(bytes, 0);
  const uint32_t flags = Little32(bytes, 8);
  const uint32_t tag = Little32(bytes, 12);
  constexpr uint64_t kSaneBytes = uint64_t{1} << 46;  // past any device's memory
  if (size == 0 || size >= kSaneBytes) return false;
  if (tag == kTagStopCopy) return flags == kFrameOptional && size == kStopCopyBytes;
  return tag == kTagData && flags <= kFrameOptional;
}

bool LooksLikePart(Bytes bytes, uint64_t record_bytes) {
  return bytes.size() >= kPartHeadBytes && record_bytes >= kPartHeadBytes &&
         IsCommonPart(Little16(bytes, 0)) && std::to_integer<uint8_t>(bytes[2]) <= kPartOptional &&
         bytes[3] == std::byte{0} && Little32(bytes, 12) <= record_bytes - kPartHeadBytes;
}

bool LooksLikeXe(Bytes bytes) {
  constexpr uint64_t kDescriptorBytesMax = 4096;
  return bytes.size() >= kXeHeaderBytes && std::to_integer<uint8_t>(bytes[0]) == kXeVersion &&
         std::to_integer<uint8_t>(bytes[1]) == kXeDescriptor && Little32(bytes, 4) == 0 &&
         Little64(bytes, 8) == 0 && Little64(bytes, 16) <= kDescriptorBytesMax &&
         Little64(bytes, 16) % 4 == 0;
}

}  // namespace

absl::string_view StreamFormatName(StreamFormat format) {
  for (const NamedFormat& row : kFormats) {
    if (row.format == format) return row.name;
  }
  return "?";
}

std::string StreamFormatNames() {
  std::string names;
  for (const NamedFormat& row : kFormats) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", row.name);
  }
  return names;
}

absl::StatusOr<StreamFormat> ParseStreamFormat(absl::string_view name) {
  for (const NamedFormat& row : kFormats) {
    if (row.name == name) return row.format;
  }
  return absl::InvalidArgumentError(absl::StrCat("'", name, "' is none of ", StreamFormatNames()));
}

std::string StreamRecordName(const StreamRecord& record) {
  return absl::StrFormat("%s %u at byte %u", record.kind, record.index, record.offset);
}

std::unique_ptr<StreamParser> StreamParser::Make(StreamFormat format, StreamSink& sink) {
  switch (format) {
    case StreamFormat::kMlx5:
    case StreamFormat::kVirtio:
      return std::make_unique<FramedParser>(sink, format);
    case StreamFormat::kMtty:
      return std::make_unique<MttyParser>(sink);
    case StreamFormat::kQat:
      return std::make_unique<QatParser>(sink);
    case StreamFormat::kXe:
      return std::make_unique<XeParser>(sink);
    case StreamFormat::kHisi:
      return std::make_unique<HisiParser>(sink);
    case StreamFormat::kPds:
      return std::make_unique<RawParser>(sink, kPdsBytesMax);
    case StreamFormat::kRaw:
      break;
  }
  return std::make_unique<RawParser>(sink, std::numeric_limits<uint64_t>::max());
}

std::optional<StreamFormat> RecogniseStream(Bytes prefix) {
  prefix = prefix.subspan(0, kRecogniseBytes);
  if (prefix.size() >= 8 && Little64(prefix, 0) == kMttyMagic) return StreamFormat::kMtty;
  if (prefix.size() >= 8 &&
      (Little64(prefix, 0) == kHisiMagicV1 || Little64(prefix, 0) == kHisiMagicV2)) {
    return StreamFormat::kHisi;
  }
  if (prefix.size() >= 4 && Little32(prefix, 0) == kQatMagic) return StreamFormat::kQat;
  if (LooksLikeXe(prefix)) return StreamFormat::kXe;
  if (!LooksFramed(prefix)) return std::nullopt;
  const uint64_t size = Little64(prefix, 0);
  const bool data = Little32(prefix, 12) == kTagData;
  if (data && LooksLikePart(prefix.subspan(kFrameHeadBytes), size)) return StreamFormat::kVirtio;
  // One header that makes sense is little: where the next one is in sight it must, too.
  if (size <= prefix.size() && prefix.size() - size >= 2 * kFrameHeadBytes) {
    const auto next = static_cast<size_t>(kFrameHeadBytes + size);
    if (!LooksFramed(prefix.subspan(next))) return std::nullopt;
  }
  return StreamFormat::kMlx5;
}

}  // namespace godwit
