// One RDMA port of this host, opened, with the arena registered for it.
#ifndef GODWIT_TRANSPORT_VERBS_VERBS_DEVICE_H_
#define GODWIT_TRANSPORT_VERBS_VERBS_DEVICE_H_

#include <absl/status/statusor.h>
#include <infiniband/verbs.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/arena.h"
#include "transport/verbs/device_selection.h"
#include "transport/verbs/verbs_event.h"

namespace godwit {

// Ownership: owns the opened device, its protection domain and the one memory region, which is
//            the whole arena. The arena outlives it; it outlives its lanes.
// Threads:   lanes of any thread may use it. TakeEvents() and LookUpAddressAgain() are for the
// thread
//            that makes lanes on it.
// Blocking:  Open() pins the arena's memory and may take seconds; nothing later blocks.
// Errors:    Open(): NotFound (no such device, port or GID), FailedPrecondition (port down, no
//            usable GID), ResourceExhausted (memory can't be locked). Each says what to do.
class VerbsDevice {
 public:
  static absl::StatusOr<std::unique_ptr<VerbsDevice>> Open(const VerbsDeviceOptions& options,
                                                           const Arena& arena);
  ~VerbsDevice();
  VerbsDevice(const VerbsDevice&) = delete;
  VerbsDevice& operator=(const VerbsDevice&) = delete;

  // "rxe0/1": device and port.
  const std::string& name() const { return name_; }
  const RdmaPath& path() const { return path_; }
  // What the device has said since the last call, of this port and of all of it; 64 at most.
  std::vector<VerbsEvent> TakeEvents();
  // After kAddressChanged: for lanes that are made from now on. NotFound: the port has lost its
  // GID.
  absl::Status LookUpAddressAgain();
  const RdmaDeviceInfo& info() const { return info_; }
  const Arena& arena() const { return arena_; }

  ibv_context* context() const { return context_; }
  ibv_pd* protection_domain() const { return protection_domain_; }
  uint32_t local_key() const { return region_->lkey; }

 private:
  explicit VerbsDevice(const Arena& arena) : arena_(arena) {}
  absl::Status OpenPath(const RdmaPath& path);
  absl::Status RegisterArena();

  const Arena& arena_;
  std::string name_;
  RdmaPath path_;
  RdmaDeviceInfo info_;
  ibv_context* context_ = nullptr;
  ibv_pd* protection_domain_ = nullptr;
  ibv_mr* region_ = nullptr;
};

}  // namespace godwit

#endif  // GODWIT_TRANSPORT_VERBS_VERBS_DEVICE_H_
