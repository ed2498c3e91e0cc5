// Virtio device parts: virtio 1.4, "Device parts".
//
//   le16 part_type | u8 flags | u8 reserved | selector, 8 bytes | le32 length | value
//
// Flag bit 0: optional, the device can do without. The selector is the queue's index for the two
// virtqueue parts, the field's offset for PCI_COMMON_CFG, else 0.
#ifndef GODWIT_VFIO_VIRTIO_PARTS_H_
#define GODWIT_VFIO_VIRTIO_PARTS_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace godwit {

enum class VirtioPartType : uint16_t {
  kDeviceFeatures = 0x100,
  kDriverFeatures = 0x101,
  kPciCommonCfg = 0x102,
  kDeviceStatus = 0x103,
  kVqCfg = 0x104,
  kVqNotifyCfg = 0x105,
  kSoftState = 0x200,  // device-type specific; here: the content
};

inline constexpr size_t kVirtioPartHeaderBytes = 16;
inline constexpr uint8_t kVirtioPartOptional = 1;

struct VirtioPart {
  uint16_t type = 0;
  uint8_t flags = 0;
  uint64_t selector = 0;
  absl::string_view value;  // into the bytes that were parsed
};

void AppendVirtioPart(const VirtioPart& part, std::string& out);

// The parts of a complete record, in order. InvalidArgument, with the offset, where a header or
// value is cut off or a reserved byte is set.
absl::StatusOr<std::vector<VirtioPart>> ParseVirtioParts(absl::string_view record);

// A device's context with `content` as its device-type specific part.
std::string MakeVirtioContext(absl::string_view content);

// The content part of a context. InvalidArgument if a mandatory part is unknown, of the wrong
// length, twice there or missing: then nothing of it may be set. Unknown optional parts are
// skipped.
absl::StatusOr<absl::string_view> CheckVirtioContext(absl::string_view record);

// A device has 255 device-parts objects at most; one is held for as long as a migration lasts.
//
// Ownership: a place among the process's 255; given back by the destructor.
// Threads:   any; the count is atomic.
// Blocking:  never.
// Errors:    ResourceExhausted when all are in use.
class VirtioPartsObject {
 public:
  static constexpr int kObjectsMax = 255;

  static absl::StatusOr<VirtioPartsObject> Create();
  VirtioPartsObject(VirtioPartsObject&& other) noexcept
      : held_(std::exchange(other.held_, false)) {}
  VirtioPartsObject& operator=(VirtioPartsObject&&) = delete;
  ~VirtioPartsObject();

  static int in_use();

 private:
  VirtioPartsObject() = default;
  bool held_ = true;
};

}  // namespace godwit

#endif  // GODWIT_VFIO_VIRTIO_PARTS_H_
