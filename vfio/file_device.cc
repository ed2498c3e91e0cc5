#include "vfio/file_device.h"

#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "vfio/state_table.h"

namespace godwit {
namespace {

constexpr mode_t kNewFileMode = 0600;

absl::Status CheckRegular(const std::string& path, const struct stat& file) {
  if (S_ISREG(file.st_mode)) return absl::OkStatus();
  const char* const what = S_ISDIR(file.st_mode) ? "is a directory" : "is not a regular file";
  return absl::InvalidArgumentError(
      absl::StrCat("file:", path, " ", what, ": give the path of a regular file"));
}

absl::Status CheckAccess(const std::string& path, int mode, absl::string_view what) {
  if (::faccessat(AT_FDCWD, path.c_str(), mode, AT_EACCESS) == 0) return absl::OkStatus();
  return ErrnoStatus(errno, absl::StrCat("file:", path, ": ", what));
}

absl::Status CheckParent(const std::string& path) {
  std::error_code error;  // "" is no directory, and is refused below
  const std::string parent = std::filesystem::absolute(path, error).parent_path().string();
  struct stat directory = {};
  if (::stat(parent.c_str(), &directory) != 0) {
    if (errno == ENOENT) {
      return absl::NotFoundError(absl::StrCat("file:", path, ": the directory ", parent,
                                              " does not exist: make it first"));
    }
    return ErrnoStatus(errno, absl::StrCat("file:", path, ": look up ", parent));
  }
  if (!S_ISDIR(directory.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat("file:", path, ": can't create the file, as ", parent, " is no directory"));
  }
  return CheckAccess(parent, W_OK | X_OK, "can't create a file in this directory");
}

}  // namespace

absl::StatusOr<std::unique_ptr<FileDevice>> FileDevice::Open(const std::string& path,
                                                             DeviceRole role) {
  if (path.empty() || path.back() == '/') {
    return absl::InvalidArgumentError(
        absl::StrCat("file:", path, " names no file: give the path of a regular file"));
  }
  struct stat file = {};
  if (::stat(path.c_str(), &file) == 0) {
    GODWIT_RETURN_IF_ERROR(CheckRegular(path, file));
    const bool source = role == DeviceRole::kSource;
    GODWIT_RETURN_IF_ERROR(CheckAccess(path, source ? R_OK : W_OK,
                                       source ? "can't read the file" : "can't write the file"));
  } else if (errno != ENOENT || role == DeviceRole::kSource) {
    return ErrnoStatus(errno, absl::StrCat("file:", path, ": can't find the file"));
  } else {
    GODWIT_RETURN_IF_ERROR(CheckParent(path));
  }
  return std::unique_ptr<FileDevice>(new FileDevice(path, role));
}

FileDevice::FileDevice(const std::string& path, DeviceRole role)
    : path_(path), name_(absl::StrCat("file:", path)), role_(role) {}

absl::StatusOr<UniqueFd> FileDevice::SetState(DeviceState wanted) {
  const absl::StatusOr<std::vector<DeviceState>> path = Walk(flags(), state_, wanted);
  if (!path.ok()) return Annotate(path.status(), name_);
  UniqueFd data_fd;
  for (const DeviceState next : *path) {
    const absl::Status status = Step(next, data_fd);
    if (!status.ok()) {
      return Annotate(status, absl::StrCat(name_, ": ", DeviceStateName(state_), " to ",
                                           DeviceStateName(next), " failed"));
    }
  }
  return data_fd;
}

absl::Status FileDevice::Step(DeviceState next, UniqueFd& data_fd) {
  if (state_ == DeviceState::kResuming) {
    GODWIT_RETURN_IF_ERROR(CutToLengthWritten());
    loading_.Reset();
  }
  if (next == DeviceState::kStopCopy) {
    GODWIT_ASSIGN_OR_RETURN(data_fd, OpenToSave());
  } else if (next == DeviceState::kResuming) {
    GODWIT_ASSIGN_OR_RETURN(data_fd, OpenToLoad());
  } else if (next == DeviceState::kRunning) {
    created_by_us_ = false;  // it lives: no later reset may remove it
  }
  state_ = next;
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> FileDevice::OpenToSave() const {
  UniqueFd file(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return ErrnoStatus(errno, "open for reading");
  return file;
}

absl::StatusOr<UniqueFd> FileDevice::OpenToLoad() {
  if (role_ != DeviceRole::kTarget) {
    return absl::FailedPreconditionError("the file is a source and is not written to");
  }
  UniqueFd file(::open(path_.c_str(), O_WRONLY | O_CLOEXEC));
  bool created = false;
  if (!file.valid() && errno == ENOENT) {
    file.Reset(::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, kNewFileMode));
    created = file.valid();
  }
  if (!file.valid()) return ErrnoStatus(errno, "open for writing");
  loading_.Reset(::fcntl(file.get(), F_DUPFD_CLOEXEC, 0));
  created_by_us_ = created_by_us_ || created;
  if (!loading_.valid()) return ErrnoStatus(errno, "duplicate the file's descriptor");
  return file;
}

absl::Status FileDevice::CutToLengthWritten() const {
  const off_t written = ::lseek(loading_.get(), 0, SEEK_CUR);
  if (written < 0) return ErrnoStatus(errno, "lseek");
  if (::ftruncate(loading_.get(), written) != 0) {
    return ErrnoStatus(errno, absl::StrCat("cut the file to ", written, " bytes"));
  }
  return absl::OkStatus();
}

absl::Status FileDevice::Reset() {
  loading_.Reset();
  state_ = DeviceState::kRunning;
  if (std::exchange(created_by_us_, false) && ::unlink(path_.c_str()) != 0 && errno != ENOENT) {
    return ErrnoStatus(errno, absl::StrCat(name_, ": remove the half-written file"));
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> FileDevice::StopCopyBytes() {
  struct stat file = {};
  if (::stat(path_.c_str(), &file) != 0) return ErrnoStatus(errno, absl::StrCat(name_, ": stat"));
  return static_cast<uint64_t>(file.st_size);
}

absl::StatusOr<PrecopyInfo> FileDevice::GetPrecopyInfo(int /*data_fd*/) {
  return absl::UnimplementedError(absl::StrCat(name_, ": a file has no PRE_COPY"));
}

absl::Status FileDevice::LoadConfig(absl::string_view config) {
  if (config.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(name_, ": a file has no config, but the source sent one of ", config.size(),
                   " bytes: is the source a file, too?"));
}

}  // namespace godwit
