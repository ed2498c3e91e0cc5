// Which driver a software device behaves like, and what that means: one row a driver.
#ifndef GODWIT_VFIO_SOFT_PROFILE_H_
#define GODWIT_VFIO_SOFT_PROFILE_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <absl/types/span.h>

#include <cstdint>
#include <string>

#include "godwit/device.h"

namespace godwit {

enum class SoftProfile { kPlain, kMlx5, kHisi, kPds, kQat, kVirtio, kXe, kMtty };

enum class SoftFraming {
  kRaw,     // the image, byte for byte
  kMlx5,    // records: le64 size, le32 flags, le32 tag
  kVirtio,  // the same header, tag 0; each record is a whole context of device parts
  kXe,      // packets with 24-byte headers
};

// What a read says in PRE_COPY while there is nothing to read.
enum class SoftNothingNow {
  kBlocks,  // it waits (of a device without PRE_COPY: it never comes to that)
  kAgain,   // EAGAIN with O_NONBLOCK, in place of the drivers' ENOMSG; waits without
  kZero,    // 0
};

struct SoftProfileTraits {
  SoftProfile profile;
  absl::string_view name;
  MigrationFlags flags;
  SoftFraming framing;
  SoftNothingNow nothing_now;
  bool info_makes_dirty;   // GET_PRECOPY_INFO is what makes the next dirty chunk
  bool loads_in_write;     // else at RESUMING → STOP
  bool accepts_truncated;  // RESUMING → STOP is content with a stream that was cut short
  uint64_t precopy_bytes;  // a raw image's first bytes, which can be read in PRE_COPY
  uint64_t size_default;   // 0: has to be given
  uint64_t size_max;       // 0: no limit
};

const SoftProfileTraits& TraitsOf(SoftProfile profile);

// InvalidArgument that lists the names.
absl::StatusOr<SoftProfile> ParseSoftProfile(absl::string_view name);
absl::string_view SoftProfileName(SoftProfile profile);

// InvalidArgument if no such device has an image of `size_bytes`.
absl::Status CheckProfileSize(SoftProfile profile, uint64_t size_bytes);

// A raw image's first bytes, before the content: what the driver tells its streams by, as
// vfio/stream_format.h has it, so that the whole is of its form. "" where the driver has none.
// REQUIRES: CheckProfileSize(profile, size_bytes) is OK
std::string SoftImageHeader(SoftProfile profile, uint64_t size_bytes);

}  // namespace godwit

#endif  // GODWIT_VFIO_SOFT_PROFILE_H_
