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

absl::StatusOr<UniqueFd> OpenFolderOf(const std::string& path) {
  std::string folder = std::filesystem::path(path).parent_path().string();
  if (folder.empty()) folder.push_back('.');
  UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.valid()) return fd;
  return ErrnoStatus(errno, absl::StrCat(path, ": its folder ", folder, " can't be opened"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<CaptureWriter>> CaptureWriter::Create(const std::string& path,
                                                                     bool replace,
                                                                     SyncFolder sync_folder) {
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
  // Now, and not only when the file is whole: a folder that can't be made durable is found before a
  // device has stopped for it.
  GODWIT_ASSIGN_OR_RETURN(UniqueFd folder, OpenFolderOf(path));
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
  return std::unique_ptr<CaptureWriter>(
      new CaptureWriter(path, replace, sync_folder, std::move(folder), std::move(file)));
}

CaptureWriter::CaptureWriter(std::string path, bool replace, SyncFolder sync_folder,
                             UniqueFd folder, UniqueFd file)
    : path_(std::move(path)),
      partial_(absl::StrCat(path_, kPartialSuffix)),
      replace_(replace),
      sync_folder_(sync_folder),
      folder_(std::move(folder)),
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
  struct stat there = {};
  const bool replaces = ::lstat(path_.c_str(), &there) == 0;
  GODWIT_RETURN_IF_ERROR(Rename());
  committed_ = true;
  if (sync_folder_(folder_.get()) == 0) return absl::OkStatus();
  const int error = errno;
  RemoveRenamed();
  return ErrnoStatus(error,
                     absl::StrCat(path_, ": making its name durable failed",
                                  replaces ? ", and the file that it replaced is gone" : ""));
}

void CaptureWriter::RemoveRenamed() const {
  struct stat ours = {};
  struct stat there = {};
  if (::fstat(file_.get(), &ours) != 0 || ::lstat(path_.c_str(), &there) != 0) return;
  if (ours.st_dev == there.st_dev && ours.st_ino == there.st_ino) ::unlink(path_.c_str());
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
