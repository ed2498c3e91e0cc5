#include "transport/verbs/verbs_device.h"

#include <absl/cleanup/cleanup.h>
#include <absl/strings/str_cat.h>

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
  // Local writes only: no peer ever gets a key to this memory.
  region_ =
      ibv_reg_mr(protection_domain_, arena_.address(), arena_.size_bytes(), IBV_ACCESS_LOCAL_WRITE);
  if (region_ != nullptr) return absl::OkStatus();
  const int error = errno;
  const std::string what = absl::StrCat("RDMA device ", path_.device_name, " refuses to register ",
                                        FormatBytes(arena_.size_bytes()), " of packet memory");
  const absl::Status status = ErrnoStatus(error, what);
  if (error != ENOMEM) return status;
  return absl::ResourceExhaustedError(absl::StrCat(status.message(), ": ", MemlockAdvice()));
}

VerbsDevice::~VerbsDevice() {
  // A failure here means that a lane is still alive.
  if (region_ != nullptr) GODWIT_CHECK(ibv_dereg_mr(region_) == 0);
  if (protection_domain_ != nullptr) GODWIT_CHECK(ibv_dealloc_pd(protection_domain_) == 0);
  if (context_ != nullptr) ibv_close_device(context_);
}

}  // namespace godwit
