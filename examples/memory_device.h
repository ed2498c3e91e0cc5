// A device of an embedder's own: its state is a piece of memory.
#ifndef GODWIT_EXAMPLES_MEMORY_DEVICE_H_
#define GODWIT_EXAMPLES_MEMORY_DEVICE_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/string_view.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <string>
#include <utility>

#include "godwit/device.h"

// Ownership: each data_fd is the session's; the device keeps a duplicate of the one that it loads.
// Threads:   as godwit::Device.
// Blocking:  never: a stream is a file in memory.
// Errors:    as godwit::Device; the state stays what it was.
class MemoryDevice final : public godwit::Device {
  using enum godwit::DeviceState;

 public:
  MemoryDevice(std::string name, std::string content)
      : name_(std::move(name)), content_(std::move(content)) {}

  const std::string& content() const { return content_; }

  const std::string& name() const override { return name_; }
  absl::string_view kind() const override { return "memory"; }
  // It never writes into another device, so there is nothing that P2P would have to hold back.
  godwit::MigrationFlags flags() const override { return {.p2p = true, .pre_copy = false}; }
  absl::StatusOr<godwit::DeviceState> State() override { return state_; }

  // Between any two of the states that this device has the table has a way, and what lies on it has
  // no effect here: only what is left and what is entered counts.
  absl::StatusOr<godwit::UniqueFd> SetState(godwit::DeviceState wanted) override {
    if (wanted == state_) return godwit::UniqueFd();
    if (!Has(wanted)) {
      return absl::FailedPreconditionError(
          absl::StrCat(name_, " has no state ", godwit::DeviceStateName(wanted)));
    }
    godwit::UniqueFd data_fd, loading;
    if (wanted == kStopCopy || wanted == kResuming) {
      data_fd.Reset(::memfd_create(name_.c_str(), MFD_CLOEXEC));
      loading.Reset(::fcntl(data_fd.get(), F_DUPFD_CLOEXEC, 0));
      if (!loading.valid()) return absl::ErrnoToStatus(errno, absl::StrCat(name_, ": a stream"));
    }
    if (state_ == kResuming && !TakeOver()) {
      return absl::ErrnoToStatus(errno, absl::StrCat(name_, ": taking over what was loaded"));
    }
    if (wanted == kStopCopy && !PutContent(data_fd.get())) {
      return absl::ErrnoToStatus(errno, absl::StrCat(name_, ": saving"));
    }
    loading_.Reset();
    if (wanted == kResuming) loading_ = std::move(loading);
    state_ = wanted;
    return data_fd;
  }

  absl::Status Reset() override {
    loading_.Reset();
    state_ = kRunning;
    return absl::OkStatus();
  }

  absl::StatusOr<uint64_t> StopCopyBytes() override { return content_.size(); }
  absl::StatusOr<godwit::PrecopyInfo> GetPrecopyInfo(int /*data_fd*/) override {
    return absl::UnimplementedError(absl::StrCat(name_, " has no PRE_COPY"));
  }

  absl::StatusOr<std::string> SaveConfig() override { return absl::StrCat(content_.size()); }
  // Comes from a peer, so it is checked and not believed.
  absl::Status LoadConfig(absl::string_view config) override {
    if (config == absl::StrCat(content_.size())) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(name_, ": the config is not that of ", content_.size(), " bytes of state"));
  }

 private:
  static bool Has(godwit::DeviceState state) {
    return state == kStop || state == kRunning || state == kStopCopy || state == kResuming ||
           state == kRunningP2p;
  }

  // Whether all went well; if not, errno says why.
  bool PutContent(int fd) const {
    for (size_t done = 0; done < content_.size();) {
      const ssize_t put = ::write(fd, content_.data() + done, content_.size() - done);
      if (put < 0) return false;
      done += static_cast<size_t>(put);
    }
    return ::lseek(fd, 0, SEEK_SET) == 0;
  }

  bool TakeOver() {
    const off_t bytes = ::lseek(loading_.get(), 0, SEEK_END);
    if (bytes < 0) return false;
    std::string loaded(static_cast<size_t>(bytes), '\0');
    for (size_t done = 0; done < loaded.size();) {
      const ssize_t got = ::pread(loading_.get(), loaded.data() + done, loaded.size() - done,
                                  static_cast<off_t>(done));
      if (got <= 0) return false;
      done += static_cast<size_t>(got);
    }
    content_ = std::move(loaded);
    return true;
  }

  const std::string name_;
  std::string content_;
  godwit::DeviceState state_ = kRunning;
  godwit::UniqueFd loading_;  // in RESUMING: what the session writes to
};

#endif  // GODWIT_EXAMPLES_MEMORY_DEVICE_H_
