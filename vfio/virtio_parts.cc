#include "vfio/virtio_parts.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include <array>
#include <atomic>
#include <limits>
#include <set>

#include "base/check.h"
#include "base/status_macros.h"
#include "vfio/little_endian.h"

namespace godwit {
namespace {

std::atomic<int> objects_in_use{0};  // a count only: relaxed

constexpr size_t kAnyLength = std::numeric_limits<size_t>::max();
constexpr uint16_t kQueues = 2;

struct KnownPart {
  VirtioPartType type;
  size_t value_bytes;
  bool many;    // one for each selector
  bool needed;  // a context has at least one
};

constexpr std::array<KnownPart, 7> kKnownParts = {{
    {VirtioPartType::kDeviceFeatures, 16, false, false},
    {VirtioPartType::kDriverFeatures, 16, false, true},
    {VirtioPartType::kPciCommonCfg, 2, true, false},
    {VirtioPartType::kDeviceStatus, 1, false, true},
    {VirtioPartType::kVqCfg, 32, true, true},
    {VirtioPartType::kVqNotifyCfg, 8, true, false},
    {VirtioPartType::kSoftState, kAnyLength, false, true},
}};

const KnownPart* FindKnown(uint16_t type) {
  for (const KnownPart& known : kKnownParts) {
    if (static_cast<uint16_t>(known.type) == type) return &known;
  }
  return nullptr;
}

void Append(VirtioPartType type, uint8_t flags, uint64_t selector, absl::string_view value,
            std::string& out) {
  AppendVirtioPart({static_cast<uint16_t>(type), flags, selector, value}, out);
}

std::string QueueConfig(uint16_t index) {
  std::string value;
  AppendLittle<uint16_t>(256, value);    // queue_size
  AppendLittle<uint16_t>(index, value);  // vector
  AppendLittle<uint16_t>(1, value);      // enabled
  AppendLittle<uint16_t>(0, value);
  for (const uint64_t area : {0x1000u, 0x2000u, 0x3000u}) {  // desc, driver, device
    AppendLittle<uint64_t>(uint64_t{index + 1u} * 0x10000 + area, value);
  }
  return value;
}

}  // namespace

void AppendVirtioPart(const VirtioPart& part, std::string& out) {
  GODWIT_CHECK(part.value.size() <= std::numeric_limits<uint32_t>::max());
  AppendLittle(part.type, out);
  AppendLittle(part.flags, out);
  AppendLittle<uint8_t>(0, out);
  AppendLittle(part.selector, out);
  AppendLittle(static_cast<uint32_t>(part.value.size()), out);
  absl::StrAppend(&out, part.value);
}

absl::StatusOr<std::vector<VirtioPart>> ParseVirtioParts(absl::string_view record) {
  std::vector<VirtioPart> parts;
  for (size_t at = 0; at < record.size();) {
    const absl::string_view rest = record.substr(at);
    if (rest.size() < kVirtioPartHeaderBytes) {
      return absl::InvalidArgumentError(
          absl::StrFormat("device part at byte %u: its header is cut off", at));
    }
    const auto length = LoadLittle<uint32_t>(rest, 12);
    const VirtioPart part = {LoadLittle<uint16_t>(rest, 0), LoadLittle<uint8_t>(rest, 2),
                             LoadLittle<uint64_t>(rest, 4),
                             rest.substr(kVirtioPartHeaderBytes, length)};
    if (rest[3] != 0) {
      return absl::InvalidArgumentError(
          absl::StrFormat("device part 0x%x at byte %u: a reserved byte is set", part.type, at));
    }
    if (part.value.size() != length) {
      return absl::InvalidArgumentError(
          absl::StrFormat("device part 0x%x at byte %u: %u of its %u bytes are there", part.type,
                          at, part.value.size(), length));
    }
    parts.push_back(part);
    at += kVirtioPartHeaderBytes + length;
  }
  return parts;
}

std::string MakeVirtioContext(absl::string_view content) {
  std::string features;
  AppendLittle<uint64_t>(0x1'3000'0000, features);  // VERSION_1, RING_EVENT_IDX, INDIRECT_DESC
  AppendLittle<uint64_t>(0, features);
  std::string out;
  Append(VirtioPartType::kDeviceFeatures, kVirtioPartOptional, 0, features, out);
  Append(VirtioPartType::kDriverFeatures, 0, 0, features, out);
  Append(VirtioPartType::kPciCommonCfg, 0, /*config_msix_vector*/ 16, {"\x03\x00", 2}, out);
  Append(VirtioPartType::kDeviceStatus, 0, 0, "\x0f", out);  // … DRIVER_OK
  for (uint16_t index = 0; index < kQueues; ++index) {
    std::string notify;
    AppendLittle<uint16_t>(index, notify);
    notify.resize(8);
    Append(VirtioPartType::kVqCfg, 0, index, QueueConfig(index), out);
    Append(VirtioPartType::kVqNotifyCfg, kVirtioPartOptional, index, notify, out);
  }
  Append(VirtioPartType::kSoftState, 0, 0, content, out);
  return out;
}

absl::StatusOr<absl::string_view> CheckVirtioContext(absl::string_view record) {
  GODWIT_ASSIGN_OR_RETURN(const std::vector<VirtioPart> parts, ParseVirtioParts(record));
  absl::string_view content;
  std::array<int, kKnownParts.size()> counts{};
  std::set<std::pair<uint16_t, uint64_t>> seen;
  for (const VirtioPart& part : parts) {
    const KnownPart* const known = FindKnown(part.type);
    if (known == nullptr) {
      if ((part.flags & kVirtioPartOptional) != 0) continue;
      return absl::InvalidArgumentError(
          absl::StrFormat("mandatory device part 0x%x is unknown", part.type));
    }
    if (known->value_bytes != kAnyLength && known->value_bytes != part.value.size()) {
      return absl::InvalidArgumentError(absl::StrFormat("device part 0x%x has %u bytes, not %u",
                                                        part.type, part.value.size(),
                                                        known->value_bytes));
    }
    ++counts[static_cast<size_t>(known - kKnownParts.data())];
    if (!seen.emplace(part.type, known->many ? part.selector : 0).second) {
      return absl::InvalidArgumentError(
          absl::StrFormat("device part 0x%x is there twice", part.type));
    }
    if (known->type == VirtioPartType::kSoftState) content = part.value;
  }
  for (size_t i = 0; i < kKnownParts.size(); ++i) {
    if (kKnownParts[i].needed && counts[i] == 0) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "device part 0x%x is missing", static_cast<uint16_t>(kKnownParts[i].type)));
    }
  }
  return content;
}

absl::StatusOr<VirtioPartsObject> VirtioPartsObject::Create() {
  if (objects_in_use.fetch_add(1, std::memory_order_relaxed) >= kObjectsMax) {
    objects_in_use.fetch_sub(1, std::memory_order_relaxed);
    return absl::ResourceExhaustedError(absl::StrFormat(
        "all %d device-parts objects are in use: wait until another migration has ended",
        kObjectsMax));
  }
  return VirtioPartsObject();
}

VirtioPartsObject::~VirtioPartsObject() {
  if (held_) objects_in_use.fetch_sub(1, std::memory_order_relaxed);
}

int VirtioPartsObject::in_use() { return objects_in_use.load(std::memory_order_relaxed); }

}  // namespace godwit
