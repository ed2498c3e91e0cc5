// Looking at a device's stream before the device does.
#ifndef GODWIT_STREAM_CHECK_H_
#define GODWIT_STREAM_CHECK_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <absl/types/span.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

namespace godwit {

// Refuses a stream that its device could not load, or would load wrongly. Some drivers only say at
// the very end that they don't know what they were given, and some never do.
//
// Ownership: the loader of one device owns it.
// Threads:   one, the loader's.
// Blocking:  must not: the device waits meanwhile.
// Errors:    the first is final: nothing more is written, the load fails and the device is reset.
class StreamCheck {
 public:
  virtual ~StreamCheck() = default;
  // The next bytes of the stream, in stream order, before they are written to the device.
  virtual absl::Status Feed(absl::Span<const std::byte> bytes) = 0;
  // The stream is complete; the device is about to leave RESUMING.
  virtual absl::Status End() = 0;
};

// Makes the check for the session's device of that number; null: none for this one.
using StreamCheckFactory = std::function<std::unique_ptr<StreamCheck>(size_t device)>;

// The check for streams as a driver writes them: mlx5 and virtio (records with an unknown mandatory
// tag; device parts), mtty, qat, xe and hisi (magic, version, length), pds (length), raw (nothing).
// Errors name the record and its offset. InvalidArgument that lists the profiles.
absl::StatusOr<std::unique_ptr<StreamCheck>> MakeStreamCheck(absl::string_view profile);
std::string StreamCheckProfiles();  // "raw, mlx5, …"

}  // namespace godwit

#endif  // GODWIT_STREAM_CHECK_H_
