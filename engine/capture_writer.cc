#include "engine/capture_writer.h"

#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "engine/packet.h"

namespace godwit {
namespace {

constexpr mode_t kFileMode = 0600;  // device state holds the guest's secrets
constexpr absl::string_view kPartialSuffix = ".partial";

absl::Status AlreadyThere(const std::string& path) {
  return absl::AlreadyExistsError(
      absl::StrCat(path, " exists: choose another name, or replace it with --force"));
}

// Makes a rename durable.
absl::Status SyncDirectoryOf(const std::string& path) {
  std::string directory = std::filesystem::path(path).parent_path().string();
  if (directory.empty()) directory.push_back('.');
  const UniqueFd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid() || ::fsync(fd.get()) != 0) {
    return ErrnoStatus(errno, absl::StrCat(path, ": making its name durable failed"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<CaptureWriter>> CaptureWriter::Create(const std::string& path,
                                                                     bool replace) {
  if (path.empty() || path.back() == '/') {
    return absl::InvalidArgumentError(absl::StrCat("'", path, "' names no file to save to"));
  }
  struct stat there = {};
  if (::lstat(path.c_str(), &there) == 0) {
    if (!S_ISREG(there.st_mode)) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, " is not a regular file: a capture would replace it"));
    }
    if (!replace) return AlreadyThere(path);
  }
  const std::string partial = absl::StrCat(path, kPartialSuffix);
  // Not truncated before it is locked: another writer may be at work on it.
  UniqueFd file(
      ::open(partial.c_str(), O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, kFileMode));
  if (!file.valid()) return ErrnoStatus(errno, absl::StrCat(partial, ": it can't be created"));
  if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    return absl::AlreadyExistsError(absl::StrCat(partial, " is being written by another process"));
  }
  if (::ftruncate(file.get(), 0) != 0 || ::fchmod(file.get(), kFileMode) != 0) {
    return ErrnoStatus(errno, absl::StrCat(partial, ": it can't be written"));
  }
  return std::unique_ptr<CaptureWriter>(new CaptureWriter(path, replace, std::move(file)));
}

CaptureWriter::CaptureWriter(std::string path, bool replace, UniqueFd file)
    : path_(std::move(path)),
      partial_(absl::StrCat(path_, kPartialSuffix)),
      replace_(replace),
      file_(std::move(file)) {}

CaptureWriter::~CaptureWriter() {
  if (!committed_) ::unlink(partial_.c_str());  // while the lock is ours
}

absl::Status CaptureWriter::Write(const void* bytes, size_t count) {
  const char* at = static_cast<const char*>(bytes);
  while (count > 0) {
    const ssize_t written = ::write(file_.get(), at, count);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      return ErrnoStatus(written < 0 ? errno : ENOSPC,
                         absl::StrCat(partial_, ": writing at byte ", bytes_, " failed"));
    }
    at += written;
    count -= static_cast<size_t>(written);
    bytes_ += static_cast<uint64_t>(written);
  }
  return absl::OkStatus();
}

absl::Status CaptureWriter::WriteHeader(const CaptureHeader& header) {
  const std::string encoded = EncodeCaptureHeader(header);
  return Write(encoded.data(), encoded.size());
}

absl::Status CaptureWriter::WriteRecord(const Buffer& buffer) {
  const size_t frame_bytes = kFrameHeaderBytes + buffer.payload_bytes();
  // The length goes before the frame, where the buffer has room: one write, and no copy.
  std::byte* const start = buffer.header(kFrameHeaderBytes + kCaptureLengthBytes);
  for (size_t i = 0; i < kCaptureLengthBytes; ++i) {
    start[i] = static_cast<std::byte>(frame_bytes >> (8 * (kCaptureLengthBytes - 1 - i)));
  }
  GODWIT_RETURN_IF_ERROR(Write(start, kCaptureLengthBytes + frame_bytes));
  ++records_;
  return absl::OkStatus();
}

absl::Status CaptureWriter::Commit() {
  const std::string trailer = EncodeCaptureTrailer({records_, bytes_});
  GODWIT_RETURN_IF_ERROR(Write(trailer.data(), trailer.size()));
  if (::fsync(file_.get()) != 0) {
    return ErrnoStatus(errno, absl::StrCat(partial_, ": making it durable failed"));
  }
  GODWIT_RETURN_IF_ERROR(Rename());
  committed_ = true;
  return SyncDirectoryOf(path_);
}

absl::Status CaptureWriter::Rename() const {
  if (!replace_) {
    // Somebody may have made the file meanwhile.
    if (::renameat2(AT_FDCWD, partial_.c_str(), AT_FDCWD, path_.c_str(), RENAME_NOREPLACE) == 0) {
      return absl::OkStatus();
    }
    if (errno == EEXIST) return AlreadyThere(path_);
    if (errno != EINVAL && errno != ENOSYS) {
      return ErrnoStatus(errno, absl::StrCat(partial_, ": giving it its name failed"));
    }
    // A file system without such a rename.
    struct stat there = {};
    if (::lstat(path_.c_str(), &there) == 0) return AlreadyThere(path_);
  }
  if (::rename(partial_.c_str(), path_.c_str()) != 0) {
    return ErrnoStatus(errno, absl::StrCat(partial_, ": giving it its name failed"));
  }
  return absl::OkStatus();
}

}  // namespace godwit
