// A device in software that is as slow as a test wants it.
#ifndef GODWIT_TESTS_ENGINE_SLOW_DEVICE_H_
#define GODWIT_TESTS_ENGINE_SLOW_DEVICE_H_

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "godwit/device.h"
#include "vfio/device_spec.h"

namespace godwit {

// Each state change takes `step`, and what is loaded goes to the device behind through a pipe, at
// `load_bytes_per_second`.
//
// Ownership: owns the device behind and the thread that empties the pipe.
// Threads:   as Device.
// Blocking:  SetState() for `step`; RESUMING → STOP also until the pipe is empty.
// Errors:    those of the device behind.
class SlowDevice final : public Device {
 public:
  struct Speed {
    std::chrono::milliseconds step{0};
    double load_bytes_per_second = 0;
  };

  SlowDevice(const std::string& spec, DeviceRole role, Speed speed) : speed_(speed) {
    auto device = OpenDevice(spec, role);
    EXPECT_TRUE(device.ok()) << device.status();
    behind_ = *std::move(device);
  }
  ~SlowDevice() override { EndLoad(); }

  const std::string& name() const override { return behind_->name(); }
  absl::string_view kind() const override { return behind_->kind(); }
  MigrationFlags flags() const override { return behind_->flags(); }
  absl::StatusOr<DeviceState> State() override { return behind_->State(); }
  absl::StatusOr<UniqueFd> SetState(DeviceState wanted) override {
    std::this_thread::sleep_for(speed_.step);
    EndLoad();
    GODWIT_ASSIGN_OR_RETURN(UniqueFd stream, behind_->SetState(wanted));
    if (wanted != DeviceState::kResuming) return stream;
    std::array<int, 2> fds = {};
    if (::pipe2(fds.data(), O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe2");
    EXPECT_GE(::fcntl(fds[1], F_SETPIPE_SZ, kPieceBytes), kPieceBytes);
    all_written_ = false;
    thread_ = std::thread(
        [this, from = fds[0], to = stream.Release()] { Empty(UniqueFd(from), UniqueFd(to)); });
    return UniqueFd(fds[1]);
  }
  absl::Status Reset() override {
    EndLoad();
    return behind_->Reset();
  }
  absl::StatusOr<uint64_t> StopCopyBytes() override { return behind_->StopCopyBytes(); }
  absl::StatusOr<PrecopyInfo> GetPrecopyInfo(int data_fd) override {
    return behind_->GetPrecopyInfo(data_fd);
  }
  absl::StatusOr<std::string> SaveConfig() override { return behind_->SaveConfig(); }
  absl::Status LoadConfig(absl::string_view config) override { return behind_->LoadConfig(config); }
  bool content_verified() const override { return behind_->content_verified(); }

 private:
  void EndLoad() {
    all_written_ = true;
    if (thread_.joinable()) thread_.join();
  }
  // Until all is written and nothing is left.
  void Empty(const UniqueFd& from, const UniqueFd& to) const {
    using std::chrono::steady_clock;
    std::vector<char> bytes(kPieceBytes);
    steady_clock::time_point free_at;  // when what was taken so far is loaded
    while (true) {
      const bool last_look = all_written_;
      pollfd readable = {from.get(), POLLIN, 0};
      if (::poll(&readable, 1, 0) == 0) {
        if (last_look) return;
        ::poll(&readable, 1, 1);
        // Time in which nothing came is no credit.
        free_at = std::max(free_at, steady_clock::now());
        continue;
      }
      const ssize_t got = ::read(from.get(), bytes.data(), bytes.size());
      if (got <= 0 || ::write(to.get(), bytes.data(), static_cast<size_t>(got)) != got) return;
      free_at += std::chrono::duration_cast<std::chrono::nanoseconds>(
          std::chrono::duration<double>(static_cast<double>(got) / speed_.load_bytes_per_second));
      // What one sleep is too long the next is shorter, so that a busy machine changes little.
      if (free_at > steady_clock::now() + kSleepMin) std::this_thread::sleep_until(free_at);
    }
  }

  // Large and long enough that it is the sleeps that take the time.
  static constexpr int kPieceBytes = 128 * 1024;
  static constexpr std::chrono::milliseconds kSleepMin{5};

  const Speed speed_;
  std::unique_ptr<Device> behind_;
  std::atomic<bool> all_written_{false};
  std::thread thread_;
};

}  // namespace godwit

#endif  // GODWIT_TESTS_ENGINE_SLOW_DEVICE_H_
