// Moving devices: one session on the source host, one on the target host.
#ifndef GODWIT_SESSION_H_
#define GODWIT_SESSION_H_

#include <absl/status/status.h>
#include <absl/strings/string_view.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "godwit/device.h"
#include "godwit/statistics.h"
#include "godwit/stream_check.h"
#include "godwit/trust.h"

namespace godwit {

enum class TransportKind { kAuto, kTcp, kVerbs };
absl::string_view TransportName(TransportKind transport);  // "auto", "tcp", "verbs"

// What a session is doing; they follow each other in this order. docs/architecture.md says more.
enum class SessionPhase {
  kWaiting,     // target: for its peer
  kConnecting,  // agreeing on limits, setting up lanes, devices to RESUMING
  kPreCopying,  // devices run and their state is copied meanwhile; only where a device has PRE_COPY
  kStopping,    // vCPUs stop, devices to STOP_COPY: downtime begins
  kStreaming,   // until the target has loaded every device
  kHandingOver,
  kFinished,
};
absl::string_view SessionPhaseName(SessionPhase phase);

enum class SessionOutcome {
  kDone,        // the devices run on the target
  kRolledBack,  // the devices run on the source; the target's are reset
  kInDoubt,     // contact was lost at the handover: the source's devices stay stopped
};

// What to do when pre-copy can't bring the estimated downtime under its limit.
enum class OnNoConvergence { kSwitch, kAbort };

// When pre-copy ends.
struct PrecopyLimits {
  std::chrono::milliseconds downtime{300};     // switch when the estimate is under this
  std::chrono::milliseconds time_max{60'000};  // of pre-copy; then as on_no_convergence says
  uint64_t bytes_max = 0;                      // sent in pre-copy; 0: no limit
  OnNoConvergence on_no_convergence = OnNoConvergence::kSwitch;
};

// Why the devices were stopped.
enum class SwitchoverReason {
  kConverged,    // the estimate came under the limit
  kNothingMore,  // no device had more to give while it ran
  kTimeMax,      // PrecopyLimits::time_max
  kBytesMax,     // PrecopyLimits::bytes_max
};
absl::string_view SwitchoverReasonName(SwitchoverReason reason);  // "converged", …

// One round of pre-copy: the stream of one device was read until it had nothing more.
struct PrecopyIteration {
  size_t device = 0;
  uint64_t number = 0;  // of this device, from 1
  uint64_t bytes = 0;   // read in it
  std::chrono::nanoseconds duration{0};
  uint64_t initial_bytes = 0;  // what the device said at its end
  uint64_t dirty_bytes = 0;
};

// The decision to stop the devices, with the numbers as they were when the last read before the
// stop had ended.
struct SwitchoverReport {
  SwitchoverReason reason = SwitchoverReason::kConverged;
  uint64_t remaining_bytes = 0;   // not yet loaded
  uint64_t on_the_way_bytes = 0;  // of those; the others were still with the devices
  double bytes_per_second = 0;    // 0: nothing was measured
  // A state change of all devices at once, at either side, as measured or configured.
  std::chrono::nanoseconds source_step{0};
  std::chrono::nanoseconds target_step{0};
  std::chrono::nanoseconds config{0};       // as configured
  std::chrono::nanoseconds packet_trip{0};  // from the order to read a packet until its receipt
  std::chrono::nanoseconds round_trip{0};   // of the control channel
  // By the formula in docs/switchover.md, when it was decided, and of the numbers above; 0: could
  // not be predicted.
  std::chrono::nanoseconds decided_downtime{0};
  std::chrono::nanoseconds predicted_downtime{0};
  // Once it is done: the downtime but for what moving the bytes took at that rate. What may be
  // expected of the next session of such devices.
  std::chrono::nanoseconds fixed_downtime{0};
};

// A state change of a device that the session asked for.
struct DeviceStep {
  size_t device = 0;
  DeviceState to = DeviceState::kRunning;
  std::chrono::nanoseconds begin{0};  // CLOCK_MONOTONIC
  std::chrono::nanoseconds duration{0};
  absl::Status status;
};

struct LaneEvent {
  uint32_t lane = 0;
  bool up = false;
  absl::Status why;  // of a lane that broke
};

// What the VMM does for a session. Each may be empty. The vCPU calls come on the thread that is in
// Run(), which waits for them: like an observer they must not block for long. The config calls come
// on threads of the session's, for different devices at the same time.
struct VmCallbacks {
  // Source, before the first device is stopped. The session is rolled back when it fails.
  std::function<absl::Status()> stop_vcpus;
  // Target, when all devices run; after it the VM is the target's for good. Source, after a
  // rollback that comes behind stop_vcpus.
  std::function<absl::Status()> start_vcpus;
  // In place of the devices' own: a config packet's content, at most kConfigBytesMax, saved with
  // the device in STOP_COPY and loaded with it in STOP. `device` is its position.
  std::function<absl::StatusOr<std::string>(size_t device)> save_config;
  std::function<absl::Status(size_t device, absl::string_view config)> load_config;
};

struct DeviceReport {
  std::string name;
  std::string kind;
  uint64_t bytes = 0;    // of its stream
  uint64_t packets = 0;  // config packet included
  // Digest of the stream as read at the source (0: not known here, or SessionReport::crc is false).
  uint32_t sent_crc32c = 0;
  uint32_t loaded_crc32c = 0;     // digest of the stream as loaded at the target
  bool content_verified = false;  // the device itself knows what it should hold, and does
  uint64_t out_of_order_packets = 0;
  uint64_t precopy_bytes = 0;       // source: read before it was stopped
  uint64_t precopy_iterations = 0;  // source
  // Of a session that failed: how long its end waited for a call of this device's driver that was
  // under way and can't be interrupted. Source: a read, or a question in pre-copy; target: a write
  // or a state change. 0: for none.
  std::chrono::nanoseconds blocked_time{0};
  // Source: it would not go back to RUNNING and was reset, which lost its state.
  bool state_lost = false;
};

struct LaneReport {
  std::string transport;  // "tcp" or "verbs": what it was in the end
  uint64_t bytes = 0;     // payload
  uint64_t packets = 0;
  uint32_t remade = 0;      // source: times that it was made again after it went down
  uint64_t sent_again = 0;  // source: packets that another lane, or this one before, had already
  uint64_t duplicates = 0;  // target: packets that had come before
  // Source: from when it was known to be down until it was up again, or the session ended; all
  // times together, and the longest.
  std::chrono::nanoseconds down_time{0};
  std::chrono::nanoseconds down_longest{0};
};

struct SessionReport {
  absl::Status status;
  SessionOutcome outcome = SessionOutcome::kRolledBack;
  std::string peer;
  TrustKind trust = TrustKind::kPlain;
  Sealing sealing = Sealing::kOff;
  bool crc = true;     // as agreed: SourceOptions::crc
  uint64_t bytes = 0;  // device state, all devices
  uint64_t packets = 0;
  std::chrono::nanoseconds duration{0};  // source: from Run(); target: from its peer's connection
  // Source: from before the first device's stop to "they run on the target". Target: from "ready
  // for the stream" to "they run".
  std::chrono::nanoseconds downtime{0};
  // From the first byte that could flow to all devices loaded: what throughput is measured over.
  std::chrono::nanoseconds stream_time{0};
  // Of lanes that carried anything since the devices were stopped: from the first one's last packet
  // to the last one's, as they came to the target.
  std::chrono::nanoseconds lane_finish_lag{0};
  // Source, where there was any: devices in PRE_COPY until the decision to stop them.
  std::chrono::nanoseconds precopy_time{0};
  std::optional<SwitchoverReport> switchover;
  std::vector<DeviceReport> devices;
  std::vector<LaneReport> lanes;
  std::string arena_backing;  // "hugepages", "transparent hugepages", "plain pages"
  uint64_t arena_bytes = 0;
};

struct SessionProgress {
  SessionPhase phase = SessionPhase::kConnecting;
  std::chrono::nanoseconds downtime_estimate{0};  // source in pre-copy; 0: none yet
  uint64_t bytes = 0;                             // source: sent; target: loaded
  uint64_t bytes_total = 0;                       // the devices' estimate; 0 where they have none
};

// Told of things as they happen.
//
// Ownership: the session borrows it; it outlives the session.
// Threads:   called on the thread that is in Run().
// Blocking:  must not block for long: the peer gives up after eight seconds of silence.
// Errors:    none to give back, and it must not throw: nothing would put the devices back.
class SessionObserver {
 public:
  virtual ~SessionObserver() = default;
  virtual void OnPhase(SessionPhase /*phase*/) {}
  virtual void OnListening(absl::string_view /*address*/, uint16_t /*port*/) {}
  // One line for people: a stranger was turned away, a device's rollback failed, …
  virtual void OnNote(absl::string_view /*line*/) {}
  virtual void OnPrecopyIteration(const PrecopyIteration& /*iteration*/) {}
  // Just before the devices are stopped.
  virtual void OnSwitchover(const SwitchoverReport& /*decision*/) {}
  virtual void OnDeviceStep(const DeviceStep& /*step*/) {}
  virtual void OnLane(const LaneEvent& /*event*/) {}
  // Source: no packet was ready, or may be sent, for as long as that; told again as it doubles.
  virtual void OnStarved(std::chrono::nanoseconds /*so_far*/) {}
  virtual void OnStalled(std::chrono::nanoseconds /*so_far*/) {}
};

struct SourceOptions {
  std::string to;  // "ADDR:PORT" of the target
  TrustOptions trust;
  TransportKind transport = TransportKind::kAuto;
  // "NAME[/PORT[/GID]][,…]", as `godwit devices` names them, 8 at most; "": the best.
  std::string rdma_device;
  // With the VM stopped: how long the worker looks for work before it sleeps. It takes a whole CPU
  // while it does.
  std::chrono::microseconds spin{0};
  uint32_t lanes = 4;                     // 1 to 64
  size_t packet_bytes = size_t{1} << 20;  // 1 to 8 MiB - 80
  // CRC-32C of each payload and of each device's whole stream; left out only where both sides say
  // false. Then damage to state that TCP, or the wire, lets through goes unseen, unless packets are
  // sealed: for measuring what it costs.
  bool crc = true;
  std::chrono::milliseconds connect_timeout{5000};
  // How long the target may take with an answer while it is otherwise alive.
  std::chrono::milliseconds answer_timeout{60'000};
  // Memory for packets that are being read and sent; see docs/buffer-budget.md.
  size_t arena_bytes = size_t{128} << 20;
  bool pre_copy = true;  // of the devices that have it
  PrecopyLimits precopy_limits;
  // A device in PRE_COPY is asked what is left no more often than this.
  std::chrono::milliseconds precopy_interval{20};
  // What a state change of these devices takes, where that is known: for the estimate of downtime
  // in place of what this session has measured.
  std::optional<std::chrono::nanoseconds> expected_source_step;
  std::optional<std::chrono::nanoseconds> expected_target_step;
  // And what saving and loading their configurations takes, together: it is not measured before.
  std::chrono::nanoseconds expected_config{0};
  // What a switchover of these devices between these hosts takes beside moving bytes, where earlier
  // sessions said so (SwitchoverReport::fixed_downtime): in place of all of that.
  std::optional<std::chrono::nanoseconds> expected_fixed_downtime;
  // With the VM stopped: how long the target may load nothing more before all is rolled back.
  std::chrono::milliseconds progress_timeout{60'000};
  // How long all lanes may be down before the session is rolled back. One that is left is enough.
  std::chrono::milliseconds reconnect_timeout{30'000};
  // How long a source that has handed over looks for a target that does not answer.
  std::chrono::milliseconds resolve_timeout{60'000};
  VmCallbacks vm;
  TraceSink* trace = nullptr;  // outlives the session
};

struct TargetOptions {
  std::string listen;  // "ADDR:PORT"; port 0 lets the kernel choose, see OnListening
  TrustOptions trust;
  TransportKind transport = TransportKind::kAuto;  // what it accepts; kAuto: whatever it can
  // "NAME[/PORT[/GID]][,…]", as `godwit devices` names them, 8 at most; "": the best.
  std::string rdma_device;
  // With the VM stopped: how long the worker looks for work before it sleeps. It takes a whole CPU
  // while it does.
  std::chrono::microseconds spin{0};
  // The most that a source may ask for, else it is refused; the defaults are the format's limits.
  uint32_t lanes_max = 64;                           // 1 to 64
  size_t packet_bytes_max = (size_t{8} << 20) - 80;  // 1 to 8 MiB - 80
  bool crc = true;                                   // as SourceOptions::crc
  // Memory for packets that have come and are not yet loaded; see docs/buffer-budget.md.
  size_t arena_bytes = size_t{128} << 20;
  // Looks at each device's stream before it is written to the device; empty: nothing does.
  StreamCheckFactory stream_check;
  // How long the source may take with an answer while it is otherwise alive.
  std::chrono::milliseconds answer_timeout{60'000};
  // With the source's VM stopped: how long nothing more may be loaded before all is rolled back.
  std::chrono::milliseconds progress_timeout{60'000};
  // How long a target that has loaded everything waits for the source's Commit before it gives up.
  std::chrono::milliseconds commit_timeout{10'000};
  // How long a target that could not tell the source how it ended stays to answer; more than the
  // source's resolve_timeout and eight seconds.
  std::chrono::milliseconds outcome_hold{90'000};
  VmCallbacks vm;
  TraceSink* trace = nullptr;  // outlives the session
};

// Ownership: borrows the devices and the observer, which outlive it.
// Threads:   Run() or Start(), once. Run()'s caller, or the thread that Start() makes, is the
//            session's control thread. Cancel(), progress() and statistics() from any thread;
//            Cancel() also from a signal handler.
// Blocking:  Run() blocks until the session has ended and the devices are where they belong;
//            Start() does not; the destructor waits for what Start() began.
// Errors:    in the report. Before the handover any failure puts the source's devices back to
//            RUNNING and resets the target's.
class SourceSession {
 public:
  SourceSession(SourceOptions options, std::vector<Device*> devices, SessionObserver& observer);
  ~SourceSession();
  SourceSession(const SourceSession&) = delete;
  SourceSession& operator=(const SourceSession&) = delete;

  SessionReport Run();
  // As Run(), on a thread of its own, which calls `done` last.
  void Start(std::function<void(const SessionReport& report)> done);
  void Cancel();
  SessionProgress progress() const;
  SessionStatistics statistics() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
  std::thread thread_;  // Start()'s
};

// As SourceSession. Waits for one source, serves it and ends.
class TargetSession {
 public:
  TargetSession(TargetOptions options, std::vector<Device*> devices, SessionObserver& observer);
  ~TargetSession();
  TargetSession(const TargetSession&) = delete;
  TargetSession& operator=(const TargetSession&) = delete;

  SessionReport Run();
  // As Run(), on a thread of its own, which calls `done` last.
  void Start(std::function<void(const SessionReport& report)> done);
  // Resets the devices, unless the source has committed. Where contact with the source is lost and
  // it may have, the session stays all the same, for up to outcome_hold, to tell it; a further
  // Cancel() ends that (docs/handover.md, T4 and T13).
  void Cancel();
  SessionProgress progress() const;
  SessionStatistics statistics() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
  std::thread thread_;  // Start()'s
};

}  // namespace godwit

#endif  // GODWIT_SESSION_H_
