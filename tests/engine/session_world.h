// Two sessions in one process: the words in which the session tests speak.
#ifndef GODWIT_TESTS_ENGINE_SESSION_WORLD_H_
#define GODWIT_TESTS_ENGINE_SESSION_WORLD_H_

#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "godwit/session.h"
#include "vfio/device_spec.h"

namespace godwit {

// The shortest time-out that a side could run into that waits for its peer to end: who took less
// did not. A sanitizer may make anything slow.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr std::chrono::seconds kShortestTimeout{3600};
#else
inline constexpr std::chrono::seconds kShortestTimeout{1};
#endif

// How long a session may take, whatever is done to it. Sanitizers and a busy machine get more.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr std::chrono::seconds kSessionCap{40};
#else
inline constexpr std::chrono::seconds kSessionCap{10};
#endif

// Ends the whole test program, loudly, when what it watches takes longer than `cap`: a session that
// hangs can't be abandoned.
class Watchdog {
 public:
  explicit Watchdog(std::string what, std::chrono::seconds cap = kSessionCap)
      : thread_([this, what = std::move(what), cap] {
          std::unique_lock<std::mutex> lock(mutex_);
          if (done_.wait_for(lock, cap, [this] { return over_; })) return;
          std::fprintf(stderr, "%s: still going after %d s\n", what.c_str(),
                       static_cast<int>(cap.count()));
          std::abort();
        }) {}
  ~Watchdog() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      over_ = true;
    }
    done_.notify_all();
    thread_.join();
  }
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable done_;
  bool over_ = false;
  std::thread thread_;
};

// Keeps what a session tells, and can act on a phase.
class RecordingObserver final : public SessionObserver {
 public:
  std::function<void(SessionPhase)> on_phase = [](SessionPhase) {};

  void OnPhase(SessionPhase phase) override {
    phases.push_back(phase);
    phase_ = phase;
    on_phase(phase);
  }
  void OnListening(absl::string_view /*address*/, uint16_t port) override {
    if (!told_.exchange(true)) port_.set_value(port);
  }
  void OnNote(absl::string_view line) override {
    std::lock_guard<std::mutex> lock(mutex_);
    notes_.emplace_back(line);
  }
  // Waits for OnListening().
  uint16_t Port() { return listening_.get(); }
  std::string Notes() const {
    std::lock_guard<std::mutex> lock(mutex_);
    std::string all;
    for (const std::string& note : notes_) absl::StrAppend(&all, note, "\n");
    return all;
  }

  SessionPhase phase() const { return phase_; }

  std::vector<SessionPhase> phases;  // of the session's thread

 private:
  std::promise<uint16_t> port_;
  std::shared_future<uint16_t> listening_ = port_.get_future().share();
  std::atomic<bool> told_{false};
  std::atomic<SessionPhase> phase_{SessionPhase::kWaiting};
  mutable std::mutex mutex_;
  std::vector<std::string> notes_;
};

class Devices {
 public:
  Devices(const std::vector<std::string>& specs, DeviceRole role) {
    for (const std::string& spec : specs) {
      auto device = OpenDevice(spec, role);
      EXPECT_TRUE(device.ok()) << device.status();
      owned_.push_back(*std::move(device));
    }
  }
  std::vector<Device*> pointers() const {
    std::vector<Device*> all;
    for (const auto& device : owned_) all.push_back(device.get());
    return all;
  }
  void ExpectAllIn(DeviceState state) const {
    for (const auto& device : owned_) {
      const auto now = device->State();
      EXPECT_TRUE(now.ok()) << now.status();
      if (now.ok()) {
        EXPECT_EQ(DeviceStateName(*now), DeviceStateName(state)) << device->name();
      }
    }
  }

 private:
  std::vector<std::unique_ptr<Device>> owned_;
};

// A target session that runs on a thread of its own from construction on.
class RunningTarget {
 public:
  explicit RunningTarget(
      std::vector<Device*> devices, TargetOptions options = DefaultOptions(),
      std::function<void(SessionPhase)> on_phase = [](SessionPhase) {})
      : session_(std::move(options), std::move(devices), observer_) {
    observer_.on_phase = std::move(on_phase);
    thread_ = std::thread([this] { report_ = session_.Run(); });
  }
  ~RunningTarget() {
    if (thread_.joinable()) thread_.join();
  }

  static TargetOptions DefaultOptions() {
    TargetOptions options;
    options.listen = "127.0.0.1:0";
    options.transport = TransportKind::kTcp;
    options.arena_bytes = size_t{4} << 20;
    return options;
  }

  uint16_t Port() { return observer_.Port(); }
  TargetSession& session() { return session_; }
  RecordingObserver& observer() { return observer_; }
  // Waits for the session's end.
  SessionReport& Report() {
    if (thread_.joinable()) thread_.join();
    return report_;
  }

 private:
  RecordingObserver observer_;
  TargetSession session_;
  SessionReport report_;
  std::thread thread_;
};

inline SourceOptions SourceOptionsFor(uint16_t port) {
  SourceOptions options;
  options.to = absl::StrCat("127.0.0.1:", port);
  options.transport = TransportKind::kTcp;
  options.lanes = 2;
  options.packet_bytes = 4096;
  return options;
}

}  // namespace godwit

#endif  // GODWIT_TESTS_ENGINE_SESSION_WORLD_H_
