#include "transport/verbs/verbs_device.h"

#include <absl/cleanup/cleanup.h>
#include <absl/strings/str_cat.h>

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "base/errno_status.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "transport/verbs/memlock.h"

namespace godwit {
namespace {

constexpr uint8_t kHopLimit = 64;
// Local writes only: no peer ever gets a key to this memory.
constexpr unsigned kArenaAccess = IBV_ACCESS_LOCAL_WRITE;

absl::StatusOr<ibv_context*> OpenByName(const std::string& name) {
  int count = 0;
  ibv_device** const devices = ibv_get_device_list(&count);
  if (devices == nullptr) return ErrnoStatus(errno, "can't list RDMA devices");
  const absl::Cleanup free_list = [devices] { ibv_free_device_list(devices); };
  for (int i = 0; i < count; ++i) {
    if (name != ibv_get_device_name(devices[i])) continue;
    ibv_context* const context = ibv_open_device(devices[i]);
    if (context == nullptr) {
      return ErrnoStatus(errno, absl::StrCat("can't open RDMA device ", name));
    }
    return context;
  }
  return absl::NotFoundError(absl::StrCat("RDMA device ", name, " has gone away"));
}

// Makes an address handle from the path's GID to itself: the kernel refuses a GID that has no
// network interface or no route behind it.
absl::Status TryGid(ibv_pd* protection_domain, const RdmaPath& path) {
  ibv_ah_attr attributes{};
  std::memcpy(attributes.grh.dgid.raw, path.gid.bytes.data(), path.gid.bytes.size());
  attributes.grh.sgid_index = static_cast<uint8_t>(path.gid.index);
  attributes.grh.hop_limit = kHopLimit;
  attributes.is_global = 1;
  attributes.dlid = static_cast<uint16_t>(path.port.lid);
  attributes.port_num = path.port.number;
  ibv_ah* const handle = ibv_create_ah(protection_domain, &attributes);
  if (handle == nullptr) {
    return ErrnoStatus(
        errno, absl::StrCat("RDMA port ", path.device_name, "/", path.port.number, ": GID ",
                            path.gid.index, " (", RdmaGidText(path.gid.bytes), ") can't be used"));
  }
  ibv_destroy_ah(handle);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<VerbsDevice>> VerbsDevice::Open(const VerbsDeviceOptions& options,
                                                               const Arena& arena) {
  // Before the first registration, or a child process could take the arena's pages with it.
  if (const int error = ibv_fork_init(); error != 0) {
    return ErrnoStatus(error, "can't make RDMA memory safe against fork()");
  }
  GODWIT_ASSIGN_OR_RETURN(const std::vector<RdmaPath> paths,
                          RankRdmaPaths(ListRdmaDevices(), options));
  absl::Status first_problem;
  for (const RdmaPath& path : paths) {
    if (path.gid.index > UINT8_MAX) continue;  // verbs have 8 bits for it in an address
    std::unique_ptr<VerbsDevice> device(new VerbsDevice(arena));
    absl::Status opened = device->OpenPath(path);
    if (opened.ok()) {
      GODWIT_RETURN_IF_ERROR(device->RegisterArena());
      return device;
    }
    first_problem.Update(opened);
  }
  return first_problem;
}

absl::Status VerbsDevice::OpenPath(const RdmaPath& path) {
  path_ = path;
  name_ = absl::StrCat(path.device_name, "/", path.port.number);
  GODWIT_ASSIGN_OR_RETURN(context_, OpenByName(path.device_name));
  const int flags = ::fcntl(context_->async_fd, F_GETFL);
  if (flags < 0 || ::fcntl(context_->async_fd, F_SETFL, flags | O_NONBLOCK) != 0) {
    return ErrnoStatus(errno, absl::StrCat(name_, ": can't make its events non-blocking"));
  }
  GODWIT_ASSIGN_OR_RETURN(info_, QueryRdmaDevice(context_));
  protection_domain_ = ibv_alloc_pd(context_);
  if (protection_domain_ == nullptr) {
    return ErrnoStatus(errno, absl::StrCat("can't make a protection domain on ", name_));
  }
  return TryGid(protection_domain_, path);
}

absl::Status VerbsDevice::RegisterArena() {
  GODWIT_RETURN_IF_ERROR(
      CheckMemlock(CurrentMemlockAllowance(), arena_.size_bytes(), path_.device_name));
  region_ = ibv_reg_mr(protection_domain_, arena_.address(), arena_.size_bytes(), kArenaAccess);
  if (region_ != nullptr) return absl::OkStatus();
  const int error = errno;
  const std::string what = absl::StrCat("RDMA device ", path_.device_name, " refuses to register ",
                                        FormatBytes(arena_.size_bytes()), " of packet memory");
  const absl::Status status = ErrnoStatus(error, what);
  if (error != ENOMEM) return status;
  return absl::ResourceExhaustedError(absl::StrCat(status.message(), ": ", MemlockAdvice()));
}

std::vector<VerbsEvent> VerbsDevice::TakeEvents() {
  constexpr size_t kEventsMax = 64;
  std::vector<VerbsEvent> events;
  ibv_async_event raw{};
  for (size_t taken = 0; taken < kEventsMax && ibv_get_async_event(context_, &raw) == 0; ++taken) {
    VerbsEvent event;
    event.kind = KindOfVerbsEvent(raw.event_type);
    event.text = ibv_event_type_str(raw.event_type);
    switch (event.kind) {
      case VerbsEvent::Kind::kQueuePairDead:
        // VerbsQueuePair has put its number there.
        event.queue_pair_number =
            raw.event_type == IBV_EVENT_CQ_ERR
                ? static_cast<uint32_t>(reinterpret_cast<uintptr_t>(raw.element.cq->cq_context))
                : raw.element.qp->qp_num;
        break;
      case VerbsEvent::Kind::kPortDown:
      case VerbsEvent::Kind::kPortUp:
      case VerbsEvent::Kind::kAddressChanged:
        event.port = static_cast<uint32_t>(raw.element.port_num);
        break;
      case VerbsEvent::Kind::kDeviceDead:
      case VerbsEvent::Kind::kOther:
        break;
    }
    ibv_ack_async_event(&raw);
    if (event.port == 0 || event.port == path_.port.number) events.push_back(std::move(event));
  }
  return events;
}

absl::Status VerbsDevice::LookUpAddressAgain() {
  GODWIT_ASSIGN_OR_RETURN(const RdmaDeviceInfo info, QueryRdmaDevice(context_));
  for (const RdmaPort& port : info.ports) {
    if (port.number != path_.port.number) continue;
    // The same address at another index, or else the best one of those that there are.
    const RdmaGid* best = nullptr;
    for (const RdmaGid& gid : port.gids) {
      const bool same = gid.bytes == path_.gid.bytes && gid.type == path_.gid.type;
      if (gid.index > UINT8_MAX) continue;
      if (same || best == nullptr || RdmaGidRank(gid) < RdmaGidRank(*best)) best = &gid;
      if (same) break;
    }
    if (best == nullptr) break;
    path_.gid = *best;
    path_.port = port;
    return absl::OkStatus();
  }
  return absl::NotFoundError(absl::StrCat("RDMA port ", name_, " has no GID any more"));
}

VerbsDevice::~VerbsDevice() {
  // A failure here means that a lane is still alive.
  if (region_ != nullptr) GODWIT_CHECK(ibv_dereg_mr(region_) == 0);
  if (protection_domain_ != nullptr) GODWIT_CHECK(ibv_dealloc_pd(protection_domain_) == 0);
  if (context_ != nullptr) ibv_close_device(context_);
}

}  // namespace godwit
