#include "engine/capture_reader.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "engine/buffer_budget.h"
#include "engine/packet.h"

namespace godwit {
namespace {

uint32_t LengthOf(const std::array<unsigned char, kCaptureLengthBytes>& bytes) {
  return uint32_t{bytes[0]} << 24 | uint32_t{bytes[1]} << 16 | uint32_t{bytes[2]} << 8 | bytes[3];
}

std::string RecordName(const std::string& path, uint64_t record, uint64_t offset) {
  return absl::StrFormat("%s: record %u (at byte %u)", path, record, offset);
}

}  // namespace

absl::StatusOr<std::unique_ptr<CaptureReader>> CaptureReader::Open(const std::string& path) {
  UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return ErrnoStatus(errno, absl::StrCat(path, ": it can't be read"));
  struct stat info = {};
  if (::fstat(file.get(), &info) == 0 && S_ISDIR(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is a directory, not a capture"));
  }
  std::unique_ptr<CaptureReader> reader(new CaptureReader(path, std::move(file)));
  GODWIT_RETURN_IF_ERROR(Annotate(reader->ReadHeader(), path));
  return reader;
}

CaptureReader::CaptureReader(std::string path, UniqueFd file)
    : path_(std::move(path)), file_(std::move(file)) {}

absl::Status CaptureReader::ReadHeader() {
  std::string bytes(kCaptureFixedBytes, '\0');
  GODWIT_ASSIGN_OR_RETURN(size_t got, Read(bytes.data(), bytes.size()));
  if (got < kCaptureFixedBytes) {
    return absl::DataLossError(
        absl::StrFormat("its header is cut off: the file has only %u bytes", got));
  }
  GODWIT_ASSIGN_OR_RETURN(header_bytes_, CaptureHeaderBytes(bytes));
  bytes.resize(header_bytes_);
  GODWIT_ASSIGN_OR_RETURN(
      got, Read(bytes.data() + kCaptureFixedBytes, header_bytes_ - kCaptureFixedBytes));
  if (got < header_bytes_ - kCaptureFixedBytes) {
    return absl::DataLossError(absl::StrFormat(
        "its header is cut off: %u of its %u bytes are there", position_, header_bytes_));
  }
  GODWIT_ASSIGN_OR_RETURN(header_, DecodeCaptureHeader(bytes));
  return absl::OkStatus();
}

absl::Status CaptureReader::CheckWhole() const {
  struct stat info = {};
  if (::fstat(file_.get(), &info) != 0) return ErrnoStatus(errno, path_);
  if (!S_ISREG(info.st_mode)) return absl::OkStatus();
  const auto file_bytes = static_cast<uint64_t>(info.st_size);
  if (file_bytes >= header_bytes_ + kCaptureTrailerBytes) {
    const uint64_t at = file_bytes - kCaptureTrailerBytes;
    std::string bytes(kCaptureTrailerBytes, '\0');
    GODWIT_ASSIGN_OR_RETURN(const size_t got, ReadAt(bytes.data(), bytes.size(), at));
    if (got == bytes.size()) {
      const auto trailer = DecodeCaptureTrailer(bytes);
      if (trailer.ok() && trailer->bytes == at) return absl::OkStatus();
    }
  }
  return FirstBrokenRecord(file_bytes);
}

// Goes from length to length. Only for a file that is known to be wrong, so it may take its time.
absl::Status CaptureReader::FirstBrokenRecord(uint64_t file_bytes) const {
  uint64_t at = header_bytes_;
  for (uint64_t record = 0;; ++record) {
    const std::string where = RecordName(path_, record, at);
    if (at == file_bytes) {
      return absl::DataLossError(
          absl::StrFormat("%s: the file is cut off: it ends here, after %u records, and without a "
                          "trailer",
                          where, record));
    }
    std::array<unsigned char, kCaptureLengthBytes> length{};
    GODWIT_ASSIGN_OR_RETURN(const size_t got, ReadAt(length.data(), length.size(), at));
    const uint32_t frame_bytes = LengthOf(length);
    if (got == length.size() && frame_bytes == 0) {
      const uint64_t left = file_bytes - at;
      return absl::DataLossError(
          left < kCaptureTrailerBytes
              ? absl::StrFormat("%s: the file is cut off: %u of the trailer's %u bytes are there",
                                where, left, kCaptureTrailerBytes)
              : absl::StrFormat("%s: here is no record, and no trailer that ends the file: it is "
                                "damaged",
                                where));
    }
    if (got == length.size() && !LengthIsAllowed(frame_bytes)) {
      return absl::DataLossError(absl::StrFormat(
          "%s: its length is %u, which no record has: the file is damaged", where, frame_bytes));
    }
    const uint64_t wanted = got < length.size() ? got + 1 : kCaptureLengthBytes + frame_bytes;
    if (file_bytes - at < wanted) {
      return absl::DataLossError(
          got < length.size()
              ? absl::StrFormat("%s: the file is cut off in its length", where)
              : absl::StrFormat("%s: the file is cut off: %u of its %u bytes are there", where,
                                file_bytes - at, wanted));
    }
    at += wanted;
  }
}

absl::StatusOr<std::optional<size_t>> CaptureReader::NextFrameBytes() {
  record_offset_ = position_;
  ++records_;
  std::array<unsigned char, kCaptureLengthBytes> length{};
  GODWIT_ASSIGN_OR_RETURN(const size_t got, Read(length.data(), length.size()));
  if (got < length.size()) {
    return absl::DataLossError(
        absl::StrCat(Where(), ": the file is cut off: it ends here, and without a trailer"));
  }
  const uint32_t frame_bytes = LengthOf(length);
  if (frame_bytes == 0) {
    --records_;
    GODWIT_RETURN_IF_ERROR(CheckTrailer(
        absl::string_view(reinterpret_cast<const char*>(length.data()), length.size())));
    return std::nullopt;
  }
  if (!LengthIsAllowed(frame_bytes)) {
    return absl::DataLossError(absl::StrFormat(
        "%s: its length is %u, which no record has: the file is damaged", Where(), frame_bytes));
  }
  frame_bytes_ = frame_bytes;
  return frame_bytes_;
}

absl::Status CaptureReader::ReadFrame(std::byte* out) {
  GODWIT_ASSIGN_OR_RETURN(const size_t got, Read(out, frame_bytes_));
  if (got == frame_bytes_) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrFormat("%s: the file is cut off: %u of its %u bytes are there", Where(),
                      kCaptureLengthBytes + got, kCaptureLengthBytes + frame_bytes_));
}

absl::Status CaptureReader::CheckTrailer(absl::string_view length) {
  const uint64_t at = record_offset_;
  const std::string where = absl::StrFormat("%s: trailer (at byte %u)", path_, at);
  std::string bytes(length);
  bytes.resize(kCaptureTrailerBytes);
  GODWIT_ASSIGN_OR_RETURN(const size_t got,
                          Read(bytes.data() + length.size(), kCaptureTrailerBytes - length.size()));
  if (got < kCaptureTrailerBytes - length.size()) {
    return absl::DataLossError(
        absl::StrFormat("%s: the file is cut off: %u of the trailer's %u bytes are there", where,
                        got + length.size(), kCaptureTrailerBytes));
  }
  const auto trailer = DecodeCaptureTrailer(bytes);
  if (!trailer.ok()) return Annotate(trailer.status(), where);
  if (trailer->records != records_ || trailer->bytes != at) {
    return absl::DataLossError(
        absl::StrFormat("%s: it says %u records and %u bytes, but %u and %u stand before it", where,
                        trailer->records, trailer->bytes, records_, at));
  }
  char more = 0;
  GODWIT_ASSIGN_OR_RETURN(const size_t after, Read(&more, 1));
  if (after == 0) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrFormat("%s: something follows it, from byte %u on", where, position_ - 1));
}

bool CaptureReader::LengthIsAllowed(uint64_t frame_bytes) const {
  return frame_bytes > kFrameHeaderBytes &&
         frame_bytes <= kFrameHeaderBytes + PayloadBytesMax(header_.packet_bytes);
}

absl::StatusOr<size_t> CaptureReader::Read(void* out, size_t count) {
  size_t done = 0;
  while (done < count) {
    const ssize_t got = ::read(file_.get(), static_cast<char*>(out) + done, count - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      return ErrnoStatus(errno, absl::StrCat(path_, ": reading at byte ", position_, " failed"));
    }
    if (got == 0) break;
    done += static_cast<size_t>(got);
    position_ += static_cast<uint64_t>(got);
  }
  return done;
}

absl::StatusOr<size_t> CaptureReader::ReadAt(void* out, size_t count, uint64_t offset) const {
  size_t done = 0;
  while (done < count) {
    const ssize_t got = ::pread(file_.get(), static_cast<char*>(out) + done, count - done,
                                static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      return ErrnoStatus(errno,
                         absl::StrCat(path_, ": reading at byte ", offset + done, " failed"));
    }
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

std::string CaptureReader::Where() const { return RecordName(path_, record(), record_offset_); }

}  // namespace godwit
