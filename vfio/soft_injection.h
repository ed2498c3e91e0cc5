// What is to go wrong with a software device, at a chosen byte or step.
#ifndef GODWIT_VFIO_SOFT_INJECTION_H_
#define GODWIT_VFIO_SOFT_INJECTION_H_

#include <cstdint>
#include <optional>

namespace godwit {

enum class SoftUnknownTag { kNone, kOptional, kMandatory };
enum class SoftStopError { kNone, kBusy, kIo };

// A byte is one of the stream, counted from 0: the failure comes once that many have passed.
// "Saving" and "loading" say which side's stream it is; what is of the other side does nothing.
struct SoftInjection {
  // Saving.
  std::optional<uint64_t> truncate_at = std::nullopt;  // a clean end of file before the end
  std::optional<uint64_t> fail_read_at =
      std::nullopt;           // one error; a retry reads on: a clean end, with a hole
  uint64_t excess_bytes = 0;  // zeros after the end
  SoftUnknownTag unknown_tag = SoftUnknownTag::kNone;  // a record of it before the first data
  bool fail_precopy = false;  // PRE_COPY gives nothing: the whole image comes in STOP_COPY
  bool block_stop = false;    // leaving STOP_COPY waits until the reader has closed its fd

  // Loading.
  std::optional<uint64_t> fail_write_at =
      std::nullopt;  // this byte is never taken, nor any after it

  // Both: once so many bytes have passed, the device …
  std::optional<uint64_t> reset_at =
      std::nullopt;  // … resets itself (FLR): RUNNING, the stream is dead
  std::optional<uint64_t> error_at =
      std::nullopt;  // … goes to ERROR; changes fail (EIO) until Reset()
  std::optional<uint64_t> detach_at = std::nullopt;  // … is gone (ENOTCONN), for good
  SoftStopError stop_error = SoftStopError::kNone;   // the arc into STOP fails

  bool any() const { return !(*this == SoftInjection()); }
  friend bool operator==(const SoftInjection&, const SoftInjection&) = default;
};

}  // namespace godwit

#endif  // GODWIT_VFIO_SOFT_INJECTION_H_
