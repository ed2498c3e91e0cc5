// What a software device's image looks like in its stream, and back.
#ifndef GODWIT_VFIO_SOFT_FRAMING_H_
#define GODWIT_VFIO_SOFT_FRAMING_H_

#include <absl/status/status.h>
#include <absl/types/span.h>

#include <cstdint>
#include <string>

#include "vfio/soft_content.h"
#include "vfio/soft_injection.h"
#include "vfio/soft_profile.h"

namespace godwit {

// A piece of the stream before it is made.
struct SoftExtent {
  enum class Kind {
    kOpening,  // mlx5's record of the size, xe's descriptor
    kUnknownOptional,
    kUnknownMandatory,
    kData,     // `bytes` of the image from `offset` on
    kClosing,  // xe's trailer
    kZeros,    // `bytes` that do not belong there
  };
  Kind kind = Kind::kData;
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

// The image: `content` from byte 0 on, a raw one with its driver's header over the first bytes.
//
// Ownership: borrows the content.
// Threads:   constant after construction: any number of threads may use it.
// Blocking:  never.
// Errors:    none.
class SoftImage {
 public:
  // REQUIRES: CheckProfileSize(profile, size_bytes) is OK
  SoftImage(SoftProfile profile, uint64_t size_bytes, const SoftContent& content)
      : traits_(TraitsOf(profile)),
        size_bytes_(size_bytes),
        header_(SoftImageHeader(profile, size_bytes)),
        content_(content) {}

  const SoftProfileTraits& traits() const { return traits_; }
  uint64_t size_bytes() const { return size_bytes_; }
  // The most of the image that one record or packet carries; longer extents are to be cut.
  uint64_t record_bytes_max() const;

  // The stream's bytes for `extent`; none for a kind that the framing has not.
  std::string Encode(const SoftExtent& extent) const;

  std::string Bytes(uint64_t offset, uint64_t bytes) const;
  size_t FirstMismatch(uint64_t offset, absl::string_view in) const;

 private:
  const SoftProfileTraits& traits_;
  const uint64_t size_bytes_;
  const std::string header_;
  const SoftContent& content_;
};

// Takes a stream in pieces of any size and checks it against the image.
//
// Ownership: borrows the image. Holds at most one header, and of virtio one whole record.
// Threads:   single-threaded.
// Blocking:  never.
// Errors:    the first is final, and what came before it has been taken.
class SoftDecoder {
 public:
  explicit SoftDecoder(const SoftImage& image) : image_(image) {}

  // FailedPrecondition for what the device can't take: a wrong byte, an unknown mandatory tag, a
  // record that is too long. A raw image is only looked at by Finish().
  absl::Status Take(absl::string_view bytes);

  // The verdict at RESUMING → STOP.
  absl::Status Finish();
  // The whole image has come.
  bool complete() const;
  uint64_t stream_bytes() const { return stream_bytes_; }

 private:
  absl::Status TakeRaw(absl::string_view bytes);
  absl::Status TakeFramed(absl::string_view bytes);
  absl::Status BeginRecord();
  absl::Status EndRecord();
  absl::Status TakePayload(absl::string_view bytes);
  absl::Status TakeImage(uint64_t offset, absl::string_view bytes);
  size_t header_bytes() const;

  enum class Payload { kSkip, kImage, kOffsetThenImage, kCollect, kSize };

  const SoftImage& image_;
  absl::Status status_;
  uint64_t stream_bytes_ = 0;
  uint64_t covered_bytes_ = 0;  // of the image, from 0 on
  uint64_t right_bytes_ = 0;    // raw: length of the right prefix
  // The record under way.
  std::string header_;     // its header, until complete
  std::string collected_;  // of its payload
  Payload payload_ = Payload::kSkip;
  uint64_t payload_left_ = 0;
  uint64_t image_offset_ = 0;
  bool in_record_ = false;
  bool opened_ = false;  // xe: its descriptor has come
  bool closed_ = false;  // xe: its trailer has come
};

}  // namespace godwit

#endif  // GODWIT_VFIO_SOFT_FRAMING_H_
