#include "vfio/soft_framing.h"

#include <absl/strings/str_cat.h>

#include <algorithm>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "vfio/little_endian.h"
#include "vfio/stream_format.h"
#include "vfio/virtio_parts.h"

namespace godwit {
namespace {

using Kind = SoftExtent::Kind;

// mlx5 and virtio: le64 size, le32 flags, le32 tag.
constexpr size_t kRecordHeaderBytes = 16;
constexpr uint32_t kRecordOptional = 1;
constexpr uint32_t kTagData = 0;
constexpr uint32_t kTagStopCopySize = 1;
constexpr uint32_t kTagUnknown = 99;
constexpr size_t kOffsetBytes = 8;  // before the image's bytes in an mlx5 record

// xe: u8 version, type, tile, gt; le32 flags; le64 offset; le64 size.
constexpr uint8_t kXeDescriptor = 1;
constexpr uint8_t kXeTrailer = 2;
constexpr uint8_t kXeVram = 6;
constexpr uint8_t kXeUnknown = 99;

// More than any context with the largest image of the virtio profile has.
constexpr uint64_t kVirtioRecordBytesMax = 17 * kMiB;

std::string RecordHeader(uint64_t size, uint32_t flags, uint32_t tag) {
  std::string out;
  AppendLittle(size, out);
  AppendLittle(flags, out);
  AppendLittle(tag, out);
  return out;
}

std::string XeHeader(uint8_t type, uint64_t offset, uint64_t size) {
  std::string out = {static_cast<char>(kXeVersion), static_cast<char>(type), 0, 0};
  AppendLittle<uint32_t>(0, out);
  AppendLittle(offset, out);
  AppendLittle(size, out);
  return out;
}

absl::Span<const std::byte> AsBytes(absl::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

std::string Little64(uint64_t value) {
  std::string out;
  AppendLittle(value, out);
  return out;
}

}  // namespace

uint64_t SoftImage::record_bytes_max() const {
  switch (traits_.framing) {
    case SoftFraming::kVirtio:
      return kVirtioRecordBytesMax;  // never cut
    case SoftFraming::kXe:
      return 64 * kKiB;
    default:
      return kMiB;
  }
}

std::string SoftImage::Bytes(uint64_t offset, uint64_t bytes) const {
  std::string out(bytes, '\0');
  content_.Fill(offset, {reinterpret_cast<std::byte*>(out.data()), out.size()});
  for (uint64_t i = offset; i < std::min<uint64_t>(header_.size(), offset + bytes); ++i) {
    out[i - offset] = header_[i];
  }
  return out;
}

size_t SoftImage::FirstMismatch(uint64_t offset, absl::string_view in) const {
  size_t checked = 0;
  for (; checked < in.size() && offset + checked < header_.size(); ++checked) {
    if (in[checked] != header_[offset + checked]) return checked;
  }
  return checked + content_.FirstMismatch(offset + checked, AsBytes(in.substr(checked)));
}

std::string SoftImage::Encode(const SoftExtent& extent) const {
  const bool xe = traits_.framing == SoftFraming::kXe;
  switch (extent.kind) {
    case Kind::kZeros:
      return std::string(extent.bytes, '\0');
    case Kind::kOpening:
      // 24 bytes: what a first read from mlx5 typically brings.
      if (traits_.framing == SoftFraming::kMlx5) {
        return RecordHeader(8, kRecordOptional, kTagStopCopySize) + Little64(size_bytes_);
      }
      return xe ? XeHeader(kXeDescriptor, 0, 8) + Little64(size_bytes_) : "";
    case Kind::kClosing:
      return xe ? XeHeader(kXeTrailer, 0, 0) : "";
    case Kind::kUnknownOptional:
      return RecordHeader(5, kRecordOptional, kTagUnknown) + "extra";
    case Kind::kUnknownMandatory:
      return xe ? XeHeader(kXeUnknown, 0, 5) + "extra" : RecordHeader(5, 0, kTagUnknown) + "extra";
    case Kind::kData:
      break;
  }
  std::string image = Bytes(extent.offset, extent.bytes);
  switch (traits_.framing) {
    case SoftFraming::kRaw:
      return image;
    case SoftFraming::kMlx5:
      return RecordHeader(kOffsetBytes + extent.bytes, 0, kTagData) + Little64(extent.offset) +
             image;
    case SoftFraming::kVirtio:
      image = MakeVirtioContext(image);
      return RecordHeader(image.size(), 0, kTagData) + image;
    case SoftFraming::kXe:
      return XeHeader(kXeVram, extent.offset, extent.bytes) + image;
  }
  return "";
}

size_t SoftDecoder::header_bytes() const {
  return image_.traits().framing == SoftFraming::kXe ? kXeHeaderBytes : kRecordHeaderBytes;
}

absl::Status SoftDecoder::Take(absl::string_view bytes) {
  if (!status_.ok()) return status_;
  status_ = image_.traits().framing == SoftFraming::kRaw ? TakeRaw(bytes) : TakeFramed(bytes);
  return status_;
}

absl::Status SoftDecoder::TakeRaw(absl::string_view bytes) {
  if (right_bytes_ == stream_bytes_ && stream_bytes_ < image_.size_bytes()) {
    const uint64_t wanted = std::min<uint64_t>(bytes.size(), image_.size_bytes() - stream_bytes_);
    right_bytes_ += image_.FirstMismatch(stream_bytes_, bytes.substr(0, wanted));
  }
  stream_bytes_ += bytes.size();
  covered_bytes_ = right_bytes_;
  return absl::OkStatus();
}

absl::Status SoftDecoder::TakeFramed(absl::string_view bytes) {
  while (!bytes.empty()) {
    size_t taken = 0;
    if (!in_record_) {
      taken = std::min(bytes.size(), header_bytes() - header_.size());
      absl::StrAppend(&header_, bytes.substr(0, taken));
      if (header_.size() == header_bytes()) {
        const absl::Status begun = BeginRecord();
        if (!begun.ok()) {
          return Annotate(begun, absl::StrCat("the record before byte ", stream_bytes_ + taken));
        }
      }
    } else {
      taken = std::min<uint64_t>(bytes.size(), payload_left_);
      GODWIT_RETURN_IF_ERROR(TakePayload(bytes.substr(0, taken)));
      payload_left_ -= taken;
    }
    stream_bytes_ += taken;
    bytes.remove_prefix(taken);
    if (in_record_ && payload_left_ == 0) GODWIT_RETURN_IF_ERROR(EndRecord());
  }
  return absl::OkStatus();
}

absl::Status SoftDecoder::BeginRecord() {
  in_record_ = true;
  collected_.clear();
  if (closed_) return absl::FailedPreconditionError("it comes after the trailer");
  if (image_.traits().framing == SoftFraming::kXe) {
    const auto type = LoadLittle<uint8_t>(header_, 1);
    image_offset_ = LoadLittle<uint64_t>(header_, 8);
    payload_left_ = LoadLittle<uint64_t>(header_, 16);
    if (LoadLittle<uint8_t>(header_, 0) != kXeVersion) {
      return absl::FailedPreconditionError("its version is unknown");
    }
    if (type != kXeDescriptor && !opened_) {
      return absl::FailedPreconditionError("the stream does not begin with a descriptor");
    }
    if (type == kXeTrailer) {
      closed_ = true;
    } else if (type != kXeDescriptor && type != kXeVram) {
      return absl::FailedPreconditionError(absl::StrCat("packet type ", type, " is unknown"));
    }
    payload_ = type == kXeVram         ? Payload::kImage
               : type == kXeDescriptor ? Payload::kSize
                                       : Payload::kSkip;
    opened_ = true;
    return absl::OkStatus();
  }
  payload_left_ = LoadLittle<uint64_t>(header_, 0);
  const auto flags = LoadLittle<uint32_t>(header_, 8);
  const auto tag = LoadLittle<uint32_t>(header_, 12);
  if (tag == kTagData && image_.traits().framing == SoftFraming::kVirtio) {
    // Nothing of a record is set before all of it is there.
    payload_ = Payload::kCollect;
    if (payload_left_ > kVirtioRecordBytesMax) {
      return absl::FailedPreconditionError(
          absl::StrCat("a record of ", payload_left_, " bytes is too long"));
    }
  } else if (tag == kTagData) {
    payload_ = Payload::kOffsetThenImage;
  } else if (tag == kTagStopCopySize && image_.traits().framing == SoftFraming::kMlx5) {
    payload_ = Payload::kSize;
  } else if ((flags & kRecordOptional) != 0) {
    payload_ = Payload::kSkip;
  } else {
    return absl::FailedPreconditionError(absl::StrCat("mandatory tag ", tag, " is unknown"));
  }
  return absl::OkStatus();
}

absl::Status SoftDecoder::TakePayload(absl::string_view bytes) {
  switch (payload_) {
    case Payload::kSkip:
    case Payload::kSize:
      return absl::OkStatus();
    case Payload::kCollect:
      absl::StrAppend(&collected_, bytes);
      return absl::OkStatus();
    case Payload::kOffsetThenImage: {
      const size_t taken = std::min(bytes.size(), kOffsetBytes - collected_.size());
      absl::StrAppend(&collected_, bytes.substr(0, taken));
      if (collected_.size() < kOffsetBytes) return absl::OkStatus();
      image_offset_ = LoadLittle<uint64_t>(collected_);
      payload_ = Payload::kImage;
      return TakeImage(image_offset_, bytes.substr(taken));
    }
    case Payload::kImage:
      return TakeImage(image_offset_, bytes);
  }
  return absl::OkStatus();
}

absl::Status SoftDecoder::TakeImage(uint64_t offset, absl::string_view bytes) {
  if (bytes.empty()) return absl::OkStatus();
  if (offset > covered_bytes_ || bytes.size() > image_.size_bytes() - offset) {
    return absl::FailedPreconditionError(
        absl::StrCat("bytes ", offset, " to ", offset + bytes.size(), " of an image of ",
                     image_.size_bytes(), " came after its first ", covered_bytes_));
  }
  const size_t right = image_.FirstMismatch(offset, bytes);
  if (right < bytes.size()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the image's content is wrong from byte ", offset + right, " on"));
  }
  image_offset_ = offset + bytes.size();
  covered_bytes_ = std::max(covered_bytes_, image_offset_);
  return absl::OkStatus();
}

absl::Status SoftDecoder::EndRecord() {
  in_record_ = false;
  header_.clear();
  if (payload_ != Payload::kCollect) return absl::OkStatus();
  const absl::StatusOr<absl::string_view> content = CheckVirtioContext(collected_);
  if (!content.ok()) return absl::FailedPreconditionError(content.status().message());
  covered_bytes_ = 0;
  GODWIT_RETURN_IF_ERROR(TakeImage(0, *content));
  opened_ = true;
  return absl::OkStatus();
}

bool SoftDecoder::complete() const {
  if (!status_.ok() || covered_bytes_ != image_.size_bytes() || in_record_ || !header_.empty()) {
    return false;
  }
  switch (image_.traits().framing) {
    case SoftFraming::kRaw:
      return stream_bytes_ == image_.size_bytes();
    case SoftFraming::kXe:
      return closed_;
    case SoftFraming::kVirtio:
      return opened_;
    case SoftFraming::kMlx5:
      return true;
  }
  return false;
}

absl::Status SoftDecoder::Finish() {
  GODWIT_RETURN_IF_ERROR(status_);
  if (complete()) return absl::OkStatus();
  if (right_bytes_ < std::min(stream_bytes_, image_.size_bytes()) &&
      image_.traits().framing == SoftFraming::kRaw) {
    return absl::FailedPreconditionError(
        absl::StrCat("the stream's content is wrong from byte ", right_bytes_, " on"));
  }
  if (image_.traits().accepts_truncated && covered_bytes_ <= image_.size_bytes() &&
      (image_.traits().framing != SoftFraming::kRaw || stream_bytes_ < image_.size_bytes())) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(absl::StrCat("the stream has the wrong length: its ",
                                                    stream_bytes_, " bytes hold ", covered_bytes_,
                                                    " of ", image_.size_bytes(), " of the image"));
}

}  // namespace godwit
