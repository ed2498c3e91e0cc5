// A device that does what a test tells it to, and remembers what it was asked for.
#ifndef GODWIT_TESTS_ENGINE_FAKE_DEVICE_H_
#define GODWIT_TESTS_ENGINE_FAKE_DEVICE_H_

#include <functional>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "godwit/device.h"

namespace godwit {

// Ownership: none; streams are the test's.
// Threads:   any; the script is set before the device is used.
// Blocking:  only in the script's functions.
// Errors:    the script's.
class FakeDevice final : public Device {
 public:
  struct Script {
    absl::Status stop = absl::OkStatus();         // what RESUMING → STOP says
    absl::Status load_config = absl::OkStatus();  // what LoadConfig() says
    std::function<void()> on_stop = [] {};
  };

  FakeDevice() : FakeDevice(Script{}) {}
  explicit FakeDevice(Script script) : script_(std::move(script)) {}

  // "STOP", "config:…", "RESET", in order.
  std::vector<std::string> calls() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return calls_;
  }

  const std::string& name() const override { return name_; }
  absl::string_view kind() const override { return "fake"; }
  MigrationFlags flags() const override { return {.p2p = true, .pre_copy = false}; }
  absl::StatusOr<DeviceState> State() override { return state_; }
  absl::StatusOr<UniqueFd> SetState(DeviceState wanted) override {
    Note(std::string(DeviceStateName(wanted)));
    if (wanted == DeviceState::kStop) {
      script_.on_stop();
      if (!script_.stop.ok()) return script_.stop;
    }
    state_ = wanted;
    return UniqueFd();
  }
  absl::Status Reset() override {
    Note("RESET");
    state_ = DeviceState::kRunning;
    return absl::OkStatus();
  }
  absl::StatusOr<uint64_t> StopCopyBytes() override { return absl::UnimplementedError("fake"); }
  absl::StatusOr<PrecopyInfo> GetPrecopyInfo(int /*data_fd*/) override {
    return absl::UnimplementedError("fake");
  }
  absl::StatusOr<std::string> SaveConfig() override { return std::string("fake config"); }
  absl::Status LoadConfig(absl::string_view config) override {
    Note("config:" + std::string(config));
    return script_.load_config;
  }

 private:
  void Note(std::string call) {
    std::lock_guard<std::mutex> lock(mutex_);
    calls_.push_back(std::move(call));
  }

  const std::string name_ = "fake:a";
  const Script script_;
  DeviceState state_ = DeviceState::kResuming;
  mutable std::mutex mutex_;
  std::vector<std::string> calls_;
};

}  // namespace godwit

#endif  // GODWIT_TESTS_ENGINE_FAKE_DEVICE_H_
