// Reads a capture: docs/capture-format.md.
#ifndef GODWIT_ENGINE_CAPTURE_READER_H_
#define GODWIT_ENGINE_CAPTURE_READER_H_

#include <absl/status/statusor.h>

#include <memory>
#include <optional>
#include <string>

#include "engine/capture_format.h"
#include "godwit/unique_fd.h"

namespace godwit {

// Reads header, records and trailer in file order, and says where the file is not what it should
// be. What is inside a frame is not its business.
//
// Ownership: owns the file.
// Threads:   single-threaded.
// Blocking:  as the file system does.
// Errors:    name the path, the record and its offset; after the first it is no longer known where
//            the next record would be. DataLoss: cut off or damaged. InvalidArgument: not known.
class CaptureReader {
 public:
  // Opens the file and reads the header.
  static absl::StatusOr<std::unique_ptr<CaptureReader>> Open(const std::string& path);
  CaptureReader(const CaptureReader&) = delete;
  CaptureReader& operator=(const CaptureReader&) = delete;

  const CaptureHeader& header() const { return header_; }

  // In a regular file: whether a trailer stands at its end and fits its length. If it does not, the
  // error names the first record that is not whole. Moves nothing.
  absl::Status CheckWhole() const;

  // Bytes of the next frame, header included; nothing at the trailer, which has then been checked
  // against what was read. Its length is within what the header allows.
  absl::StatusOr<std::optional<size_t>> NextFrameBytes();
  // Reads the frame of the last NextFrameBytes() to `out`.
  absl::Status ReadFrame(std::byte* out);

  // Of the last NextFrameBytes(): its number, and where its length stands.
  uint64_t record() const { return records_ - 1; }
  uint64_t record_offset() const { return record_offset_; }
  uint64_t records() const { return records_; }
  // "PATH: record 3 (at byte 4096)"
  std::string Where() const;

 private:
  CaptureReader(std::string path, UniqueFd file);
  absl::Status ReadHeader();
  absl::Status CheckTrailer(absl::string_view length);
  // As many bytes as there are, `count` at most.
  absl::StatusOr<size_t> Read(void* out, size_t count);
  absl::StatusOr<size_t> ReadAt(void* out, size_t count, uint64_t offset) const;
  bool LengthIsAllowed(uint64_t frame_bytes) const;
  absl::Status FirstBrokenRecord(uint64_t file_bytes) const;

  const std::string path_;
  const UniqueFd file_;
  CaptureHeader header_;
  size_t header_bytes_ = 0;
  uint64_t position_ = 0;
  uint64_t records_ = 0;
  uint64_t record_offset_ = 0;
  size_t frame_bytes_ = 0;
};

}  // namespace godwit

#endif  // GODWIT_ENGINE_CAPTURE_READER_H_
