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
#include <string>
#include <vector>

#include "godwit/device.h"
#include "godwit/stream_check.h"

namespace godwit {

enum class TransportKind { kAuto, kTcp, kVerbs };
absl::string_view TransportName(TransportKind transport);  // "auto", "tcp", "verbs"

// What a session is doing; they follow each other in this order. docs/architecture.md says more.
enum class SessionPhase {
  kWaiting,     // target: for its peer
  kConnecting,  // agreeing on limits, setting up lanes, devices to RESUMING
  kStopping,    // devices to STOP_COPY: downtime begins
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

struct DeviceReport {
  std::string name;
  std::string kind;
  uint64_t bytes = 0;             // of its stream
  uint64_t packets = 0;           // config packet included
  uint32_t sent_crc32c = 0;       // digest of the stream as read at the source (0: not known here)
  uint32_t loaded_crc32c = 0;     // digest of the stream as loaded at the target
  bool content_verified = false;  // the device itself knows what it should hold, and does
  uint64_t out_of_order_packets = 0;
};

struct LaneReport {
  std::string transport;  // "tcp" or "verbs"
  uint64_t bytes = 0;     // payload
  uint64_t packets = 0;
};

struct SessionReport {
  absl::Status status;
  SessionOutcome outcome = SessionOutcome::kRolledBack;
  std::string peer;
  uint64_t bytes = 0;  // device state, all devices
  uint64_t packets = 0;
  std::chrono::nanoseconds duration{0};  // source: from Run(); target: from its peer's connection
  // Source: from before the first device's stop to "they run on the target". Target: from "ready
  // for the stream" to "they run".
  std::chrono::nanoseconds downtime{0};
  // From the first device in STOP_COPY to all devices loaded: what throughput is measured over.
  std::chrono::nanoseconds stream_time{0};
  std::vector<DeviceReport> devices;
  std::vector<LaneReport> lanes;
  std::string arena_backing;  // "hugepages", "transparent hugepages", "plain pages"
  uint64_t arena_bytes = 0;
};

struct SessionProgress {
  SessionPhase phase = SessionPhase::kConnecting;
  uint64_t bytes = 0;        // source: sent; target: loaded
  uint64_t bytes_total = 0;  // the devices' estimate; 0 where they have none
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
};

struct SourceOptions {
  std::string to;  // "ADDR:PORT" of the target
  TransportKind transport = TransportKind::kAuto;
  std::string rdma_device;                // as `godwit devices` names it; "": the best
  uint32_t lanes = 4;                     // 1 to 64
  size_t packet_bytes = size_t{1} << 20;  // 1 to 8 MiB - 80
  std::chrono::milliseconds connect_timeout{5000};
  // Memory for packets that are being read and sent; see docs/buffer-budget.md.
  size_t arena_bytes = size_t{128} << 20;
};

struct TargetOptions {
  std::string listen;  // "ADDR:PORT"; port 0 lets the kernel choose, see OnListening
  TransportKind transport = TransportKind::kAuto;  // what it accepts; kAuto: whatever it can
  std::string rdma_device;                         // as `godwit devices` names it; "": the best
  // Memory for packets that have come and are not yet loaded; see docs/buffer-budget.md.
  size_t arena_bytes = size_t{128} << 20;
  // Looks at each device's stream before it is written to the device; empty: nothing does.
  StreamCheckFactory stream_check;
};

// Ownership: borrows the devices and the observer, which outlive it.
// Threads:   Run() once, on one thread, which is the session's control thread. Cancel() and
//            progress() from any thread; Cancel() also from a signal handler.
// Blocking:  Run() blocks until the session has ended and the devices are where they belong.
// Errors:    in the report. Before the handover any failure puts the source's devices back to
//            RUNNING and resets the target's.
class SourceSession {
 public:
  SourceSession(SourceOptions options, std::vector<Device*> devices, SessionObserver& observer);
  ~SourceSession();
  SourceSession(const SourceSession&) = delete;
  SourceSession& operator=(const SourceSession&) = delete;

  SessionReport Run();
  void Cancel();
  SessionProgress progress() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

// As SourceSession. Waits for one source, serves it and ends.
class TargetSession {
 public:
  TargetSession(TargetOptions options, std::vector<Device*> devices, SessionObserver& observer);
  ~TargetSession();
  TargetSession(const TargetSession&) = delete;
  TargetSession& operator=(const TargetSession&) = delete;

  SessionReport Run();
  void Cancel();
  SessionProgress progress() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace godwit

#endif  // GODWIT_SESSION_H_
