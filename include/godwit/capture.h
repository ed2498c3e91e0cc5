// A session as a file: devices' states saved to a capture, and loaded from one.
// docs/capture-format.md says what is in it.
#ifndef GODWIT_CAPTURE_H_
#define GODWIT_CAPTURE_H_

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "godwit/device.h"
#include "godwit/session.h"
#include "godwit/stream_check.h"

namespace godwit {

struct SaveOptions {
  std::string out;                        // written as OUT.partial, and renamed once it is whole
  bool replace = false;                   // a file that is there already
  bool leave_stopped = false;             // else the devices run on after their state was read
  size_t packet_bytes = size_t{1} << 20;  // 1 to 8 MiB - 80
};

struct LoadOptions {
  std::string in;
  // Memory for packets that have been read and are not yet loaded.
  size_t arena_bytes = size_t{64} << 20;
  // Looks at each device's stream before it is written to the device; empty: nothing does.
  StreamCheckFactory stream_check;
};

// Takes a snapshot: all devices stop, their states go to the file, and they run again.
//
// Ownership: borrows the devices and the observer, which outlive it.
// Threads:   Run() once, on one thread. Cancel() and progress() from any thread; Cancel() also from
//            a signal handler.
// Blocking:  Run() blocks until the file is whole or gone and the devices are where they belong.
// Errors:    in the report. kDone: the file is whole and durable, and the devices run (or are in
//            STOP if that was asked for). kRolledBack: the devices run. There is no file then,
//            unless it was the way back to RUNNING that failed: the message says so.
class SaveSession {
 public:
  SaveSession(SaveOptions options, std::vector<Device*> devices, SessionObserver& observer);
  ~SaveSession();
  SaveSession(const SaveSession&) = delete;
  SaveSession& operator=(const SaveSession&) = delete;

  SessionReport Run();
  void Cancel();
  SessionProgress progress() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

// Loads a capture into as many devices of the same kinds, in its order, with the checks of a
// session, and lets them run.
//
// Ownership, Threads, Blocking: as SaveSession.
// Errors:    in the report. kDone: the devices run with the file's state. kRolledBack: they were
//            reset, or never touched.
class LoadSession {
 public:
  LoadSession(LoadOptions options, std::vector<Device*> devices, SessionObserver& observer);
  ~LoadSession();
  LoadSession(const LoadSession&) = delete;
  LoadSession& operator=(const LoadSession&) = delete;

  SessionReport Run();
  void Cancel();
  SessionProgress progress() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace godwit

#endif  // GODWIT_CAPTURE_H_
