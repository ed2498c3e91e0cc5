// A target device that takes its state only while its gate is open.
#ifndef GODWIT_TESTS_ENGINE_GATE_DEVICE_H_
#define GODWIT_TESTS_ENGINE_GATE_DEVICE_H_

#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <string>
#include <thread>

#include "base/crc32c.h"
#include "base/errno_status.h"
#include "godwit/device.h"

namespace godwit {

// Its data_fd is a pipe that a thread empties while the gate is open. It pairs with soft devices.
//
// Ownership: owns the thread and the pipe's read end.
// Threads:   as Device; Open(), taken_bytes(), full() from any.
// Blocking:  RESUMING → STOP waits for the pipe to be empty.
// Errors:    none.
class GateDevice final : public Device {
 public:
  explicit GateDevice(bool open) : open_(open) {}
  ~GateDevice() override { Join(); }

  void Open() { open_ = true; }
  uint64_t taken_bytes() const { return taken_bytes_; }
  // A writer of more than the pipe holds is in the middle of its write(2).
  bool full() const { return full_; }

  const std::string& name() const override { return name_; }
  absl::string_view kind() const override { return "soft"; }
  MigrationFlags flags() const override { return {.p2p = true, .pre_copy = false}; }
  absl::StatusOr<DeviceState> State() override { return state_; }
  absl::StatusOr<UniqueFd> SetState(DeviceState wanted) override {
    UniqueFd writers_end;
    if (wanted == DeviceState::kResuming) {
      std::array<int, 2> fds = {};
      if (::pipe2(fds.data(), O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe2");
      writers_end.Reset(fds[1]);
      stop_ = false;
      thread_ = std::thread([this, fd = fds[0]] { Empty(UniqueFd(fd)); });
    } else if (state_ == DeviceState::kResuming) {
      stop_ = true;
      Join();
    }
    state_ = wanted;
    return writers_end;
  }
  absl::Status Reset() override {
    Join();
    state_ = DeviceState::kRunning;
    return absl::OkStatus();
  }
  absl::StatusOr<uint64_t> StopCopyBytes() override { return absl::UnimplementedError("gate"); }
  absl::StatusOr<PrecopyInfo> GetPrecopyInfo(int /*data_fd*/) override {
    return absl::UnimplementedError("gate");
  }
  absl::StatusOr<std::string> SaveConfig() override { return std::string(); }
  absl::Status LoadConfig(absl::string_view /*config*/) override { return absl::OkStatus(); }

 private:
  void Join() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }
  // Until stop_ is set and nothing is left.
  void Empty(const UniqueFd& pipe) {
    std::array<char, 65536> bytes;
    while (true) {
      int waiting_bytes = 0;
      full_ = ::ioctl(pipe.get(), FIONREAD, &waiting_bytes) == 0 &&
              waiting_bytes == ::fcntl(pipe.get(), F_GETPIPE_SZ);
      pollfd readable = {open_ || stop_ ? pipe.get() : -1, POLLIN, 0};
      if (::poll(&readable, 1, 1) <= 0) {
        if (stop_) return;
        continue;
      }
      const ssize_t got = ::read(pipe.get(), bytes.data(), bytes.size());
      if (got <= 0) return;
      taken_bytes_ += static_cast<uint64_t>(got);
    }
  }

  const std::string name_ = "gate";
  DeviceState state_ = DeviceState::kRunning;
  std::atomic<bool> open_;
  std::atomic<bool> stop_{false};
  std::atomic<bool> full_{false};
  std::atomic<uint64_t> taken_bytes_{0};
  std::thread thread_;
};

}  // namespace godwit

#endif  // GODWIT_TESTS_ENGINE_GATE_DEVICE_H_
