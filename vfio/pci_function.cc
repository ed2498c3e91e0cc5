#include "vfio/pci_function.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include <cerrno>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "vfio/uapi.h"

namespace godwit {

absl::StatusOr<std::optional<PciFunction>> PciFunction::Find(VfioKernel& kernel, int device) {
  vfio_device_info info = {};
  info.argsz = sizeof(info);
  const int result = kernel.Ioctl(device, VFIO_DEVICE_GET_INFO, &info);
  if (result < 0) return ErrnoStatus(-result, "VFIO_DEVICE_GET_INFO");
  if ((info.flags & VFIO_DEVICE_FLAGS_PCI) == 0 ||
      info.num_regions <= VFIO_PCI_CONFIG_REGION_INDEX) {
    return std::nullopt;
  }
  GODWIT_ASSIGN_OR_RETURN(const Region config,
                          FindRegion(kernel, device, VFIO_PCI_CONFIG_REGION_INDEX));
  if (config.bytes == 0) return std::nullopt;
  if (config.bytes < kPciSpaceBytesMin || config.bytes > kPciSpaceBytesMax) {
    return absl::UnimplementedError(absl::StrCat("the driver shows ", config.bytes,
                                                 " bytes of config space, godwit knows ",
                                                 kPciSpaceBytesMin, " to ", kPciSpaceBytesMax));
  }
  return PciFunction(kernel, device, config);
}

absl::StatusOr<PciFunction::Region> PciFunction::FindRegion(VfioKernel& kernel, int device,
                                                            uint32_t index) {
  vfio_region_info info = {};
  info.argsz = sizeof(info);
  info.index = index;
  const int result = kernel.Ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &info);
  if (result < 0) {
    return ErrnoStatus(-result, absl::StrCat("VFIO_DEVICE_GET_REGION_INFO of region ", index));
  }
  return Region{.offset = info.offset,
                .bytes = info.size,
                .readable = (info.flags & VFIO_REGION_INFO_FLAG_READ) != 0,
                .writable = (info.flags & VFIO_REGION_INFO_FLAG_WRITE) != 0};
}

absl::StatusOr<std::string> PciFunction::ReadAll(const Region& region, uint64_t offset,
                                                 size_t bytes) const {
  std::string all(bytes, '\0');
  for (size_t done = 0; done < bytes;) {
    const ssize_t got =
        kernel_->Pread(device_, all.data() + done, bytes - done, region.offset + offset + done);
    if (got <= 0) {
      return ErrnoStatus(got == 0 ? EIO : static_cast<int>(-got),
                         absl::StrFormat("read at %#x", offset + done));
    }
    done += static_cast<size_t>(got);
  }
  return all;
}

absl::Status PciFunction::WriteAll(const Region& region, uint64_t offset,
                                   absl::string_view bytes) const {
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t wrote = kernel_->Pwrite(device_, bytes.data() + done, bytes.size() - done,
                                          region.offset + offset + done);
    if (wrote <= 0) {
      return ErrnoStatus(wrote == 0 ? EIO : static_cast<int>(-wrote),
                         absl::StrFormat("write at %#x", offset + done));
    }
    done += static_cast<size_t>(wrote);
  }
  return absl::OkStatus();
}

absl::StatusOr<PciFunction::Region> PciFunction::FindMsixRegion(absl::string_view space) const {
  const MsixTablePlace place = FindMsixTable(space);
  if (place.bar > VFIO_PCI_BAR5_REGION_INDEX) return Region{};
  GODWIT_ASSIGN_OR_RETURN(Region region, FindRegion(*kernel_, device_, place.bar));
  const size_t table_bytes = FindPciLayout(space).msix_vectors * kMsixEntryBytes;
  if (place.offset > region.bytes || table_bytes > region.bytes - place.offset) return Region{};
  region.offset += place.offset;
  region.bytes = table_bytes;
  return region;
}

absl::StatusOr<std::string> PciFunction::ReadMsixTable(absl::string_view space) const {
  if (FindPciLayout(space).msix == 0) return std::string();
  GODWIT_ASSIGN_OR_RETURN(const Region region, FindMsixRegion(space));
  if (!region.readable) return std::string();
  absl::StatusOr<std::string> table = ReadAll(region, 0, region.bytes);
  if (!table.ok()) {
    // With memory decoding off a BAR may give errors. Only a table in use must not be lost.
    if (FindPciInterrupts(space).mode != PciInterruptMode::kMsix) return std::string();
    return Annotate(table.status(), "MSI-X table");
  }
  // vfio-pci gives ones in place of the physical table.
  if (table->find_first_not_of('\xff') == std::string::npos) return std::string();
  return table;
}

absl::StatusOr<PciConfig> PciFunction::Read() const {
  absl::StatusOr<std::string> space = ReadSpace();
  if (!space.ok()) return Annotate(space.status(), "config space");
  GODWIT_ASSIGN_OR_RETURN(std::string table, ReadMsixTable(*space));
  return PciConfig{.space = *std::move(space), .msix_table = std::move(table)};
}

absl::Status PciFunction::RestoreField(const PciField& field, absl::string_view from,
                                       absl::string_view now) const {
  const uint32_t kept = PciRead(now, field.offset, field.bytes) & ~field.mask;
  const uint32_t value = kept | (PciRead(from, field.offset, field.bytes) & field.mask);
  std::string bytes;
  for (size_t i = 0; i < field.bytes; ++i) bytes.push_back(static_cast<char>(value >> (8 * i)));
  return Annotate(WriteAll(config_, field.offset, bytes), "config space");
}

absl::Status PciFunction::RestoreRegisters(const PciConfig& config) const {
  const absl::StatusOr<std::string> now = ReadSpace();
  if (!now.ok()) return Annotate(now.status(), "config space");
  GODWIT_RETURN_IF_ERROR(CheckSameDevice(config.space, *now));
  for (const PciField& field : RestoredFields(*now)) {
    GODWIT_RETURN_IF_ERROR(RestoreField(field, config.space, *now));
  }
  if (config.msix_table.empty()) return absl::OkStatus();
  GODWIT_ASSIGN_OR_RETURN(const std::string own_table, ReadMsixTable(*now));
  if (own_table.empty()) return absl::OkStatus();  // hidden here: the VMM's
  GODWIT_ASSIGN_OR_RETURN(const Region region, FindMsixRegion(*now));
  if (!region.writable) return absl::OkStatus();
  return Annotate(WriteAll(region, 0, config.msix_table), "MSI-X table");
}

absl::Status PciFunction::RestoreCommand(const PciConfig& config) const {
  const absl::StatusOr<std::string> now = ReadSpace();
  if (!now.ok()) return Annotate(now.status(), "config space");
  return RestoreField(kPciCommandField, config.space, *now);
}

}  // namespace godwit
